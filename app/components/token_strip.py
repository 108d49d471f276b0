"""Running text, token by token, coloured by a weight or by segment."""

from collections.abc import Sequence

import numpy as np

from app.components.browser import check_range, index, mount
from app.figures.palettes import Stretch

__all__ = ["token_strip"]


def token_strip(
    *,
    key: str,
    pieces: Sequence[str],
    weights: np.ndarray | None,
    segment_of: Sequence[int],
    selected: int | None,
    marks: Sequence[tuple[int, int, str]],
    notes: Sequence[str],
    legend: str,
    first: int = 0,
    low: float = 0.0,
    high: float = 1.0,
    stretch: Stretch = Stretch.LINEAR,
    alt: str,
    max_height: int = 220,
) -> int | None:
    """Show the token texts `pieces`; the token clicked in this very rerun, or None.

    `weights` [token]: coloured between `low` and `high`, whose numbers the legend has; NaN for a plain token; None
    colours by segment. `segment_of`: each token's segment number. `marks`: (first token, token after the last, label),
    underlined. `notes`: one line of hover text per token, or none at all. `first`: what the first token is numbered,
    from which the others are counted; the token returned, and `selected`, are counted from 0. `max_height`: CSS pixels,
    the rest scrolls.
    """
    count = len(pieces)
    if len(segment_of) != count or (notes and len(notes) != count):
        raise ValueError(f"{len(segment_of)} segments and {len(notes)} notes for {count} tokens")
    if weights is not None and weights.shape != (count,):
        raise ValueError(f"weights of shape {weights.shape} for {count} tokens")
    for start, stop, label in marks:
        if not 0 <= start < stop <= count:
            raise ValueError(f"the mark {label!r} covers {start}..{stop} of {count} tokens")
    check_range(low, high)
    header = {
        "pieces": list(pieces),
        "weighted": weights is not None,
        "segmentOf": [int(segment) for segment in segment_of],
        "selected": selected,
        "marks": [(int(start), int(stop), label) for start, stop, label in marks],
        "notes": list(notes),
        "legend": legend,
        "first": first,
        "low": float(low),
        "high": float(high),
        "scale": stretch.value,
        "alt": alt,
        "maxHeight": max_height,
    }
    sent = np.empty(0) if weights is None else weights
    return index(mount("token_strip", key, "token", header, sent.astype("<f4")), count)
