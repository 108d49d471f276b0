"""Probes in closed form: nearest class mean, LDA and ridge, from sums over rows.

One eigendecomposition of the covariance gives ridge at every lambda and LDA at every shrinkage, for all targets.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int
from scipy import linalg

_BLOCK = 2048
"""Rows processed at a time."""
_CONSTANT = 1e-6
"""A feature whose deviation is below this share of its mean is constant: the rest is float32 rounding."""

Linear = tuple[Float[np.ndarray, "d class"], Float[np.ndarray, "class"]]
"""Directions and biases of the scores of the classes that occur, which are a target's first ones."""


def scaler(
    features: Float32[np.ndarray, "row d"], rows: Int[np.ndarray, "chosen"]
) -> tuple[Float32[np.ndarray, "d"], Float32[np.ndarray, "d"]]:
    """Mean and standard deviation of the features over some rows; 1 for constant features.

    Raises ValueError for features that are not finite.
    """
    total, squares = np.zeros((2, features.shape[1]))
    for block in _blocks(len(rows)):
        total += features[rows[block]].sum(0, dtype=np.float64)
    if not np.isfinite(total).all():
        raise ValueError(
            f"features must be finite; {(~np.isfinite(total)).sum()} of {len(total)} have values that are not"
        )
    mean = (total / len(rows)).astype(np.float32)
    for block in _blocks(len(rows)):
        squares += np.square(features[rows[block]] - mean, dtype=np.float64).sum(0)
    deviation = np.sqrt(squares / len(rows))
    return mean, np.where(deviation <= _CONSTANT * np.abs(mean), 1, deviation).astype(np.float32)


def standardised(
    features: Float32[np.ndarray, "row d"],
    rows: Int[np.ndarray, "chosen"],
    mean: Float32[np.ndarray, "d"],
    scale: Float32[np.ndarray, "d"],
) -> Float32[np.ndarray, "chosen d+1"]:
    """A standardised copy of some rows, with a last column of 1."""
    copy = np.ones((len(rows), features.shape[1] + 1), np.float32)
    for block in _blocks(len(rows)):
        copy[block, :-1] = (features[rows[block]] - mean) / scale
    return copy


@dataclass(frozen=True, kw_only=True, eq=False)
class SufficientStatistics:
    """Sums over rows from which the closed forms follow. Every row has a label for every target."""

    rows: int
    features: Float64[np.ndarray, "d"]
    gram: Float64[np.ndarray, "d d"]
    counts: Float64[np.ndarray, "class target"]
    """Rows of each class."""
    by_class: Float64[np.ndarray, "d class target"]
    """Sums of their features."""

    @classmethod
    def of(
        cls, features: Float32[np.ndarray, "row d"], labels: Int[np.ndarray, "target row"], classes: int
    ) -> "SufficientStatistics":
        """Features must be roughly standardised: products are in float32, and means far from 0 would cost digits."""
        d, targets = features.shape[1], len(labels)
        total, gram, by_class = np.zeros(d), np.zeros((d, d)), np.zeros((d, classes * targets))
        for block in _blocks(len(features)):
            rows = features[block]
            one_hot = labels.T[block, None] == np.arange(classes)[:, None]
            total += rows.sum(0, dtype=np.float64)
            gram += rows.T @ rows
            by_class += rows.T @ one_hot.reshape(len(rows), -1).astype(np.float32)
        counts = (labels[None] == np.arange(classes)[:, None, None]).sum(2).astype(np.float64)
        return cls(
            rows=len(features), features=total, gram=gram, counts=counts, by_class=by_class.reshape(d, classes, targets)
        )

    def means(self, target: int) -> Float64[np.ndarray, "d class"]:
        """Means of the classes that occur."""
        present = self.counts[:, target] > 0
        return self.by_class[:, present, target] / self.counts[present, target]


def mass_mean(sums: SufficientStatistics, target: int) -> Linear:
    """Nearest class mean. With two classes, the directions differ by the difference of the means (Marks and Tegmark
    2023)."""
    means = sums.means(target)
    return _centred(means, -0.5 * (means**2).sum(0))


class Spectrum:
    """Eigenvectors and eigenvalues of the rows' covariance.

    In float32, as are its products: penalties below about 1e-6 of the largest eigenvalue have no effect.
    """

    def __init__(self, sums: SufficientStatistics) -> None:
        self.mean = sums.features / sums.rows
        covariance = (sums.gram / sums.rows - np.outer(self.mean, self.mean)).astype(np.float32)
        values, self.vectors = linalg.eigh(covariance, driver="evd", overwrite_a=True, check_finite=False)
        self.values = np.maximum(values, 0)
        self.shares = (sums.counts / sums.rows).astype(np.float32)
        cross = sums.by_class / sums.rows - self.mean[:, None, None] * self.shares
        self.cross = (self.vectors.T @ cross.reshape(len(cross), -1).astype(np.float32)).reshape(cross.shape)
        """[d, class, target]: covariance of features and class indicators, along the eigenvectors."""

    def ridge(self, target: int, penalty: float) -> Linear:
        """Least squares on class indicators: mean squared error + penalty x sum of squared weights, but for the
        intercept's."""
        present = self.shares[:, target] > 0
        weights = self.cross[:, present, target] / (self.values + penalty)[:, None]
        return self._in_features(weights, self.shares[present, target])

    def lda(self, target: int, shrinkage: float) -> Linear:
        """Linear discriminant analysis: the scores are log-posteriors up to a constant.

        The covariance within classes becomes (1 - shrinkage) of itself plus `shrinkage` of its mean variance in every
        direction. It equals the whole covariance less that of the class means, which has low rank: Woodbury's identity
        inverts it.
        """
        present = self.shares[:, target] > 0
        shares, remaining = self.shares[present, target].astype(np.float64), 1 - shrinkage
        means = self.cross[:, present, target] / shares
        spread = (self.values.sum() - (shares * means**2).sum()) / len(self.values)
        base = means / (remaining * self.values + shrinkage * max(spread, 1e-12))[:, None]
        weights = base @ linalg.inv(np.eye(len(shares)) - remaining * shares[:, None] * (means.T @ base))
        return _centred(*self._in_features(weights, np.log(shares) - 0.5 * (means * weights).sum(0)))

    def _in_features(self, weights: Float[np.ndarray, "d class"], bias: Float[np.ndarray, "class"]) -> Linear:
        """Weights along the eigenvectors, as weights of the features."""
        weights = self.vectors @ weights.astype(np.float32)
        return weights, bias - self.mean @ weights


def by_rows(labels: Int[np.ndarray, "target row"]) -> Iterator[tuple[Int[np.ndarray, "some"], Bool[np.ndarray, "row"]]]:
    """Targets with labels on the same rows, and the mask of these rows."""
    targets_of: dict[bytes, list[int]] = defaultdict(list)
    for target, known in enumerate(labels >= 0):
        targets_of[known.tobytes()].append(target)
    for mask, targets in targets_of.items():
        yield np.array(targets), np.frombuffer(mask, bool)


def temperature(scores: Float[np.ndarray, "row class"], labels: Int[np.ndarray, "row"]) -> float:
    """The divisor that makes scores log-probabilities, up to a constant, with the lowest cross-entropy on these rows.

    Every label is smoothed by a little of each class, one row's worth in all (Platt 1999); otherwise rows that are
    perfectly separated would have a temperature of 0. Newton's method on 1 / temperature, in which the cross-entropy is
    convex.
    """
    scores = scores - scores.mean(1, keepdims=True)
    target = scores[np.arange(len(labels)), labels].mean() * len(labels) / (len(labels) + scores.shape[1])
    inverse = 1 / max(float(scores.std()), 1e-12)
    for _ in range(50):
        likely = np.exp(inverse * (scores - scores.max(1, keepdims=True)))
        likely /= likely.sum(1, keepdims=True)
        expected = (likely * scores).sum(1)
        variance = (likely * scores**2).sum(1).mean() - (expected**2).mean()
        if variance <= 0:
            break
        before = inverse
        inverse = float(np.clip(before - (expected.mean() - target) / variance, before / 4, 4 * before))
        if abs(inverse - before) <= 1e-4 * before:
            break
    return 1 / inverse


def _centred(weights: Float[np.ndarray, "d class"], bias: Float[np.ndarray, "class"]) -> Linear:
    """Subtract the means over classes, which do not change any decision."""
    return weights - weights.mean(1, keepdims=True), bias - bias.mean()


def _blocks(rows: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, rows)) for start in range(0, rows, _BLOCK)]
