"""Charts of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from app.charts.chart import Chart, Computing, check_there
from app.views.kinds import Provenance
from app.views.study import sweeps
from lm2.shown import ranges
from probes.stats.metrics import Metric

if TYPE_CHECKING:
    from app.views.kinds import Table
    from app.views.numbers import View
    from app.views.study.sweeps import Swept
    from lm2.weights.checkpoint import Checkpoint
    from probes.sweeps.spec import SweepSpec


class OfSweep(Enum):
    """Views of a sweep."""

    EFFECTS = "effects"
    CUMULATIVE = "cumulative effects"
    RANKING = "ranking"
    JOINTS = "joint effects"


_REPLACED = {
    "resample": "from another story",
    "mean": "at its mean over other stories",
    "initial": "as at the start",
    "zero": "zeroed",
    "clamp": "clamped",
}
"""How a unit is replaced, in words."""


@dataclass(frozen=True, kw_only=True)
class SweepChart(Chart):
    """A sweep with its statistics (`Swept`)."""

    _spec_class = "probes.sweeps.spec:SweepSpec"
    if TYPE_CHECKING:
        spec: SweepSpec
    shown: OfSweep
    metric: Metric | None = None
    """None, the metric by which units are ranked."""
    hide: bool = True
    """Whether cells that cannot be told from chance are hatched."""

    @property
    def files(self) -> tuple[str, ...]:
        return self.spec.files

    @property
    def provenance(self) -> Provenance:
        spec, by = self.spec, _REPLACED[self.spec.replacement.value]
        unit = {"memory_heads": "memory head", "attention_heads": "attention head", "blocks": "part of a block"}.get(
            spec.grid.value, spec.grid.value[:-1]
        )
        back = f"{ranges(spec.back)} segments before the answer's" if any(spec.back) else "the answer's segment"
        back = "all segments" if spec.grid.value == "gates" else back
        return Provenance(model=spec.checkpoint, item=spec.asked, changes=(f"each {unit} {by} in {back}",))

    def result(self, checkpoint: Checkpoint, computing: Computing) -> Swept:
        from probes.sweeps.sweep import sweep

        return sweeps.statistics(sweep(self.spec, checkpoint, computing.folder, computing.on_step))

    def view(self, checkpoint: Checkpoint, result: Swept) -> View | Table:
        metric = self.metric or result.result.metric
        check_there("metric", metric.value, [metric.value for metric in result.result.spec.metrics])
        match self.shown:
            case OfSweep.EFFECTS:
                view = sweeps.effect_map(result, metric, hide=self.hide)
            case OfSweep.CUMULATIVE:
                view = sweeps.cumulative(result, metric)
            case OfSweep.RANKING:
                view = sweeps.ranking(result, metric)
            case OfSweep.JOINTS:
                view = sweeps.joints(result, metric)
        if view is None:
            raise ValueError(
                f"this sweep has no {self.words}: its units exclude each other, or its estimates failed the check"
            )
        return view
