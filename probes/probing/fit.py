"""Every target read off every source: fitted on some stories, asked of others, beside control labels and baselines.
Resumable by source."""

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
"""Hears how many sources have been read, of how many."""
_HELD_BYTES = 2**29
"""Of features: sources are collected together as far as they fit."""


def probe(
    spec: ProbeSpec,
    checkpoint: Checkpoint,
    folder: Path | None = None,
    on_progress: OnProgress = lambda done, total: None,
    plan: ProbePlan | None = None,
) -> ProbeResult:
    """Read every target off every source and baseline. With a folder, it goes on where it was stopped, and leaves the
    tables there.

    Probes are fitted on the training groups of each fold, and everything that is reported is of groups that they have
    not seen. The strength is chosen for each target by groups held out of the training groups. `plan`: the spec's,
    where it is there already. Raises ValueError as `ProbePlan.of` does, and for a folder of another probe.
    """
    plan = ProbePlan.of(spec, checkpoint) if plan is None else plan
    key = {
        "spec": spec.to_json(),
        "spec_digest": spec.digest,
        "checkpoint_digest": checkpoint.digest,
        "dtype": checkpoint.dtype,
    }
    key["documents_digest"] = hashlib.sha256(
        "\f\f".join(encoded.spec.text for encoded in plan.examples.encoded_prompts).encode()
    ).hexdigest()
    store = ProbeStore(folder, key, checkpoint)
    controls = {
        target: control_labels(plan.examples.kind, labels.values, len(labels.names), spec.seed)
        for target, labels in plan.labels.items()
    }
    every = (*plan.sources, *plan.baselines)
    there = {
        source: found for source in every if (found := store.get(source, _forms(plan, checkpoint, source))) is not None
    }
    on_progress(len(there), len(every))
    for few in _together(plan, checkpoint, [source for source in every if source not in there]):
        for source, features in collect(checkpoint, plan.examples, few, seed=spec.seed).items():
            there[source] = tuple(_read(plan, features, controls, coded=source in plan.sources))
            store.put(source, there[source])
            on_progress(len(there), len(every))
    result = ProbeResult(
        plan=plan,
        checkpoint_digest=checkpoint.digest,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        controls=controls,
        readings={
            (source, target): reading
            for source in every
            for target, reading in zip(plan.labels, there[source], strict=True)
        },
    )
    if folder is not None:
        result.write(folder)
    return result


def _forms(plan: ProbePlan, checkpoint: Checkpoint, source: Source) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of a source's readings, target by target."""
    rows, width = len(plan.examples), source.width(checkpoint.config, plan.examples)
    classes = [len(labels.names) for labels in plan.labels.values()]
    return [{"log_probabilities": (rows, count), "control": (rows,), "direction": (width, count)} for count in classes]


def _together(plan: ProbePlan, checkpoint: Checkpoint, sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Sources whose features are held at one time."""
    few, held = [], 0
    for source in sources:
        size = 4 * len(plan.examples) * source.width(checkpoint.config, plan.examples)
        if few and held + size > _HELD_BYTES:
            yield few
            few, held = [], 0
        few.append(source)
        held += size
    if few:
        yield few


def _read(
    plan: ProbePlan,
    features: Float32[np.ndarray, "row d"],
    controls: Mapping[Target, Int[np.ndarray, "row"]],
    *,
    coded: bool,
) -> Iterator[Reading]:
    """The reading of each target. `coded`: with code length and permutations, which baselines can do without."""
    classes = [len(label.names) for label in plan.labels.values()]
    tasks = np.stack([label.values for label in plan.labels.values()])
    asked, kinds, targets = np.concatenate([tasks, np.stack(list(controls.values()))]), 2 * classes, len(classes)
    # Where a fold has nothing to learn from.
    said = [np.full((len(features), count), -np.log(count), np.float32) for count in kinds]
    fits: list[list[Fitted]] = [[] for _ in kinds]
    directions = [np.zeros((features.shape[1], count)) for count in kinds]
    for fold in plan.folds:
        for at, loss, fitted in _fitted(plan, features, asked, kinds, fold):
            said[at][fold.test] = fitted.log_probabilities(features[fold.test])
            directions[at] += fitted.raw_direction / len(plan.folds)
            fits[at].append(
                Fitted(
                    strength=fitted.strength,
                    inner=loss,
                    converged=fitted.converged,
                    gradient_norm=fitted.gradient_norm,
                    evaluations=fitted.evaluations,
                )
            )
    codes, permuted = _tested(plan, features, tasks, classes, fits) if coded else ([None] * targets,) * 2
    for at in range(targets):
        yield Reading(
            log_probabilities=said[at],
            control=said[targets + at].argmax(1),
            direction=directions[at].astype(np.float32),
            fits=tuple(fits[at]),
            code=codes[at],
            permuted=permuted[at],
        )


def _fitted(
    plan: ProbePlan,
    features: Float32[np.ndarray, "row d"],
    asked: Int[np.ndarray, "target row"],
    classes: Sequence[int],
    fold: Fold,
) -> Iterator[tuple[int, float, Probe]]:
    """The probe of every target, by number, that the training rows have two classes of; with the loss that its strength
    was chosen by."""
    spec, train = plan.spec, features[fold.train]
    known = [at for at, own in enumerate(asked[:, fold.train]) if len(np.unique(own[own >= 0])) > 1]
    labels, counts = asked[known][:, fold.train], [classes[at] for at in known]
    chosen = choose(
        train, labels, counts, plan.groups[fold.train], family=spec.family, strengths=spec.strengths, seed=spec.seed
    )
    probes = fit_many(train, labels, counts, family=spec.family, strengths=[one.strength for one in chosen])
    for at, choice, fitted in zip(known, chosen, probes):
        yield at, choice.loss, fitted


def _tested(
    plan: ProbePlan,
    features: Float32[np.ndarray, "row d"],
    tasks: Int[np.ndarray, "target row"],
    classes: Sequence[int],
    fits: Sequence[Sequence[Fitted]],
) -> tuple[Sequence[CodeLength], Sequence[Permuted | None]]:
    """Code lengths, at the median of the strengths that were chosen; and what permuted labels give."""
    spec = plan.spec
    strength = float(np.median([fit.strength for one in fits[: len(classes)] for fit in one]))

    def fit(
        some: Float32[np.ndarray, "row d"], labels: Int[np.ndarray, "target row"], counts: Sequence[int]
    ) -> Sequence[Probe]:
        return fit_many(some, labels, counts, family=spec.family, strengths=[strength] * len(counts))

    codes = online_code(features, tasks, classes, plan.groups, fit, spec.seed)
    if not spec.permutations:
        return codes, [None] * len(codes)
    documents = plan.examples.document.astype(str)
    return codes, permutation_test(
        features, tasks, plan.groups, documents, permutations=spec.permutations, seed=spec.seed
    )
