"""A map of rows x columns on a canvas: slots down, tokens along, zoomed and read without a rerun."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.components.browser import check_range, half, index, mount, segment_starts
from app.figures.palettes import Stretch
from app.views.pooling import Pooling


@dataclass(frozen=True)
class HeatmapCell:
    """One cell of a heatmap."""

    row: int
    column: int


def heatmap(
    *,
    key: str,
    values: np.ndarray,
    low: float,
    high: float,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    row_title: str,
    column_title: str,
    row_noun: str = "row",
    column_noun: str = "column",
    value_title: str,
    boundaries: Sequence[int],
    segment_labels: Sequence[str],
    masked: np.ndarray | None,
    selected_row: int | None,
    selected_column: int | None,
    diverging: bool = False,
    first: int = 0,
    pooling: Pooling = Pooling.LARGEST,
    stretch: Stretch = Stretch.LINEAR,
    height: int = 320,
    alt: str,
) -> HeatmapCell | None:
    """Draw `values` [rows, columns] between `low` and `high`; the cell clicked in this very rerun, or None.

    `boundaries`: columns before which a segment begins (0 may be left out); `segment_labels`: one per segment, or none.
    `masked` [rows, columns]: cells that do not exist; they, and NaN values, are hatched. `first`: what the first column
    is numbered, where columns are; the cell returned, and what is selected, are counted from 0. `diverging`: two-sided
    colours around the middle of low..high. `height`: of the canvas with its axes, CSS pixels. Where several cells share
    a pixel the one that `pooling` says is drawn, and it is the one that hovering and clicking name; the caption tells
    it with `row_noun` and `column_noun`, what a row and a column are called. Columns of two segments share a pixel only
    where there are more segments in view than pixels, which the caption tells too.
    """
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"a heatmap needs [rows, columns], not shape {values.shape}")
    rows, columns = values.shape
    if (len(row_labels), len(column_labels)) != (rows, columns):
        raise ValueError(f"{len(row_labels)} x {len(column_labels)} labels for {rows} x {columns} values")
    if masked is not None and masked.shape != values.shape:
        raise ValueError(f"the mask's shape is {masked.shape}, the values' {values.shape}")
    starts = segment_starts(boundaries, columns)
    if segment_labels and len(segment_labels) != len(starts):
        raise ValueError(f"{len(segment_labels)} segment labels for {len(starts)} segments")
    check_range(low, high)
    small, unit = half(values, masked)
    header = {
        "rows": rows,
        "columns": columns,
        "unit": unit,
        "low": float(low),
        "high": float(high),
        "rowLabels": list(row_labels),
        "columnLabels": list(column_labels),
        "rowTitle": row_title,
        "columnTitle": column_title,
        "rowNoun": row_noun,
        "columnNoun": column_noun,
        "valueTitle": value_title,
        "starts": starts,
        "segmentLabels": list(segment_labels),
        "selectedRow": selected_row,
        "selectedColumn": selected_column,
        "first": first,
        "diverging": diverging,
        "pooling": pooling.value,
        "scale": stretch.value,
        "height": height,
        "alt": alt,
    }
    value = mount("heatmap", key, "cell", header, small)
    if not isinstance(value, dict):
        return None
    row, column = index(value.get("row"), rows), index(value.get("column"), columns)
    return None if row is None or column is None else HeatmapCell(row, column)
