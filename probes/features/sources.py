"""Sources: where the features of a row come from, written as short texts ("resid_post.2", "untrained bank:slot3").

A "*" in the place of a block or slot stands for every one that the model has.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import product

from jaxtyping import Float
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.sites import Site
from lm2.shown import shown
from probes.features.baselines import Baseline, Embedding, Position, Tokens
from probes.features.examples import Examples, RowPosition
from probes.features.slot_views import MeanSlot, OneSlot, ReadWeighted, Sketch, View, ViewRows

_TOKEN_SITES = {
    site.name.lower(): site
    for site in (
        Site.EMBED,
        Site.RESID_MID,
        Site.RESID_POST,
        Site.ATTN_OUT,
        Site.MLP_OUT,
        Site.MEM_OUT,
        Site.READ,
        Site.READ_PATTERN,
        Site.GATE_OUT,
    )
}
_SLOT_SITES = {site.name.lower(): site for site in (Site.CANDIDATE, Site.GATE_IN, Site.GATE_FORGET)}
_WIDEST_PATTERN = 4096
"""Features that a read pattern may have with its heads side by side; wider ones are averaged over heads."""
_WRITTEN = re.compile(r"(?:(untrained|reset) )?([a-z_]+)(?:\.(\d{1,9}))?(?::(mean|slot|read\.|sketch)(\d{0,9}))?")


class Condition(Enum):
    """What runs."""

    TRAINED = "trained"
    UNTRAINED = "untrained"
    """The same model with weights drawn anew."""
    RESET = "reset"
    """Every segment begins with a fresh bank."""


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Where features come from. Its label gives it back: `Source.parse(source.label) == source`."""

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

    @staticmethod
    def parse(text: str) -> "Source":
        """Raises ValueError, with the forms that there are, for a text of none."""
        found = _WRITTEN.fullmatch(text)
        made = _made(*found.groups()[1:]) if found else None
        if made is None:
            raise ValueError(
                f"no source is called {shown(text)}; sources are {', '.join(_FORMS)}, and any of a model behind"
                " untrained or reset"
            )
        return replace(made, condition=Condition(found[1] or Condition.TRAINED.value))

    def check(self, config: LM2Config, moment: RowPosition) -> None:
        """Raise ValueError, with those that there are, where the model lacks it or rows of this moment cannot have
        it."""
        if not self.there(config, moment):
            there = ", ".join(_forms(config, moment))
            raise ValueError(
                f"{moment.value} rows of a {config.memory.value} model have no source {self.own!r}; they have {there}"
            )

    @abstractmethod
    def there(self, config: LM2Config, moment: RowPosition) -> bool: ...

    @abstractmethod
    def width(self, config: LM2Config, examples: Examples) -> int:
        """Features of a row."""


@dataclass(frozen=True, kw_only=True)
class Activation(Source, ABC):
    """What a model computes as it reads."""

    def check(self, config: LM2Config, moment: RowPosition) -> None:
        super().check(config, moment)
        if self.condition is Condition.RESET and not config.memory_layers:
            raise ValueError(f"a {config.memory.value} model has no bank to reset")

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


@dataclass(frozen=True, kw_only=True)
class OfText(Source):
    """What the text alone tells, without a model that reads it."""

    baseline: Baseline

    @property
    def own(self) -> str:
        return str(self.baseline)

    def check(self, config: LM2Config, moment: RowPosition) -> None:
        if self.condition is not Condition.TRAINED:
            raise ValueError(f"{self.own} is the text's own: it cannot be {self.condition.value}")

    def there(self, config: LM2Config, moment: RowPosition) -> bool:
        return True

    def width(self, config: LM2Config, examples: Examples) -> int:
        return self.baseline.width(config, examples)


_BASELINES = {str(baseline): OfText(baseline=baseline) for baseline in (Tokens(), Embedding(), Position())}
_VIEWS = {
    "slot": lambda slot: OneSlot(slot=slot),
    "read.": lambda layer: ReadWeighted(layer=layer),
    "sketch": lambda d: Sketch(d=d),
}
_FORMS = (
    *(f"{name}.N" if site.per_layer else name for name, site in _TOKEN_SITES.items()),
    "bank:VIEW",
    *(f"{name}.N:VIEW" for name in _SLOT_SITES),
    *_BASELINES,
    "with views mean, slotN, sketchN and, of the bank, read.N",
)


def expand(texts: Sequence[str], config: LM2Config, moment: RowPosition) -> tuple[Source, ...]:
    """The sources that are written, each once; "*" stands for every block or slot that has one.

    Raises ValueError for a text that is no source, and for what the model or the moment lacks.
    """
    found: dict[Source, None] = {}
    for text in texts:
        layers = range(config.n_layers) if ".*" in text else (0,)
        slots = range(max(1, config.slots)) if "slot*" in text else (0,)
        texts_of = (
            text.replace(".*", f".{layer}").replace("slot*", f"slot{slot}") for layer, slot in product(layers, slots)
        )
        written = [Source.parse(one) for one in texts_of]
        there = [source for source in written if source.there(config, moment)]
        for source in there or written[:1]:
            source.check(config, moment)
        found |= dict.fromkeys(there)
    return tuple(found)


def _made(name: str, layer: str | None, view: str | None, number: str | None) -> Source | None:
    """The source of these words; None where they are none."""
    at = None if layer is None else int(layer)
    if view is None:
        if name in _TOKEN_SITES and _TOKEN_SITES[name].per_layer == (at is not None):
            return AtToken(site=_TOKEN_SITES[name], layer=at)
        return _BASELINES.get(name) if at is None else None
    if (name == "bank") == (at is not None) or name not in ("bank", *_SLOT_SITES) or (view == "mean") == bool(number):
        return None
    return OfSlots(
        site=_SLOT_SITES.get(name), layer=at, view=MeanSlot() if view == "mean" else _VIEWS[view](int(number))
    )


def _forms(config: LM2Config, moment: RowPosition) -> list[str]:
    """The sources that rows of a moment can have, numbers together."""
    found = []
    for name, site in _TOKEN_SITES.items():
        layers = site.layers(config)
        found += [name if layers == (None,) else f"{name}.{_span(layers)}"] if layers else []
    if config.slots:
        views = ("mean", f"slot{_span(range(config.slots))}", "sketchN")
        found += [f"bank:{view}" for view in (*views, f"read.{_span(sorted(config.memory_layers))}")]
        blocks = {name: site.layers(config) for name, site in _SLOT_SITES.items() if moment.ends}
        found += [f"{name}.{_span(layers)}:{view}" for name, layers in blocks.items() if layers for view in views]
    return [*found, *_BASELINES]


def _span(numbers: Sequence[int]) -> str:
    unbroken = len(numbers) > 1 and list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]}-{numbers[-1]}" if unbroken else ",".join(map(str, numbers))
