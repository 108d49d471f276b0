"""Sweeps: every unit of a grid replaced, one by one, in many documents. Results are kept document by document, so a
stopped sweep continues."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from lm2.runs.runner import run
from lm2.tasks.encoded_prompt import encode_prompts
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import Unit, joint_unit
from probes.causal.observe import check_foils
from probes.causal.plan import cost
from probes.causal.planner import PACK, Planner
from probes.stats.metrics import measure
from probes.store import Shapes, SweepStore
from probes.sweeps.grid import ReplacementSource, UnitGrid, parts, sources
from probes.sweeps.result import Joint, SweepResult, Values
from probes.sweeps.screening import RANDOM, STEPS, Screening, scores
from probes.sweeps.spec import SweepSpec

OnProgress = Callable[[int, int], None]
"""Called with (steps done, steps in all) after each document of each pass. An exception in it ends the sweep, which
keeps what is done."""

_SAMPLE = 8
"""Documents from which a cost is predicted."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The cost of a sweep. Passes are forward passes of one segment of one document."""

    documents: int
    units: int
    """Measured in each document, without joint ones and those of curves."""
    naive: float
    """Passes if every unit took a run of the whole document."""
    planned: float
    naive_seconds: float
    planned_seconds: float
    """Wall-clock time at the pace of one plain run, and of one planned pack of units."""


class _Layout:
    """A spec for a checkpoint: documents, units and what replaces them. Raises ValueError as `sweep` does."""

    def __init__(self, spec: SweepSpec, checkpoint: Checkpoint) -> None:
        if spec.checkpoint != checkpoint.name:
            raise ValueError(f"the spec is for checkpoint {spec.checkpoint!r}, not {checkpoint.name!r}")
        self.spec, self.checkpoint = spec, checkpoint
        self.parts = parts(spec.grid, checkpoint.config, spec.back, spec.values)
        encoded_prompts, skipped = encode_prompts(checkpoint, spec.question_set().prompts, spec.segment_length)
        assert spec.replacement is not None, "the spec fills it in"
        self.sources, self.left_out = sources(
            spec.replacement, spec.persistence, encoded_prompts, max(spec.back), spec.donors, spec.seed
        )
        self.left_out += tuple(skipped)
        for metric in spec.metrics:
            check_foils(encoded_prompts, metric)
        self._texts = [encoded.spec.text for encoded in encoded_prompts]

    @cached_property
    def joints(self) -> tuple[Joint, ...]:
        """The units of each group together, and all of them unless they exclude each other."""
        groups: dict[str, list[int]] = {}
        for unit, part in enumerate(self.parts):
            groups.setdefault(part.group, []).append(unit)
        if self.spec.grid is not UnitGrid.GATES and len(groups) > 1:
            groups["all"] = [*range(len(self.parts))]
        return tuple(Joint(label=label, members=tuple(units)) for label, units in groups.items())

    def units(self, source: ReplacementSource) -> tuple[Unit, ...]:
        return tuple(source.unit(part) for part in self.parts)

    def counts(self, units: int) -> tuple[int, ...]:
        """How many units are replaced together at the points of a curve."""
        if self.spec.grid is UnitGrid.GATES or units < 2:
            return ()
        return (*(2**power for power in range((units - 1).bit_length())), units)

    @property
    def key(self) -> dict[str, Any]:
        """Everything that results depend on."""
        return {
            "spec": self.spec.to_json(),
            "spec_digest": self.spec.digest,
            "checkpoint_digest": self.checkpoint.digest,
            "dtype": self.checkpoint.dtype,
            "documents_digest": hashlib.sha256("\f\f".join(self._texts).encode()).hexdigest(),
        }

    @property
    def steps(self) -> int:
        """Documents times passes over them."""
        return len(self.sources) * ((self.spec.screen is not None) + 1 + bool(self.counts(len(self.parts))))

    def measured(
        self, source: ReplacementSource, units: Sequence[Unit]
    ) -> tuple[Float[np.ndarray, "metric"], Float[np.ndarray, "unit metric"]]:
        """The metrics of a document's unedited run, and of each unit's."""
        planner = Planner(self.checkpoint, source.encoded, units, route=self.spec.route)

        def metrics(logits: Float[np.ndarray, "row d_vocab"]) -> list[float]:
            return [measure(metric, source.answer, logits, planner.clean) for metric in self.spec.metrics]

        values = np.empty((len(units), len(self.spec.metrics)))
        for indexes, logits in planner.answers():
            values[list(indexes)] = [metrics(rows) for rows in logits]
        return np.array(metrics(planner.clean)), values


def predict(spec: SweepSpec, checkpoint: Checkpoint) -> Prediction:
    """The cost of `sweep`, from one plain run and one pack of units. Raises ValueError as `sweep` does."""
    layout = _Layout(spec, checkpoint)
    measured = len(layout.parts) if spec.screen is None else min(len(layout.parts), 2 * spec.screen + RANDOM)
    sample = layout.sources[:: -(-len(layout.sources) // _SAMPLE)]
    naive, planned = 0.0, 0.0
    for source in sample:
        units = layout.units(source)
        singles = cost(checkpoint.config, source.encoded, units, spec.route)
        joint = joint_unit(units) if spec.grid is not UnitGrid.GATES else units[0]
        joints = [joint] * (len(layout.joints) + 2 * len(layout.counts(measured)))
        segments = len(source.encoded.segments)
        naive += singles.naive * measured / singles.units
        planned += (
            (singles.planned - segments) * measured / singles.units
            + cost(checkpoint.config, source.encoded, joints, spec.route).planned
            + segments * (1 + len(source.donors))
            + (3 * STEPS * segments if spec.screen is not None else 0)
        )
    scale = len(layout.sources) / len(sample)
    plain_pace, planned_pace = _paces(layout)
    return Prediction(
        documents=len(layout.sources),
        units=measured,
        naive=naive * scale,
        planned=planned * scale,
        naive_seconds=naive * scale * plain_pace,
        planned_seconds=planned * scale * planned_pace,
    )


def _paces(layout: _Layout) -> tuple[float, float]:
    """Seconds per pass of a plain run, and of a planned pack."""
    source = layout.sources[0]
    units, segments = layout.units(source), len(source.encoded.segments)
    pack = units[:: -(-len(units) // PACK)]
    began = time.perf_counter()
    run(layout.checkpoint, source.encoded.spec)
    between = time.perf_counter()
    layout.measured(source, pack)
    passes = cost(layout.checkpoint.config, source.encoded, pack, layout.spec.route).planned
    passes += len(source.donors) * segments
    return (between - began) / segments, (time.perf_counter() - between) / passes


def sweep(
    spec: SweepSpec, checkpoint: Checkpoint, out: Path | None = None, on_progress: OnProgress = lambda done, total: None
) -> SweepResult:
    """Replace every unit in every document, or only those that a screen chooses; then groups of units together, and
    more and more units.

    `out`: a folder for each document's results and, at the end, the tables; a stopped sweep continues from there.

    Raises ValueError for another checkpoint's spec, units that the model lacks, more questions than there are, no
    documents with donors, and a folder with results of another sweep, an earlier version or another device.
    """
    layout = _Layout(spec, checkpoint)
    passes = _Passes(layout, SweepStore(out, layout.key, checkpoint), on_progress)
    screening = None if spec.screen is None else passes.screen(spec.screen)
    measured = (
        tuple(range(len(layout.parts))) if screening is None else tuple(sorted({*screening.top, *screening.random}))
    )
    baseline, values, joint_values = passes.measure(measured)
    if screening is not None:
        metric = spec.metrics[0]
        screening = screening.beside(measured, (values[metric] - baseline[metric]).mean(1))
    counts = layout.counts(len(measured))
    best, worst = passes.curves(measured, baseline, values, counts) if counts else ({}, {})
    result = SweepResult(
        spec=spec,
        checkpoint_digest=checkpoint.digest,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        parts=layout.parts,
        measured=measured,
        prompts=tuple(source.encoded.prompt for source in layout.sources),
        answer_tokens=tuple(len(source.encoded.answer) for source in layout.sources),
        left_out=layout.left_out,
        baseline=baseline,
        values=values,
        joints=layout.joints,
        joint_values=joint_values,
        counts=counts,
        best_first=best,
        worst_first=worst,
        screening=screening,
    )
    if out is not None:
        result.write(out)
    return result


class _Passes:
    """Passes over the documents of a sweep."""

    def __init__(self, layout: _Layout, store: SweepStore, on_progress: OnProgress) -> None:
        self._layout, self._store, self._on_progress = layout, store, on_progress
        self._done = 0

    def screen(self, k: int) -> Screening:
        """Scores of all units, and which of them to measure for the best k."""
        layout, spec = self._layout, self._layout.spec

        def score(index: int) -> list[float]:
            source = layout.sources[index]
            units = layout.units(source)
            return scores(layout.checkpoint, source.encoded, units, spec.metrics[0], source.answer).tolist()

        return Screening.of(np.mean(self._each("screen", score, (len(layout.parts),)), axis=0), k, spec.seed)

    def measure(self, measured: Sequence[int]) -> tuple[Values, Values, Values]:
        """The unedited values, those of the measured units and those of the joints."""
        layout, metrics = self._layout, len(self._layout.spec.metrics)

        def values(index: int) -> dict[str, Any]:
            source = layout.sources[index]
            units = layout.units(source)
            joints = [joint_unit(units[member] for member in joint.members) for joint in layout.joints]
            baseline, edited = layout.measured(source, [*(units[unit] for unit in measured), *joints])
            singles, joint = np.split(edited, [len(measured)])
            return {"baseline": baseline.tolist(), "units": singles.tolist(), "joints": joint.tolist()}

        shapes = {"baseline": (metrics,), "units": (len(measured), metrics), "joints": (len(layout.joints), metrics)}
        baseline, units, joints = self._by_metric("units", values, shapes)
        return baseline, units, joints

    def curves(
        self, measured: Sequence[int], baseline: Values, values: Values, counts: Sequence[int]
    ) -> tuple[Values, Values]:
        """By metric, [point, document]: units replaced together, best first and worst first."""
        layout, metric = self._layout, self._layout.spec.metrics[0]
        harm = metric.harm * (values[metric] - baseline[metric])
        stories = np.array([source.encoded.prompt.group for source in layout.sources])
        halves = pd.factorize(stories)[0] % 2

        def along(index: int) -> dict[str, Any]:
            source = layout.sources[index]
            units = layout.units(source)
            others = halves != halves[index]
            means = harm[:, others if others.any() else slice(None)].mean(1)
            order = [measured[i] for i in np.argsort(-means, kind="stable")]
            joints = [
                joint_unit(units[unit] for unit in way[:count]) for way in (order, order[::-1]) for count in counts
            ]
            best, worst = np.split(layout.measured(source, joints)[1], 2)
            return {"best": best.tolist(), "worst": worst.tolist()}

        points = (len(counts), len(layout.spec.metrics))
        best, worst = self._by_metric("curve", along, {"best": points, "worst": points})
        return best, worst

    def _each(self, name: str, work: Callable[[int], Any], shapes: Shapes) -> list[Any]:
        """The values of each document, from the store or computed by `work`."""
        documents = []
        for index in range(len(self._layout.sources)):
            file = f"{name}-{index:05}"
            values = self._store.get(file, shapes)
            if values is None:
                values = work(index)
                self._store.put(file, values)
            documents.append(values)
            self._done += 1
            self._on_progress(self._done, self._layout.steps)
        return documents

    def _by_metric(
        self, name: str, work: Callable[[int], dict[str, Any]], shapes: dict[str, tuple[int, ...]]
    ) -> list[Values]:
        """Each of the values in `shapes` over all documents, by metric, with the document as the last axis."""
        documents = self._each(name, work, shapes)
        # Each is [document, ..., metric].
        stacked = [np.array([values[name] for values in documents], float) for name in shapes]
        metrics = self._layout.spec.metrics
        return [{metric: np.moveaxis(array[..., i], 0, -1) for i, metric in enumerate(metrics)} for array in stacked]
