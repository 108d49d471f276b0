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
    """Views of an experiment's table."""

    FOREST = "intervals"
    CURVE = "curve"
    TABLE = "table"


@dataclass(frozen=True, kw_only=True)
class ExperimentChart(Chart):
    """One table of an `ExperimentReport`."""

    _spec_class = "probes.experiments.experiment:ExperimentSpec"
    if TYPE_CHECKING:
        spec: ExperimentSpec
    shown: OfExperiment
    finding: int = 0
    """Index of the table."""

    @property
    def words(self) -> str:
        return f"{self.spec.experiment} {self.shown.value}"

    @property
    def files(self) -> tuple[str, ...]:
        return self.spec.files

    @property
    def provenance(self) -> Provenance:
        design = experiment(self.spec.experiment)
        item = f"{self.spec.asked}, beside a control ({design.control})"
        return Provenance(model=self.spec.checkpoint, item=item, changes=(design.title[:1].lower() + design.title[1:],))

    def result(self, checkpoint: Checkpoint, computing: Computing) -> ExperimentReport:
        from probes.experiments.experiment import perform

        return perform(checkpoint, self.spec, computing.on_step)

    def view(self, checkpoint: Checkpoint, result: ExperimentReport) -> View | Table:
        check_there("finding", self.finding, range(len(result.findings)))
        findings = result.findings[self.finding]
        match self.shown:
            case OfExperiment.TABLE:
                return Table(columns=findings.columns)
            case OfExperiment.CURVE:
                view = experiments.curve(findings)
            case OfExperiment.FOREST:
                view = experiments.forest(findings)
        if view is None:
            raise ValueError(f"{findings.title!r} has no {self.shown.value}: it is a {OfExperiment.TABLE.value}")
        return view
