"""A draft of a view's caption: its numbers and intervals in words."""

from collections.abc import Sequence

import numpy as np

from app.views.kinds import Forest, Line, Lines
from app.views.numbers import View
from lm2.intervals import Bounded

_FEW = 8
"""Lines with more points are described by their first and last intervals."""


def caption(view: View, notes: Sequence[str]) -> str:
    """`notes`: sentences to add."""
    sentences = [view.alt[:1].upper() + view.alt[1:].removesuffix(".") + "."]
    if isinstance(view, Lines | Forest):
        points = view.ticks if isinstance(view, Lines) else view.labels
        lines = [_intervals(line, points) for line in view.lines if line.low is not None and line.high is not None]
        if lines:
            sentences.append(f"Intervals: {'; '.join(lines)}.")
    return " ".join([*sentences, *notes])


def _intervals(line: Line, points: tuple[str, ...]) -> str:
    indices = np.flatnonzero(np.isfinite([line.values, line.low, line.high]).all(0))
    if len(indices) > _FEW:
        indices = indices[[0, -1]]
    words = [f"{Bounded(line.values[i], line.low[i], line.high[i]):.3g} at {points[i]}" for i in indices]
    return f"{line.name} {', '.join(words) or 'none'}"
