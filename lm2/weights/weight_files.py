"""Files of weights: what is in them is known before any of it is taken in, and what is no weight is refused by name."""

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from lm2.files import parse_json
from lm2.model.finite import is_finite

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""What weights may be stored in. They are rounded to the format that a checkpoint is loaded in, which loses something of all but float32."""

MOST_HEADER_BYTES = 100_000_000
"""The format's own bound."""

_BROKEN = (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, EOFError,
           MemoryError, struct.error, pickle.UnpicklingError)  # fmt: skip
"""What torch's reader raises, depending on which byte is wrong."""

Shapes = Mapping[str, tuple[int, ...]]


def safetensors_shapes(path: Path) -> Shapes:
    """The shape of every tensor of a file, from its header alone.

    Raises ValueError with the path for a file that is not there, is no safetensors file, or does not hold what its header says.
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
    """What a .pt file holds, read without running code in it. Raises ValueError with the path for a file that is broken, or holds code."""
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


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes" if path.is_file() else "no file"


def reason(error: Exception) -> str:
    """What an error of a library says, on one line of moderate length."""
    said = " ".join((str(error) or type(error).__name__).split())
    return said if len(said) <= 200 else f"{said[:200]}..."


def check_weight(name: str, weight: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Raise ValueError for what cannot be a weight: numbers that are not stored as floating point, or are not finite in `dtype`."""
    if weight.dtype not in FLOATS or weight.layout is not torch.strided or weight.is_meta:
        stored = f"{weight.dtype} without numbers" if weight.is_meta else f"{weight.dtype}"
        stored += "" if weight.layout is torch.strided else f" in layout {weight.layout}"
        raise ValueError(f"{name} is {stored}; expected float16, bfloat16 or float32, or float64, which is rounded")
    value = weight.detach()
    if torch.finfo(dtype).max < torch.finfo(value.dtype).max:
        value = value.to(dtype)
    if not is_finite(value):
        count, kind = int((~value.isfinite()).sum()), str(dtype).removeprefix("torch.")
        raise ValueError(f"{name} holds {count:,} entries of {value.numel():,} that are NaN or infinite as {kind}; expected finite numbers")


def check_shapes(wanted: Shapes, found: Shapes) -> None:
    """Raise ValueError for names that are missing or unexpected, and for a weight of another shape."""
    missing, unexpected = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or unexpected:
        raise ValueError(f"weights lack {len(missing)} names {_few(missing)} and have {len(unexpected)} unknown ones {_few(unexpected)}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise ValueError(f"{name} must be of shape {shape}, not {found[name]}")


def _few(names: list[str]) -> list[str]:
    return [name[:80] for name in names[:4]]
