"""Checks of a model's weights: their names, shapes, formats and values."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lm2.model.finite import is_finite

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Formats that weights may be stored in."""

Shapes = Mapping[str, tuple[int, ...]]


def in_memory(name: str) -> bool:
    """Whether a weight is one of a memory's."""
    return ".mem." in name or name == "bank_start"


def check_weight(name: str, weight: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Raise ValueError for a tensor that is not floating point, or not finite in `dtype`."""
    if weight.dtype not in FLOATS or weight.layout is not torch.strided or weight.is_meta:
        stored = f"{weight.dtype} without numbers" if weight.is_meta else f"{weight.dtype}"
        stored += "" if weight.layout is torch.strided else f" in layout {weight.layout}"
        raise ValueError(f"{name} is {stored}; expected float16, bfloat16 or float32, or float64, which is rounded")
    value = weight.detach()
    if torch.finfo(dtype).max < torch.finfo(value.dtype).max:
        value = value.to(dtype)
    if not is_finite(value):
        count, kind = int((~value.isfinite()).sum()), str(dtype).removeprefix("torch.")
        raise ValueError(
            f"{name} holds {count:,} entries of {value.numel():,} that are NaN or infinite as {kind}; expected finite"
            " numbers"
        )


def check_shapes(expected: Shapes, actual: Shapes) -> None:
    """Raise ValueError for missing and unexpected names, and for a weight of another shape."""
    missing, unexpected = sorted(set(expected) - set(actual)), sorted(set(actual) - set(expected))
    if missing or unexpected:
        raise ValueError(
            f"weights lack {len(missing)} names {_few(missing)} and have {len(unexpected)} unknown ones"
            f" {_few(unexpected)}"
        )
    for name, shape in expected.items():
        if actual[name] != shape:
            raise ValueError(f"{name} must be of shape {shape}, not {actual[name]}")


def _few(names: list[str]) -> list[str]:
    return [name[:80] for name in names[:4]]
