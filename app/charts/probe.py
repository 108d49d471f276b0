"""Charts of linear probes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from app.charts.chart import Chart, Computing, check_there
from app.views.kinds import Provenance
from app.views.study import probes

if TYPE_CHECKING:
    from app.views.kinds import Table
    from app.views.numbers import View
    from app.views.study.probes import Probed
    from lm2.weights.checkpoint import Checkpoint
    from probes.probing.plan import ProbePlan
    from probes.probing.spec import ProbeSpec


class OfProbe(Enum):
    """Views of a probe."""

    MAP = "scores"
    CURVES = "scores by segment"
    CONFUSION = "confusion"
    SOURCES = "sources"
    TARGETS = "targets"


@dataclass(frozen=True, kw_only=True)
class ProbeChart(Chart):
    """A probe with its statistics (`Probed`)."""

    _spec_class = "probes.probing.spec:ProbeSpec"
    if TYPE_CHECKING:
        spec: ProbeSpec
    shown: OfProbe
    target: str = ""
    """Empty, the first."""
    source: str = ""
    """Empty, the first."""
    segment: int = -1
    """-1, all together."""

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.spec.files, *self.spec.documents.files)

    @property
    def provenance(self) -> Provenance:
        return Provenance(model=self.spec.checkpoint, item=self.spec.documents.words)

    def result(self, checkpoint: Checkpoint, computing: Computing) -> Probed:
        from probes.probing.fit import probe

        plan = self.plan(checkpoint, computing)
        return probes.statistics(probe(self.spec, checkpoint, computing.folder, computing.on_step, plan=plan))

    def plan(self, checkpoint: Checkpoint, computing: Computing) -> ProbePlan:
        """The probe's rows and labels. Raises ValueError as `ProbePlan.of` does, and OSError if a file is missing."""
        from probes.probing.plan import ProbePlan

        return computing.part(checkpoint, ("plan", self.spec.digest), lambda: ProbePlan.of(self.spec, checkpoint))

    def view(self, checkpoint: Checkpoint, result: Probed) -> View | Table:
        targets, sources = {str(target): target for target in result.targets}, {row.label: row for row in result.rows}
        name, label = self.target or next(iter(targets)), self.source or next(iter(sources))
        segment = probes.ALL if self.segment == -1 else self.segment
        check_there("target", name, targets)
        check_there("source", label, sources)
        check_there("segment", segment, result.columns)
        target, source = targets[name], sources[label]
        match self.shown:
            case OfProbe.MAP:
                return probes.score_map(result, target)
            case OfProbe.CURVES:
                return probes.curves(result, source, target)
            case OfProbe.CONFUSION:
                return probes.confusion(result, source, target, segment)
            case OfProbe.SOURCES:
                return probes.source_table(result, target)
            case OfProbe.TARGETS:
                return probes.target_table(result, source)
