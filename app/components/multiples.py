"""Small maps side by side, one per layer and head, to choose one from."""

from collections.abc import Sequence

import numpy as np

from app.components.browser import check_range, half, index, mount, segment_starts
from app.figures.palettes import Stretch

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

    `boundaries`: columns before which a segment begins. `panel_height`: CSS pixels. NaN cells are left blank.
    Panels larger than LARGEST_PANEL are pooled by their maximum, here and again to the pixels they get.
    """
    if panels.ndim != 4 or 0 in panels.shape:
        raise ValueError(f"panels must be [layer, head, rows, columns], not shape {panels.shape}")
    layers, heads, _, columns = panels.shape
    if (len(layer_labels), len(head_labels)) != (layers, heads):
        raise ValueError(f"{len(layer_labels)} x {len(head_labels)} labels for {layers} x {heads} panels")
    check_range(low, high)
    starts = segment_starts(boundaries, columns)
    for axis, largest in zip((2, 3), LARGEST_PANEL, strict=True):
        panels = pooled(panels, axis, largest)
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
        "starts": [start / columns for start in starts[1:]],
        "title": title,
        "alt": alt,
        "panelHeight": panel_height,
    }
    value = mount("multiples", key, "panel", header, small)
    if not isinstance(value, dict):
        return None
    layer, head = index(value.get("layer"), layers), index(value.get("head"), heads)
    return None if layer is None or head is None else (layer, head)


def pooled(values: np.ndarray, axis: int, largest: int) -> np.ndarray:
    """`values` with at most `largest` entries along `axis`: maxima of near-equal spans, NaN only where all are."""
    length = values.shape[axis]
    if length <= largest:
        return values
    return np.fmax.reduceat(values, np.arange(largest) * length // largest, axis=axis)
