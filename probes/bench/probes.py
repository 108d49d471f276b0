"""Benchmark of fitting many probes at once: batched logistic regression beside scikit-learn's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32, Int
from scipy.fft import dct
from threadpoolctl import threadpool_limits

from probes.estimators.closed_form import scaler, standardised
from probes.estimators.linear import TOLERANCE, fit_many
from probes.estimators.probe import Probe

T = TypeVar("T")

DIMS, TARGETS, CLASSES = (256, 512, 1024, 2048), (16, 64), 10
TRAIN, TEST = 5000, 2000
REFERENCE = 4
"""Targets that scikit-learn fits; its time for all is extrapolated from these."""
_ROGUE = 4
"""Features 30 times as large as the others and far from 0, such as language models have."""


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """Targets of ten classes on the same features, fitted both ways. Times are CPU seconds of one thread."""

    d: int
    targets: int
    sklearn_seconds: float
    """For one target: the mean over those that scikit-learn fitted, without standardising the features."""
    batched_seconds: float
    """For all targets, standardising included."""
    accuracy_difference: float
    """Largest difference of held-out accuracy over the targets that both fitted."""
    agreement: float
    """Smallest share, over these targets, of held-out rows that both put in the same class."""
    unconverged: int
    """Batched probes that did not converge."""

    @property
    def speedup(self) -> float:
        return self.sklearn_seconds * self.targets / self.batched_seconds


@dataclass(frozen=True, kw_only=True)
class ProbesBench:
    strength: float
    """C of every fit."""
    rows: tuple[ProbeRow, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "sklearn_targets": REFERENCE,
            "rows": [{**vars(row), "speedup": row.speedup} for row in self.rows],
        }


def data(d: int, targets: int, seed: int = 0) -> tuple[Float32[np.ndarray, "row d"], Int[np.ndarray, "target row"]]:
    """Features like activations (a power-law spectrum mixed over all features, and a few rogue ones), and noisy labels.

    The first `TRAIN` rows are to be fitted on. A label is the largest of ten random projections of the standardised
    features, each with twice the standard deviation of its noise.
    """
    draw, rows = np.random.default_rng(seed), TRAIN + TEST
    features = (
        draw.standard_normal((rows, d), dtype=np.float32)
        / np.sqrt(1 + np.arange(d, dtype=np.float32))
        * draw.choice([-1, 1], d)
    )
    features = np.ascontiguousarray(np.asarray(dct(features, norm="ortho", axis=1))[:, draw.permutation(d)], np.float32)
    features[:, :_ROGUE] = features[:, :_ROGUE] * 30 + 10
    logits = (
        (features - features.mean(0)) / features.std(0) @ draw.standard_normal((d, CLASSES * targets), dtype=np.float32)
    )
    logits *= 2 / logits.std()
    labels = (logits + draw.gumbel(size=logits.shape)).reshape(rows, CLASSES, targets).argmax(1).T
    return features, labels


def bench_probes(strength: float = 0.01, on_fit: Callable[[int, int], None] = lambda done, total: None) -> ProbesBench:
    """Measure every size. `on_fit` is called with (scikit-learn's fits done, fits to do)."""
    rows: list[ProbeRow] = []
    for i, d in enumerate(DIMS):
        rows += _both(d, strength, lambda done, i=i: on_fit(i * REFERENCE + done, len(DIMS) * REFERENCE))
    return ProbesBench(strength=strength, rows=tuple(rows))


def _both(d: int, strength: float, on_fit: Callable[[int], None]) -> list[ProbeRow]:
    """Measure both ways in turn: the fewer targets before and after scikit-learn's fits, the many between them."""
    from sklearn.linear_model import LogisticRegression

    features, labels = data(d, max(TARGETS))
    scaled = standardised(features, np.arange(TRAIN + TEST), *scaler(features, np.arange(TRAIN)))[:, :-1]
    batched: dict[int, list[tuple[float, tuple[Probe, ...]]]] = {targets: [] for targets in TARGETS}
    sklearn_seconds: list[float] = []
    sklearn_predicted = []

    def fit_batched(targets: int) -> None:
        train = features[:TRAIN], labels[:targets, :TRAIN], [CLASSES] * targets
        batched[targets].append(_timed(lambda: fit_many(*train, strengths=[strength] * targets)))

    fit_batched(TARGETS[0])
    for target in range(REFERENCE):
        model = LogisticRegression(C=strength, tol=TOLERANCE, max_iter=10_000)
        with threadpool_limits(1):
            sklearn_seconds.append(_timed(partial(model.fit, scaled[:TRAIN], labels[target, :TRAIN]))[0])
        sklearn_predicted.append(model.predict(scaled[TRAIN:]))
        on_fit(target + 1)
        if target + 1 == REFERENCE // 2:
            fit_batched(TARGETS[1])
    fit_batched(TARGETS[0])
    truth, reference, rows = labels[:REFERENCE, TRAIN:], np.stack(sklearn_predicted), []
    for targets, runs in batched.items():
        probes = runs[-1][1]
        predicted = np.stack([probe.predict(features[TRAIN:]) for probe in probes[:REFERENCE]])
        rows.append(
            ProbeRow(
                d=d,
                targets=targets,
                sklearn_seconds=float(np.mean(sklearn_seconds)),
                batched_seconds=float(np.mean([seconds for seconds, _ in runs])),
                accuracy_difference=float(np.abs((predicted == truth).mean(1) - (reference == truth).mean(1)).max()),
                agreement=float((predicted == reference).mean(1).min()),
                unconverged=sum(not probe.converged for probe in probes),
            )
        )
    return rows


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds, and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result
