"""Charts of an experiment's tables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from app.charts.chart import Chart, Computing, check_there
from app.views.kinds import Provenance
from app.views.study import experiments

if TYPE_CHECKING:
    from app.views.kinds import Table
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
        return f"{self.spec.experiment.key} {self.shown.value}"

    @property
    def provenance(self) -> Provenance:
        experiment = self.spec.experiment
        item = (
            f"{self.spec.questions} held-out questions of qa{self.spec.task}, beside a control ({experiment.control})"
        )
        return Provenance(
            model=self.spec.checkpoint, item=item, changes=(experiment.title[:1].lower() + experiment.title[1:],)
        )

    def result(self, checkpoint: Checkpoint, computing: Computing) -> ExperimentReport:
        from probes.experiments.experiment import perform

        expected = experiments.documents(self.spec.experiment.key, self.spec.task, self.spec.questions)
        return perform(checkpoint, self.spec, lambda done: computing.on_step(done, expected))

    def view(self, checkpoint: Checkpoint, result: ExperimentReport) -> View | Table:
        check_there("finding", self.finding, range(len(result.findings)))
        found = result.findings[self.finding]
        match self.shown:
            case OfExperiment.TABLE:
                return experiments.table(found)
            case OfExperiment.CURVE:
                view = experiments.curve(found)
            case OfExperiment.FOREST:
                view = experiments.forest(found)
        if view is None:
            raise ValueError(f"{found.title!r} has no {self.shown.value}: it is a {OfExperiment.TABLE.value}")
        return view
