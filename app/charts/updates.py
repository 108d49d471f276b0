"""Charts of a text as the model continues it, and of a probe that reads every bank on the way."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from app.charts.chart import Computing, check_there
from app.charts.run import TextChart
from app.views.kinds import Provenance
from app.views.study import updates
from lm2.runs.interventions import Freeze

if TYPE_CHECKING:
    from app.views.numbers import View
    from lm2.runs.spec import RunSpec
    from lm2.weights.checkpoint import Checkpoint
    from probes.causal.updates import Rereading, TracedGeneration


_READING_BYTES = 256 * 1024**2
"""Largest size of a probe's readings for which all blocks are kept."""


class OfUpdates(Enum):
    """Views of a text that the model continues."""

    STEPS = "slots read by step"
    BEFORE = "reading before"
    AFTER = "reading after"
    DIFFERENCE = "reading, after less before"
    COURSE = "reading by update"
    EXPECTED = "prediction by update"


def walk_of(checkpoint: Checkpoint, spec: RunSpec, tokens: int, computing: Computing) -> TracedGeneration:
    """A text that is continued by so many tokens, with the reads of all blocks, since one token's read is small."""
    from probes.causal.updates import generate_traced

    layers = tuple(sorted(checkpoint.config.memory_layers))
    return computing.part(
        checkpoint,
        ("walk", spec.digest, tokens),
        lambda: generate_traced(checkpoint, spec, tokens=tokens, layers=layers, on_segment=computing.on_step),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Continued:
    """The text continued with writes "on" and "off", and the probe's readings of every bank of both."""

    walks: dict[str, TracedGeneration]
    readings: dict[str, Rereading]


@dataclass(frozen=True, kw_only=True)
class UpdateChart(TextChart):
    """A `Continued` text. Its spec has no captures; its interventions hold while the text is written, too."""

    shown: OfUpdates
    tokens: int
    """Tokens that the model generates after the text."""
    frozen: int
    """First segment that writes nothing where writes are off."""
    layer: int
    head: str = "mean"
    writes: str = "on"
    """Which continuation is shown, in views of one."""
    probe: tuple[int, ...]
    """Ids of the tokens that read every bank; without any, only `STEPS` can be shown."""
    before: int = 0
    after: int = 0
    """Segments that have written to each of the two banks."""
    token: int = 0
    """Id of the token whose probability after the probe is shown."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.writes not in ("on", "off"):
            raise ValueError(f"writes must be 'on' or 'off', not {self.writes!r}")
        if self.spec.captures:
            raise ValueError("the run's spec is of the text alone: it has no captures")

    @property
    def provenance(self) -> Provenance:
        frozen = Freeze(segment=self.frozen).words
        both = self.shown in (OfUpdates.COURSE, OfUpdates.EXPECTED)
        changes = (f"{frozen} where writes are off",) if both else (frozen,) if self.writes == "off" else ()
        text = super().provenance
        item = f"{text.item}, with {self.tokens} tokens that the model wrote behind it"
        return replace(text, item=item, changes=(*text.changes, *changes))

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        frozen = (*self.spec.interventions, Freeze(segment=self.frozen))
        return self.spec, replace(self.spec, interventions=frozen)

    @property
    def new_tokens(self) -> int:
        return self.tokens

    @property
    def result_key(self) -> tuple[Hashable, ...]:
        return type(self), self.spec.digest, self.tokens, self.frozen, self.layer, self.probe

    def result(self, checkpoint: Checkpoint, computing: Computing) -> Continued:
        walks = {
            writes: walk_of(checkpoint, spec, self.tokens, computing)
            for writes, spec in zip(("on", "off"), self.runs, strict=True)
        }
        readings = {writes: self._reading(checkpoint, walk, computing) for writes, walk in walks.items() if self.probe}
        return Continued(walks=walks, readings=readings)

    def _reading(self, checkpoint: Checkpoint, walk: TracedGeneration, computing: Computing) -> Rereading:
        """Keeps all blocks if that is small enough, so that another block is shown at once."""
        from probes.causal.updates import reread

        config = checkpoint.config
        block_bytes = 4 * len(walk.banks) * config.memory_heads * len(self.probe) * config.slots
        layers = walk.layers if block_bytes * len(walk.layers) <= _READING_BYTES else (self.layer,)
        return computing.part(
            checkpoint,
            ("reading", walk.spec.digest, self.tokens, self.probe, layers),
            lambda: reread(checkpoint, self.probe, walk.banks, layers=layers),
        )

    def view(self, checkpoint: Checkpoint, result: Continued) -> View:
        walk, layer, head = result.walks[self.writes], self.layer, self.head
        check_there("block", layer, walk.layers)
        check_there("head", head, (*map(str, range(checkpoint.config.memory_heads)), "mean", "max"))
        for bank in (self.before, self.after):
            check_there("bank", bank, range(len(walk.banks)))
        if self.shown is OfUpdates.STEPS:
            return updates.reads_by_step(walk, layer, head)
        if not result.readings:
            raise ValueError(f"{self.words} is of a probe of 1 token at least, and this one has 0")
        reading = result.readings[self.writes]
        check_there("token", self.token, range(checkpoint.config.d_vocab))
        match self.shown:
            case OfUpdates.BEFORE:
                return updates.reading(reading, layer, head, self.before, self.after)
            case OfUpdates.AFTER:
                return updates.reading(reading, layer, head, self.after, self.before)
            case OfUpdates.DIFFERENCE:
                return updates.difference(reading, layer, head, self.before, self.after)
            case OfUpdates.COURSE:
                return updates.distance_curve(result.readings, layer, head, self.before)
            case OfUpdates.EXPECTED:
                return updates.probability_curve(
                    result.readings, self.token, repr(checkpoint.tokenizer.shown(self.token).strip())
                )
