"""Charts of an experiment's tables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from app.charts.chart import Chart, Computing, check_there
from app.views.kinds import Provenance, Table
from app.views.study import experiments
from probes.experiments.registry import experiment

if TYPE_CHECKING:
    from app.views.numbers import View
    from lm2.weights.checkpoint import Checkpoint
    from probes.experiments.experiment import ExperimentReport, ExperimentSpec


class OfExperiment(Enum):
    """How a table of an experiment is shown."""

    FOREST = "intervals"
    CURVE = "curve"
    TABLE = "table"


@dataclass(frozen=True, kw_only=True)
class ExperimentChart(Chart):
    """One of the findings of a `ExperimentReport`."""

    if TYPE_CHECKING:
        spec: ExperimentSpec
    shown: OfExperiment
    finding: int = 0
    """Which of the report's tables."""

    @staticmethod
    def _spec_kind() -> type[ExperimentSpec]:
        from probes.experiments.experiment import ExperimentSpec

        return ExperimentSpec

    @property
    def words(self) -> str:
        return f"{self.spec.experiment} {self.shown.value}"

    @property
    def provenance(self) -> Provenance:
        asked = experiment(self.spec.experiment)
        item = f"{self.spec.questions} held-out questions of qa{self.spec.task}, beside a control ({asked.control})"
        return Provenance(model=self.spec.checkpoint, item=item, changes=(asked.title[:1].lower() + asked.title[1:],))

    def result(self, checkpoint: Checkpoint, computing: Computing) -> ExperimentReport:
        from probes.experiments.experiment import perform

        return perform(checkpoint, self.spec, computing.on_step)

    def view(self, checkpoint: Checkpoint, result: ExperimentReport) -> View | Table:
        check_there("finding", self.finding, range(len(result.findings)))
        found = result.findings[self.finding]
        match self.shown:
            case OfExperiment.TABLE:
                return Table(columns=found.columns)
            case OfExperiment.CURVE:
                view = experiments.curve(found)
            case OfExperiment.FOREST:
                view = experiments.forest(found)
        if view is None:
            raise ValueError(f"{found.title!r} has no {self.shown.value}: it is a {OfExperiment.TABLE.value}")
        return view
