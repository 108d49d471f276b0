"""Running text, token by token, coloured by a weight or by segment."""

import numpy as np

from app.components.browser import check_range, index, mount
from app.figures.palettes import Stretch
from app.views.kinds import Strip

_HEIGHT = 220
"""CSS pixels; the rest scrolls."""


def token_strip(view: Strip, *, key: str, selected: int | None, stretch: Stretch) -> int | None:
    """Show a view; the token clicked in this very rerun, or None. It and `selected` are counted from 0, whatever number
    the first token has."""
    count = len(view.pieces)
    if len(view.segment_of) != count or (view.notes and len(view.notes) != count):
        raise ValueError(f"{len(view.segment_of)} segments and {len(view.notes)} notes for {count} tokens")
    if view.weights is not None and view.weights.shape != (count,):
        raise ValueError(f"weights of shape {view.weights.shape} for {count} tokens")
    for start, stop, label in view.marks:
        if not 0 <= start < stop <= count:
            raise ValueError(f"the mark {label!r} covers {start}..{stop} of {count} tokens")
    check_range(view.low, view.high)
    header = {
        "pieces": view.pieces,
        "weighted": view.weights is not None,
        "segmentOf": view.segment_of,
        "selected": selected,
        "marks": view.marks,
        "notes": view.notes,
        "legend": view.legend,
        "first": view.first,
        "low": float(view.low),
        "high": float(view.high),
        "scale": stretch.value,
        "alt": view.alt,
        "maxHeight": _HEIGHT,
    }
    weights = np.empty(0) if view.weights is None else view.weights
    (token,) = mount("token_strip", key, ["token"], header, weights.astype("<f4"))
    return index(token, count)
