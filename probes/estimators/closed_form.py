"""Probes in closed form: nearest class mean, LDA and ridge, all from sums over rows.

One eigendecomposition of a covariance gives ridge at every lambda and LDA at every shrinkage, for all targets.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int
from scipy import linalg

_BLOCK = 2048
"""Rows that are worked on at a time."""
_CONSTANT = 1e-6
"""A feature whose deviation is less than this share of its mean is constant: what is left is rounding of float32."""

Linear = tuple[Float[np.ndarray, "d class"], Float[np.ndarray, "class"]]
"""Directions and biases of the scores of one target's classes that occur, which are its first ones."""


def scaler(
    features: Float32[np.ndarray, "row d"], rows: Int[np.ndarray, "kept"]
) -> tuple[Float32[np.ndarray, "d"], Float32[np.ndarray, "d"]]:
    """Mean and standard deviation of the features over some rows; 1 for constant features.

    Raises ValueError for features that are not finite.
    """
    total, squares = np.zeros((2, features.shape[1]))
    for some in _blocks(len(rows)):
        total += features[rows[some]].sum(0, dtype=np.float64)
    if not np.isfinite(total).all():
        raise ValueError(
            f"features must be finite; {(~np.isfinite(total)).sum()} of {len(total)} have values that are not"
        )
    mean = (total / len(rows)).astype(np.float32)
    for some in _blocks(len(rows)):
        squares += np.square(features[rows[some]] - mean, dtype=np.float64).sum(0)
    deviation = np.sqrt(squares / len(rows))
    return mean, np.where(deviation <= _CONSTANT * np.abs(mean), 1, deviation).astype(np.float32)


def standardised(
    features: Float32[np.ndarray, "row d"],
    rows: Int[np.ndarray, "kept"],
    mean: Float32[np.ndarray, "d"],
    scale: Float32[np.ndarray, "d"],
) -> Float32[np.ndarray, "kept d+1"]:
    """A copy of some rows, with a last column of 1."""
    found = np.ones((len(rows), features.shape[1] + 1), np.float32)
    for some in _blocks(len(rows)):
        part = found[some, :-1]
        np.subtract(features[rows[some]], mean, out=part)
        part /= scale
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class SufficientStatistics:
    """What the closed forms need of rows. Every row has a label for every target."""

    rows: int
    features: Float64[np.ndarray, "d"]
    gram: Float64[np.ndarray, "d d"]
    counts: Float64[np.ndarray, "class target"]
    """Rows of each class."""
    by_class: Float64[np.ndarray, "d class target"]
    """Sums of the features over them."""

    @classmethod
    def of(
        cls, features: Float32[np.ndarray, "row d"], labels: Int[np.ndarray, "target row"], classes: int
    ) -> "SufficientStatistics":
        """Of features that are about standardised: products are in float32, and means far from 0 would cost digits."""
        d, targets = features.shape[1], len(labels)
        total, gram, by_class = np.zeros(d), np.zeros((d, d)), np.zeros((d, classes * targets))
        for some in _blocks(len(features)):
            part = features[some]
            total += part.sum(0, dtype=np.float64)
            gram += part.T @ part
            by_class += part.T @ (labels.T[some, None] == np.arange(classes)[:, None]).reshape(len(part), -1).astype(
                np.float32
            )
        counts = (labels[None] == np.arange(classes)[:, None, None]).sum(2).astype(np.float64)
        return cls(
            rows=len(features), features=total, gram=gram, counts=counts, by_class=by_class.reshape(d, classes, targets)
        )

    def means(self, target: int) -> Float64[np.ndarray, "d class"]:
        """Of the classes that occur."""
        present = self.counts[:, target] > 0
        return self.by_class[:, present, target] / self.counts[present, target]


def mass_mean(sums: SufficientStatistics, target: int) -> Linear:
    """The nearest class mean: with two classes, the directions' difference is the difference of the means (Marks and
    Tegmark 2023)."""
    means = sums.means(target)
    return _centred(means, -0.5 * (means**2).sum(0))


class Spectrum:
    """The covariance of rows, taken apart into eigenvectors.

    In float32, as the products that it comes from: penalties below about 1e-6 of the largest eigenvalue mean nothing.
    """

    def __init__(self, sums: SufficientStatistics) -> None:
        self.mean = sums.features / sums.rows
        covariance = (sums.gram / sums.rows - np.outer(self.mean, self.mean)).astype(np.float32)
        values, self.vectors = linalg.eigh(covariance, driver="evd", overwrite_a=True, check_finite=False)
        self.values = np.maximum(values, 0)
        self.shares = (sums.counts / sums.rows).astype(np.float32)
        away = sums.by_class / sums.rows - self.mean[:, None, None] * self.shares
        self.cross = (self.vectors.T @ away.reshape(len(away), -1).astype(np.float32)).reshape(away.shape)
        """[d, class, target]: covariance of features and class indicators, along the eigenvectors."""

    def ridge(self, target: int, penalty: float) -> Linear:
        """Least squares on class indicators: mean squared error + penalty x sum of squared weights, without the
        intercept."""
        present = self.shares[:, target] > 0
        return self._placed(
            self.cross[:, present, target] / (self.values + penalty)[:, None], self.shares[present, target]
        )

    def lda(self, target: int, shrinkage: float) -> Linear:
        """Linear discriminant analysis: the scores are log-posteriors up to a constant.

        The covariance within classes is (1 - shrinkage) of itself and `shrinkage` of its mean variance in every
        direction. It is the whole covariance less that of the class means, which has few dimensions: Woodbury's
        identity.
        """
        present = self.shares[:, target] > 0
        shares, kept = self.shares[present, target].astype(np.float64), 1 - shrinkage
        means = self.cross[:, present, target] / shares
        spread = (self.values.sum() - (shares * means**2).sum()) / len(self.values)
        base = means / (kept * self.values + shrinkage * max(spread, 1e-12))[:, None]
        weights = base @ linalg.inv(np.eye(len(shares)) - kept * shares[:, None] * (means.T @ base))
        return _centred(*self._placed(weights, np.log(shares) - 0.5 * (means * weights).sum(0)))

    def _placed(self, weights: Float[np.ndarray, "d class"], bias: Float[np.ndarray, "class"]) -> Linear:
        """From eigenvectors back to the features as they were given."""
        weights = self.vectors @ weights.astype(np.float32)
        return weights, bias - self.mean @ weights


def alike(labels: Int[np.ndarray, "target row"]) -> Iterator[tuple[Int[np.ndarray, "some"], Bool[np.ndarray, "row"]]]:
    """Targets that have labels on the same rows, and whether each row is one of these."""
    same: dict[bytes, list[int]] = defaultdict(list)
    for target, own in enumerate(labels):
        same[(own >= 0).tobytes()].append(target)
    for mask, targets in same.items():
        yield np.array(targets), np.frombuffer(mask, bool)


def temperature(scores: Float[np.ndarray, "row class"], labels: Int[np.ndarray, "row"]) -> float:
    """What scores are divided by to become log-probabilities up to a constant: the one with the lowest cross-entropy on
    these rows.

    To every row's label a little of each class is added, one row's worth in all (Platt 1999): or rows that are all told
    apart would want a temperature of 0.
    Newton's method on 1 / temperature, which the cross-entropy is convex in.
    """
    scores = scores - scores.mean(1, keepdims=True)
    wanted = scores[np.arange(len(labels)), labels].mean() * len(labels) / (len(labels) + scores.shape[1])
    inverse = 1 / max(float(scores.std()), 1e-12)
    for _ in range(50):
        likely = np.exp(inverse * (scores - scores.max(1, keepdims=True)))
        likely /= likely.sum(1, keepdims=True)
        expected = (likely * scores).sum(1)
        variance = (likely * scores**2).sum(1).mean() - (expected**2).mean()
        if variance <= 0:
            break
        before = inverse
        inverse = float(np.clip(before - (expected.mean() - wanted) / variance, before / 4, 4 * before))
        if abs(inverse - before) <= 1e-4 * before:
            break
    return 1 / inverse


def _centred(weights: Float[np.ndarray, "d class"], bias: Float[np.ndarray, "class"]) -> Linear:
    """Less their means over classes, which decide nothing."""
    return weights - weights.mean(1, keepdims=True), bias - bias.mean()


def _blocks(rows: int) -> list[slice]:
    return [slice(at, min(at + _BLOCK, rows)) for at in range(0, rows, _BLOCK)]
