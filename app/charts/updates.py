"""Charts of a text as it is written on, and of one probe read from every bank on the way."""

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
"""What a probe's readings may keep with all blocks."""


class OfUpdates(Enum):
    """What is shown of a text that is written on."""

    STEPS = "slots read by step"
    BEFORE = "reading before"
    AFTER = "reading after"
    DIFFERENCE = "reading, after less before"
    COURSE = "reading by update"
    EXPECTED = "prediction by update"


@dataclass(frozen=True, kw_only=True, eq=False)
class Continued:
    """The text written on with writes "on" and "off", and the probe read from every bank of both."""

    walks: dict[str, TracedGeneration]
    readings: dict[str, Rereading]


@dataclass(frozen=True, kw_only=True)
class UpdateChart(TextChart):
    """A text that is `Continued`; its spec has no captures and no interventions."""

    shown: OfUpdates
    tokens: int
    """How many are written behind it."""
    frozen: int
    """Segment from which on nothing is written where writes are off."""
    layer: int
    head: str = "mean"
    writes: str = "on"
    """Which of both is shown, where one is."""
    probe: tuple[int, ...]
    """Tokens that are read from every bank, by their ids; none, and only what is written can be shown."""
    before: int = 0
    after: int = 0
    """Segments that have written to the two banks."""
    token: int = 0
    """Whose probability behind the probe is shown, by its id."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.writes not in ("on", "off"):
            raise ValueError(f"writes must be 'on' or 'off', not {self.writes!r}")
        if self.spec.captures or self.spec.interventions:
            raise ValueError("the run's spec is of the text alone: it has no captures and no interventions")

    @property
    def provenance(self) -> Provenance:
        frozen, written = (Freeze(segment=self.frozen).words, f"{self.tokens} tokens that the model wrote behind it")
        both = self.shown in (OfUpdates.COURSE, OfUpdates.EXPECTED)
        changes = (f"{frozen} where writes are off",) if both else (frozen,) if self.writes == "off" else ()
        made_of = super().provenance
        return replace(made_of, item=f"{made_of.item}, with {written}", changes=changes)

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        return self.spec, replace(self.spec, interventions=(Freeze(segment=self.frozen),))

    @property
    def result_key(self) -> tuple[Hashable, ...]:
        return type(self), self.spec.digest, self.tokens, self.frozen, self.layer, self.probe

    def result(self, checkpoint: Checkpoint, computing: Computing) -> Continued:
        on, off = (self._walk(checkpoint, spec, computing) for spec in self.runs)
        walks = {"on": on, "off": off}
        probed = walks if self.probe else {}
        return Continued(
            walks=walks, readings={name: self._reading(checkpoint, walk, computing) for name, walk in probed.items()}
        )

    def _walk(self, checkpoint: Checkpoint, spec: RunSpec, computing: Computing) -> TracedGeneration:
        """All blocks are kept: what one token reads is little."""
        from probes.causal.updates import generate_traced

        layers = tuple(sorted(checkpoint.config.memory_layers))
        return computing.part(
            checkpoint,
            ("walk", spec.digest, self.tokens),
            lambda: generate_traced(checkpoint, spec, tokens=self.tokens, layers=layers, on_segment=computing.on_step),
        )

    def _reading(self, checkpoint: Checkpoint, walk: TracedGeneration, computing: Computing) -> Rereading:
        """All blocks are kept where that is little, so that another one is shown at once."""
        from probes.causal.updates import reread

        config = checkpoint.config
        one = 4 * len(walk.banks) * config.memory_heads * len(self.probe) * config.slots
        layers = walk.layers if one * len(walk.layers) <= _READING_BYTES else (self.layer,)
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
        read = result.readings[self.writes]
        check_there("token", self.token, range(checkpoint.config.d_vocab))
        match self.shown:
            case OfUpdates.BEFORE:
                return updates.reading(read, layer, head, self.before, self.after)
            case OfUpdates.AFTER:
                return updates.reading(read, layer, head, self.after, self.before)
            case OfUpdates.DIFFERENCE:
                return updates.difference(read, layer, head, self.before, self.after)
            case OfUpdates.COURSE:
                return updates.course(result.readings, layer, head, self.before)
            case OfUpdates.EXPECTED:
                return updates.expected(
                    result.readings, self.token, repr(checkpoint.tokenizer.shown(self.token).strip())
                )
