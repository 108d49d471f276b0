"""View -> a draft of its caption: its numbers and intervals in words."""

from collections.abc import Sequence

import numpy as np

from app.views.kinds import Forest, Line, Lines
from app.views.numbers import View
from lm2.intervals import Bounded

_FEW = 8
"""Points of a line whose intervals are all told; of more, the first and the last."""


def caption(view: View, notes: Sequence[str]) -> str:
    """`notes`: what a reader of the figure must know besides."""
    if isinstance(view, Lines):
        return " ".join([_sentence(view.alt), *_intervals(view.lines, view.ticks), *notes])
    return " ".join(
        [_sentence(view.alt), *(_intervals(view.lines, view.labels) if isinstance(view, Forest) else ()), *notes]
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].removesuffix(".") + "."


def _intervals(lines: tuple[Line, ...], points: tuple[str, ...]) -> list[str]:
    found = [_interval(line, points) for line in lines if line.low is not None and line.high is not None]
    return [f"Intervals: {'; '.join(found)}."] if found else []


def _interval(line: Line, ticks: tuple[str, ...]) -> str:
    there = [
        at
        for at in np.flatnonzero(np.isfinite(line.values)).tolist()
        if np.isfinite(line.low[at]) and np.isfinite(line.high[at])
    ]
    told = there if len(there) <= _FEW else [there[0], there[-1]]
    words = [f"{Bounded(line.values[at], line.low[at], line.high[at]):.3g} at {ticks[at]}" for at in told]
    return f"{line.name} " + (", ".join(words) or "none")
