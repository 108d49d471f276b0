"""Findings -> tables and curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.views.kinds import Line, Lines, Table

if TYPE_CHECKING:
    from probes.experiments import Findings


_MEANING = {
    "d_z": "d_z: mean change over the standard deviation of the changes",
    "p": "p: two-sided, from flipping the signs of whole stories",
}


def note(found: Findings) -> str:
    """What was pooled, what the control says, and what the columns of statistics are."""
    return ". ".join([found.note, *(words for column, words in _MEANING.items() if column in found.columns)]) + "."


def table(found: Findings) -> Table:
    return Table(columns=found.columns, rows=found.rows)


def curve(found: Findings) -> Lines | None:
    """The findings' curve with its interval as a band; None where the rows make none."""
    if found.curve is None:
        return None
    columns = table(found).as_columns()
    x, y, low, high = found.curve
    values, lower, upper = (np.array(columns[name], float) for name in (y, low, high))
    return Lines(
        lines=(Line(name=f"{y}, with 95 % interval", values=values, low=lower, high=upper),),
        ticks=tuple(str(place) for place in columns[x]),
        x_title=x,
        y_title=y,
        y_range=(0, 102) if y.endswith("(%)") else None,
    )
