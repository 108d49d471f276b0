"""The part of a view from one token to another."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from app.views.kinds import Heatmap, Line, Lines, Strip
from app.views.numbers import View


def window(view: View, first: int, stop: int) -> View:
    """The view of tokens `first` to `stop - 1`. Raises ValueError for a view that is not along tokens, and for tokens
    outside it."""
    count = tokens(view)
    if count is None:
        raise ValueError("only views with tokens along have a window")
    if not 0 <= first < stop <= count:
        raise ValueError(f"a window goes from a token to a later one, within 0 and {count}, not from {first} to {stop}")
    span = slice(first, stop)
    if isinstance(view, Strip):
        return replace(
            view,
            pieces=view.pieces[span],
            segment_of=view.segment_of[span],
            weights=None if view.weights is None else view.weights[span],
            notes=view.notes[span],
            first=view.first + first,
            marks=tuple(
                (max(start, first) - first, min(end, stop) - first, label)
                for start, end, label in view.marks
                if start < stop and end > first
            ),
        )
    starts = [*(start for start in view.boundaries if start < stop), stop]
    segments = [i for i, (_, end) in enumerate(pairwise(starts)) if end > first]
    boundaries = tuple(max(starts[i], first) - first for i in segments)
    if isinstance(view, Lines):
        return replace(
            view, lines=tuple(_cut(line, span) for line in view.lines), ticks=view.ticks[span], boundaries=boundaries
        )
    return replace(
        view,
        values=view.values[:, span],
        column_labels=view.column_labels[span],
        ticks=view.ticks[span],
        masked=None if view.masked is None else view.masked[:, span],
        boundaries=boundaries,
        column_kinds=view.column_kinds[span],
        segment_labels=tuple(view.segment_labels[i] for i in segments) if view.segment_labels else (),
        first=view.first + first,
    )


def tokens(view: View) -> int | None:
    """How many tokens the view has; None if it is not along tokens."""
    if isinstance(view, Strip):
        return len(view.pieces)
    if isinstance(view, Heatmap) and view.column_title == "token":
        return len(view.column_labels)
    return len(view.ticks) if isinstance(view, Lines) and view.x_title == "token" else None


def _cut(line: Line, span: slice) -> Line:
    low, high = (None if end is None else np.asarray(end)[span] for end in (line.low, line.high))
    seeds = tuple(_cut(seed, span) for seed in line.seeds)
    return replace(line, values=line.values[span], low=low, high=high, seeds=seeds)
