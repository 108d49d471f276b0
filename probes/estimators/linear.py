"""Linear probes: what can be read off features by directions, fitted for many targets at once.

Features are standardised by the mean and deviation of the rows that a probe is fitted on. The fitted probe holds both,
and is asked with features as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from lm2.runs.trace import read_only
from probes.estimators.closed_form import (
    Linear,
    Spectrum,
    SufficientStatistics,
    alike,
    mass_mean,
    scaler,
    standardised,
    temperature,
)
from probes.estimators.logistic import minimise
from probes.stats.splits import Names, hold_out

TOLERANCE = 1e-5
"""Of the largest entry of the gradient. At 1e-4, accuracies of the same probe by two solvers differ by up to 0.06."""


class Family(Enum):
    """Kinds of probe. `strength` is what the number of that name means, `default` what it is where nobody says."""

    MASS_MEAN = "mass-mean", "none: there is nothing to choose", 1.0
    """Nearest class mean: the direction of two classes is the difference of their means."""
    LDA = "LDA", "shrinkage of the covariance within classes towards its mean variance, up to 1", 0.1
    RIDGE = "ridge", "lambda: mean squared error + lambda x sum of squared weights", 0.1
    LOGISTIC = "logistic", "C of scikit-learn: sum of cross-entropies + sum of squared weights / (2 C)", 0.01

    strength: str
    default: float

    def __new__(cls, value: str, strength: str, default: float) -> "Family":
        member = object.__new__(cls)
        member._value_, member.strength, member.default = value, strength, default
        return member


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A fitted probe; arrays are read-only. A class that no training row had scores less than others: its probability
    is below 1 / rows."""

    family: Family
    direction: Float32[np.ndarray, "d class"]
    """In standardised features. They sum to 0 over the classes that training rows had, but for ridge."""
    bias: Float32[np.ndarray, "class"]
    mean: Float32[np.ndarray, "d"]
    """Of the training rows, as `scale` is: their standard deviation, 1 where a feature is constant."""
    scale: Float32[np.ndarray, "d"]
    temperature: float
    """Scores divided by it are log-probabilities up to a constant."""
    converged: bool
    """Whether the gradient is as small as was asked for. Closed forms: True, with a gradient of 0 and one
    evaluation."""
    gradient_norm: float
    """Largest absolute entry, of the mean loss."""
    evaluations: int
    strength: float
    """As its family says."""

    @property
    def classes(self) -> int:
        return len(self.bias)

    @property
    def raw_direction(self) -> Float32[np.ndarray, "d class"]:
        """In the features' own units."""
        return self.direction / self.scale[:, None]

    def score(self, features: Float32[np.ndarray, "row d"]) -> Float32[np.ndarray, "row class"]:
        """Linear scores. Raises ValueError for features of another width."""
        if np.ndim(features) != 2 or np.shape(features)[1] != len(self.mean):
            raise ValueError(
                f"features must be [row, {len(self.mean)}], as those that the probe was fitted on, not"
                f" {np.shape(features)}"
            )
        raw = self.raw_direction
        return features @ raw + (self.bias - self.mean.astype(np.float64) @ raw).astype(np.float32)

    def log_probabilities(self, features: Float32[np.ndarray, "row d"]) -> Float[np.ndarray, "row class"]:
        """Natural logarithms of the softmax of scores over temperature.

        Logistic: the model's own. LDA: the posterior, with the classes' shares of the training rows as prior. Ridge and
        mass-mean, whose scores are no probabilities: their temperature has the lowest cross-entropy on the training
        rows, and is too sure of itself where these have few rows for their features.
        """
        return log_softmax(self.score(features).astype(np.float64) / self.temperature, axis=1)

    def predict(self, features: Float32[np.ndarray, "row d"]) -> Int[np.ndarray, "row"]:
        """The class of the highest score."""
        return self.score(features).argmax(1)


def fit(
    features: Float32[np.ndarray, "row d"],
    labels: Int[np.ndarray, "row"],
    classes: int,
    *,
    family: Family = Family.LOGISTIC,
    strength: float | None = None,
    tol: float = TOLERANCE,
) -> Probe:
    """A probe of one target; see `fit_many`. `strength` None: the family's default."""
    strength = family.default if strength is None else strength
    return fit_many(features, np.asarray(labels)[None], (classes,), family=family, strengths=(strength,), tol=tol)[0]


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
    """Probes of many targets on the same features. Far faster than one by one: control labels and seeds are targets,
    too.

    Args:
        labels: 0 to classes - 1; -1 leaves the row out for that target. The scaler is of all rows given.
        classes: of each target. Those that no row has get a probability near 0.
        strengths: one a target; `family.strength` says what it means.
        tol: a logistic probe has converged when no entry of its gradient is larger. One that cannot comes back with
            `converged` False.
        start: probes of the same targets, on whatever rows, that logistic ones begin from.

    Raises ValueError for shapes that do not fit, features that are not finite, labels outside of their classes, a
    target whose rows have fewer than two classes, and strengths that are none.
    """
    _check(family, strengths, tol, len(classes))
    return _Training(features, labels, classes).path(family, [strengths], tol, start)[0] if len(classes) else ()


class Chosen(NamedTuple):
    """A strength, and the cross-entropy (nats) that it was chosen by."""

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
    tol: float = TOLERANCE,
) -> tuple[Chosen, ...]:
    """The strength of each target with the lowest cross-entropy on a quarter of the groups, fitted on the others.

    Logistic probes go from the smallest strength to the largest, each beginning where the last one ended. Among equals
    the first of that order is chosen. A target that these groups cannot tell of (no label among those held out, or one
    class among the others) gets the strength next to its family's default, and the loss of a uniform guess.

    Raises ValueError as `fit_many` does, and for a single group.
    """
    features, labels = _arrays(features, labels, classes)
    _present(labels, classes)
    strengths = sorted(set(strengths))[: 1 if family is Family.MASS_MEAN else None]
    for strength in strengths:
        _check(family, [strength] * len(classes), tol, len(classes))
    fold = hold_out(groups, seed=seed)
    told, truth = labels[:, fold.train], labels[:, fold.test]
    able = [at for at, own in enumerate(told) if len(set(own[own >= 0])) > 1 and (truth[at] >= 0).any()]
    usual = min(strengths, key=lambda strength: abs(np.log(strength / family.default)))
    found = [Chosen(usual, float(np.log(count))) for count in classes]
    if able:
        training = _Training(features, labels[able], [classes[at] for at in able], fold.train)
        path = training.path(family, [[strength] * len(able) for strength in strengths], tol)
        asked = features[fold.test]
        for at, probes in zip(able, zip(*path)):
            losses = [_cross_entropy(probe.log_probabilities(asked), truth[at]) for probe in probes]
            found[at] = Chosen(strengths[int(np.argmin(losses))], min(losses))
    return tuple(found)


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
    """Rows to fit on: standardised by themselves, and labels renumbered over the classes that they have."""

    def __init__(
        self,
        features: Float32[np.ndarray, "row d"],
        labels: Int[np.ndarray, "target row"],
        classes: Sequence[int],
        rows: Int[np.ndarray, "kept"] | None = None,
    ) -> None:
        features, labels = _arrays(features, labels, classes)
        rows = np.arange(len(features)) if rows is None else rows
        labels = labels[:, rows]
        self._present = _present(labels, classes)
        self._labels = np.stack(
            [np.searchsorted(np.flatnonzero(seen), own) for seen, own in zip(self._present, labels)]
        )
        self._labels[labels < 0] = -1
        self._known = (labels >= 0).sum(1)
        self._mean, self._scale = scaler(features, rows)
        self._rows = standardised(features, rows, self._mean, self._scale)

    def path(
        self, family: Family, grid: Sequence[Sequence[float]], tol: float, start: Sequence[Probe] | None = None
    ) -> list[tuple[Probe, ...]]:
        """Probes of all targets at each of some strengths, one a target. Logistic ones begin where the last ones
        ended."""
        if family is not Family.LOGISTIC:
            return self._closed(family, grid)
        return [start := self._logistic(strengths, tol, start) for strengths in grid]

    def _logistic(self, strengths: Sequence[float], tol: float, start: Sequence[Probe] | None) -> tuple[Probe, ...]:
        penalties = [self._penalty(target, strength) for target, strength in enumerate(strengths)]
        begin = None if start is None else [self._start(target, probe) for target, probe in enumerate(start)]
        minima = minimise(
            self._rows, self._labels, [seen.sum() for seen in self._present], penalties, tol=tol, start=begin
        )
        return tuple(
            self._probe(
                target,
                Family.LOGISTIC,
                strengths[target],
                (one.weights[:-1], one.weights[-1]),
                converged=one.gradient_norm <= tol,
                gradient_norm=one.gradient_norm,
                evaluations=one.evaluations,
            )
            for target, one in enumerate(minima)
        )

    def _penalty(self, target: int, strength: float) -> float:
        """Of scikit-learn's C, which with two classes penalises their difference alone: its square is twice the sum of
        both squares."""
        return (2 if self._present[target].sum() == 2 else 1) / (strength * self._known[target])

    def _start(self, target: int, probe: Probe) -> Float32[np.ndarray, "d+1 class"]:
        """A probe's weights for these rows' scaler and classes."""
        if probe.direction.shape != (len(self._mean), len(self._present[target])):
            raise ValueError(f"target {target} cannot start from a probe whose direction is {probe.direction.shape}")
        raw = probe.raw_direction
        moved = probe.bias + (self._mean.astype(np.float64) - probe.mean) @ raw
        weights = np.vstack([raw * self._scale[:, None], moved])[:, self._present[target]]
        return (weights - weights.mean(1, keepdims=True)).astype(np.float32)

    def _closed(self, family: Family, grid: Sequence[Sequence[float]]) -> list[tuple[Probe, ...]]:
        found: dict[tuple[int, int], Probe] = {}
        most = max(int(seen.sum()) for seen in self._present)
        with threadpool_limits(1, "blas"):
            for targets, known in alike(self._labels):
                rows = (self._rows if known.all() else self._rows[known])[:, :-1]
                labels = self._labels[np.ix_(targets, known)]
                sums = SufficientStatistics.of(rows, labels, most)
                spectrum = None if family is Family.MASS_MEAN else Spectrum(sums)
                for (column, target), (at, strengths) in product(enumerate(targets), enumerate(grid)):
                    linear = _linear(family, sums, spectrum, column, strengths[target])
                    heat = 1.0
                    if family is not Family.LDA:
                        heat = temperature(rows @ linear[0].astype(np.float32) + linear[1], labels[column])
                    found[at, target] = self._probe(target, family, strengths[target], linear, temperature=heat)
        return [tuple(found[at, target] for target in range(len(self._labels))) for at in range(len(grid))]

    def _probe(
        self,
        target: int,
        family: Family,
        strength: float,
        linear: Linear,
        *,
        temperature: float = 1.0,
        converged: bool = True,
        gradient_norm: float = 0.0,
        evaluations: int = 1,
    ) -> Probe:
        """Classes that no row has score less than others: scores sum to 0 over those that there are, or to 1 with
        ridge."""
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
            converged=converged,
            gradient_norm=gradient_norm,
            evaluations=evaluations,
            strength=float(strength),
        )


def _linear(
    family: Family, sums: SufficientStatistics, spectrum: Spectrum | None, target: int, strength: float
) -> Linear:
    if spectrum is None:
        return mass_mean(sums, target)
    return spectrum.lda(target, strength) if family is Family.LDA else spectrum.ridge(target, strength)


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
    """Which classes of each target there are rows of."""
    found = []
    for target, (own, count) in enumerate(zip(labels, classes)):
        if own.min() < -1 or own.max() >= count:
            raise ValueError(f"labels of target {target} must be -1 to {count - 1}, not {own.min()} to {own.max()}")
        rows = np.bincount(own[own >= 0], minlength=count)
        if (rows > 0).sum() < 2:
            raise ValueError(
                f"target {target} needs rows of at least two classes to be told apart, not {rows.tolist()} of each"
            )
        found.append(rows > 0)
    return found
