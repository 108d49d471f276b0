"""Operations that take their value from elsewhere: the start of the document, or clean runs of other texts."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm2.model.sites import Axis
from lm2.runs.capture import Sizes
from lm2.runs.operations import Operation
from lm2.serialize import none_empty, not_empty
from lm2.shown import excerpt, excerpts

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sourced(Operation, ABC):
    """Takes its value from elsewhere."""

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], source: "Tensor | None") -> "Tensor":
        assert source is not None, "the caller passes what the operation takes from elsewhere"
        return source.expand(value.shape)


@dataclass(frozen=True, kw_only=True)
class Initial(Sourced):
    """The bank at the start of a document."""

    _words = "as at the start"


@dataclass(frozen=True, kw_only=True)
class Donated(Sourced, ABC):
    """Takes the value at the same place in clean runs of other texts, the donors.

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
        """What one donor's value [*axes] adds to the source."""

    def donor_segment(self, segment: int, count: int) -> int:
        """The segment, of a donor with `count` of them, that `segment` takes from."""
        return segment if self.segment is None else count - 1 if self.segment == -1 else self.segment

    def check_sizes(self, where: str, axes: tuple[Axis, ...], own: Sizes, donor: Sizes, tokens: int) -> None:
        """Raise ValueError, with both sizes, where a donor's segment does not fit.

        `tokens`: those of the own segment from the first one that is replaced to the last.
        """


@dataclass(frozen=True, kw_only=True)
class Patch(Donated):
    """The value in another text's clean run; resampling, where the text is another story.

    Where a site has tokens, the segments are aligned at their ends: the last token takes from the last.
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
            over_tokens = Axis.KEY in axes or axes[-1] is axis  # attention over other tokens means something else
            if axis in axes and over_tokens and own[axis] != donor[axis]:
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

    def replace(self, value: "Tensor", axes: tuple[Axis, ...], source: "Tensor | None") -> "Tensor":
        if Axis.TOKEN not in axes or source is None:
            return super().replace(value, axes, source)
        axis = axes.index(Axis.TOKEN)
        count = min(source.shape[axis], value.shape[1 + axis])
        last = (*[slice(None)] * axis, slice(-count, None))
        new = value.clone()
        new[(slice(None), *last)] = source[last]
        return new


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
