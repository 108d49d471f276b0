"""The numbers of a view, as a table with a row for each and as arrays, and digests of them."""

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
"""Relative to an array's norm: float32 keeps seven digits, and a run through many blocks one or two fewer."""


def digest(view: View | Table) -> str:
    """SHA-256 of the exact numbers and names."""
    if isinstance(view, Table):
        return hashlib.sha256(json.dumps([_names(view), view.rows]).encode()).hexdigest()
    sha256 = hashlib.sha256()
    for name, values in sorted(arrays(view).items()):
        sha256.update(f"{name} {values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    return sha256.hexdigest()


def sketch(view: View | Table) -> dict[str, Any]:
    """A summary by which `alike` ignores differences in the last bits, as between processors or numbers of threads.

    "rest" is a SHA-256 of everything but the fractions: names, shapes, whole numbers, and where values are missing.
    "sums" has, for each array of fractions, its Euclidean norm and `_SUMS` weighted sums with weights from -1 to 1.
    Rounded values could not be compared instead: among thousands of cells some always lie where rounding turns.
    """
    rest, sums = hashlib.sha256(), []
    for name, values in sorted((_columns(view) if isinstance(view, Table) else arrays(view)).items()):
        rest.update(f"{name} {values.shape}".encode())
        if values.dtype.kind != "f":
            rest.update(np.ascontiguousarray(values).tobytes())
            continue
        finite = np.isfinite(values)
        rest.update(finite.tobytes() + np.sign(values[np.isinf(values)]).tobytes())
        flat = np.where(finite, values, 0).ravel().astype(np.float64)
        weights = np.cos(np.outer(np.arange(1, _SUMS + 1) ** 0.5, np.arange(1, flat.size + 1)))
        sums.append([float(np.linalg.norm(flat)), *(weights @ flat).tolist()])
    return {"rest": rest.hexdigest(), "sums": sums}


def alike(read: Mapping[str, Any], computed: Mapping[str, Any]) -> bool:
    """Whether a sketch that was read from a file is of the computed numbers, within `_TOLERANCE` of their norm."""
    if read.get("rest") != computed["rest"]:
        return False
    try:
        old, new = np.array(read["sums"], float), np.array(computed["sums"], float)
    except (KeyError, TypeError, ValueError):  # not written by this program
        return False
    return old.shape == new.shape and bool((np.abs(old - new) <= _TOLERANCE * new[..., :1]).all())


def _columns(table: Table) -> dict[str, np.ndarray]:
    """A table's fractions by column, NaN where a cell is none, and everything else as the bytes of a text."""

    def fraction(value: object) -> bool:
        return isinstance(value, float)

    names = _names(table)
    rest = json.dumps([names, [[None if fraction(value) else value for value in row] for row in table.rows]])
    columns = {
        f"{i} {name}": np.array([value if fraction(value) else np.nan for value in series.values], float)
        for i, (name, series) in enumerate(zip(names, table.series))
    }
    return columns | {"rest": np.frombuffer(rest.encode(), np.uint8)}


def _names(table: Table) -> list[str]:
    """The series' names as in old digests: labels, with trailing blanks to make the ends of intervals unique."""
    names: list[str] = []
    for series in table.series:
        before = sum(name.strip() == series.label for name in names) if series.name != series.label else 0
        names.append(series.label + " " * before)
    return names


def table(view: View) -> pa.Table:
    """A row for each cell, point, interval, bar or token; missing and masked values are null."""
    if isinstance(view, Heatmap):
        rows, columns = view.values.shape
        return pa.table(
            {
                "row": _named(view.row_labels, np.arange(rows).repeat(columns)),
                "column": _named(view.column_labels, np.tile(np.arange(columns), rows)),
                "value": _numbers(view.unmasked.ravel()),
            }
        )
    if isinstance(view, (Lines, Forest)):
        kind, point, points = ("line", "point", view.ticks) if isinstance(view, Lines) else ("mark", "row", view.labels)
        lines = view.with_seeds if isinstance(view, Lines) else view.lines
        names = tuple(line.name for line in lines)
        return pa.table(
            {
                kind: _named(names, np.arange(len(names)).repeat(len(points))),
                point: _named(points, np.tile(np.arange(len(points)), len(names))),
            }
            | {name: _numbers(values.ravel()) for name, values in _curves(lines, len(points)).items()}
        )
    if isinstance(view, Bars):
        return pa.table({"bar": list(view.labels), "value": _numbers(view.values)})
    weights = np.full(len(view.pieces), np.nan) if view.weights is None else view.weights
    return pa.table({"token": list(view.pieces), "segment": list(view.segment_of), "weight": _numbers(weights)})


def arrays(view: View) -> dict[str, np.ndarray]:
    """The view's arrays and names; the arrays of lines have a row for each line."""
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
        return {
            "lines": np.array([line.name for line in view.with_seeds], str),
            "points": np.array(view.ticks, str),
            "boundaries": np.array(view.boundaries, int),
            **_curves(view.with_seeds, len(view.ticks)),
        }
    if isinstance(view, Forest):
        return {
            "marks": np.array([line.name for line in view.lines], str),
            "rows": np.array(view.labels, str),
            **_curves(view.lines, len(view.labels)),
        }
    if isinstance(view, Bars):
        return {"values": view.values, "labels": np.array(view.labels, str)}
    tokens = {"pieces": np.array(view.pieces, str), "segments": np.array(view.segment_of, int)}
    return tokens | ({} if view.weights is None else {"weights": view.weights})


def _curves(lines: tuple[Line, ...], points: int) -> dict[str, Float[np.ndarray, "line point"]]:
    """The lines' values and ends of intervals, NaN where a line has none."""
    nothing = np.full(points, np.nan)
    curves = {
        "value": [line.values for line in lines],
        "low": [nothing if line.low is None else line.low for line in lines],
        "high": [nothing if line.high is None else line.high for line in lines],
    }
    return {name: np.array(rows, float).reshape(len(lines), points) for name, rows in curves.items()}


def _numbers(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True)  # NaN becomes null


def _named(names: tuple[str, ...], places: np.ndarray) -> pa.DictionaryArray:
    """A column that stores each name once, since a large map repeats them thousands of times."""
    return pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), pa.array(names, pa.string()))
