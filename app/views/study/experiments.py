"""Findings of an experiment as intervals and curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.views.kinds import Forest, Line, Lines

if TYPE_CHECKING:
    from probes.findings import Column, Findings


_MEANINGS = {
    "d_z": "d_z: mean change over the standard deviation of the changes",
    "p": "p: two-sided, from flipping the signs of whole stories",
}


def note(findings: Findings) -> str:
    """The findings' note, with the meaning of their statistics."""
    meanings = [_MEANINGS[column.name] for column in findings.columns if column.name in _MEANINGS]
    return f"{'. '.join([findings.note, *meanings])}."


def forest(findings: Findings) -> Forest | None:
    """Intervals of the columns that have the first one's unit; None if no column has intervals."""
    measured = [column for column in findings.columns if column.low is not None]
    if not measured:
        return None
    first, columns = measured[0], findings.columns
    shown = [column for column in measured if column.unit == first.unit]
    place = columns.index(first)
    names = [", ".join(cell for cell in row[:place] if isinstance(cell, str)) for row in findings.rows]
    title = first.label if len(shown) == 1 else first.unit or "value"
    return Forest(
        lines=tuple(_line(column.label, column) for column in shown),
        labels=tuple(name or str(value) for name, value in zip(names, columns[0].values)),
        y_title="" if any(names) else columns[0].label,  # numbers alone do not say what they number
        x_title=f"{title}, with 95 % interval",
        x_range=(0, 100) if first.unit == "%" else None,
    )


def curve(findings: Findings) -> Lines | None:
    """The findings' curve with its intervals; None if they are no curve."""
    if not findings.curve:
        return None
    x, y, *_ = findings.columns
    return Lines(
        lines=(_line(f"{y.label}, with 95 % interval", y),),
        ticks=tuple(map(str, x.values)),
        x_title=x.label,
        y_title=y.label,
        y_range=(0, 102) if y.unit == "%" else None,
    )


def _line(name: str, column: Column) -> Line:
    values, low, high = (np.array(numbers, float) for numbers in (column.values, column.low, column.high))
    return Line(name=name, values=values, low=low, high=high)
