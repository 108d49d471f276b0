"""FigureSpec: everything that a figure of a run depends on. It drives the panel on the screen, the file and the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from app.figures.page import Page, Paper
from app.figures.venues import Venue
from app.views import bank, gates, memory
from lm2.plain import digest_of, member, whole
from lm2.spec import RunSpec

if TYPE_CHECKING:
    from app.views.kinds import Heatmap, Lines
    from lm2.checkpoint import Checkpoint
    from lm2.trace import Trace


class Shown(Enum):
    """What a figure shows of a run."""

    READS = "reads"
    WRITES = "writes"
    GATE_SLOTS = "gate by slot"
    GATE_TOKENS = "gate by token"
    GATE_SPREAD = "gate spread"
    GATE_SATURATION = "gate saturation"
    NORMS = "norms"
    CHANGES = "changes"
    SIMILARITY = "similarity"


_GATES = tuple(gates.SITES)


@dataclass(frozen=True, kw_only=True)
class FigureSpec:
    """One figure. Plain JSON both ways. Fields that a kind of figure has no use for change nothing but the digest."""

    shown: Shown
    run: RunSpec
    page: Paper = Paper(venue=Venue.ICML)
    layer: int | None = None
    """Block; None, the last with a memory that the run has captured."""
    head: str = "mean"
    """A head's number, or "mean" or "max" over them."""
    gate: str = "forget"
    segment: int = -1
    """After which the bank is compared; -1, the last."""
    window: tuple[int, int] | None = None
    """Of maps with a column for each token: the first token, and the one behind the last; None, all."""

    def view(self, checkpoint: Checkpoint, trace: Trace) -> Heatmap | Lines:
        """The figure's numbers. Raises ValueError for a block, head, segment or token that is not there, with those that are."""
        layers = tuple(sorted({place.layer for _, place in trace.records} & set(checkpoint.config.memory_layers)))
        if not layers:
            raise ValueError(f"the run captures nothing of a memory, and {self.shown.value} are of one")
        layer = layers[-1] if self.layer is None else self.layer
        heads = (*map(str, range(checkpoint.config.memory_heads)), "mean", "max")
        for name, value, there in (("block", layer, layers), ("head", self.head, heads), ("segment", self.segment, range(-1, len(trace.segments)))):
            if value not in there:
                raise ValueError(f"there is no {name} {value}; there are {', '.join(map(str, there))}")
        return self._windowed(self._made(checkpoint, trace, layer, layers), len(trace.tokens))

    def _made(self, checkpoint: Checkpoint, trace: Trace, layer: int, layers: tuple[int, ...]) -> Heatmap | Lines:
        match self.shown:
            case Shown.READS:
                return memory.reads(trace, layer, self.head, checkpoint.config.memory)
            case Shown.WRITES:
                return memory.writes(trace, layer, self.head)
            case Shown.GATE_SLOTS:
                return gates.per_slot(trace, self.gate, layers)
            case Shown.GATE_TOKENS:
                return gates.per_token(trace, layers)
            case Shown.GATE_SPREAD:
                return gates.spread(trace, self.gate, layer)
            case Shown.GATE_SATURATION:
                return gates.saturation(trace, self.gate, layer)
            case Shown.NORMS:
                return bank.norms(trace, layers)
            case Shown.CHANGES:
                return bank.changes(trace, layers)
            case Shown.SIMILARITY:
                return bank.similarity(trace, layers, len(trace.segments) - 1 if self.segment == -1 else self.segment)

    def _windowed(self, view: Heatmap | Lines, tokens: int) -> Heatmap | Lines:
        if self.window is None:
            return view
        if self.shown not in (Shown.READS, Shown.WRITES, Shown.GATE_TOKENS):
            raise ValueError(f"only maps with a column for each token have a window, not {self.shown.value}")
        first, stop = self.window
        if not 0 <= first < stop <= tokens:
            raise ValueError(f"a window goes from a token to one behind it, within 0 and {tokens}, not from {first} to {stop}")
        kept = slice(first, stop)
        starts = [*(at for at in view.boundaries if at < stop), stop]
        within = [at for at, (start, end) in enumerate(zip(starts, starts[1:])) if end > first]
        return replace(
            view, values=view.values[:, kept], column_labels=view.column_labels[kept], ticks=view.ticks[kept],
            masked=None if view.masked is None else view.masked[:, kept], boundaries=tuple(max(starts[at], first) - first for at in within),
            segment_labels=tuple(view.segment_labels[at] for at in within) if view.segment_labels else (),
        )  # fmt: skip

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON form."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {
            "shown": self.shown.value, "run": self.run.to_json(), "page": self.page.to_json(), "layer": self.layer, "head": self.head,
            "gate": self.gate, "segment": self.segment, "window": None if self.window is None else list(self.window),
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FigureSpec:
        """Raises ValueError for unknown fields and for values that make no sense."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown or not {"shown", "run"} <= set(values):
            raise ValueError(f"a figure's spec needs shown and run and has no fields {unknown}")
        page = Page.from_json(values["page"]) if "page" in values else cls.page
        if not isinstance(page, Paper):
            raise ValueError("a figure of one run is printed on a Paper, not on a Grid")
        if not isinstance(values["run"], dict):
            raise ValueError(f"run must be a run's spec, not {values['run']!r}")
        layer, window, gate = values.get("layer"), values.get("window"), values.get("gate", "forget")
        if gate not in _GATES:
            raise ValueError(f"gate must be of {list(_GATES)}, not {gate!r}")
        if window is not None and (not isinstance(window, list) or len(window) != 2):
            raise ValueError(f"window must be two tokens' numbers, not {window!r}")
        return cls(
            shown=member("shown", Shown, values["shown"]), run=RunSpec.from_json(values["run"]), page=page,
            layer=None if layer is None else whole("layer", layer), head=str(values.get("head", "mean")), gate=gate,
            segment=whole("segment", values.get("segment", -1)),
            window=None if window is None else (whole("window", window[0]), whole("window", window[1])),
        )  # fmt: skip
