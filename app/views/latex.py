"""Tables as LaTeX (booktabs) and Markdown, with intervals beside their numbers, and the best in bold if its interval is
clear of the others'."""

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
    """The text of a table: intervals are part of their numbers' cells."""

    columns: list[str]
    numeric: list[bool]
    rows: list[tuple[_Cell, ...]]
    notes: list[str]


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
"""Characters by their commands, which exist in every encoding."""
_LIGATURES = ("--", "''", "``", ",,", "?`", "!`")
"""Pairs of characters that LaTeX would join into another sign."""
_ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_LETTERS = frozenset("ßæøÆØœŒłŁ¡¿£§¶")
"""pdfLaTeX prints these, and Latin letters with one of the accents, without any package."""


def escaped(text: str) -> str:
    """The text for LaTeX. Characters that pdfLaTeX cannot print become their code (U+4E2D)."""
    parts = [_character(char) for char in seen(text)]
    return "".join(parts[:1]) + "".join(
        f"{{}}{part}" if before[-1] + part[0] in _LIGATURES else part for before, part in pairwise(parts)
    )


def _character(char: str) -> str:
    if char in _SPECIAL:
        return _SPECIAL[char]
    base, *accents = unicodedata.normalize("NFD", char)
    accented = len(accents) == 1 and accents[0] in _ACCENTS and base.isascii() and ord(char) < 0x180
    return char if char.isascii() or char in _LETTERS or accented else code_point(char)


def latex(view: Table) -> str:
    """A tabular with booktabs' rules. In the columns of `best`, and in each row among the `rivals`, the best value is
    bold if its interval is clear of all others'; a note says if a column has none. Raises ValueError for columns that
    do not exist or have no intervals."""
    printed = _printed(view)
    rows = [
        [rf"\textbf{{{_cell_text(cell.text)}}}" if cell.bold else _cell_text(cell.text) for cell in row]
        for row in printed.rows
    ]
    header, *body = aligned([list(map(_cell_text, printed.columns)), *rows], printed.numeric)
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{''.join('r' if numeric else 'l' for numeric in printed.numeric)}}}",
        r"\toprule",
        rf"{' & '.join(header)} \\",
        r"\midrule",
        *(rf"{' & '.join(row)} \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip{{\footnotesize {escaped(note)}}}" for note in printed.notes),
    ]
    return "\n".join(lines) + "\n"


def _cell_text(text: str) -> str:
    """A cell's text. At the start of a row, LaTeX would read [ and * as arguments of the end of the row before."""
    return re.sub(r"^[\[*]", r"{\g<0>}", escaped(text))


def markdown(view: Table) -> str:
    """The same as a Markdown table."""
    printed = _printed(view)
    rows = [[f"**{_safe(cell.text)}**" if cell.bold else _safe(cell.text) for cell in row] for row in printed.rows]
    lines = table(list(map(_safe, printed.columns)), rows, printed.numeric)
    return "\n".join([lines, *(f"\n{_safe(note)}" for note in printed.notes)]) + "\n"


def _safe(text: str) -> str:
    """The text with its bars escaped, which would end the cell even within code."""
    return re.sub(r"(?<!\\)\|", r"\\|", plain(text))


def _printed(view: Table) -> _Printed:
    columns, cells = [column.label for column in view.columns], [_cells(column) for column in view.columns]
    unknown = sorted({*view.best, *view.rivals} - set(columns))
    if unknown:
        raise ValueError(f"there are no columns {unknown}; there are {columns}")
    notes = []
    for i, name in enumerate(columns):
        if name in view.best:
            best, clear = _best(name, cells[i], view.best[name])
            if clear:
                cells[i][best] = replace(cells[i][best], bold=True)
            else:
                notes.append(
                    f"{name}: none is bold, as the interval of the {view.best[name].value}, {cells[i][best].text}, is"
                    " not clear of all others."
                )
    if view.rivals:
        rivals = [columns.index(name) for name in view.rivals]
        for row in range(len(view.rows)):
            best, clear = _best("a row", [cells[i][row] for i in rivals], Best.HIGHEST)
            cells[rivals[best]][row] = replace(cells[rivals[best]][row], bold=clear)
        notes.append("Bold: the best of a row, where its interval is clear of all others'.")
    if view.provenance.changes:
        notes.append(view.provenance.words)
    numeric = [any(cell.value is not None for cell in column) for column in cells]
    return _Printed(columns=columns, numeric=numeric, rows=list(zip(*cells)), notes=notes)


def decimals(column: Column) -> int:
    """How many to print: one for a share of a hundred items, four for p, which can be as small as 1 / 10,000."""
    return 1 if column.unit in ("%", "points") else 4 if column.name in ("p", "q") else 3


def _cells(column: Column) -> list[_Cell]:
    unknown = repeat(math.nan)
    ends = zip(column.low or unknown, column.high or unknown)
    return [_cell(value, low, high, decimals(column)) for value, (low, high) in zip(column.values, ends)]


def _cell(value: Cell, low: float, high: float, places: int) -> _Cell:
    if isinstance(value, str):
        match = _INTERVAL.fullmatch(value)
        if not match:
            return _Cell(text=value)
        number, low, high = (float(group.replace("−", "-").replace(",", "")) for group in match.groups())
        return _Cell(text=value, value=number, low=low, high=high)
    if isinstance(value, int):
        return _Cell(text=str(value), value=value)
    if math.isnan(value):
        return _Cell(text="–")
    tiny = places == 4 and 0 < value < 0.5 * 10**-places
    words = f"< {10**-places:g}" if tiny else f"{Bounded(value, low, high):.{places}f}"
    return _Cell(text=words, value=value, low=low, high=high)


def _best(name: str, cells: list[_Cell], best: Best) -> tuple[int, bool]:
    """The index of the best value, and whether its interval is clear of all others'."""
    sign = 1 if best is Best.HIGHEST else -1
    numbers = {i: cell for i, cell in enumerate(cells) if cell.value is not None}
    if all(math.isnan(cell.low) for cell in numbers.values()):
        raise ValueError(f"{name} has no intervals, which must tell whether a value is the best")
    first = max(numbers, key=lambda i: sign * numbers[i].value)
    winner = numbers.pop(first)
    # A comparison with NaN, a missing interval, is false.
    if best is Best.HIGHEST:
        clear = all(winner.low > cell.high for cell in numbers.values())
    else:
        clear = all(winner.high < cell.low for cell in numbers.values())
    return first, bool(numbers) and clear
