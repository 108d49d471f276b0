"""A map of rows x columns on a canvas: slots down, tokens along, zoomed and read without a rerun."""

from dataclasses import dataclass

from app.components.browser import check_range, half, index, mount, segment_starts
from app.figures.palettes import Stretch
from app.views.kinds import Heatmap


@dataclass(frozen=True)
class HeatmapCell:
    """One cell of a heatmap."""

    row: int
    column: int


def heatmap(
    view: Heatmap, *, key: str, selected_row: int | None, selected_column: int | None, stretch: Stretch, height: int
) -> HeatmapCell | None:
    """Draw a view; the cell clicked in this very rerun, or None.

    The cell and the selection are counted from 0, whatever number the first column has. Masked cells and NaN are
    hatched. `height`: of the canvas with its axes, CSS pixels. Where several cells share a pixel, the one that
    `view.pooling` chooses is drawn, and hovering and clicking name it. Columns of two segments share a pixel only where
    more segments are in view than there are pixels.
    """
    if 0 in view.values.shape:
        raise ValueError(f"a heatmap needs rows and columns, not shape {view.values.shape}")
    rows, columns = view.values.shape
    if view.masked is not None and view.masked.shape != view.values.shape:
        raise ValueError(f"the mask's shape is {view.masked.shape}, the values' {view.values.shape}")
    starts = segment_starts(view.boundaries, columns)
    if view.segment_labels and len(view.segment_labels) != len(starts):
        raise ValueError(f"{len(view.segment_labels)} segment labels for {len(starts)} segments")
    check_range(view.low, view.high)
    small, unit = half(view.values, view.masked)
    header = {
        "rows": rows,
        "columns": columns,
        "unit": unit,
        "low": float(view.low),
        "high": float(view.high),
        "rowLabels": view.row_labels,
        "columnLabels": view.column_labels,
        "rowTitle": view.row_title,
        "columnTitle": view.column_title,
        "rowNoun": view.row_noun,
        "columnNoun": view.column_noun,
        "valueTitle": view.value_title,
        "starts": starts,
        "segmentLabels": view.segment_labels,
        "selectedRow": selected_row,
        "selectedColumn": selected_column,
        "first": view.first,
        "diverging": view.diverging,
        "pooling": view.pooling.value,
        "scale": stretch.value,
        "height": height,
        "alt": view.alt,
    }
    (cell,) = mount("heatmap", key, ["cell"], header, small)
    if not isinstance(cell, dict):
        return None
    row, column = index(cell.get("row"), rows), index(cell.get("column"), columns)
    return None if row is None or column is None else HeatmapCell(row, column)
