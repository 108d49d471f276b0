"""Small maps side by side, one per layer and head, to choose one from."""

from collections.abc import Sequence

import numpy as np

from app.components.browser import check_range, half, index, mount, segment_starts
from app.figures.palettes import Stretch
from app.views.pooling import Pooling, cells, pooled, words

_LARGEST_PANEL = (64, 256)
"""Rows and columns that are sent to the browser; more are pooled."""
_PANEL_HEIGHT = 56
"""CSS pixels."""


def multiples(
    *,
    key: str,
    panels: np.ndarray,
    layer_labels: Sequence[str],
    head_labels: Sequence[str],
    selected: tuple[int, int] | None,
    boundaries: Sequence[int],
    title: str,
    alt: str,
    stretch: Stretch,
) -> tuple[int, int] | None:
    """Draw `panels` [layer, head, rows, columns]; the (layer, head) clicked in this very rerun, or None. Colours
    go from 0 to the largest value.

    `boundaries`: columns before which a segment begins. NaN cells are left blank. Large panels are pooled by their
    maximum, here and again in the browser to the pixels they get; columns of two segments only where there is no room
    for all segments.
    """
    if panels.ndim != 4 or 0 in panels.shape:
        raise ValueError(f"panels must be [layer, head, rows, columns], not shape {panels.shape}")
    layers, heads, _, columns = panels.shape
    if (len(layer_labels), len(head_labels)) != (layers, heads):
        raise ValueError(f"{len(layer_labels)} x {len(head_labels)} labels for {layers} x {heads} panels")
    high = float(panels.max())
    check_range(0.0, high)
    starts = segment_starts(boundaries, columns)
    down, along = cells(panels.shape[2], _LARGEST_PANEL[0]), cells(columns, _LARGEST_PANEL[1], starts)
    panels = np.stack([[pooled(panel, down, along, Pooling.LARGEST, 0.0) for panel in row] for row in panels])
    pooling = words(Pooling.LARGEST, (down, "slot"), (along, "token"))
    small, unit = half(panels)
    header = {
        "shape": panels.shape,
        "unit": unit,
        "low": 0.0,
        "high": high,
        "scale": stretch.value,
        "layerLabels": list(layer_labels),
        "headLabels": list(head_labels),
        "selected": selected,
        "starts": sorted(set(along.owner[starts].tolist())),
        "title": title,
        "note": (
            "each panel: slots down, tokens along; where they share a pixel, the"
            f" largest{f' (sent: the {pooling})' if pooling else ''}"
        ),
        "alt": alt,
        "panelHeight": _PANEL_HEIGHT,
    }
    (panel,) = mount("multiples", key, ["panel"], header, small)
    if not isinstance(panel, dict):
        return None
    layer, head = index(panel.get("layer"), layers), index(panel.get("head"), heads)
    return None if layer is None or head is None else (layer, head)
