"""View -> the numbers that it shows: a table with a row for each, and arrays as they are."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from app.views.kinds import Bars, Forest, Heatmap, Line, Lines, Strip, Table

View = Heatmap | Lines | Bars | Forest | Strip
_SUMS = 8
_TOLERANCE = 1e-5
"""Of an array's norm: float32 keeps seven digits, and a run through many blocks one or two fewer."""


def digest(view: View | Table) -> str:
    """SHA-256 of the numbers and names, bit by bit."""
    if isinstance(view, Table):
        return hashlib.sha256(json.dumps([_names(view), view.rows]).encode()).hexdigest()
    found = hashlib.sha256()
    for name, values in sorted(arrays(view).items()):
        found.update(f"{name} {values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def sketch(view: View | Table) -> dict[str, Any]:
    """What tells other numbers from the same ones with other last bits, which another processor or number of threads
    gives them.

    "rest": SHA-256 of everything but fractions: names, shapes, whole numbers, and where something is missing. "sums":
    for each array of fractions, its Euclidean norm and sums of it by `_SUMS` sets of weights between -1 and 1. A digest
    of rounded values would not do: among thousands of cells there is always one that stands where rounding turns.
    """
    found = _columns(view) if isinstance(view, Table) else arrays(view)
    rest, sums = hashlib.sha256(), []
    for name, values in sorted(found.items()):
        rest.update(f"{name} {values.shape}".encode())
        if values.dtype.kind != "f":
            rest.update(np.ascontiguousarray(values).tobytes())
            continue
        there = np.isfinite(values)
        rest.update(there.tobytes() + np.sign(values[np.isinf(values)]).tobytes())
        flat = np.where(there, values, 0).ravel().astype(np.float64)
        weights = np.cos(np.outer(np.arange(1, _SUMS + 1) ** 0.5, np.arange(1, flat.size + 1)))
        sums.append([float(np.linalg.norm(flat)), *(weights @ flat).tolist()])
    return {"rest": rest.hexdigest(), "sums": sums}


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two sketches are of the same numbers, last bits apart: within `_TOLERANCE` of their norm."""
    if one.get("rest") != other["rest"]:
        return False
    try:
        sums = [np.array(one["sums"], float), np.array(other["sums"], float)]
    except (KeyError, TypeError, ValueError):  # not written by this program
        return False
    return sums[0].shape == sums[1].shape and bool((np.abs(sums[0] - sums[1]) <= _TOLERANCE * sums[1][..., :1]).all())


def _columns(table: Table) -> dict[str, np.ndarray]:
    """A table's cells: fractions by column, NaN where there are none, and everything else as text."""

    def fraction(value: object) -> bool:
        return isinstance(value, float)

    names = _names(table)
    rest = json.dumps([names, [[None if fraction(value) else value for value in row] for row in table.rows]])
    columns = {
        f"{at} {name}": np.array([value if fraction(value) else np.nan for value in series.values], float)
        for at, (name, series) in enumerate(zip(names, table.series))
    }
    return columns | {"rest": np.frombuffer(rest.encode(), np.uint8)}


def _names(table: Table) -> list[str]:
    """The names that tables had when ends of intervals were columns, told apart by blanks behind them: kept digests
    are of these."""
    names: list[str] = []
    for series in table.series:
        before = sum(name.strip() == series.label for name in names) if series.name != series.label else 0
        names.append(series.label + " " * before)
    return names


def unmasked(view: Heatmap) -> Float[np.ndarray, "row column"]:
    """The values, NaN where they are masked."""
    return view.values if view.masked is None else np.where(view.masked, np.nan, view.values)


def table(view: View) -> pa.Table:
    """A row for each cell, point, interval, bar or token; what is not there, or masked, is null."""
    if isinstance(view, Heatmap):
        rows, columns = view.values.shape
        return pa.table(
            {
                "row": _named(view.row_labels, np.arange(rows).repeat(columns)),
                "column": _named(view.column_labels, np.tile(np.arange(columns), rows)),
                "value": _numbers(unmasked(view).ravel()),
            }
        )
    if isinstance(view, (Lines, Forest)):
        points = view.ticks if isinstance(view, Lines) else view.labels
        values, names = (
            _curves(view.lines, len(points)),
            ("line", "point") if isinstance(view, Lines) else ("mark", "row"),
        )
        return pa.table(
            {
                names[0]: _named(
                    tuple(line.name for line in view.lines), np.arange(len(view.lines)).repeat(len(points))
                ),
                names[1]: _named(points, np.tile(np.arange(len(points)), len(view.lines))),
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
        return {
            "lines": names,
            "points": np.array(view.ticks, str),
            "boundaries": np.array(view.boundaries, int),
        } | _curves(view.lines, len(view.ticks))
    if isinstance(view, Forest):
        names = np.array([line.name for line in view.lines], str)
        return {"marks": names, "rows": np.array(view.labels, str)} | _curves(view.lines, len(view.labels))
    if isinstance(view, Bars):
        return {"values": view.values, "labels": np.array(view.labels, str)}
    found = {"pieces": np.array(view.pieces, str), "segments": np.array(view.segment_of, int)}
    return found | ({} if view.weights is None else {"weights": view.weights})


def _curves(lines: tuple[Line, ...], points: int) -> dict[str, Float[np.ndarray, "line point"]]:
    """NaN where a line has no interval."""
    nothing = np.full(points, np.nan)
    stacked = {"value": [line.values for line in lines]}
    stacked |= {
        name: [nothing if (found := getattr(line, name)) is None else found for line in lines]
        for name in ("low", "high")
    }
    return {name: np.array(rows, float).reshape(len(lines), points) for name, rows in stacked.items()}


def _numbers(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True)  # NaN becomes null


def _named(names: tuple[str, ...], places: np.ndarray) -> pa.DictionaryArray:
    """Each name is kept once: a large map repeats them many thousand times."""
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(names, pa.string()))
