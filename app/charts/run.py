"""Charts of one run: the text, reads and writes, gates, the bank."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from app.charts.chart import Chart, Computing, added_later, check_there
from app.views.kinds import Provenance
from app.views.run import bank, gates, memory, text
from app.views.windows import window
from lm2.model.gates import GATES
from lm2.runs.spec import RunSpec
from lm2.shown import excerpt

if TYPE_CHECKING:
    from app.views.numbers import View
    from lm2.runs.trace import Trace
    from lm2.weights.checkpoint import Checkpoint


class OfRun(Enum):
    """Views of a run."""

    TEXT = "text"
    SURPRISE = "surprise"
    READS = "reads"
    WRITES = "writes"
    TOKEN = "slots of a token"
    GATE_SLOTS = "gate by slot"
    GATE_TOKENS = "gate by token"
    GATE_SPREAD = "gate spread"
    GATE_SATURATION = "gate saturation"
    NORMS = "norms"
    CHANGES = "changes"
    SIMILARITY = "similarity"


@dataclass(frozen=True, kw_only=True)
class TextChart(Chart):
    """A chart of the run of a text."""

    spec: RunSpec
    item: str = added_later("")
    """The story, question or file that the text is from, in words."""

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        return (self.spec,)

    @property
    def provenance(self) -> Provenance:
        item = ", ".join(filter(None, (self.item, excerpt(self.spec.text))))
        return Provenance(
            model=self.spec.checkpoint, item=item, changes=tuple(change.words for change in self.spec.interventions)
        )


@dataclass(frozen=True, kw_only=True)
class RunChart(TextChart):
    """A `Trace` of the spec's run."""

    shown: OfRun
    layer: int | None = None
    """Block; None, the last whose memory was captured."""
    head: str = "mean"
    """A head's number, or "mean" or "max" over heads."""
    gate: str = "forget"
    slot: int | None = None
    """The slot whose weights colour the text; None, colours are segments."""
    side: str = "read"
    """Whether the weights are those that "read" or those that "wrote" the slot."""
    relative: bool = added_later(False)
    """Whether the text's colours end at the slot's largest weight instead of the map's."""
    token: int = -1
    """The token whose read is shown by slot; -1, the last."""
    segment: int = -1
    """The segment after which slots are compared; -1, the last."""
    marks: text.Marks = ()
    """Token ranges that are underlined."""
    window: tuple[int, int] | None = None
    """Range of tokens, in views along tokens; None, all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in (("gate", list(GATES)), ("side", ["read", "wrote"])):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be of {values}, not {getattr(self, name)!r}")

    def result(self, checkpoint: Checkpoint, computing: Computing) -> Trace:
        return computing.run(checkpoint, self.spec)

    def view(self, checkpoint: Checkpoint, result: Trace) -> View:
        view = self._full_view(checkpoint, result)
        return view if self.window is None else window(view, *self.window)

    def _full_view(self, checkpoint: Checkpoint, trace: Trace) -> View:
        if self.shown is OfRun.SURPRISE:
            return text.surprise_line(trace)
        if self.shown is OfRun.TEXT and self.slot is None:
            return text.strip(trace, self.marks, checkpoint.tokenizer)
        layers = memory.layers(trace, checkpoint.config)
        if not layers:
            raise ValueError(f"the run captures nothing of a memory, and {self.words} are of one")
        layer = layers[-1] if self.layer is None else self.layer
        token = len(trace.tokens) - 1 if self.token == -1 else self.token
        check_there("block", layer, layers)
        check_there("head", self.head, (*map(str, range(checkpoint.config.memory_heads)), "mean", "max"))
        check_there("segment", self.segment, range(-1, len(trace.segments)))
        check_there("token", token, range(len(trace.tokens)))
        if self.slot is not None:
            check_there("slot", self.slot, range(checkpoint.config.slots))
        return self._of_memory(checkpoint, trace, layer, layers, token)

    def _of_memory(self, checkpoint: Checkpoint, trace: Trace, layer: int, layers: tuple[int, ...], token: int) -> View:
        kind = checkpoint.config.memory
        match self.shown:
            case OfRun.TEXT:
                read = self.side == "read"
                view = memory.reads(trace, layer, self.head, kind) if read else memory.writes(trace, layer, self.head)
                weights, high, legend = memory.slot_colours(view, self.slot, self.side, relative=self.relative)
                return text.strip(trace, self.marks, checkpoint.tokenizer, weights=weights, high=high, legend=legend)
            case OfRun.READS:
                return memory.reads(trace, layer, self.head, kind)
            case OfRun.WRITES:
                return memory.writes(trace, layer, self.head)
            case OfRun.TOKEN:
                return memory.slots_of_token(trace, layer, self.head, token)
            case OfRun.GATE_SLOTS:
                return gates.per_slot(trace, self.gate, layers, kind.design.gates)
            case OfRun.GATE_TOKENS:
                return gates.per_token(trace, layers)
            case OfRun.GATE_SPREAD:
                return gates.spread(trace, self.gate, layer, kind.design.gates)
            case OfRun.GATE_SATURATION:
                return gates.saturation(trace, self.gate, layer, kind.design.gates)
            case OfRun.NORMS:
                return bank.norms(trace, layers)
            case OfRun.CHANGES:
                return bank.changes(trace, layers)
            case OfRun.SIMILARITY:
                return bank.similarity(trace, layers, len(trace.segments) - 1 if self.segment == -1 else self.segment)
