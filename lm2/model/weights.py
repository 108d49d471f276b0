"""What can be a weight of a model, and what cannot, which is refused by name."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lm2.model.finite import is_finite

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""What weights may be stored in. They are rounded to the format that a checkpoint is loaded in, which loses something
of all but float32."""

Shapes = Mapping[str, tuple[int, ...]]


def check_weight(name: str, weight: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Raise ValueError for what cannot be a weight: numbers that are not stored as floating point, or are not finite in
    `dtype`."""
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


def check_shapes(wanted: Shapes, found: Shapes) -> None:
    """Raise ValueError for names that are missing or unexpected, and for a weight of another shape."""
    missing, unexpected = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or unexpected:
        raise ValueError(
            f"weights lack {len(missing)} names {_few(missing)} and have {len(unexpected)} unknown ones"
            f" {_few(unexpected)}"
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise ValueError(f"{name} must be of shape {shape}, not {found[name]}")


def _few(names: list[str]) -> list[str]:
    return [name[:80] for name in names[:4]]
