"""Markdown tables whose columns are aligned in the source."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> list[list[str]]:
    """Cells padded to the width of their column, numbers on the left and words on the right."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric)]
        for row in rows
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool] = ()) -> str:
    """Cells are Markdown, where a bar must be escaped. `numeric`: for each column; if empty, no column is numeric."""
    right = numeric or [False] * len(header)
    names, *body = aligned([header, *rows], right)
    rule = ["-" * (len(name) - 1) + ":" if number else "-" * len(name) for name, number in zip(names, right)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, rule, *body))
