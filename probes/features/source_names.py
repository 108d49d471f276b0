"""Sources written as short texts ("resid_post.2", "untrained bank:slot3").

A "*" in the place of a block or slot stands for every one that the model has.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from lm2.model.config import LM2Config
from lm2.model.sites import Site
from lm2.shown import shown
from probes.features.baselines import Embedding, Position, Tokens
from probes.features.examples import RowPosition
from probes.features.slot_views import MeanSlot, OneSlot, ReadWeighted, Sketch
from probes.features.sources import AtToken, Condition, OfSlots, Source

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
_WRITTEN = re.compile(r"(?:(untrained|reset) )?([a-z_]+)(?:\.(\d{1,9}))?(?::(mean|slot|read\.|sketch)(\d{0,9}))?")
_BASELINES = {baseline.own: baseline for baseline in (Tokens(), Embedding(), Position())}
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


def parse(text: str) -> Source:
    """Raises ValueError, with the forms that there are, for a text of none."""
    found = _WRITTEN.fullmatch(text)
    if found is None or (made := _made(*found.groups()[1:])) is None:
        raise ValueError(
            f"no source is called {shown(text)}; sources are {', '.join(_FORMS)}, and any of a model behind"
            " untrained or reset"
        )
    return replace(made, condition=Condition(found[1] or Condition.TRAINED.value))


def check(source: Source, config: LM2Config, moment: RowPosition) -> None:
    """Raise ValueError, with those that there are, where the model lacks a source, rows of this moment cannot
    have it, or there is none in its condition."""
    if not source.there(config, moment):
        there = ", ".join(_forms(config, moment))
        raise ValueError(
            f"{moment.value} rows of a model of memory kind {config.memory.value!r} have no source {source.own!r}; "
            f"they have {there}"
        )
    source.check_condition(config)


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
        written = [parse(own) for own in texts_of]
        there = [source for source in written if source.there(config, moment)]
        for source in there or written[:1]:
            check(source, config, moment)
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
        site=_SLOT_SITES.get(name), layer=at, view=MeanSlot() if view == "mean" else _VIEWS[view](int(number or 0))
    )


def _numbers(layers: Sequence[int | None]) -> list[int]:
    return [layer for layer in layers if layer is not None]


def _forms(config: LM2Config, moment: RowPosition) -> list[str]:
    """The sources that rows of a moment can have, numbers together."""
    found = []
    for name, site in _TOKEN_SITES.items():
        layers = site.layers(config)
        found += [name if None in layers else f"{name}.{_span(_numbers(layers))}"] if layers else []
    if config.slots:
        views = ("mean", f"slot{_span(range(config.slots))}", "sketchN")
        found += [f"bank:{view}" for view in (*views, f"read.{_span(sorted(config.memory_layers))}")]
        blocks = {name: _numbers(site.layers(config)) for name, site in _SLOT_SITES.items() if moment.ends}
        found += [f"{name}.{_span(layers)}:{view}" for name, layers in blocks.items() if layers for view in views]
    return [*found, *_BASELINES]


def _span(numbers: Sequence[int]) -> str:
    unbroken = len(numbers) > 1 and list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]}-{numbers[-1]}" if unbroken else ",".join(map(str, numbers))
