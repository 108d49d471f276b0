"""Small maps side by side, one per layer and head, to choose one from."""

from collections.abc import Sequence

import numpy as np

from app.components.browser import check_range, half, index, mount, segment_starts
from app.figures.palettes import Stretch
from app.views.pooling import Pooling, cells, pooled, words

__all__ = ["multiples"]

LARGEST_PANEL = (64, 256)  # rows, columns sent to the browser; more are pooled


def multiples(
    *,
    key: str,
    panels: np.ndarray,
    low: float,
    high: float,
    layer_labels: Sequence[str],
    head_labels: Sequence[str],
    selected: tuple[int, int] | None,
    boundaries: Sequence[int],
    title: str,
    alt: str,
    panel_height: int = 56,
    stretch: Stretch = Stretch.LINEAR,
) -> tuple[int, int] | None:
    """Draw `panels` [layer, head, rows, columns]; the (layer, head) clicked in this very rerun, or None.

    `boundaries`: columns before which a segment begins. `panel_height`: CSS pixels. NaN cells are left blank. Panels
    larger than LARGEST_PANEL are pooled by their maximum, here and again to the pixels they get; columns of two
    segments only where there is no room for all segments.
    """
    if panels.ndim != 4 or 0 in panels.shape:
        raise ValueError(f"panels must be [layer, head, rows, columns], not shape {panels.shape}")
    layers, heads, _, columns = panels.shape
    if (len(layer_labels), len(head_labels)) != (layers, heads):
        raise ValueError(f"{len(layer_labels)} x {len(head_labels)} labels for {layers} x {heads} panels")
    check_range(low, high)
    starts = segment_starts(boundaries, columns)
    down, along = cells(panels.shape[2], LARGEST_PANEL[0]), cells(columns, LARGEST_PANEL[1], starts)
    panels = np.stack([[pooled(panel, down, along, Pooling.LARGEST, 0.0) for panel in row] for row in panels])
    told = words(Pooling.LARGEST, (down, "slot"), (along, "token"))
    small, unit = half(panels)
    header = {
        "shape": panels.shape,
        "unit": unit,
        "low": float(low),
        "high": float(high),
        "scale": stretch.value,
        "layerLabels": list(layer_labels),
        "headLabels": list(head_labels),
        "selected": selected,
        "starts": sorted(set(along.owner[starts].tolist())),
        "title": title,
        "note": (
            "each panel: slots down, tokens along; where they share a pixel, the"
            f" largest{f' (sent: the {told})' if told else ''}"
        ),
        "alt": alt,
        "panelHeight": panel_height,
    }
    value = mount("multiples", key, "panel", header, small)
    if not isinstance(value, dict):
        return None
    layer, head = index(value.get("layer"), layers), index(value.get("head"), heads)
    return None if layer is None or head is None else (layer, head)
