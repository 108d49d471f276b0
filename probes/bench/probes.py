"""What fitting many probes at once saves: batched logistic regression beside scikit-learn's."""

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
"""Targets that scikit-learn fits; its time for all is that of these, extrapolated."""
_ROGUE = 4
"""Features 30 times as large as others and far from 0, as language models have a few."""


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """Targets of ten classes on the same features, fitted both ways. CPU seconds of one thread."""

    d: int
    targets: int
    sklearn_seconds: float
    """Of one target: the mean over those that scikit-learn fitted. Its features were standardised before."""
    batched_seconds: float
    """Of all targets, standardising included."""
    accuracy_difference: float
    """Largest, of held-out accuracy, over the targets that both fitted."""
    agreement: float
    """Smallest share of held-out rows that both put in the same class."""
    unconverged: int
    """Of the batched probes."""

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
    """Features like activations (a power-law spectrum, mixed over all features; a few rogue ones), and labels that
    noise blurs.

    The first `TRAIN` rows are to be fitted on. A label is the highest of ten random directions of the standardised
    features, each of twice the standard deviation of a logit's noise.
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
    """Measure every size. `on_fit` hears (scikit-learn's fits done, fits to do)."""
    rows: list[ProbeRow] = []
    for at, d in enumerate(DIMS):
        rows += _both(d, strength, lambda done, at=at: on_fit(at * REFERENCE + done, len(DIMS) * REFERENCE))
    return ProbesBench(strength=strength, rows=tuple(rows))


def _both(d: int, strength: float, on_fit: Callable[[int], None]) -> list[ProbeRow]:
    """Both ways in turn: the fewer targets before and after scikit-learn's fits, the many between them."""
    from sklearn.linear_model import LogisticRegression

    features, labels = data(d, max(TARGETS))
    scaled = standardised(features, np.arange(TRAIN + TEST), *scaler(features, np.arange(TRAIN)))[:, :-1]
    batched: dict[int, list[tuple[float, tuple[Probe, ...]]]] = {targets: [] for targets in TARGETS}
    alone: list[float] = []
    predicted = []

    def fit_batched(targets: int) -> None:
        train, own = features[:TRAIN], labels[:targets, :TRAIN]
        batched[targets].append(
            _timed(lambda: fit_many(train, own, [CLASSES] * targets, strengths=[strength] * targets))
        )

    fit_batched(TARGETS[0])
    for target in range(REFERENCE):
        model = LogisticRegression(C=strength, tol=TOLERANCE, max_iter=10_000)
        with threadpool_limits(1):
            alone.append(_timed(partial(model.fit, scaled[:TRAIN], labels[target, :TRAIN]))[0])
        predicted.append(model.predict(scaled[TRAIN:]))
        on_fit(target + 1)
        if target + 1 == REFERENCE // 2:
            fit_batched(TARGETS[1])
    fit_batched(TARGETS[0])
    truth, said, rows = labels[:REFERENCE, TRAIN:], np.stack(predicted), []
    for targets, runs in batched.items():
        found = np.stack([probe.predict(features[TRAIN:]) for probe in runs[-1][1][:REFERENCE]])
        rows.append(
            ProbeRow(
                d=d,
                targets=targets,
                sklearn_seconds=float(np.mean(alone)),
                batched_seconds=float(np.mean([seconds for seconds, _ in runs])),
                accuracy_difference=float(np.abs((found == truth).mean(1) - (said == truth).mean(1)).max()),
                agreement=float((found == said).mean(1).min()),
                unconverged=sum(not probe.converged for probe in runs[-1][1]),
            )
        )
    return rows


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """CPU seconds, and what came of them."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found
