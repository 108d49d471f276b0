"""Linear probes, fitted for many targets at once.

Features are standardised by the mean and deviation of the training rows. The fitted probe holds both, and takes raw
features.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from threadpoolctl import threadpool_limits

from lm2.runs.trace import read_only
from probes.estimators import closed_form
from probes.estimators.logistic import minimise
from probes.estimators.probe import Family, Probe
from probes.stats.splits import Names, hold_out

TOLERANCE = 1e-5
"""Largest entry of the gradient. At 1e-4, accuracies of the same probe by two solvers differ by up to 0.06."""


def fit(
    features: Float32[np.ndarray, "row d"],
    labels: Int[np.ndarray, "row"],
    classes: int,
    *,
    family: Family = Family.LOGISTIC,
    strength: float | None = None,
) -> Probe:
    """A probe of one target; see `fit_many`. `strength` None: the family's default."""
    strength = family.default if strength is None else strength
    return fit_many(features, np.asarray(labels)[None], (classes,), family=family, strengths=(strength,))[0]


def fit_many(
    features: Float32[np.ndarray, "row d"],
    labels: Int[np.ndarray, "target row"],
    classes: Sequence[int],
    *,
    family: Family = Family.LOGISTIC,
    strengths: Sequence[float],
    tol: float = TOLERANCE,
    start: Sequence[Probe] | None = None,
) -> tuple[Probe, ...]:
    """Probes of many targets on the same features: far faster than one by one. Control labels and seeds can be targets,
    too.

    Args:
        labels: 0 to classes - 1; -1 leaves the row out for that target. The scaler is of all rows.
        classes: of each target. Those without rows get a probability near 0.
        strengths: one per target; see `Family`.
        tol: a logistic probe has converged when no entry of its gradient is larger. One that cannot converge has
            `converged` False.
        start: probes of the same targets, fitted on any rows, from which logistic ones start.

    Raises ValueError for shapes that do not fit, features that are not finite, labels outside of their classes, a
    target whose rows have fewer than two classes, and impossible strengths.
    """
    _check(family, strengths, tol, len(classes))
    return _Training(features, labels, classes).path(family, [strengths], tol, start)[0] if len(classes) else ()


class Chosen(NamedTuple):
    """A strength, and its held-out cross-entropy (nats)."""

    strength: float
    loss: float


def choose(
    features: Float32[np.ndarray, "row d"],
    labels: Int[np.ndarray, "target row"],
    classes: Sequence[int],
    groups: Names,
    *,
    family: Family = Family.LOGISTIC,
    strengths: Sequence[float],
    seed: int = 0,
) -> tuple[Chosen, ...]:
    """The strength of each target with the lowest cross-entropy on a quarter of the groups, fitted on the others.

    Logistic probes go from the smallest strength to the largest, each starting where the last one ended. The smallest
    of equally good ones is chosen. A target with no label in the held-out groups, or one class in the others, gets the
    strength closest to its family's default, and the loss of a uniform guess.

    Raises ValueError as `fit_many` does, and for a single group.
    """
    features, labels = _arrays(features, labels, classes)
    _present(labels, classes)
    strengths = sorted(set(strengths))[: 1 if family is Family.MASS_MEAN else None]
    for strength in strengths:
        _check(family, [strength] * len(classes), TOLERANCE, len(classes))
    fold = hold_out(groups, seed=seed)
    train, test = labels[:, fold.train], labels[:, fold.test]
    able = [i for i, own in enumerate(train) if len(set(own[own >= 0])) > 1 and (test[i] >= 0).any()]
    usual = min(strengths, key=lambda strength: abs(np.log(strength / family.default)))
    chosen = [Chosen(usual, float(np.log(count))) for count in classes]
    if able:
        training = _Training(features, labels[able], [classes[i] for i in able], fold.train)
        path = training.path(family, [[strength] * len(able) for strength in strengths], TOLERANCE)
        held_out = features[fold.test]
        for i, probes in zip(able, zip(*path)):
            losses = [_cross_entropy(probe.log_probabilities(held_out), test[i]) for probe in probes]
            chosen[i] = Chosen(strengths[int(np.argmin(losses))], min(losses))
    return tuple(chosen)


def _cross_entropy(log_probabilities: Float[np.ndarray, "row class"], labels: Int[np.ndarray, "row"]) -> float:
    known = np.flatnonzero(labels >= 0)
    return -float(log_probabilities[known, labels[known]].mean())


def _check(family: Family, strengths: Sequence[float], tol: float, targets: int) -> None:
    most = 1.0 if family is Family.LDA else np.inf
    if len(strengths) != targets or not all(0 < strength <= most and np.isfinite(strength) for strength in strengths):
        raise ValueError(
            f"strengths of {family.value} must be one a target, {targets} in all, above 0 and at most {most}, not"
            f" {strengths}"
        )
    if not 0 < tol < np.inf:
        raise ValueError(f"the tolerance must be above 0, not {tol}")


class _Training:
    """Training rows: standardised, with labels renumbered over the classes that occur."""

    def __init__(
        self,
        features: Float32[np.ndarray, "row d"],
        labels: Int[np.ndarray, "target row"],
        classes: Sequence[int],
        rows: Int[np.ndarray, "chosen"] | None = None,
    ) -> None:
        features, labels = _arrays(features, labels, classes)
        rows = np.arange(len(features)) if rows is None else rows
        labels = labels[:, rows]
        self._present = _present(labels, classes)
        self._labels = np.stack(
            [np.searchsorted(np.flatnonzero(present), own) for present, own in zip(self._present, labels)]
        )
        self._labels[labels < 0] = -1
        self._known = (labels >= 0).sum(1)
        self._mean, self._scale = closed_form.scaler(features, rows)
        self._rows = closed_form.standardised(features, rows, self._mean, self._scale)

    def path(
        self, family: Family, grid: Sequence[Sequence[float]], tol: float, start: Sequence[Probe] | None = None
    ) -> list[tuple[Probe, ...]]:
        """Probes of all targets for each step of a grid, which has one strength per target. Logistic ones start where
        the last step's ended."""
        if family is not Family.LOGISTIC:
            return [tuple(probes) for probes in zip(*self._closed(family, list(zip(*grid))))]
        return [start := self._logistic(strengths, tol, start) for strengths in grid]

    def _logistic(self, strengths: Sequence[float], tol: float, start: Sequence[Probe] | None) -> tuple[Probe, ...]:
        counts = [int(present.sum()) for present in self._present]
        # With two classes, scikit-learn's C penalises their difference, whose square is twice the sum of both squares.
        penalties = [
            (2 if count == 2 else 1) / (strength * known)
            for count, strength, known in zip(counts, strengths, self._known)
        ]
        weights = None if start is None else [self._start(target, probe) for target, probe in enumerate(start)]
        minima = minimise(self._rows, self._labels, counts, penalties, tol=tol, start=weights)
        return tuple(
            replace(
                self._probe(target, Family.LOGISTIC, strength, (minimum.weights[:-1], minimum.weights[-1])),
                converged=minimum.gradient_norm <= tol,
                gradient_norm=minimum.gradient_norm,
                evaluations=minimum.evaluations,
            )
            for target, (strength, minimum) in enumerate(zip(strengths, minima))
        )

    def _start(self, target: int, probe: Probe) -> Float32[np.ndarray, "d+1 class"]:
        """A probe's weights for these rows' scaler and classes."""
        if probe.direction.shape != (len(self._mean), len(self._present[target])):
            raise ValueError(f"target {target} cannot start from a probe whose direction is {probe.direction.shape}")
        raw = probe.raw_direction
        bias = probe.bias + (self._mean.astype(np.float64) - probe.mean) @ raw
        weights = np.vstack([raw * self._scale[:, None], bias])[:, self._present[target]]
        return (weights - weights.mean(1, keepdims=True)).astype(np.float32)

    def _closed(self, family: Family, strengths: Sequence[Sequence[float]]) -> list[list[Probe]]:
        """Probes of each target, one for each of its strengths."""
        result: list[list[Probe]] = [[] for _ in self._labels]
        most = max(int(present.sum()) for present in self._present)
        with threadpool_limits(1, "blas"):
            for targets, known in closed_form.by_rows(self._labels):
                rows = (self._rows if known.all() else self._rows[known])[:, :-1]
                labels = self._labels[np.ix_(targets, known)]
                sums = closed_form.SufficientStatistics.of(rows, labels, most)
                spectrum = None if family is Family.MASS_MEAN else closed_form.Spectrum(sums)
                for i, target in enumerate(targets):
                    for strength in strengths[target]:
                        temperature = 1.0
                        if spectrum is None:
                            linear = closed_form.mass_mean(sums, i)
                        else:
                            linear = (spectrum.lda if family is Family.LDA else spectrum.ridge)(i, strength)
                        if family is not Family.LDA:
                            scores = rows @ linear[0].astype(np.float32) + linear[1]
                            temperature = closed_form.temperature(scores, labels[i])
                        result[target].append(self._probe(target, family, strength, linear, temperature))
        return result

    def _probe(
        self, target: int, family: Family, strength: float, linear: closed_form.Linear, temperature: float = 1.0
    ) -> Probe:
        """Classes without rows score less than others: scores sum to 0 over the classes with rows, or to 1 in ridge."""
        present = self._present[target]
        direction = np.zeros((len(self._mean), len(present)), np.float32)
        bias = np.full(len(present), -temperature * np.log(self._known[target]), np.float32)
        direction[:, present], bias[present] = linear
        return Probe(
            family=family,
            direction=read_only(direction),
            bias=read_only(bias),
            mean=read_only(self._mean),
            scale=read_only(self._scale),
            temperature=temperature,
            strength=float(strength),
        )


def _arrays(
    features: Float32[np.ndarray, "row d"], labels: Int[np.ndarray, "target row"], classes: Sequence[int]
) -> tuple[Float32[np.ndarray, "row d"], Int[np.ndarray, "target row"]]:
    features, labels = np.asarray(features), np.asarray(labels)
    if features.ndim != 2 or not features.size or labels.shape != (len(classes), len(features)):
        raise ValueError(
            f"features must be [row, d] and labels [{len(classes)} targets, row], not {features.shape} and"
            f" {labels.shape}"
        )
    return features, labels


def _present(labels: Int[np.ndarray, "target row"], classes: Sequence[int]) -> list[Bool[np.ndarray, "class"]]:
    """Which classes of each target have rows."""
    result = []
    for target, (own, count) in enumerate(zip(labels, classes)):
        if own.min() < -1 or own.max() >= count:
            raise ValueError(f"labels of target {target} must be -1 to {count - 1}, not {own.min()} to {own.max()}")
        rows = np.bincount(own[own >= 0], minlength=count)
        if (rows > 0).sum() < 2:
            raise ValueError(f"target {target} needs rows of at least two classes, not {rows.tolist()} of each")
        result.append(rows > 0)
    return result
