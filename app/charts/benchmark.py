"""Charts of a finished evaluation."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from app.charts.chart import Chart, Computing, check_there
from app.views.kinds import Provenance
from app.views.study import benchmark
from lm2.evaluation import results
from lm2.evaluation.results import Results

if TYPE_CHECKING:
    from app.views.kinds import Table
    from app.views.numbers import View
    from lm2.weights.checkpoint import Checkpoint


class OfBenchmark(Enum):
    """Views of an evaluation."""

    CURVES = "accuracy by length"
    """Where question sets were asked, this and the difference are by set."""
    PRINTED = "accuracy by length, printed"
    LEAD = "difference by length"
    LENGTHS = "models by length"
    TASKS = "tasks"
    RATIOS = "ratios"


@dataclass(frozen=True, kw_only=True)
class BenchmarkChart(Chart):
    """`Results` of `lm2 eval`, which are read, not computed."""

    spec: str = ""
    """Folder of the evaluation; empty, the bundled one."""
    shown: OfBenchmark
    task: str = "mean"
    metric: str = "exact"
    pair: str = ""
    """Two models as "A - B"; empty, the first two."""
    length: str = "0k"
    """Length of the table of tasks; question sets have none."""

    @property
    def checkpoint(self) -> None:
        return None

    @property
    def files(self) -> tuple[str, ...]:
        return (self.spec,) if self.spec else ()

    @property
    def seed(self) -> None:
        return None

    @property
    def result_key(self) -> tuple[Hashable, ...]:
        return type(self), self.spec

    @property
    def provenance(self) -> Provenance:
        if self.shown is OfBenchmark.PRINTED:
            return Provenance(item="the paper's own numbers")
        return Provenance(item=f"the evaluation in {self.spec}" if self.spec else "the bundled evaluation")

    def result(self, checkpoint: None, computing: Computing) -> Results:
        return results.read_results(computing.folder or (Path(self.spec) if self.spec else results.BUNDLED))

    def _origin(self, checkpoint: Checkpoint | None, result: Results) -> dict[str, str]:
        return {"results_digest": result.digest}

    def view(self, checkpoint: Checkpoint | None, result: Results) -> View | Table:
        if self.shown is OfBenchmark.PRINTED:
            return benchmark.printed_curves(self.task)
        pairs = benchmark.pairs(result)
        pair = self.pair or next(iter(pairs), "")
        check_there("scoring", self.metric, result.metrics)
        if result.lengths:
            check_there("task", self.task, result.tasks)
        elif self.shown in (OfBenchmark.LENGTHS, OfBenchmark.RATIOS):
            raise ValueError(f"question sets have no lengths: there is no {self.shown.value}")
        if self.shown in (OfBenchmark.LEAD, OfBenchmark.RATIOS):
            check_there("pair of models", pair, pairs)
        match self.shown:
            case OfBenchmark.CURVES:
                return benchmark.curves(result, self.task, self.metric)
            case OfBenchmark.LEAD:
                return benchmark.lead(result, pair, self.task, self.metric)
            case OfBenchmark.LENGTHS:
                return benchmark.by_length(result, self.task, self.metric)
            case OfBenchmark.TASKS:
                if not result.lengths:
                    return benchmark.by_task(result, self.metric, "")
                check_there("length", self.length, result.lengths)
                return benchmark.by_task(result, self.metric, self.length)
            case OfBenchmark.RATIOS:
                return benchmark.ratios(result, pair, self.metric)
