"""Probes of every target on every source, with control labels and baselines; resumable by source."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from lm2.weights.checkpoint import Checkpoint
from probes.estimators.linear import choose, fit_many
from probes.estimators.probe import Probe
from probes.features.collect import collect
from probes.features.sources import Source
from probes.features.targets import Target
from probes.probing.plan import ProbePlan
from probes.probing.result import Fitted, ProbeResult, Reading
from probes.probing.spec import ProbeSpec
from probes.probing.store import ProbeStore
from probes.stats.permutation import Permuted, permutation_test
from probes.stats.selectivity import CodeLength, control_labels, online_code
from probes.stats.splits import Fold

OnProgress = Callable[[int, int], None]
"""Called with the number of finished sources, and of all."""
_HELD_BYTES = 2**29
"""Features held at a time: sources are collected together as far as they fit."""


def probe(
    spec: ProbeSpec,
    checkpoint: Checkpoint,
    folder: Path | None = None,
    on_progress: OnProgress = lambda done, total: None,
    plan: ProbePlan | None = None,
) -> ProbeResult:
    """Probe every source and baseline for every target. With a folder, a stopped probe is resumed, and tables are
    written.

    Probes are fitted on the training groups of each fold, and all results are of the other groups. Each target's
    strength is chosen by groups held out of the training groups. `plan`: the spec's, if it was already made. Raises
    ValueError as `ProbePlan.of` does, and for a folder of another probe.
    """
    plan = ProbePlan.of(spec, checkpoint) if plan is None else plan
    spec = plan.spec
    texts = "\f\f".join(encoded.spec.text for encoded in plan.examples.encoded_prompts)
    key = {
        "spec": spec.to_json(),
        "spec_digest": spec.digest,
        "checkpoint_digest": checkpoint.digest,
        "dtype": checkpoint.dtype,
        "documents_digest": hashlib.sha256(texts.encode()).hexdigest(),
    }
    store = ProbeStore(folder, key, checkpoint)
    controls = {
        target: control_labels(plan.examples.last_statement, labels.values, len(labels.names), spec.seed)
        for target, labels in plan.labels.items()
    }
    sources = (*plan.sources, *plan.baselines)
    stored = ((source, store.get(source, _shapes(plan, checkpoint, source))) for source in sources)
    done = {source: readings for source, readings in stored if readings is not None}
    on_progress(len(done), len(sources))
    for batch in _batches(plan, checkpoint, [source for source in sources if source not in done]):
        for source, features in collect(checkpoint, plan.examples, batch, seed=spec.seed).items():
            done[source] = tuple(_read(plan, features, controls, coded=source in plan.sources))
            store.put(source, done[source])
            on_progress(len(done), len(sources))
    result = ProbeResult(
        plan=plan,
        checkpoint_digest=checkpoint.digest,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        controls=controls,
        readings={
            (source, target): reading
            for source in sources
            for target, reading in zip(plan.labels, done[source], strict=True)
        },
    )
    if folder is not None:
        result.write(folder)
    return result


def _shapes(plan: ProbePlan, checkpoint: Checkpoint, source: Source) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of the arrays in a source's readings, target by target."""
    rows, width = len(plan.examples), source.width(checkpoint.config, plan.examples)
    classes = [len(labels.names) for labels in plan.labels.values()]
    return [{"log_probabilities": (rows, count), "control": (rows,), "direction": (width, count)} for count in classes]


def _batches(plan: ProbePlan, checkpoint: Checkpoint, sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Sources whose features are held at one time."""
    batch, held = [], 0
    for source in sources:
        size = 4 * len(plan.examples) * source.width(checkpoint.config, plan.examples)
        if batch and held + size > _HELD_BYTES:
            yield batch
            batch, held = [], 0
        batch.append(source)
        held += size
    if batch:
        yield batch


def _read(
    plan: ProbePlan,
    features: Float32[np.ndarray, "row d"],
    controls: Mapping[Target, Int[np.ndarray, "row"]],
    *,
    coded: bool,
) -> Iterator[Reading]:
    """The reading of each target. `coded`: with code length and permutations, which baselines do not need."""
    classes = [len(label.names) for label in plan.labels.values()]
    tasks = np.stack([label.values for label in plan.labels.values()])
    labels, counts, targets = np.concatenate([tasks, np.stack(list(controls.values()))]), 2 * classes, len(classes)
    # A fold without two classes to learn keeps the uniform guess.
    predicted = [np.full((len(features), count), -np.log(count), np.float32) for count in counts]
    fits: list[list[Fitted]] = [[] for _ in counts]
    directions = [np.zeros((features.shape[1], count)) for count in counts]
    for fold in plan.folds:
        for i, loss, fitted in _fitted(plan, features, labels, counts, fold):
            predicted[i][fold.test] = fitted.log_probabilities(features[fold.test])
            directions[i] += fitted.raw_direction / len(plan.folds)
            fits[i].append(
                Fitted(
                    strength=fitted.strength,
                    inner=loss,
                    converged=fitted.converged,
                    gradient_norm=fitted.gradient_norm,
                    evaluations=fitted.evaluations,
                )
            )
    codes, permuted = _tested(plan, features, tasks, classes, fits[:targets]) if coded else ([None] * targets,) * 2
    for i in range(targets):
        yield Reading(
            log_probabilities=predicted[i],
            control=predicted[targets + i].argmax(1),
            direction=directions[i].astype(np.float32),
            fits=tuple(fits[i]),
            code=codes[i],
            permuted=permuted[i],
        )


def _fitted(
    plan: ProbePlan,
    features: Float32[np.ndarray, "row d"],
    labels: Int[np.ndarray, "target row"],
    classes: Sequence[int],
    fold: Fold,
) -> Iterator[tuple[int, float, Probe]]:
    """(target, loss of its chosen strength, probe) of every target with two classes in the training rows."""
    spec, train = plan.spec, features[fold.train]
    able = [i for i, own in enumerate(labels[:, fold.train]) if len(np.unique(own[own >= 0])) > 1]
    labels, counts = labels[able][:, fold.train], [classes[i] for i in able]
    choices = choose(
        train, labels, counts, plan.groups[fold.train], family=spec.family, strengths=spec.strengths, seed=spec.seed
    )
    probes = fit_many(train, labels, counts, family=spec.family, strengths=[choice.strength for choice in choices])
    for i, choice, fitted in zip(able, choices, probes):
        yield i, choice.loss, fitted


def _tested(
    plan: ProbePlan,
    features: Float32[np.ndarray, "row d"],
    tasks: Int[np.ndarray, "target row"],
    classes: Sequence[int],
    fits: Sequence[Sequence[Fitted]],
) -> tuple[Sequence[CodeLength], Sequence[Permuted | None]]:
    """Code lengths, with the median of the chosen strengths; and permutation tests."""
    spec = plan.spec
    strength = float(np.median([fit.strength for of_target in fits for fit in of_target]))

    def fit(
        rows: Float32[np.ndarray, "row d"], labels: Int[np.ndarray, "target row"], counts: Sequence[int]
    ) -> Sequence[Probe]:
        return fit_many(rows, labels, counts, family=spec.family, strengths=[strength] * len(counts))

    codes = online_code(features, tasks, classes, plan.groups, fit, spec.seed)
    if not spec.permutations:
        return codes, [None] * len(codes)
    documents = plan.examples.document.astype(str)
    return codes, permutation_test(
        features, tasks, plan.groups, documents, permutations=spec.permutations, seed=spec.seed
    )
