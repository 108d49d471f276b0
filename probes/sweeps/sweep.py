"""Sweeps: every unit of a grid replaced, one by one, in many documents; kept document by document, so that a stopped
sweep goes on."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lm2.runs.runner import run
from lm2.tasks import stories
from lm2.tasks.encoded_prompt import encode_prompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import Unit, together
from probes.causal.observe import answers
from probes.causal.plan import cost
from probes.causal.planner import PACK, Planner
from probes.stats.metrics import Answer, measure
from probes.store import Shapes, Store
from probes.sweeps.grid import ReplacementSource, UnitGrid, parts, sources
from probes.sweeps.result import Joint, SweepResult, Values
from probes.sweeps.screening import RANDOM, STEPS, Screening, scores
from probes.sweeps.spec import SweepSpec

OnProgress = Callable[[int, int], None]
"""Hears (steps done, steps in all), a step for every document and pass. What it raises ends the sweep; what is done is
kept."""

_SAMPLED = 8
"""Documents by which a cost is predicted."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a sweep will cost. Passes are forward passes of one segment of one document."""

    documents: int
    units: int
    """To be measured in each document, joint ones and those of curves apart."""
    naive: float
    """Passes with a whole document for every unit."""
    planned: float
    naive_seconds: float
    planned_seconds: float
    """Wall-clock time at the pace of one plain run, and of one pack of units as planned."""


class _Layout:
    """A spec laid out for a checkpoint: documents, units and what replaces them. Raises ValueError as `sweep` does."""

    def __init__(self, spec: SweepSpec, checkpoint: Checkpoint) -> None:
        if spec.checkpoint != checkpoint.name:
            raise ValueError(f"the spec is for checkpoint {spec.checkpoint!r}, not {checkpoint.name!r}")
        self.spec, self.checkpoint = spec, checkpoint
        self.parts = parts(spec.grid, checkpoint.config, spec.back, spec.values)
        encoded_prompts = [
            encode_prompt(checkpoint, prompt, spec.segment_length)
            for prompt in stories.questions(spec.task, spec.questions)
        ]
        assert spec.replacement is not None, "it was filled in"
        self.sources, self.left_out = sources(
            spec.replacement, spec.persistence, encoded_prompts, max(spec.back), spec.donors, spec.seed
        )
        self._texts = [encoded.spec.text for encoded in encoded_prompts]
        by_put = dict(zip(map(id, encoded_prompts), answers(encoded_prompts)))
        self.answers: tuple[Answer, ...] = tuple(by_put[id(source.asked)] for source in self.sources)

    @cached_property
    def joints(self) -> tuple[Joint, ...]:
        """The units of each group at once, and all of them unless they exclude each other."""
        labels = list(dict.fromkeys(part.group for part in self.parts))
        found = [
            Joint(label=label, members=tuple(at for at, part in enumerate(self.parts) if part.group == label))
            for label in labels
        ]
        if self.spec.grid is not UnitGrid.GATES and len(found) > 1:
            found.append(Joint(label="all", members=tuple(range(len(self.parts)))))
        return tuple(found)

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
        documents = hashlib.sha256("\f\f".join(self._texts).encode()).hexdigest()
        return {
            "spec": self.spec.to_json(),
            "spec_digest": self.spec.digest,
            "checkpoint_digest": self.checkpoint.digest,
            "dtype": self.checkpoint.dtype,
            "documents_digest": documents,
        }

    @property
    def steps(self) -> int:
        """Documents times passes over them."""
        return len(self.sources) * ((self.spec.screen is not None) + 1 + bool(self.counts(len(self.parts))))


def predict(spec: SweepSpec, checkpoint: Checkpoint) -> Prediction:
    """What `sweep` will cost; runs one document plainly and one pack of its units as planned. Raises ValueError as
    `sweep` does."""
    layout = _Layout(spec, checkpoint)
    measured = len(layout.parts) if spec.screen is None else min(len(layout.parts), 2 * spec.screen + RANDOM)
    sample = layout.sources[:: -(-len(layout.sources) // _SAMPLED)]
    naive, planned = 0.0, 0.0
    for source in sample:
        units = layout.units(source)
        singles = cost(checkpoint.config, source.asked, units, spec.route)
        all_of_them = together(units) if spec.grid is not UnitGrid.GATES else units[0]
        others = cost(
            checkpoint.config,
            source.asked,
            [all_of_them] * (len(layout.joints) + 2 * len(layout.counts(measured))),
            spec.route,
        )
        segments = len(source.asked.segments)
        naive += singles.naive * measured / singles.units
        planned += (
            (singles.planned - segments) * measured / singles.units
            + others.planned
            + segments * (1 + len(source.donors))
        )
        planned += 3 * STEPS * segments if spec.screen is not None else 0
    share = len(layout.sources) / len(sample)
    plain_pace, planned_pace = _paces(layout)
    return Prediction(
        documents=len(layout.sources),
        units=measured,
        naive=naive * share,
        planned=planned * share,
        naive_seconds=naive * share * plain_pace,
        planned_seconds=planned * share * planned_pace,
    )


def _paces(layout: _Layout) -> tuple[float, float]:
    """Seconds a pass of a plain run, and of a pack as planned."""
    source = layout.sources[0]
    units = layout.units(source)
    few = units[:: -(-len(units) // PACK)]
    began = time.perf_counter()
    run(layout.checkpoint, source.asked.spec)
    between = time.perf_counter()
    _measured(layout, source, layout.answers[0], few)
    planned = cost(layout.checkpoint.config, source.asked, few, layout.spec.route).planned + len(source.donors) * len(
        source.asked.segments
    )
    return (between - began) / len(source.asked.segments), (time.perf_counter() - between) / planned


def sweep(
    spec: SweepSpec, checkpoint: Checkpoint, out: Path | None = None, on_progress: OnProgress = lambda done, total: None
) -> SweepResult:
    """Replace every unit in every document, or after a screen the units that matter; then all at once, and
    cumulatively.

    `out`: a folder that keeps each document's results as they come, and in the end the tables; a sweep that was stopped
    goes on from what is there.

    Raises ValueError for another checkpoint's spec, what the model lacks, more questions than there are, documents
    without donors, and a folder with another sweep's results, or with some that an earlier version or another device
    has begun.
    """
    layout = _Layout(spec, checkpoint)
    store = Store(out, layout.key, checkpoint)
    work = _Work(layout, store, on_progress)
    screening = None if spec.screen is None else work.screen(spec.screen)
    measured = (
        tuple(range(len(layout.parts))) if screening is None else tuple(sorted({*screening.top, *screening.random}))
    )
    baseline, values, joint_values = work.measure(measured)
    if screening is not None:
        metric = spec.metrics[0]
        screening = screening.beside(measured, (values[metric] - baseline[metric]).mean(1))
    counts = layout.counts(len(measured))
    best, worst = work.curves(measured, baseline, values, counts) if counts else ({}, {})
    result = SweepResult(
        spec=spec,
        checkpoint_digest=checkpoint.digest,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        parts=layout.parts,
        measured=measured,
        prompts=tuple(source.asked.prompt for source in layout.sources),
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


class _Work:
    """Passes over the documents of a sweep."""

    def __init__(self, layout: _Layout, store: Store, on_progress: OnProgress) -> None:
        self._layout, self._store, self._on_progress = layout, store, on_progress
        self._done = 0

    def screen(self, k: int) -> Screening:
        """Scores of all units, and which of them to measure for the sake of the best k."""
        layout, spec = self._layout, self._layout.spec

        def scored(index: int) -> list[float]:
            source = layout.sources[index]
            return scores(
                layout.checkpoint, source.asked, layout.units(source), spec.metrics[0], layout.answers[index]
            ).tolist()

        return Screening.of(np.mean(self._each("screen", scored, (len(layout.parts),)), axis=0), k, spec.seed)

    def measure(self, measured: Sequence[int]) -> tuple[Values, Values, Values]:
        """By metric: the unedited values [document], those of the measured units and those of the joints [unit,
        document]."""
        layout = self._layout

        def values(index: int) -> dict[str, Any]:
            source = layout.sources[index]
            units = layout.units(source)
            joints = [together(units[at] for at in joint.members) for joint in layout.joints]
            baseline, found = _measured(
                layout, source, layout.answers[index], [*(units[at] for at in measured), *joints]
            )
            return {
                "baseline": baseline.tolist(),
                "units": found[: len(measured)].tolist(),
                "joints": found[len(measured) :].tolist(),
            }

        metrics = len(layout.spec.metrics)
        form = {"baseline": (metrics,), "units": (len(measured), metrics), "joints": (len(layout.joints), metrics)}
        held = self._each("units", values, form)
        baseline, units, joints = (self._by_metric([one[name] for one in held]) for name in form)
        return baseline, units, joints

    def curves(
        self, measured: Sequence[int], baseline: Values, values: Values, counts: Sequence[int]
    ) -> tuple[Values, Values]:
        """By metric, [point, document]: units replaced together, best first and worst first."""
        layout, metric = self._layout, self._layout.spec.metrics[0]
        harm = metric.harm * (values[metric] - baseline[metric])
        folds = _folds([source.asked.prompt.group for source in layout.sources])

        def along(index: int) -> dict[str, Any]:
            source = layout.sources[index]
            units = layout.units(source)
            others = folds != folds[index]
            order = [
                measured[at]
                for at in np.argsort(-harm[:, others if others.any() else slice(None)].mean(1), kind="stable")
            ]
            sets = [together(units[at] for at in way[:count]) for way in (order, order[::-1]) for count in counts]
            _, found = _measured(layout, source, layout.answers[index], sets)
            return {"best": found[: len(counts)].tolist(), "worst": found[len(counts) :].tolist()}

        points = (len(counts), len(layout.spec.metrics))
        held = self._each("curve", along, {"best": points, "worst": points})
        best, worst = (self._by_metric([one[name] for one in held]) for name in ("best", "worst"))
        return best, worst

    def _each(self, name: str, work: Callable[[int], Any], form: Shapes) -> list[Any]:
        found = []
        for index in range(len(self._layout.sources)):
            file = f"{name}-{index:05}"
            held = self._store.get(file, form)
            if held is None:
                held = work(index)
                self._store.put(file, held)
            found.append(held)
            self._done += 1
            self._on_progress(self._done, self._layout.steps)
        return found

    def _by_metric(self, held: Sequence[Any]) -> Values:
        stacked = np.array(held, float)  # [document, ..., metric]
        return {metric: np.moveaxis(stacked[..., at], 0, -1) for at, metric in enumerate(self._layout.spec.metrics)}


def _folds(names: Sequence[str]) -> np.ndarray:
    """Half of the stories each, by turns."""
    order = {name: at for at, name in enumerate(dict.fromkeys(names))}
    return np.array([order[name] % 2 for name in names])


def _measured(
    layout: _Layout, source: ReplacementSource, answer: Answer, units: Sequence[Unit]
) -> tuple[Float[np.ndarray, "metric"], Float[np.ndarray, "unit metric"]]:
    """The metrics of a document's unedited run, and of each unit's."""
    planner = Planner(layout.checkpoint, source.asked, units, route=layout.spec.route)
    metrics = layout.spec.metrics
    found = np.empty((len(units), len(metrics)))
    for indexes, logits in planner.answers():
        for index, rows in zip(indexes, logits):
            found[index] = [measure(metric, answer, rows, planner.clean) for metric in metrics]
    return np.array([measure(metric, answer, planner.clean, planner.clean) for metric in metrics]), found
