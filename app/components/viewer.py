"""A map of any length on a canvas: slots down, tokens along. The browser fetches the bands that it shows by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.components.browser import index, mount
from app.figures.palettes import Stretch

Viewport = tuple[int, int, int]
"""First token, number of tokens, first slot."""


@dataclass(frozen=True)
class Viewed:
    """What a user did in the viewer, if it caused this very rerun."""

    cell: tuple[int, int] | None = None
    """The token and slot clicked on; of a pooled cell, those of its largest value."""
    view: Viewport | None = None
    """Where it was moved."""


@dataclass(frozen=True, kw_only=True)
class BandSource:
    """Where the browser gets bands from."""

    token: str
    """Of the session."""
    query: Mapping[str, str]
    """Which map, as in `app/server/routes.py`."""
    text: str
    """Stands for the text: with another one, the view begins anew."""
    columns: int
    """Of a band."""


def viewer(
    source: BandSource,
    *,
    key: str,
    tokens: int,
    slots: int,
    starts: Sequence[int],
    marks: Sequence[tuple[int, int, str]],
    low: float,
    high: float,
    value_title: str,
    pooling: str,
    view: Viewport | None,
    token: int | None,
    slot: int | None,
    stretch: Stretch,
    height: int,
    alt: str,
) -> Viewed:
    """Show a map.

    Args:
        starts: the first tokens of segments.
        marks: ranges of tokens (first, one past the last) with a label for each.
        low, high: ends of the colour scale; from -high, zero is in its middle.
        pooling: what a cell shows of the tokens and slots that share it, such as "max".
        view: where it begins; None, with the whole text.
        height: of the canvas with its axes, CSS pixels.
    """
    header = {
        "token": source.token,
        "map": dict(source.query),
        "text": source.text,
        "bandColumns": source.columns,
        "columns": tokens,
        "rows": slots,
        "starts": list(starts),
        "marks": list(marks),
        "low": low,
        "high": high,
        "diverging": low < 0,
        "valueTitle": value_title,
        "rowTitle": "slot",
        "columnTitle": "token",
        "pooling": pooling,
        "first": 0,
        "view": view,
        "selectedRow": slot,
        "selectedColumn": token,
        "scale": stretch.value,
        "height": height,
        "alt": alt,
    }
    cell, moved = mount("viewer", key, ["cell", "view"], header, np.empty(0))
    return Viewed(_cell(cell, tokens, slots), _view(moved, tokens, slots))


def _cell(value: object, tokens: int, slots: int) -> tuple[int, int] | None:
    if not isinstance(value, Mapping):
        return None
    token, slot = index(value.get("token"), tokens), index(value.get("slot"), slots)
    return None if token is None or slot is None else (token, slot)


def _view(value: object, tokens: int, slots: int) -> Viewport | None:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return None
    first, extent, top = (index(part, limit) for part, limit in zip(value, (tokens, tokens + 1, slots)))
    return None if first is None or not extent or top is None else (first, extent, top)
