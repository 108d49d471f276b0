"""Operations: what an edit puts in the place of a value. The intervention that holds one says where."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from lm2.model.sites import Axis
from lm2.runs.capture import Sizes
from lm2.serialize import Numbers, Plain
from lm2.shown import shown

if TYPE_CHECKING:
    from torch import Tensor

_FEATURES = (Axis.D_MODEL, Axis.D_HEAD, Axis.D_MLP, Axis.SLOT_DIM)


@dataclass(frozen=True, kw_only=True)
class Operation(Plain, ABC):
    """Computes a new value. Axes never include the batch, which is axis 0 of every tensor."""

    _words: ClassVar[str]
    """A format string for `words`."""

    @property
    def words(self) -> str:
        """What it does, in a few words that follow the name of what it changes."""
        return self._words.format(self)

    def check_axes(self, where: str, axes: tuple[Axis, ...]) -> None:
        """Raise ValueError where it makes no sense for a value with these axes."""

    def check(self, where: str, axes: tuple[Axis, ...], sizes: Sizes) -> None:
        """Raise ValueError, with the size that exists, where it does not fit."""

    @abstractmethod
    def replace(self, value: "Tensor", axes: tuple[Axis, ...], source: "Tensor | None") -> "Tensor":
        """The new value, of the shape of `value` [batch, *axes]. `source` is what a `Sourced` operation takes from
        elsewhere, without a batch axis."""


@dataclass(frozen=True, kw_only=True)
class Set(Operation):
    """Every entry becomes `value`. 0 is zero ablation: a value that the model may never have seen."""

    value: float

    @property
    def words(self) -> str:
        return "zeroed" if self.value == 0 else f"set to {self.value:g}"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], source: "Tensor | None") -> "Tensor":
        return value.new_full(value.shape, self.value)


@dataclass(frozen=True, kw_only=True)
class Scale(Operation):
    """Every entry is multiplied."""

    by: float

    _words = "scaled by {0.by:g}"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], source: "Tensor | None") -> "Tensor":
        return value * self.by


@dataclass(frozen=True, kw_only=True)
class _OnFeatures(Operation, ABC):
    """Works along the last axis, which must be one of features."""

    @property
    @abstractmethod
    def _size(self) -> tuple[str, int]:
        """The name of the vector that must have as many entries as there are features, and how many it has."""

    def check_axes(self, where: str, axes: tuple[Axis, ...]) -> None:
        if axes[-1] not in _FEATURES:
            raise ValueError(f"{type(self).__name__} goes along features; the last axis of {where} is {axes[-1].value}")

    def check(self, where: str, axes: tuple[Axis, ...], sizes: Sizes) -> None:
        name, entries = self._size
        if entries != sizes[axes[-1]]:
            raise ValueError(f"{name} must have {sizes[axes[-1]]} entries, as {where} has features, not {entries}")


@dataclass(frozen=True, kw_only=True)
class _Along(_OnFeatures, ABC):
    """Works along a direction."""

    direction: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(self.direction):
            raise ValueError(f"direction must have an entry that is not 0, not {shown(self.direction)}")

    @property
    def _size(self) -> tuple[str, int]:
        return "the direction", len(self.direction)


@dataclass(frozen=True, kw_only=True)
class Add(_Along):
    """`by` times a direction is added."""

    by: float = 1.0

    _words = "moved along a direction"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], source: "Tensor | None") -> "Tensor":
        return value + self.by * value.new_tensor(self.direction)


@dataclass(frozen=True, kw_only=True)
class ProjectOut(_Along):
    """The component along a direction, of whatever length, is removed."""

    _words = "without a direction"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], source: "Tensor | None") -> "Tensor":
        wide = value.float()
        unit = wide.new_tensor(self.direction)
        unit = unit / unit.norm()
        return wide - (wide @ unit)[..., None] * unit


@dataclass(frozen=True, kw_only=True)
class _Affine(_OnFeatures, ABC):
    """Moves features by how they differ from a mean."""

    mean: Annotated[Numbers, 1]
    """[d]"""

    @property
    def _size(self) -> tuple[str, int]:
        return "mean", len(self.mean.array)


@dataclass(frozen=True, kw_only=True)
class Erase(_Affine):
    """x becomes x - left^T right (x - mean): an affine map that moves x within `rank` directions.

    With the arrays of LEACE (Belrose et al. 2023, equation 1) no linear reader finds the concept; with left = right of
    orthonormal rows it projects a subspace out and puts the mean's part of it in its place. The mean is not moved.
    Without rows nothing changes.
    """

    left: Annotated[Numbers, 2]
    """[rank, d]: the directions in which x moves."""
    right: Annotated[Numbers, 2]
    """[rank, d]: how far it moves in each is this times x - mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        left, right, d = self.left.array.shape, self.right.array.shape, len(self.mean.array)
        if not d or left != right or left not in ((0, 0), (len(self.left.array), d)):
            raise ValueError(
                f"left and right must be as many rows of {d} entries, as mean has, not of shapes {left} and {right}"
            )

    _words = "with a concept erased"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], source: "Tensor | None") -> "Tensor":
        if not len(self.left.array):
            return value
        wide = value.float()
        left, right, mean = (wide.new_tensor(numbers.array) for numbers in (self.left, self.right, self.mean))
        return wide - (wide - mean) @ right.mT @ left


@dataclass(frozen=True, kw_only=True)
class Transport(_Affine):
    """x becomes to + matrix (x - mean).

    With the arrays of quadratic concept erasure for the class of x, this is the optimal transport from that class to
    what all classes have in common.
    """

    matrix: Annotated[Numbers, 2]
    """[d, d]"""
    to: Annotated[Numbers, 1]
    """[d]: where the mean goes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        d = len(self.mean.array)
        if not d or self.to.array.shape != (d,) or self.matrix.array.shape != (d, d):
            raise ValueError(
                f"matrix and to must be of {d} entries a side, as mean has, not of shapes {self.matrix.array.shape} and"
                f" {self.to.array.shape}"
            )

    _words = "carried by an affine map"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], source: "Tensor | None") -> "Tensor":
        wide = value.float()
        matrix, mean, to = (wide.new_tensor(numbers.array) for numbers in (self.matrix, self.mean, self.to))
        return to + (wide - mean) @ matrix.mT


@dataclass(frozen=True, kw_only=True)
class Permute(Operation):
    """Slots change places: the new slot i is the old slot `order[i]`."""

    order: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.order or sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"order must name every slot from 0 on once, not {shown(self.order)}")

    def check_axes(self, where: str, axes: tuple[Axis, ...]) -> None:
        if Axis.SLOT not in axes:
            raise ValueError(f"{where} has no slots to permute")

    def check(self, where: str, axes: tuple[Axis, ...], sizes: Sizes) -> None:
        if len(self.order) != sizes[Axis.SLOT]:
            raise ValueError(f"order must name each of the {sizes[Axis.SLOT]} slots, not {len(self.order)}")

    _words = "permuted"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], source: "Tensor | None") -> "Tensor":
        axis = 1 + axes.index(Axis.SLOT)
        return value.movedim(axis, 0)[list(self.order)].movedim(0, axis)
