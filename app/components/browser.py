"""What the three components share: registration, the byte payload, and reading triggers back."""

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

FOLDER = Path(__file__).parent


@functools.cache
def _renderer(name: str) -> Any:
    """The mounting command of component `name`, registered at its first use."""
    text = {
        suffix: "\n".join((FOLDER / f"{stem}.{suffix}").read_text("utf-8") for stem in ("common", name))
        for suffix in ("js", "css")
    }
    return st.components.v2.component(f"lm2_{name}", **text)


def mount(name: str, key: str, event: str, header: Mapping[str, Any], values: np.ndarray) -> Any:
    """Show component `name`; the value of its trigger `event` in the rerun that it caused, else None.

    The browser receives one block of bytes: length of the JSON header (uint32), the header, then the raw `values`.
    """
    text = json.dumps(_seen(header), default=operator.index).encode()
    data = b"".join((struct.pack("<I", len(text)), text, values.tobytes()))
    result = _renderer(name)(key=key, data=data, **{f"on_{event}_change": _nothing})
    return result.get(event)


def _seen(value: Any) -> Any:
    """A header whose texts have no character that hides, or that turns others around."""
    if isinstance(value, str):
        return seen(value)
    if isinstance(value, Mapping):
        return {name: _seen(part) for name, part in value.items()}
    return list(map(_seen, value)) if isinstance(value, (list, tuple)) else value


def _nothing() -> None:
    """Triggers come back in the result; Streamlit wants a callback to know their names."""


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
    """`value` from the browser if it is an index below `length`, else None (say, a click on older data)."""
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
