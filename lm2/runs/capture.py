"""What a run keeps: a site, at some blocks and segments, reduced during the run."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from lm2.model.config import LM2Config
from lm2.model.sites import AnySite, Axis
from lm2.serialize import Plain, Spec, distinct

if TYPE_CHECKING:
    from torch import Tensor

Sizes = dict[Axis, int]
"""The length of each axis in one segment."""


@dataclass(frozen=True, order=True)
class Coordinate:
    """Where a site fired: the segment, and the block (None for sites outside the blocks)."""

    segment: int
    layer: int | None


@dataclass(frozen=True)
class Reduction(Plain, ABC):
    """Makes an activation smaller before it is kept. Axes never include the batch."""

    @abstractmethod
    def axes(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        """The axes that are left. Raises ValueError where the reduction makes no sense for these axes."""

    def shape(self, axes: tuple[Axis, ...], sizes: Sizes) -> tuple[int, ...]:
        """The shape that is left, known before anything runs."""
        return tuple(sizes[axis] for axis in self.axes(axes))

    @abstractmethod
    def apply(self, value: "Tensor", axes: tuple[Axis, ...]) -> "Tensor":
        """One segment's activation, reduced."""


@dataclass(frozen=True)
class Whole(Reduction):
    """Keep everything."""

    def axes(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return axes

    def apply(self, value: "Tensor", axes: tuple[Axis, ...]) -> "Tensor":
        return value


@dataclass(frozen=True)
class _OverHeads(Reduction, ABC):
    def axes(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return _without(self, axes, Axis.HEAD)


@dataclass(frozen=True)
class HeadMean(_OverHeads):
    """Mean over heads."""

    def apply(self, value: "Tensor", axes: tuple[Axis, ...]) -> "Tensor":
        return value.mean(axes.index(Axis.HEAD))


@dataclass(frozen=True)
class HeadMax(_OverHeads):
    """Largest over heads."""

    def apply(self, value: "Tensor", axes: tuple[Axis, ...]) -> "Tensor":
        return value.amax(axes.index(Axis.HEAD))


@dataclass(frozen=True)
class SlotMass(Reduction):
    """Each slot's share of what a segment reads: the read pattern's mean over heads and tokens. Sums to 1."""

    def axes(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        if set(axes) != {Axis.HEAD, Axis.TOKEN, Axis.SLOT} or axes[-1] is not Axis.SLOT:
            raise ValueError(f"SlotMass needs a read pattern (head, token, slot), not {_names(axes)}")
        return (Axis.SLOT,)

    def apply(self, value: "Tensor", axes: tuple[Axis, ...]) -> "Tensor":
        return value.mean((0, 1))


@dataclass(frozen=True)
class TopSlots(Reduction):
    """The `count` largest entries along the slot axis, as pairs (slot index, value), largest first."""

    count: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"TopSlots keeps at least 1 slot, not {self.count}")

    def axes(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return (*_without(self, axes, Axis.SLOT), Axis.RANK, Axis.SLOT_AND_VALUE)

    def shape(self, axes: tuple[Axis, ...], sizes: Sizes) -> tuple[int, ...]:
        others = _without(self, axes, Axis.SLOT)
        return (*(sizes[axis] for axis in others), min(self.count, sizes[Axis.SLOT]), 2)

    def apply(self, value: "Tensor", axes: tuple[Axis, ...]) -> "Tensor":
        import torch

        value = value.movedim(axes.index(Axis.SLOT), -1).float()
        top = value.topk(min(self.count, value.shape[-1]), -1)
        return torch.stack([top.indices.float(), top.values], -1)  # slot numbers are exact in float32 up to 2^24


@dataclass(frozen=True)
class _Pooled(Reduction, ABC):
    """Blocks of `tokens` tokens become one row; the last block of a segment may be shorter."""

    tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 1:
            raise ValueError(f"pooling needs blocks of at least 1 token, not {self.tokens}")

    def axes(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        _without(self, axes, Axis.TOKEN)
        return axes

    def shape(self, axes: tuple[Axis, ...], sizes: Sizes) -> tuple[int, ...]:
        self.axes(axes)
        return tuple(ceil(sizes[axis] / self.tokens) if axis is Axis.TOKEN else sizes[axis] for axis in axes)

    def apply(self, value: "Tensor", axes: tuple[Axis, ...]) -> "Tensor":
        import torch

        axis = axes.index(Axis.TOKEN)
        return torch.stack([self._pool(block, axis) for block in value.split(self.tokens, axis)], axis)

    @abstractmethod
    def _pool(self, block: "Tensor", axis: int) -> "Tensor": ...


@dataclass(frozen=True)
class PooledMax(_Pooled):
    """Largest value of each block of tokens: no single peak is lost."""

    def _pool(self, block: "Tensor", axis: int) -> "Tensor":
        return block.amax(axis)


@dataclass(frozen=True)
class PooledMean(_Pooled):
    """Mean of each block of tokens."""

    def _pool(self, block: "Tensor", axis: int) -> "Tensor":
        return block.mean(axis)


@dataclass(frozen=True)
class Capture(Spec):
    """A request to keep a site. Raises ValueError when the reduction does not fit the site's axes."""

    site: AnySite
    reduction: Reduction = Whole()
    layers: tuple[int, ...] | None = None
    """Blocks to keep; None, all that have the site."""
    segments: tuple[int, ...] | None = None
    """Segments to keep; None, all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        distinct("layers", self.layers)
        distinct("segments", self.segments)
        self.reduction.axes(self.site.axes)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of what is kept."""
        return self.reduction.axes(self.site.axes)

    def blocks(self, config: LM2Config) -> tuple[int | None, ...]:
        """The blocks that are kept; (None,) for a site outside the blocks."""
        return blocks_of(self.site, self.layers, config)


def blocks_of(site: AnySite, layers: tuple[int, ...] | None, config: LM2Config) -> tuple[int | None, ...]:
    """Those of `layers` (None: all) that have a site; (None,) for a site outside the blocks."""
    return tuple(layer for layer in site.layers(config) if layers is None or layer is None or layer in layers)


def check_numbers(noun: str, numbers: tuple[int, ...] | None, existing: Sequence[int]) -> None:
    """Raise ValueError, with what exists, when `numbers` has one that is not among the `existing` ones."""
    missing = [number for number in numbers or () if number not in existing]
    if missing:
        unbroken = len(existing) and list(existing) == list(range(existing[0], existing[-1] + 1))
        shown = f"{existing[0]}..{existing[-1]}" if unbroken else list(existing)
        raise ValueError(f"there is no {noun} {', '.join(map(str, missing))}; this run has {noun}s {shown}")


def check_site(
    site: AnySite,
    layers: tuple[int, ...] | None,
    segments: tuple[int, ...] | None,
    config: LM2Config,
    segment_count: int,
) -> None:
    """Raise ValueError when the model lacks the site, or the run a block or segment that is named."""
    site_layers = site.layers(config)
    if not site_layers:
        raise ValueError(f"a model of memory kind {config.memory.value!r} has no site {site.name}")
    check_numbers("block", layers, [layer for layer in site_layers if layer is not None])
    check_numbers("segment", segments, range(segment_count))


def _without(reduction: Reduction, axes: tuple[Axis, ...], axis: Axis) -> tuple[Axis, ...]:
    if axis not in axes:
        raise ValueError(f"{type(reduction).__name__} needs a {axis.value} axis, which {_names(axes)} lacks")
    return tuple(other for other in axes if other is not axis)


def _names(axes: tuple[Axis, ...]) -> str:
    return "(" + ", ".join(axis.value for axis in axes) + ")"
