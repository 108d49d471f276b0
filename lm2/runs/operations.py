"""What an edit makes of a value: plain values with their arithmetic. Where it does so, an intervention says."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from lm2.model.sites import Axis
from lm2.runs.capture import Sizes
from lm2.serialize import Numbers, Plain, none_empty, not_empty
from lm2.shown import excerpt, excerpts, shown

if TYPE_CHECKING:
    from torch import Tensor

_FEATURES = (Axis.D_MODEL, Axis.D_HEAD, Axis.D_MLP, Axis.SLOT_DIM)


@dataclass(frozen=True, kw_only=True)
class Operation(Plain, ABC):
    """What becomes of a value. Axes never include the batch, which is axis 0 of every tensor."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What it does, in a few words that follow the name of what it changes."""

    def check_axes(self, where: str, axes: tuple[Axis, ...]) -> None:
        """Raise ValueError where it makes no sense for a value with these axes."""

    def check(self, where: str, axes: tuple[Axis, ...], sizes: Sizes) -> None:
        """Raise ValueError, with the size that exists, where it does not fit."""

    @abstractmethod
    def replace(self, value: "Tensor", axes: tuple[Axis, ...], given: "Tensor | None") -> "Tensor":
        """What `value` [batch, *axes] becomes, of its shape. `given`: what it takes from elsewhere, without a batch
        axis."""


@dataclass(frozen=True, kw_only=True)
class Set(Operation):
    """Every entry becomes `value`. 0 is ablation by zero: a value the model may never have seen."""

    value: float

    @property
    def words(self) -> str:
        return "zeroed" if self.value == 0 else f"set to {self.value:g}"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], given: "Tensor | None") -> "Tensor":
        return value.new_full(value.shape, self.value)


@dataclass(frozen=True, kw_only=True)
class Scale(Operation):
    """Every entry is multiplied."""

    by: float

    @property
    def words(self) -> str:
        return f"scaled by {self.by:g}"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], given: "Tensor | None") -> "Tensor":
        return value * self.by


def _check_features(operation: Operation, where: str, axes: tuple[Axis, ...]) -> None:
    if axes[-1] not in _FEATURES:
        raise ValueError(
            f"{type(operation).__name__} goes along features; the last axis of {where} is {axes[-1].value}"
        )


def _check_size(name: str, entries: int, where: str, size: int) -> None:
    if entries != size:
        raise ValueError(f"{name} must have {size} entries, as {where} has features, not {entries}")


@dataclass(frozen=True, kw_only=True)
class _Along(Operation, ABC):
    """Works along a direction of the last axis, which must be one of features."""

    direction: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(self.direction):
            raise ValueError(f"direction must have an entry that is not 0, not {shown(self.direction)}")

    def check_axes(self, where: str, axes: tuple[Axis, ...]) -> None:
        _check_features(self, where, axes)

    def check(self, where: str, axes: tuple[Axis, ...], sizes: Sizes) -> None:
        _check_size("the direction", len(self.direction), where, sizes[axes[-1]])


@dataclass(frozen=True, kw_only=True)
class Add(_Along):
    """`by` times a direction is added."""

    by: float = 1.0

    @property
    def words(self) -> str:
        return "moved along a direction"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], given: "Tensor | None") -> "Tensor":
        return value + self.by * value.new_tensor(self.direction)


@dataclass(frozen=True, kw_only=True)
class ProjectOut(_Along):
    """What lies along a direction is taken away, whatever the direction's length."""

    @property
    def words(self) -> str:
        return "without a direction"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], given: "Tensor | None") -> "Tensor":
        wide = value.float()
        unit = wide.new_tensor(self.direction)
        unit = unit / unit.norm()
        return wide - (wide @ unit)[..., None] * unit


@dataclass(frozen=True, kw_only=True)
class _Affine(Operation, ABC):
    """Moves features by how they differ from a mean."""

    mean: Annotated[Numbers, 1]
    """[d]"""

    def check_axes(self, where: str, axes: tuple[Axis, ...]) -> None:
        _check_features(self, where, axes)

    def check(self, where: str, axes: tuple[Axis, ...], sizes: Sizes) -> None:
        _check_size("mean", len(self.mean.array), where, sizes[axes[-1]])


@dataclass(frozen=True, kw_only=True)
class Erase(_Affine):
    """x becomes x - left^T right (x - mean) along the last axis, one of features: an affine map that moves x by `rank`
    directions at most.

    With the arrays of LEACE (Belrose et al. 2023, equation 1) no linear reader finds the concept; with left = right of
    orthonormal rows it is the projection that takes a subspace away and puts the mean's part of it in its place. The
    mean stays where it is. Without rows nothing changes.
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

    @property
    def words(self) -> str:
        return "with a concept erased"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], given: "Tensor | None") -> "Tensor":
        if not len(self.left.array):
            return value
        wide = value.float()
        left, right, mean = (wide.new_tensor(one.array) for one in (self.left, self.right, self.mean))
        return wide - (wide - mean) @ right.mT @ left


@dataclass(frozen=True, kw_only=True)
class Transport(_Affine):
    """x becomes to + matrix (x - mean) along the last axis, one of features.

    With the arrays of quadratic concept erasure, of the class that x is of, x comes to stand where it would stand if
    there were no classes: the optimal transport of that class to what all classes have in common.
    """

    matrix: Annotated[Numbers, 2]
    """[d, d]"""
    to: Annotated[Numbers, 1]
    """[d]: where the mean goes to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        d = len(self.mean.array)
        if not d or self.to.array.shape != (d,) or self.matrix.array.shape != (d, d):
            raise ValueError(
                f"matrix and to must be of {d} entries a side, as mean has, not of shapes {self.matrix.array.shape} and"
                f" {self.to.array.shape}"
            )

    @property
    def words(self) -> str:
        return "carried by an affine map"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], given: "Tensor | None") -> "Tensor":
        wide = value.float()
        matrix, mean, to = (wide.new_tensor(one.array) for one in (self.matrix, self.mean, self.to))
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

    @property
    def words(self) -> str:
        return "permuted"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], given: "Tensor | None") -> "Tensor":
        at = 1 + axes.index(Axis.SLOT)
        return value.movedim(at, 0)[list(self.order)].movedim(0, at)


def _sourced(given: "Tensor | None") -> "Tensor":
    assert given is not None, "who runs an operation gives it what it takes from elsewhere"
    return given


@dataclass(frozen=True, kw_only=True)
class Initial(Operation):
    """The bank at the start of a document."""

    @property
    def words(self) -> str:
        return "as at the start"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], given: "Tensor | None") -> "Tensor":
        return _sourced(given).expand(value.shape)


@dataclass(frozen=True, kw_only=True)
class Donated(Operation, ABC):
    """Takes the same place of other texts' clean runs.

    Clean runs have no interventions, the run's own segment length, and each its own fresh bank.
    """

    segment: int | None = None
    """Segment of the donors' runs: None, that of the same number; -1, their last."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.segment is not None and self.segment < -1:
            raise ValueError(f"a donor's segment is a number from 0, or -1 for its last, not {self.segment}")

    @property
    @abstractmethod
    def donors(self) -> tuple[str, ...]:
        """The texts it takes from."""

    @abstractmethod
    def share(self, value: "Tensor", axes: tuple[Axis, ...]) -> "Tensor":
        """What one donor's value [*axes] adds to what is given."""

    def of(self, segment: int, segments: int) -> int:
        """The donor's segment that `segment` takes from, where the donor has so many `segments`."""
        return segment if self.segment is None else segments - 1 if self.segment == -1 else self.segment

    def check_sizes(self, where: str, axes: tuple[Axis, ...], own: Sizes, donor: Sizes, tokens: int) -> None:
        """Raise ValueError, with both sizes, where a donor's segment does not fit.

        `tokens`: those of the own segment from the first one that is replaced to the last.
        """


@dataclass(frozen=True, kw_only=True)
class Patch(Donated):
    """The value of another text's clean run; resampling, where the text is another story.

    Where a site has tokens, the segments are laid end to end: the last token takes from the last.
    """

    text: str

    def __post_init__(self) -> None:
        super().__post_init__()
        not_empty("text", self.text)

    @property
    def donors(self) -> tuple[str, ...]:
        return (self.text,)

    def share(self, value: "Tensor", axes: tuple[Axis, ...]) -> "Tensor":
        return value

    def check_sizes(self, where: str, axes: tuple[Axis, ...], own: Sizes, donor: Sizes, tokens: int) -> None:
        for axis in (Axis.KEY, Axis.TOKEN):
            together = Axis.KEY in axes or axes[-1] is axis  # attention over other tokens means something else
            if axis in axes and together and own[axis] != donor[axis]:
                raise ValueError(
                    f"{where} spans {own[axis]} {axis.value}s here and {donor[axis]} in the donor: they must be as many"
                )
        if Axis.TOKEN in axes and donor[Axis.TOKEN] < tokens:
            raise ValueError(
                f"the last {tokens} tokens of a segment are to be replaced; the donor's segment has {donor[Axis.TOKEN]}"
            )

    @property
    def words(self) -> str:
        return f"from the text {excerpt(self.text)}"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], given: "Tensor | None") -> "Tensor":
        if Axis.TOKEN not in axes:
            return _sourced(given).expand(value.shape)
        at, given = axes.index(Axis.TOKEN), _sourced(given)
        count = min(given.shape[at], value.shape[1 + at])
        last = (*[slice(None)] * at, slice(-count, None))
        ended = value.clone()
        ended[(slice(None), *last)] = given[last]
        return ended


@dataclass(frozen=True, kw_only=True)
class Mean(Donated):
    """The mean over other texts' clean runs and, where the site has tokens, over those of the donor's segment.

    Every text counts the same, however many tokens its segment has.
    """

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        none_empty("texts", self.texts)

    @property
    def donors(self) -> tuple[str, ...]:
        return self.texts

    def check_axes(self, where: str, axes: tuple[Axis, ...]) -> None:
        if axes[-1] in (Axis.TOKEN, Axis.KEY):
            raise ValueError(f"{where} runs over the {axes[-1].value}s of one text: it has no mean over texts")

    def share(self, value: "Tensor", axes: tuple[Axis, ...]) -> "Tensor":
        value = value.float()
        return (value.mean(axes.index(Axis.TOKEN), keepdim=True) if Axis.TOKEN in axes else value) / len(self.texts)

    @property
    def words(self) -> str:
        return f"at the mean of {excerpts(self.texts)}"

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], given: "Tensor | None") -> "Tensor":
        return _sourced(given).expand(value.shape)
