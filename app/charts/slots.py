"""Charts of the passages that read or write a slot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.charts.chart import Chart, Computing, check_there
from app.views.kinds import Provenance
from app.views.run import slots

if TYPE_CHECKING:
    from app.views.numbers import View
    from lm2.weights.checkpoint import Checkpoint
    from probes.explain.explain import Explanations
    from probes.explain.spec import ExplainSpec


@dataclass(frozen=True, kw_only=True)
class SlotChart(Chart):
    """A slot's passages, of `Explanations`."""

    _spec_class = "probes.explain.spec:ExplainSpec"
    if TYPE_CHECKING:
        spec: ExplainSpec
    slot: int
    side: str = "read"
    """Whether they "read" or "wrote" the slot."""
    passages: int = 8
    """How many, by largest value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side not in ("read", "wrote") or self.passages < 1:
            raise ValueError(
                f"a slot's passages are those that read or wrote it, 1 at least, not {self.side!r}, {self.passages}"
            )

    @property
    def words(self) -> str:
        return f"passages that {self.side} slot {self.slot}"

    @property
    def files(self) -> tuple[str, ...]:
        return self.spec.documents.files if self.spec.file is None else (self.spec.file,)

    @property
    def provenance(self) -> Provenance:
        return Provenance(model=self.spec.checkpoint, item=self.spec.file or self.spec.documents.words)

    def result(self, checkpoint: Checkpoint, computing: Computing) -> Explanations:
        from probes.explain.explain import explain

        return explain(checkpoint, self.spec, computing.on_step)

    def view(self, checkpoint: Checkpoint, result: Explanations) -> View:
        from probes.explain.spec import Signal

        signal = Signal.READ if self.side == "read" else Signal.WRITE
        check_there("slot", (signal.value, self.slot), [(slot.signal.value, slot.slot) for slot in result.slots])
        explanation = result.of(signal, self.slot)
        return slots.strip(replace(explanation, contexts=explanation.contexts[: self.passages]))
