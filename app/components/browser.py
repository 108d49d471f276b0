"""What the components share: how they are registered, sent their data and read back."""

import functools
import json
import operator
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from app.views.seen import seen

_FOLDER = Path(__file__).parent
_PARTS = {"heatmap": ("axes", "heatmap_drawing"), "viewer": ("axes", "viewer_bands", "viewer_drawing", "viewer_asking")}
"""Sources that a component needs besides its own and the common one, in their order."""


@functools.cache
def _renderer(name: str) -> Any:
    """The command that shows component `name`, registered at its first use."""
    return st.components.v2.component(f"lm2_{name}", **sources(name))


def sources(name: str) -> dict[str, str]:
    """The scripts ("js") and styles ("css") of component `name`."""
    stems = [_FOLDER / stem for stem in ("common", *_PARTS.get(name, ()), name)]
    files = {suffix: [stem.with_suffix(f".{suffix}") for stem in stems] for suffix in ("js", "css")}
    return {
        suffix: "\n".join(path.read_text("utf-8") for path in paths if path.exists()) for suffix, paths in files.items()
    }


def mount(name: str, key: str, events: Sequence[str], header: Mapping[str, Any], values: np.ndarray) -> list[Any]:
    """Show component `name`; for each of its triggers the value in the rerun that it caused, else None.

    The browser receives one block of bytes: length of the JSON header (uint32), the header, then the raw `values`.
    """
    text = json.dumps(_seen(header), default=operator.index).encode()
    data = b"".join((struct.pack("<I", len(text)), text, values.tobytes()))
    # Triggers come back in the result, but Streamlit learns their names from callbacks.
    result = _renderer(name)(key=key, data=data, **{f"on_{event}_change": lambda: None for event in events})
    return [result.get(event) for event in events]


def _seen(value: Any) -> Any:
    """A header whose texts have no invisible characters, and none that reverse others."""
    if isinstance(value, str):
        return seen(value)
    if isinstance(value, Mapping):
        return {name: _seen(entry) for name, entry in value.items()}
    return list(map(_seen, value)) if isinstance(value, (list, tuple)) else value


def half(values: np.ndarray, masked: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """`values` as little-endian float16 in units of a power of two, and that unit; masked cells are NaN.

    The unit brings the largest magnitude just under 2**15, so three digits hold over nine decades.
    """
    values = values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)
    largest = max(abs(np.fmax.reduce(values, axis=None)), abs(np.fmin.reduce(values, axis=None)))
    if np.isinf(largest):
        largest = np.abs(values[np.isfinite(values)]).max(initial=0)
    unit = 2.0 ** max(np.ceil(np.log2(largest)) - 15, -100) if largest > 0 else 1.0
    small = np.empty(values.shape, "<f2")
    with np.errstate(over="ignore", under="ignore"):
        np.multiply(values, np.asarray(1 / unit, values.dtype), out=small, casting="same_kind")
    if masked is not None:
        small[masked] = np.nan
    return small, float(unit)


def index(value: Any, length: int) -> int | None:
    """`value` from the browser if it is an index below `length`; None otherwise, as after a click on older data."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < length else None


def segment_starts(boundaries: Sequence[int], columns: int) -> list[int]:
    """The columns at which segments begin: 0 and all boundaries, in order."""
    starts = sorted({0, *map(int, boundaries)})
    if starts[0] < 0 or starts[-1] >= columns:
        raise ValueError(f"boundaries must lie in 0..{columns - 1}, not {list(boundaries)}")
    return starts


def check_range(low: float, high: float) -> None:
    """Refuse a colour range that is empty or not finite."""
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"the colour range must be finite with low < high, not {low}..{high}")
