"""Files of weights: what is in them is known before any of it is taken in, and what is no weight is refused by name."""

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
"""The format's own bound."""

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
"""What torch's reader raises, depending on which byte is wrong."""


def safetensors_shapes(path: Path) -> Shapes:
    """The shape of every tensor of a file, from its header alone.

    Raises ValueError with the path for a file that is not there, is no safetensors file, or does not hold what its
    header says.
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
    safetensors_shapes(path)  # the library takes the last of two tensors of one name, and one place for two tensors
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is broken or no safetensors file ({_size(path)}): {reason(error)}") from error


def read_pickled(path: Path) -> Any:
    """What a .pt file holds, read without running code in it. Raises ValueError with the path for a file that is
    broken, or holds code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _BROKEN as error:
        raise ValueError(f"{path} is broken, or holds more than weights: {reason(error)}") from error


def _checked_shapes(header: Any, data: int) -> Shapes:
    """The shapes of a header after which `data` bytes follow."""
    if not isinstance(header, dict):
        raise ValueError("its header is no table of tensors")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    shapes, places = {}, []
    for name, entry in entries.items():
        shape, place = (entry.get(key) if isinstance(entry, dict) else None for key in ("shape", "data_offsets"))
        if not _whole(shape) or not _whole(place) or len(place) != 2:
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


def _whole(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values
    )


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes" if path.is_file() else "no file"


def reason(error: Exception) -> str:
    """What an error of a library says, on one line of moderate length."""
    said = " ".join((str(error) or type(error).__name__).split())
    return said if len(said) <= 200 else f"{said[:200]}..."
