"""Results of probes: held-out predictions of every source and target, and the tables that follow from them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int

from lm2.files import write_table
from probes.features.sources import Condition, Source
from probes.features.targets import Target
from probes.probing.plan import ProbePlan
from probes.stats.permutation import Permuted
from probes.stats.predictions import Measure, Predictions
from probes.stats.scores import Estimate, Score, differences, scores
from probes.stats.selectivity import Choice, CodeLength, bits_gained, nested_choice, q_values

ALL = "all"
"""Instead of a segment or a fold: all of them."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How the fit of one fold ended."""

    strength: float
    inner: float
    """Cross-entropy (nats) of the training groups that were held out to choose the strength."""
    converged: bool
    gradient_norm: float
    evaluations: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """Held-out predictions of one target from one source, and tests. Predictions of rows without a label mean
    nothing."""

    log_probabilities: Float32[np.ndarray, "row class"]
    """Natural logarithms."""
    control: Int[np.ndarray, "row"]
    """Held-out predictions of a probe of the control task, fitted in the same way."""
    direction: Float32[np.ndarray, "d class"]
    """In the source's own units: the mean over folds."""
    fits: tuple[Fitted, ...]
    """One per fold."""
    code: CodeLength | None
    """None for baselines."""
    permuted: Permuted | None
    """None for baselines, and without permutations."""

    @property
    def unconverged(self) -> int:
        """Folds whose fit did not converge."""
        return sum(not fit.converged for fit in self.fits)

    def pack(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON values, and arrays by name, for `unpack`."""
        header = {
            "fits": [asdict(fit) for fit in self.fits],
            "code": self.code and asdict(self.code),
            "permuted": self.permuted and asdict(self.permuted),
        }
        return header, {name: getattr(self, name) for name in ("log_probabilities", "control", "direction")}

    @classmethod
    def unpack(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Reading":
        code, permuted = header["code"], header["permuted"]
        return cls(
            **arrays,
            fits=tuple(Fitted(**fit) for fit in header["fits"]),
            code=None if code is None else CodeLength(**code | {"blocks": tuple(code["blocks"])}),
            permuted=None if permuted is None else Permuted(**permuted),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeCell:
    """Scores of one source for one target in some segments, with their controls."""

    source: Source
    target: Target
    segment: int | str
    score: Score
    selectivity: Estimate
    """Balanced accuracy of the task less that of the control task, paired."""
    gains: Mapping[str, Estimate]
    """Bits per row beyond each baseline, paired."""
    compression: float
    """Uniform over online code length; nan for baselines and single segments."""
    p: float
    """Of the permutation test; nan for baselines, single segments and without permutations."""
    q: float
    """p adjusted for all sources and targets."""
    unconverged: int

    @property
    def headline(self) -> Estimate:
        return self.score.estimates[self.score.headline]


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult:
    """The result of a probe."""

    plan: ProbePlan
    checkpoint_digest: str
    device: str
    dtype: str
    controls: Mapping[Target, Int[np.ndarray, "row"]]
    """Labels of the control task."""
    readings: Mapping[tuple[Source, Target], Reading]

    @property
    def segments(self) -> tuple[int, ...]:
        """Segments with rows."""
        return tuple(int(segment) for segment in np.unique(self.plan.examples.segment))

    def task(self, source: Source, target: Target) -> Predictions:
        """Held-out predictions of the target."""
        labels, values = self.plan.labels[target], self.readings[source, target].log_probabilities
        return Predictions(
            labels=labels.values, groups=self.plan.groups, classes=len(labels.names), log_probabilities=values
        )

    def control(self, source: Source, target: Target) -> Predictions:
        """Held-out predictions of the target's control task."""
        classes, values = len(self.plan.labels[target].names), self.readings[source, target].control
        return Predictions(labels=self.controls[target], groups=self.plan.groups, classes=classes, predicted=values)

    def baselines_of(self, source: Source) -> dict[str, Source]:
        """A source's baselines by name: features of the text, and the same source in another condition."""
        baselines = {}
        for baseline in self.plan.baselines:
            if baseline.condition is Condition.TRAINED:
                baselines[baseline.label] = baseline
            elif baseline.name == source.name:
                baselines[baseline.condition.value] = baseline
        return {name: baseline for name, baseline in baselines.items() if baseline != source}

    @cached_property
    def cells(self) -> dict[tuple[Source, Target, int | str], ProbeCell]:
        """A cell for every source (baselines, too) and target, in all segments and in each."""
        slices: dict[int | str, Bool[np.ndarray, "row"]] = {ALL: np.full(len(self.plan.groups), True)}
        slices |= {segment: self.plan.examples.segment == segment for segment in self.segments}
        tasks = self._sliced(self.task, slices)
        controls, keys, seed = list(self._sliced(self.control, slices).values()), list(tasks), self.plan.spec.seed
        scored = scores(list(tasks.values()), seed)
        selectivities = differences(
            Measure.BALANCED_ACCURACY, [_without_probabilities(task) for task in tasks.values()], controls, seed
        )
        pairs = [
            (key, name, (baseline, *key[1:]))
            for key in keys
            if key[0] in self.plan.sources
            for name, baseline in self.baselines_of(key[0]).items()
        ]
        gained = bits_gained([tasks[key] for key, _, _ in pairs], [tasks[other] for _, _, other in pairs], seed)
        gains: dict[Any, dict[str, Estimate]] = {key: {} for key in keys}
        for (key, name, _), gain in zip(pairs, gained):
            gains[key][name] = gain
        p = {key: reading.permuted.p if reading.permuted else np.nan for key, reading in self.readings.items()}
        q = dict(zip(p, q_values(np.array(list(p.values()))).tolist()))
        cells = {}
        for (source, target, segment), score, selectivity in zip(keys, scored, selectivities):
            pair, key, is_all = (source, target), (source, target, segment), segment == ALL
            reading = self.readings[pair]
            cells[key] = ProbeCell(
                source=source,
                target=target,
                segment=segment,
                score=score,
                selectivity=selectivity,
                gains=gains[key],
                compression=reading.code.compression if is_all and reading.code else np.nan,
                p=p[pair] if is_all else np.nan,
                q=q[pair] if is_all else np.nan,
                unconverged=reading.unconverged,
            )
        return cells

    def best(self, target: Target) -> Choice:
        """The best of the spec's sources for a target, chosen in each fold by its training groups alone."""
        inner = np.array([[-fit.inner for fit in self.readings[source, target].fits] for source in self.plan.sources])
        tasks = [self.task(source, target) for source in self.plan.sources]
        return nested_choice(inner, tasks, self.plan.folds, tasks[0].headline, self.plan.spec.seed)

    def confusion(self, source: Source, target: Target, segment: int | str = ALL) -> Int[np.ndarray, "class class"]:
        """Held-out rows by their true class (row) and predicted class (column)."""
        task = self.task(source, target)
        rows = (task.labels >= 0) & (True if segment == ALL else self.plan.examples.segment == segment)
        counts = np.zeros((task.classes, task.classes), int)
        np.add.at(counts, (task.labels[rows], task.predicted[rows]), 1)
        return counts

    def tables(self) -> dict[str, pd.DataFrame]:
        """cells: a row per source, target and segment. metrics: one per source, target, fold and metric. examples: one
        per row of the probe."""
        return {
            "cells": pd.DataFrame([self._cell(cell) for cell in self.cells.values()]),
            "metrics": self._metrics,
            "examples": self.plan.examples.table(),
        }

    def write(self, folder: Path) -> None:
        """Each table as CSV and as Parquet."""
        for name, table in self.tables().items():
            write_table(table, folder, name)

    def _sliced(
        self, predictions: Callable[[Source, Target], Predictions], slices: Mapping[Any, Bool[np.ndarray, "row"]]
    ) -> dict[tuple[Source, Target, Any], Predictions]:
        """Predictions of every source, target and slice of the rows."""
        whole = {pair: predictions(*pair) for pair in self.readings}
        return {(*pair, name): task.where(rows) for pair, task in whole.items() for name, rows in slices.items()}

    def _cell(self, cell: ProbeCell) -> dict[str, Any]:
        bits = cell.score.estimates[Measure.BITS]
        row = {
            "source": cell.source.label,
            "target": str(cell.target),
            "segment": str(cell.segment),
            "baseline": cell.source in self.plan.baselines,
            "n": cell.score.n,
            "groups": cell.score.groups,
            "measure": cell.score.headline.value,
            **_columns("", cell.headline),
            "chance": cell.score.chance,
            "majority": cell.score.majority,
            **_columns("bits_", bits),
            **_columns("selectivity_", cell.selectivity),
        }
        for name in self.plan.spec.baselines:
            row |= _columns(f"gain_over_{name}_", cell.gains.get(name))
        return row | {"compression": cell.compression, "p": cell.p, "q": cell.q, "unconverged": cell.unconverged}

    @cached_property
    def _metrics(self) -> pd.DataFrame:
        rows = np.arange(len(self.plan.groups))
        tests = {ALL: rows >= 0} | {str(i): np.isin(rows, fold.test) for i, fold in enumerate(self.plan.folds)}
        tasks = self._sliced(self.task, tests)
        scored = scores(list(tasks.values()), self.plan.spec.seed)
        return pd.DataFrame(
            [
                {
                    "source": source.label,
                    "target": str(target),
                    "fold": fold,
                    "metric": measure.value,
                    **_columns("", estimate),
                    "n": score.n,
                    "groups": score.groups,
                }
                for (source, target, fold), score in zip(tasks, scored)
                for measure, estimate in score.estimates.items()
            ]
        )


def _without_probabilities(task: Predictions) -> Predictions:
    return Predictions(labels=task.labels, groups=task.groups, classes=task.classes, predicted=task.predicted)


def _columns(prefix: str, estimate: Estimate | None) -> dict[str, float]:
    return {
        f"{prefix}{name}": np.nan if estimate is None else getattr(estimate, name) for name in ("value", "low", "high")
    }
