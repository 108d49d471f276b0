"""Reading safetensors and .pt files, of which the headers are checked first."""

import pickle
import struct
from pathlib import Path
from typing import Any, TypeGuard

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from lm2.files import parse_json
from lm2.model.weights import Shapes

MOST_HEADER_BYTES = 100_000_000
"""The limit that the safetensors format sets."""

_BROKEN = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    EOFError,
    MemoryError,
    struct.error,
    pickle.UnpicklingError,
)
"""Raised by torch.load, depending on which byte is wrong."""


def safetensors_shapes(path: Path) -> Shapes:
    """The shape of every tensor of a file, from its header alone.

    Raises ValueError with the path for a file that is missing, is no safetensors file, or does not match its header.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(size - 8, MOST_HEADER_BYTES):
                raise ValueError(f"its header would take {length:,} bytes")
            header = parse_json(file.read(length), "its header")
        return _checked_shapes(header, size - 8 - length)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is broken or no safetensors file ({_size(path)}): {reason(error)}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, by name. Raises ValueError as `safetensors_shapes` does."""
    safetensors_shapes(path)  # the library accepts two tensors with one name, or in one place
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is broken or no safetensors file ({_size(path)}): {reason(error)}") from error


def read_pickled(path: Path) -> Any:
    """The content of a .pt file. Raises ValueError with the path for a broken file, and for one with code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _BROKEN as error:
        raise ValueError(f"{path} is broken, or holds more than weights: {reason(error)}") from error


def _checked_shapes(header: Any, data: int) -> Shapes:
    """The shapes in a header that is followed by `data` bytes."""
    if not isinstance(header, dict):
        raise ValueError("its header is no table of tensors")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    shapes, places = {}, []
    for name, entry in entries.items():
        shape, place = (entry.get(key) if isinstance(entry, dict) else None for key in ("shape", "data_offsets"))
        if not _are_counts(shape) or not _are_counts(place) or len(place) != 2:
            raise ValueError(f"its header says no shape and place of {name[:80]!r}")
        shapes[name] = tuple(shape)
        places.append((*place, name))
    end = 0
    for start, stop, name in sorted(places):
        if start != end or stop < start:
            raise ValueError(f"{name[:80]!r} begins at byte {start:,} of its data, expected {end:,}")
        end = stop
    if end != data:
        raise ValueError(f"its header speaks of {end:,} bytes of data, and {data:,} are there")
    return shapes


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values
    )


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes" if path.is_file() else "no file"


def reason(error: Exception) -> str:
    """A library's error message on one line, cut to 200 characters."""
    text = " ".join((str(error) or type(error).__name__).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
