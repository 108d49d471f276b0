"""Table -> LaTeX (booktabs) and Markdown, intervals beside their numbers, and the best in bold where the intervals allow it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from app.views.kinds import Table


class Best(Enum):
    HIGHEST = "highest"
    LOWEST = "lowest"


@dataclass(frozen=True, kw_only=True)
class _Cell:
    text: str
    value: float | None = None
    low: float = math.nan
    high: float = math.nan
    bold: bool = False


@dataclass(frozen=True, kw_only=True)
class _Printed:
    """A table ready to be written: intervals stand with their numbers."""

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[_Cell, ...], ...]
    notes: tuple[str, ...]


_NOTHING = MappingProxyType({})
_INTERVAL = re.compile(r"\s*([-+−]?[\d.,]+)\s*\(([-+−]?[\d.,]+) to ([-+−]?[\d.,]+)\)\s*")
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_", "\n": " ", '"': "''",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "−": "$-$", "–": "--", "…": r"\ldots{}", "·": r"$\cdot$", "×": r"$\times$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$",
    "→": r"$\to$", "⏎": r"$\hookleftarrow$", "⇥": r"$\mapsto$", "λ": r"$\lambda$", "Δ": r"$\Delta$",
}  # fmt: skip
"""As every encoding of LaTeX has them; accented letters need nothing."""


def escaped(text: str) -> str:
    """The text as LaTeX prints it, with pdfLaTeX too."""
    return "".join(_SPECIAL.get(char, char) for char in text)


def latex(view: Table, best: Mapping[str, Best] = _NOTHING) -> str:
    """A tabular with booktabs' rules. In the columns of `best` the best value is bold if its interval is clear of all others';
    where it is not, a note below says so. Raises ValueError for columns that do not exist or have no intervals."""
    printed = _printed(view, best)
    rows = [[_bold(escaped(cell.text), r"\textbf{", "}") if cell.bold else escaped(cell.text) for cell in row] for row in printed.rows]
    header, *body = _aligned([list(map(escaped, printed.columns)), *rows], printed.numeric)
    kinds = "".join("r" if numeric else "l" for numeric in printed.numeric)
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", f"{' & '.join(header)} \\\\", r"\midrule"]
    lines += [f"{' & '.join(row)} \\\\" for row in body]
    lines += [r"\bottomrule", r"\end{tabular}", *(rf"\par\smallskip{{\footnotesize {escaped(note)}}}" for note in printed.notes)]
    return "\n".join(lines) + "\n"


def markdown(view: Table, best: Mapping[str, Best] = _NOTHING) -> str:
    """The same as a Markdown table."""
    printed = _printed(view, best)
    rows = [[_bold(_safe(cell.text), "**", "**") if cell.bold else _safe(cell.text) for cell in row] for row in printed.rows]
    header, *body = _aligned([list(map(_safe, printed.columns)), *rows], printed.numeric)
    rule = ["-" * (len(name) - 1) + ":" if numeric else "-" * len(name) for name, numeric in zip(header, printed.numeric)]
    lines = [f"| {' | '.join(row)} |" for row in (header, rule, *body)]
    return "\n".join([*lines, *(f"\n{_safe(note)}" for note in printed.notes)]) + "\n"


def _safe(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text.replace("\n", " "))


def _bold(text: str, start: str, end: str) -> str:
    return f"{start}{text}{end}"


def _aligned(rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> list[list[str]]:
    """Padded so that columns stand below each other in the source too."""
    widths = [max(3, *map(len, column)) for column in zip(*rows)]
    return [[cell.rjust(wide) if right else cell.ljust(wide) for cell, wide, right in zip(row, widths, numeric)] for row in rows]


def _printed(view: Table, best: Mapping[str, Best]) -> _Printed:
    columns, cells = [], []
    at = 0
    while at < len(view.columns):
        name, values = view.columns[at], [row[at] for row in view.rows]
        ends = tuple(other.strip() for other in view.columns[at + 1 : at + 3]) == ("low", "high")
        intervals = [row[at + 1 : at + 3] for row in view.rows] if ends else [(math.nan, math.nan)] * len(values)
        columns.append(name.strip())
        cells.append([_cell(value, low, high, decimals(name)) for value, (low, high) in zip(values, intervals)])
        at += 3 if ends else 1
    wrong = sorted(set(best) - set(columns))
    if wrong:
        raise ValueError(f"there are no columns {wrong}; there are {columns}")
    notes = []
    for place, name in enumerate(columns):
        if name in best:
            cells[place], note = _marked(name, cells[place], best[name])
            notes += [note] if note else []
    numeric = tuple(any(cell.value is not None for cell in column) for column in cells)
    return _Printed(columns=tuple(columns), numeric=numeric, rows=tuple(zip(*cells)), notes=tuple(notes))


def decimals(column: str) -> int:
    """A share of a hundred items has one decimal; p can be as small as 1 / 10,000."""
    return 1 if column.endswith(("(%)", "(points)")) else 4 if column in ("p", "q") else 3


def _cell(value: str | int | float, low: float, high: float, places: int) -> _Cell:
    if isinstance(value, str):
        found = _INTERVAL.fullmatch(value)
        numbers = [float(part.replace("−", "-").replace(",", "")) for part in found.groups()] if found else [None, math.nan, math.nan]
        return _Cell(text=value, value=numbers[0], low=numbers[1], high=numbers[2])
    if isinstance(value, int):
        return _Cell(text=str(value), value=value)
    if math.isnan(value):
        return _Cell(text="–")
    words = f"< {10**-places:g}" if 0 < value < 0.5 * 10**-places and places == 4 else f"{value:.{places}f}"
    words += "" if math.isnan(low) else f" ({low:.{places}f} to {high:.{places}f})"
    return _Cell(text=words, value=value, low=low, high=high)


def _marked(name: str, cells: list[_Cell], best: Best) -> tuple[list[_Cell], str]:
    """The column with its best in bold, or as it was and why."""
    there = [at for at, cell in enumerate(cells) if cell.value is not None]
    if not there or all(math.isnan(cells[at].low) for at in there):
        raise ValueError(f"{name} has no intervals, which must tell whether a value is the best")
    sign = 1 if best is Best.HIGHEST else -1
    first = max(there, key=lambda at: sign * cells[at].value)
    near = [cells[at].high if best is Best.HIGHEST else cells[at].low for at in there if at != first]
    own = cells[first].low if best is Best.HIGHEST else cells[first].high
    if all(sign * own > sign * other for other in near):  # NaN, an interval that is missing, is clear of nothing
        return [
            _Cell(text=cell.text, value=cell.value, low=cell.low, high=cell.high, bold=at == first) for at, cell in enumerate(cells)
        ], ""
    return cells, f"{name}: none is bold, as the interval of the {best.value}, {cells[first].text}, is not clear of all others."
