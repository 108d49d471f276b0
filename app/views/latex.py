"""Table -> LaTeX (booktabs) and Markdown, intervals beside their numbers, and the best in bold where the intervals
allow it."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass, replace
from itertools import pairwise, repeat

from app.views.kinds import Best, Table
from app.views.markdown import plain
from app.views.seen import code_point, seen
from lm2.intervals import Bounded
from lm2.markdown import aligned, table
from probes.findings import Cell, Column


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


_INTERVAL = re.compile(r"\s*([-+−]?[\d.,]+)\s*\(([-+−]?[\d.,]+) to ([-+−]?[\d.,]+)\)\s*")
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "\n": " ",
    "\t": " ",
    '"': "''",
    "`": r"\`{}",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "\u00a0": "~",
    "—": "---",
    "√": r"$\surd$",
    "⟦": r"$[\![$",
    "⟧": r"$]\!]$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "–": "--",
    "…": r"\ldots{}",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "⏎": r"$\hookleftarrow$",
    "⇥": r"$\mapsto$",
    "λ": r"$\lambda$",
    "Δ": r"$\Delta$",
}
"""As every encoding of LaTeX has them."""
_LIGATURES = ("--", "''", "``", ",,", "?`", "!`")
"""Two characters that would become one other sign."""
_ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_LETTERS = frozenset("ßæøÆØœŒłŁ¡¿£§¶")
"""These, and Latin letters with one of the accents, need nothing: pdfLaTeX has them without any package."""


def escaped(text: str) -> str:
    """The text as LaTeX prints it, with pdfLaTeX too; characters that this has no type for stand as their code
    (U+4E2D)."""
    parts = [_character(char) for char in seen(text)]
    return "".join(parts[:1]) + "".join(
        f"{{}}{part}" if one[-1] + part[0] in _LIGATURES else part for one, part in pairwise(parts)
    )


def _character(char: str) -> str:
    if char in _SPECIAL:
        return _SPECIAL[char]
    base, *accents = unicodedata.normalize("NFD", char)
    accented = len(accents) == 1 and accents[0] in _ACCENTS and base.isascii() and ord(char) < 0x180
    return char if char.isascii() or char in _LETTERS or accented else code_point(char)


def latex(view: Table) -> str:
    """A tabular with booktabs' rules. In the columns of `best`, and in each row among the `rivals`, the best value is
    bold if its interval is clear of all others'; where it is not in a column, a note below says so. Raises ValueError
    for columns that do not exist or have no intervals."""
    printed = _printed(view)
    rows = [
        [_bold(_cell_text(cell.text), r"\textbf{", "}") if cell.bold else _cell_text(cell.text) for cell in row]
        for row in printed.rows
    ]
    header, *body = aligned([list(map(_cell_text, printed.columns)), *rows], printed.numeric)
    kinds = "".join("r" if numeric else "l" for numeric in printed.numeric)
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        f"{' & '.join(header)} \\\\",
        r"\midrule",
    ]
    lines += [f"{' & '.join(row)} \\\\" for row in body]
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip{{\footnotesize {escaped(note)}}}" for note in printed.notes),
    ]
    return "\n".join(lines) + "\n"


def _cell_text(text: str) -> str:
    """A cell's text: after the end of a row, LaTeX would take [ and * for a part of that."""
    return re.sub(r"^[\[*]", r"{\g<0>}", escaped(text))


def markdown(view: Table) -> str:
    """The same as a Markdown table."""
    printed = _printed(view)
    rows = [
        [_bold(_safe(cell.text), "**", "**") if cell.bold else _safe(cell.text) for cell in row] for row in printed.rows
    ]
    written = table(list(map(_safe, printed.columns)), rows, printed.numeric)
    return "\n".join([written, *(f"\n{_safe(note)}" for note in printed.notes)]) + "\n"


def _safe(text: str) -> str:
    """In a table, a bar ends the cell even within code."""
    return re.sub(r"(?<!\\)\|", r"\\|", plain(text))


def _bold(text: str, start: str, end: str) -> str:
    return f"{start}{text}{end}"


def _printed(view: Table) -> _Printed:
    columns, cells = [column.label for column in view.columns], [_cells(column) for column in view.columns]
    wrong = sorted({*view.best, *view.rivals} - set(columns))
    if wrong:
        raise ValueError(f"there are no columns {wrong}; there are {columns}")
    notes = []
    for place, name in enumerate(columns):
        if name in view.best:
            cells[place], clear = _marked(name, cells[place], view.best[name])
            if not clear:
                best = cells[place][_first(cells[place], view.best[name])]
                notes.append(
                    f"{name}: none is bold, as the interval of the {view.best[name].value}, {best.text}, is not clear"
                    " of all others."
                )
    if view.rivals:
        places = [columns.index(name) for name in view.rivals]
        for row in range(len(view.rows)):
            marked, _ = _marked("a row", [cells[place][row] for place in places], Best.HIGHEST)
            for place, cell in zip(places, marked):
                cells[place][row] = cell
        notes.append("Bold: the best of a row, where its interval is clear of all others'.")
    if view.provenance.changes:
        notes.append(view.provenance.words)
    numeric = tuple(any(cell.value is not None for cell in column) for column in cells)
    return _Printed(columns=tuple(columns), numeric=numeric, rows=tuple(zip(*cells)), notes=tuple(notes))


def decimals(column: Column) -> int:
    """A share of a hundred items has one decimal; p can be as small as 1 / 10,000."""
    return 1 if column.unit in ("%", "points") else 4 if column.name in ("p", "q") else 3


def _cells(column: Column) -> list[_Cell]:
    unknown = repeat(math.nan)
    ends = zip(column.low or unknown, column.high or unknown)
    return [_cell(value, low, high, decimals(column)) for value, (low, high) in zip(column.values, ends)]


def _cell(value: Cell, low: float, high: float, places: int) -> _Cell:
    if isinstance(value, str):
        found = _INTERVAL.fullmatch(value)
        numbers = (
            [float(part.replace("−", "-").replace(",", "")) for part in found.groups()]
            if found
            else [None, math.nan, math.nan]
        )
        return _Cell(text=value, value=numbers[0], low=numbers[1], high=numbers[2])
    if isinstance(value, int):
        return _Cell(text=str(value), value=value)
    if math.isnan(value):
        return _Cell(text="–")
    tiny = places == 4 and 0 < value < 0.5 * 10**-places
    words = f"< {10**-places:g}" if tiny else f"{Bounded(value, low, high):.{places}f}"
    return _Cell(text=words, value=value, low=low, high=high)


def _marked(name: str, cells: list[_Cell], best: Best) -> tuple[list[_Cell], bool]:
    """The cells with the best in bold, or as they were; and whether its interval is clear of all others'."""
    there = [at for at, cell in enumerate(cells) if cell.value is not None]
    if not there or all(math.isnan(cells[at].low) for at in there):
        raise ValueError(f"{name} has no intervals, which must tell whether a value is the best")
    sign, first = 1 if best is Best.HIGHEST else -1, _first(cells, best)
    near = [cells[at].high if best is Best.HIGHEST else cells[at].low for at in there if at != first]
    own = cells[first].low if best is Best.HIGHEST else cells[first].high
    # NaN, an interval that is missing, is clear of nothing.
    clear = bool(near) and all(sign * own > sign * other for other in near)
    return [replace(cell, bold=clear and at == first) for at, cell in enumerate(cells)], clear


def _first(cells: list[_Cell], best: Best) -> int:
    """Where the best value is."""
    sign = 1 if best is Best.HIGHEST else -1
    return max((at for at, cell in enumerate(cells) if cell.value is not None), key=lambda at: sign * cells[at].value)
