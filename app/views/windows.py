"""View -> the same from one token to another."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from app.views.kinds import Heatmap, Line, Lines, Strip
from app.views.numbers import View


def window(view: View, first: int, stop: int) -> View:
    """What stands from one token to the one before `stop`. Raises ValueError for views that have no tokens along, and
    for tokens that are not there."""
    count = tokens(view)
    if count is None:
        raise ValueError("only views with tokens along have a window")
    if not 0 <= first < stop <= count:
        raise ValueError(f"a window goes from a token to a later one, within 0 and {count}, not from {first} to {stop}")
    kept = slice(first, stop)
    if isinstance(view, Strip):
        return replace(
            view,
            pieces=view.pieces[kept],
            segment_of=view.segment_of[kept],
            weights=None if view.weights is None else view.weights[kept],
            notes=view.notes[kept],
            first=view.first + first,
            marks=tuple(
                (max(a, first) - first, min(b, stop) - first, word)
                for a, b, word in view.marks
                if a < stop and b > first
            ),
        )
    starts = [*(at for at in view.boundaries if at < stop), stop]
    within = [at for at, (start, end) in enumerate(pairwise(starts)) if end > first]
    edges = tuple(max(starts[at], first) - first for at in within)
    if isinstance(view, Lines):
        return replace(
            view, lines=tuple(_cut(line, kept) for line in view.lines), ticks=view.ticks[kept], boundaries=edges
        )
    return replace(
        view,
        values=view.values[:, kept],
        column_labels=view.column_labels[kept],
        ticks=view.ticks[kept],
        masked=None if view.masked is None else view.masked[:, kept],
        boundaries=edges,
        column_kinds=view.column_kinds[kept],
        segment_labels=tuple(view.segment_labels[at] for at in within) if view.segment_labels else (),
        first=view.first + first,
    )


def tokens(view: View) -> int | None:
    """How many tokens stand along it; None where something else does."""
    if isinstance(view, Strip):
        return len(view.pieces)
    if isinstance(view, Heatmap) and view.column_title == "token":
        return len(view.column_labels)
    return len(view.ticks) if isinstance(view, Lines) and view.x_title == "token" else None


def _cut(line: Line, kept: slice) -> Line:
    low, high = (None if end is None else np.asarray(end)[kept] for end in (line.low, line.high))
    return replace(line, values=line.values[kept], low=low, high=high)
