"""Findings -> tables and curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.views.kinds import Forest, Line, Lines, Table

if TYPE_CHECKING:
    from probes.experiments.tables import Findings


_MEANING = {
    "d_z": "d_z: mean change over the standard deviation of the changes",
    "p": "p: two-sided, from flipping the signs of whole stories",
}


_DOCUMENTS = {
    "policies": 1, "gates": 2, "swap": 2, "permutation": 1, "provenance": 1, "decoding": 1, "attribution": 1,
    "forgetting": 2, "capacity": 6,
    "overwrites": 10, "interference": 1.5, "slots": 1, "erasure": 1,
}  # fmt: skip
"""For each question."""
_LEAST = {"interference": 12, "forgetting": 320}
_BESIDE = {"erasure": 4096}
"""Read whatever the number of questions, to fit on: so many for a bank of 2,048 entries."""


def documents(experiment: str, task: int, questions: int) -> int | None:
    """About how many documents an experiment will read; None for one of which that is not known beforehand."""
    if experiment not in _DOCUMENTS:
        return None
    stretched = experiment != "forgetting" or task == 1  # only stories of qa1 are asked at several distances
    return max(_LEAST.get(experiment, 0) if stretched else 0, round(_DOCUMENTS[experiment] * questions)) + _BESIDE.get(
        experiment, 0
    )


def note(found: Findings) -> str:
    """What was pooled, what the control says, and what the columns of statistics are."""
    return ". ".join([found.note, *(words for column, words in _MEANING.items() if column in found.columns)]) + "."


def table(found: Findings) -> Table:
    return Table(columns=found.columns, rows=found.rows)


def forest(found: Findings) -> Forest | None:
    """The findings' intervals, of those columns that share the first one's unit; None where there are none."""
    columns = found.columns
    # A column of numbers is followed by the ends of its intervals; names of columns differ by blanks alone.
    measured = [
        at for at in range(len(columns) - 2) if (columns[at + 1].strip(), columns[at + 2].strip()) == ("low", "high")
    ]
    if not measured:
        return None
    first = measured[0]
    unit = _unit(columns[first])
    same = [at for at in measured if _unit(columns[at]) == unit]
    named = [", ".join(cell for cell in row[:first] if isinstance(cell, str)) for row in found.rows]
    labels = tuple(name or str(row[0]) for name, row in zip(named, found.rows))
    lines = []
    for at in same:
        values, low, high = (np.array([row[place] for row in found.rows], float) for place in (at, at + 1, at + 2))
        lines.append(Line(name=columns[at].strip(), values=values, low=low, high=high))
    title = columns[first].strip() if len(same) == 1 else unit or "value"
    rows = "" if any(named) else columns[0]  # numbers do not say of what
    return Forest(
        lines=tuple(lines),
        labels=labels,
        y_title=rows,
        x_title=f"{title}, with 95 % interval",
        x_range=(0, 100) if unit == "%" else None,
    )


def _unit(column: str) -> str:
    """ "right (%)" is in "%"."""
    return column.strip().removesuffix(")").rpartition("(")[2] if column.strip().endswith(")") else ""


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
