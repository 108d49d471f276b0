"""View -> the numbers that it shows: a table with a row for each, and arrays as they are."""

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from app.views.kinds import Bars, Heatmap, Lines, Strip

View = Heatmap | Lines | Bars | Strip


def unmasked(view: Heatmap) -> Float[np.ndarray, "row column"]:
    """The values, NaN where they are masked."""
    return view.values if view.masked is None else np.where(view.masked, np.nan, view.values)


def table(view: View) -> pa.Table:
    """A row for each cell, point, bar or token; what is not there, or masked, is null."""
    if isinstance(view, Heatmap):
        rows, columns = view.values.shape
        return pa.table(
            {
                "row": _named(view.row_labels, np.arange(rows).repeat(columns)),
                "column": _named(view.column_labels, np.tile(np.arange(columns), rows)),
                "value": _numbers(unmasked(view).ravel()),
            }
        )
    if isinstance(view, Lines):
        points, values = len(view.ticks), _curves(view)
        return pa.table(
            {
                "line": _named(tuple(line.name for line in view.lines), np.arange(len(view.lines)).repeat(points)),
                "point": _named(view.ticks, np.tile(np.arange(points), len(view.lines))),
            }
            | {name: _numbers(values[name].ravel()) for name in ("value", "low", "high")}
        )
    if isinstance(view, Bars):
        return pa.table({"bar": list(view.labels), "value": _numbers(view.values)})
    weights = np.full(len(view.pieces), np.nan) if view.weights is None else view.weights
    return pa.table({"token": list(view.pieces), "segment": list(view.segment_of), "weight": _numbers(weights)})


def arrays(view: View) -> dict[str, np.ndarray]:
    """The view's arrays and names, each under its own; lines have one array with a row each."""
    if isinstance(view, Heatmap):
        return {
            "values": view.values,
            "masked": np.zeros(view.values.shape, bool) if view.masked is None else view.masked,
            "row_labels": np.array(view.row_labels),
            "column_labels": np.array(view.column_labels),
            "boundaries": np.array(view.boundaries, int),
            "segment_labels": np.array(view.segment_labels, str),
        }
    if isinstance(view, Lines):
        names = np.array([line.name for line in view.lines], str)
        return {"lines": names, "points": np.array(view.ticks, str), "boundaries": np.array(view.boundaries, int)} | _curves(view)
    if isinstance(view, Bars):
        return {"values": view.values, "labels": np.array(view.labels, str)}
    found = {"pieces": np.array(view.pieces, str), "segments": np.array(view.segment_of, int)}
    return found | ({} if view.weights is None else {"weights": view.weights})


def _curves(view: Lines) -> dict[str, Float[np.ndarray, "line point"]]:
    """NaN where a line has no interval."""
    nothing = np.full(len(view.ticks), np.nan)
    stacked = {"value": [line.values for line in view.lines]}
    stacked |= {name: [nothing if (found := getattr(line, name)) is None else found for line in view.lines] for name in ("low", "high")}
    return {name: np.array(rows, float).reshape(len(view.lines), len(view.ticks)) for name, rows in stacked.items()}


def _numbers(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True)  # NaN becomes null


def _named(names: tuple[str, ...], places: np.ndarray) -> pa.DictionaryArray:
    """Each name is kept once: a large map repeats them many thousand times."""
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(names, pa.string()))
