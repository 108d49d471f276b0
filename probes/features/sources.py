"""Sources: where the features of a row come from, of what a model computes as it reads. Baselines are sources, too."""

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
"""Features that a read pattern may have with its heads side by side; wider ones are averaged over heads."""


class Condition(Enum):
    """What runs."""

    TRAINED = "trained"
    UNTRAINED = "untrained"
    """The same model with weights drawn anew."""
    RESET = "reset"
    """Every segment begins with a fresh bank."""


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Where features come from. Its label gives it back: `parse(source.label) == source`."""

    condition: Condition = Condition.TRAINED

    @property
    def label(self) -> str:
        return self.own if self.condition is Condition.TRAINED else f"{self.condition.value} {self.own}"

    @property
    def stem(self) -> str:
        """The label as the name of a file."""
        return self.label.translate(str.maketrans(" :", "--"))

    def __str__(self) -> str:
        return self.label

    @property
    @abstractmethod
    def own(self) -> str:
        """The label without the condition."""

    @abstractmethod
    def check_condition(self, config: LM2Config) -> None:
        """Raise ValueError where there is no such source in this condition."""

    @abstractmethod
    def there(self, config: LM2Config, moment: RowPosition) -> bool: ...

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
        """The hook points that it looks at."""

    @abstractmethod
    def rows(self, values: Sequence[Tensor], at: ViewRows) -> Float[Tensor, "row d"]:
        """The features of some rows, from what those hooks have heard of their segments."""


@dataclass(frozen=True, kw_only=True)
class AtToken(Activation):
    """A site at the row's token. It hears no token behind it, but in RELEASE models, whose gates pool over the segment.

    Of a read pattern, the features are its entries [head, slot], or [slot] in the mean over heads where these are more
    than 4,096.
    """

    site: Site
    layer: int | None = None

    @property
    def own(self) -> str:
        return self.site.name.lower() + ("" if self.layer is None else f".{self.layer}")

    def there(self, config: LM2Config, moment: RowPosition) -> bool:
        return self.layer in self.site.layers(config)

    def width(self, config: LM2Config, examples: Examples) -> int:
        if self.site is not Site.READ_PATTERN:
            return config.d_model
        whole = config.memory_heads * config.slots
        return whole if whole <= _WIDEST_PATTERN else config.slots

    def hooks(self, config: LM2Config, moment: RowPosition) -> tuple[str, ...]:
        return (self.site.hook_name(self.layer),)

    def rows(self, values: Sequence[Tensor], at: ViewRows) -> Float[Tensor, "row d"]:
        (value,) = values
        if self.site is not Site.READ_PATTERN:
            return value[at.batch, at.position]
        found = value[at.batch, :, at.position]
        return found.flatten(1) if found[0].numel() <= _WIDEST_PATTERN else found.float().mean(1)


@dataclass(frozen=True, kw_only=True)
class OfSlots(Activation):
    """The bank, or what a block writes to it, in some view.

    The bank is the one that the moment says. What is written hears all tokens of the segment, so that only rows behind
    which there are none have it.
    """

    site: Site | None = None
    """None, the bank."""
    layer: int | None = None
    view: View

    @property
    def own(self) -> str:
        return f"bank:{self.view}" if self.site is None else f"{self.site.name.lower()}.{self.layer}:{self.view}"

    def there(self, config: LM2Config, moment: RowPosition) -> bool:
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
            own = self.site.hook_name(self.layer)
        else:
            own = _handed_on(config) if moment is RowPosition.SEGMENT else _begun(config)
        return (own, *self.view.reads())

    def rows(self, values: Sequence[Tensor], at: ViewRows) -> Float[Tensor, "row d"]:
        return self.view.rows(values[0].float(), at, *values[1:])


@dataclass(frozen=True, kw_only=True)
class Change(Activation):
    """How far the row's segment moves each slot, over the slot's norm before (Euclidean). Labels are made of it; it has
    no text."""

    @property
    def own(self) -> str:
        return "change of slots"

    def there(self, config: LM2Config, moment: RowPosition) -> bool:
        return config.slots > 0

    def width(self, config: LM2Config, examples: Examples) -> int:
        return config.slots

    def hooks(self, config: LM2Config, moment: RowPosition) -> tuple[str, ...]:
        return (_begun(config), _handed_on(config))

    def rows(self, values: Sequence[Tensor], at: ViewRows) -> Float[Tensor, "row d"]:
        before, after = (value.float() for value in values)
        return ((after - before).norm(dim=-1) / before.norm(dim=-1))[at.batch]


def _begun(config: LM2Config) -> str:
    """Where the bank can be seen that a segment begins with: its writing starts from there."""
    return Site.BANK_PRE.hook_name(min(config.memory_layers))


def _handed_on(config: LM2Config) -> str:
    return Site.BANK_POST.hook_name(max(config.memory_layers))
