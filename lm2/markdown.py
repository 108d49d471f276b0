"""Tables in Markdown, whose columns stand below each other in the source too."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> list[list[str]]:
    """Cells as wide as the widest of their column: numbers end at its right, words begin at its left."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric)]
        for row in rows
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool] = ()) -> str:
    """Cells are Markdown, in which a bar has a backslash before it. `numeric`: of each column; none, all are words."""
    right = numeric or [False] * len(header)
    names, *body = aligned([header, *rows], right)
    rule = ["-" * (len(name) - 1) + ":" if number else "-" * len(name) for name, number in zip(names, right)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, rule, *body))
