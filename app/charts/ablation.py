"""Charts of a text's run with and without interventions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from app.charts.chart import Computing
from app.charts.run import TextChart
from app.views.run import text
from app.views.study import ablations
from app.views.windows import window

if TYPE_CHECKING:
    from app.views.numbers import View
    from lm2.runs.spec import RunSpec
    from lm2.weights.checkpoint import Checkpoint
    from probes.causal.compare import Comparison


class OfAblation(Enum):
    """Views of what interventions change."""

    TEXT = "text, by change"
    CHANGE = "change by token"


@dataclass(frozen=True, kw_only=True)
class AblationChart(TextChart):
    """A `Comparison` of the spec's run with the run without interventions."""

    shown: OfAblation
    marks: text.Marks = ()
    """Token ranges that are underlined."""
    window: tuple[int, int] | None = None
    """Range of tokens; None, all."""

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        return replace(self.spec, interventions=()), self.spec

    def result(self, checkpoint: Checkpoint, computing: Computing) -> Comparison:
        from probes.causal.compare import compare

        return computing.part(
            checkpoint,
            ("comparison", self.spec.digest),
            lambda: compare(*(computing.run(checkpoint, spec) for spec in self.runs)),
        )

    def view(self, checkpoint: Checkpoint, result: Comparison) -> View:
        view = (
            ablations.lines(result)
            if self.shown is OfAblation.CHANGE
            else ablations.strip(result, self.marks, checkpoint.tokenizer)
        )
        return view if self.window is None else window(view, *self.window)
