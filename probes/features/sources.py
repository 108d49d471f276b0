"""Sources of a row's features: what a model computes as it reads. Baselines are sources, too."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from jaxtyping import Float
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.sites import Site
from probes.features.examples import Examples, RowPosition
from probes.features.slot_views import OneSlot, ReadWeighted, View, ViewRows

_WIDEST_PATTERN = 4096
"""Wider read patterns are averaged over heads."""


class Condition(Enum):
    """How the model is run."""

    TRAINED = "trained"
    UNTRAINED = "untrained"
    """With new random weights."""
    RESET = "reset"
    """Every segment starts with a fresh bank."""


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Where features come from; `parse(source.label) == source`."""

    condition: Condition = Condition.TRAINED

    @property
    def label(self) -> str:
        return self.name if self.condition is Condition.TRAINED else f"{self.condition.value} {self.name}"

    @property
    def stem(self) -> str:
        """The label as a file name."""
        return self.label.translate(str.maketrans(" :", "--"))

    def __str__(self) -> str:
        return self.label

    @property
    @abstractmethod
    def name(self) -> str:
        """The label without the condition."""

    @abstractmethod
    def check_condition(self, config: LM2Config) -> None:
        """Raise ValueError if the source does not exist in this condition."""

    @abstractmethod
    def exists(self, config: LM2Config, moment: RowPosition) -> bool: ...

    @abstractmethod
    def width(self, config: LM2Config, examples: Examples) -> int:
        """Features of a row."""


@dataclass(frozen=True, kw_only=True)
class Activation(Source, ABC):
    """What a model computes as it reads."""

    def check_condition(self, config: LM2Config) -> None:
        if self.condition is Condition.RESET and not config.memory_layers:
            raise ValueError(f"a model of memory kind {config.memory.value!r} has no bank to reset")

    @abstractmethod
    def hooks(self, config: LM2Config, moment: RowPosition) -> tuple[str, ...]:
        """The hook points that it needs."""

    @abstractmethod
    def features(self, values: Sequence[Tensor], rows: ViewRows) -> Float[Tensor, "row d"]:
        """The features of some rows, from the values of these hook points in their segments."""


@dataclass(frozen=True, kw_only=True)
class TokenSource(Activation):
    """A site at the row's token. It depends on no later token, except in RELEASE models, whose gates pool over the
    segment.

    Features of a read pattern are its entries [head, slot] or, with more than 4,096 of them, their mean over heads
    [slot].
    """

    site: Site
    layer: int | None = None

    @property
    def name(self) -> str:
        return self.site.name.lower() + ("" if self.layer is None else f".{self.layer}")

    def exists(self, config: LM2Config, moment: RowPosition) -> bool:
        return self.layer in self.site.layers(config)

    def width(self, config: LM2Config, examples: Examples) -> int:
        if self.site is not Site.READ_PATTERN:
            return config.d_model
        entries = config.memory_heads * config.slots
        return entries if entries <= _WIDEST_PATTERN else config.slots

    def hooks(self, config: LM2Config, moment: RowPosition) -> tuple[str, ...]:
        return (self.site.hook_name(self.layer),)

    def features(self, values: Sequence[Tensor], rows: ViewRows) -> Float[Tensor, "row d"]:
        (value,) = values
        if self.site is not Site.READ_PATTERN:
            return value[rows.batch, rows.position]
        pattern = value[rows.batch, :, rows.position]
        return pattern.flatten(1) if pattern[0].numel() <= _WIDEST_PATTERN else pattern.float().mean(1)


@dataclass(frozen=True, kw_only=True)
class SlotSource(Activation):
    """The bank, or what a block writes to it, in some view.

    `RowPosition` says which bank it is. What is written depends on all tokens of the segment, so it exists only for
    rows at the segment's end.
    """

    site: Site | None = None
    """None: the bank."""
    layer: int | None = None
    view: View

    @property
    def name(self) -> str:
        return f"bank:{self.view}" if self.site is None else f"{self.site.name.lower()}.{self.layer}:{self.view}"

    def exists(self, config: LM2Config, moment: RowPosition) -> bool:
        if isinstance(self.view, OneSlot) and self.view.slot >= config.slots:
            return False
        if isinstance(self.view, ReadWeighted) and (
            self.site is not None or self.view.layer not in Site.READ_PATTERN.layers(config)
        ):
            return False
        if self.site is None:
            return self.layer is None and config.slots > 0
        return moment.ends and self.layer in self.site.layers(config)

    def width(self, config: LM2Config, examples: Examples) -> int:
        return self.view.width(config)

    def hooks(self, config: LM2Config, moment: RowPosition) -> tuple[str, ...]:
        if self.site is not None:
            slots = self.site.hook_name(self.layer)
        else:
            slots = _last_bank(config) if moment is RowPosition.SEGMENT else _first_bank(config)
        return (slots, *self.view.hooks())

    def features(self, values: Sequence[Tensor], rows: ViewRows) -> Float[Tensor, "row d"]:
        return self.view.features(values[0].float(), rows, *values[1:])


@dataclass(frozen=True, kw_only=True)
class Change(Activation):
    """Change of each slot in the row's segment, over the slot's norm before (Euclidean). Only labels use it: it cannot
    be parsed."""

    @property
    def name(self) -> str:
        return "change of slots"

    def exists(self, config: LM2Config, moment: RowPosition) -> bool:
        return config.slots > 0

    def width(self, config: LM2Config, examples: Examples) -> int:
        return config.slots

    def hooks(self, config: LM2Config, moment: RowPosition) -> tuple[str, ...]:
        return (_first_bank(config), _last_bank(config))

    def features(self, values: Sequence[Tensor], rows: ViewRows) -> Float[Tensor, "row d"]:
        before, after = (value.float() for value in values)
        return ((after - before).norm(dim=-1) / before.norm(dim=-1))[rows.batch]


def _first_bank(config: LM2Config) -> str:
    """Hook point of the bank that a segment starts with."""
    return Site.BANK_PRE.hook_name(min(config.memory_layers))


def _last_bank(config: LM2Config) -> str:
    """Hook point of the bank that a segment passes on."""
    return Site.BANK_POST.hook_name(max(config.memory_layers))
