"""Sources written as short texts ("resid_post.2", "untrained bank:slot3").

A "*" instead of a block's or slot's number stands for all that the model has.
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
from probes.features.sources import Condition, SlotSource, Source, TokenSource

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
_BASELINES = {baseline.name: baseline for baseline in (Tokens(), Embedding(), Position())}
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
    """Raises ValueError, with all forms of sources, for a text that is none."""
    match = _WRITTEN.fullmatch(text)
    source = None if match is None else _source(*match.groups()[1:])
    if match is None or source is None:
        raise ValueError(
            f"no source is called {shown(text)}; sources are {', '.join(_FORMS)}, and any of a model after"
            " untrained or reset"
        )
    return replace(source, condition=Condition(match[1] or Condition.TRAINED.value))


def check(source: Source, config: LM2Config, moment: RowPosition) -> None:
    """Raise ValueError if the model or rows of this moment do not have a source (with those that they have), or if it
    does not exist in its condition."""
    if not source.exists(config, moment):
        raise ValueError(
            f"{moment.value} rows of a model of memory kind {config.memory.value!r} have no source {source.name!r}; "
            f"they have {', '.join(_forms(config, moment))}"
        )
    source.check_condition(config)


def expand(texts: Sequence[str], config: LM2Config, moment: RowPosition) -> tuple[Source, ...]:
    """The sources of some texts, each once; "*" stands for every block or slot that has one.

    Raises ValueError for a text that is no source, and as `check` does.
    """
    sources: dict[Source, None] = {}
    for text in texts:
        layers = range(config.n_layers) if ".*" in text else (0,)
        slots = range(max(1, config.slots)) if "slot*" in text else (0,)
        candidates = [
            parse(text.replace(".*", f".{layer}").replace("slot*", f"slot{slot}"))
            for layer, slot in product(layers, slots)
        ]
        existing = [source for source in candidates if source.exists(config, moment)]
        for source in existing or candidates[:1]:
            check(source, config, moment)
        sources |= dict.fromkeys(existing)
    return tuple(sources)


def _source(name: str, block: str | None, view: str | None, number: str | None) -> Source | None:
    """None if there is no such source."""
    layer = None if block is None else int(block)
    if view is None:
        if name in _TOKEN_SITES and _TOKEN_SITES[name].per_layer == (layer is not None):
            return TokenSource(site=_TOKEN_SITES[name], layer=layer)
        return _BASELINES.get(name) if layer is None else None
    in_bank = name == "bank"
    if not (in_bank or name in _SLOT_SITES) or in_bank != (layer is None) or (view == "mean") == bool(number):
        return None
    return SlotSource(
        site=_SLOT_SITES.get(name), layer=layer, view=MeanSlot() if view == "mean" else _VIEWS[view](int(number or 0))
    )


def _numbers(layers: Sequence[int | None]) -> list[int]:
    return [layer for layer in layers if layer is not None]


def _forms(config: LM2Config, moment: RowPosition) -> list[str]:
    """The sources that rows of a moment have, with ranges of numbers."""
    forms = []
    for name, site in _TOKEN_SITES.items():
        layers = site.layers(config)
        forms += [name if None in layers else f"{name}.{_span(_numbers(layers))}"] if layers else []
    if config.slots:
        views = ("mean", f"slot{_span(range(config.slots))}", "sketchN")
        forms += [f"bank:{view}" for view in (*views, f"read.{_span(sorted(config.memory_layers))}")]
        blocks = {name: _numbers(site.layers(config)) for name, site in _SLOT_SITES.items() if moment.ends}
        forms += [f"{name}.{_span(layers)}:{view}" for name, layers in blocks.items() if layers for view in views]
    return [*forms, *_BASELINES]


def _span(numbers: Sequence[int]) -> str:
    unbroken = len(numbers) > 1 and list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]}-{numbers[-1]}" if unbroken else ",".join(map(str, numbers))
