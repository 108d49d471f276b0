"""Measures as functions of the groups' weights, for resamples and derivatives; many targets at once."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import stats

from probes.stats.predictions import Measure, Predictions


class TargetRows:
    """The rows of one target that have a label, and each row's group as a number."""

    def __init__(self, predictions: Predictions, member: Int[np.ndarray, "row"]) -> None:
        rows = np.flatnonzero(predictions.labels >= 0)
        self._predictions, self._rows, self.classes = predictions, rows, predictions.classes
        self.labels, self.predicted, self.member = predictions.labels[rows], predictions.predicted[rows], member[rows]
        self.right = self.labels == self.predicted
        self.groups = int(np.count_nonzero(np.bincount(self.member)))

    @property
    def log_probabilities(self) -> Float[np.ndarray, "row class"]:
        if self._predictions.log_probabilities is None:
            raise ValueError("AUC and bits need log-probabilities, and the predictions have none")
        return self._predictions.log_probabilities[self._rows].astype(np.float64)

    def sums(self, groups: int, values: Shaped[np.ndarray, "row"] | None = None) -> Shaped[np.ndarray, "group 1"]:
        """Sum of `values` over each group's rows; None, the number of rows."""
        return np.bincount(self.member, values, minlength=groups)[:, None]

    def class_sums(
        self, groups: int, classes: Int[np.ndarray, "row"], values: Shaped[np.ndarray, "row"] | None = None
    ) -> Shaped[np.ndarray, "group class"]:
        """The same for the rows of each class."""
        cells = np.bincount(self.member * self.classes + classes, values, minlength=groups * self.classes)
        return cells.reshape(groups, self.classes)

    def trials(self) -> int:
        """The number of trials of one proportion that is worth as much as a mean over classes, each of them known from
        the groups that hold it."""
        holders = [len(np.unique(self.member[self.labels == label])) for label in np.unique(self.labels)]
        return max(1, min(self.groups, round(len(holders) ** 2 / sum(1 / groups for groups in holders))))


Statistic = Callable[[Float[np.ndarray, "draw group"]], Float[np.ndarray, "draw target"]]
"""A measure of each target as a function of the groups' weights."""


def _ratio(sums: Float[np.ndarray, "group target"], sizes: Float[np.ndarray, "group target"]) -> Statistic:
    return lambda weights: (weights @ sums) / (weights @ sizes)


def _accuracy(targets: Sequence[TargetRows], groups: int) -> Statistic:
    right = [target.sums(groups, target.right) for target in targets]
    return _ratio(np.hstack(right), np.hstack([target.sums(groups) for target in targets]))


def _bits(targets: Sequence[TargetRows], groups: int) -> Statistic:
    losses = [
        target.sums(groups, -target.log_probabilities[np.arange(len(target.labels)), target.labels] / np.log(2))
        for target in targets
    ]
    return _ratio(np.hstack(losses), np.hstack([target.sums(groups) for target in targets]))


def _balanced_accuracy(targets: Sequence[TargetRows], groups: int) -> Statistic:
    right = [target.class_sums(groups, target.labels, target.right) for target in targets]
    labelled = [target.class_sums(groups, target.labels) for target in targets]
    columns = np.hstack([*right, *labelled]).astype(np.float32)  # whole numbers: nothing is rounded
    starts = _class_starts(targets)

    def statistic(weights: Float[np.ndarray, "draw group"]) -> Float[np.ndarray, "draw target"]:
        hits, rows = np.split(weights @ columns, 2, axis=1)
        occurs = rows > 0
        shares = hits / np.where(occurs, rows, 1)
        return _over_classes(shares, starts) / _over_classes(occurs.astype(np.float32), starts)

    return statistic


def _mcc(targets: Sequence[TargetRows], groups: int) -> Statistic:
    labelled = [target.class_sums(groups, target.labels) for target in targets]
    predicted = [target.class_sums(groups, target.predicted) for target in targets]
    right = [target.sums(groups, target.right) for target in targets]
    columns, starts = np.hstack([*labelled, *predicted, *right]).astype(np.float32), _class_starts(targets)
    classes = sum(target.classes for target in targets)

    def statistic(weights: Float[np.ndarray, "draw group"]) -> Float[np.ndarray, "draw target"]:
        labelled, predicted, right = np.split(weights @ columns, [classes, 2 * classes], axis=1)
        n = _over_classes(labelled, starts)
        spread = (n**2 - _over_classes(labelled**2, starts)) * (n**2 - _over_classes(predicted**2, starts))
        varies = spread > 0
        covariance = np.where(varies, right * n - _over_classes(labelled * predicted, starts), 0)
        return covariance / np.sqrt(np.where(varies, spread, 1))

    return statistic


def _auc(targets: Sequence[TargetRows], groups: int) -> Statistic:
    columns, sample_aucs = [], []
    for target in targets:
        odds, positive = np.diff(target.log_probabilities, axis=1)[:, 0], target.labels == 1
        if target.classes != 2:
            raise ValueError(f"an AUC is of two classes, not {target.classes}")
        above = np.where(positive, 1, -1) * stats.rankdata(odds)  # ranks among all rows, less those in the own class
        for own in (positive, ~positive):
            above[own] -= np.where(positive[own], 1, -1) * stats.rankdata(odds[own])
        placement = above / np.maximum(1, np.where(positive, (~positive).sum(), positive.sum())) + ~positive
        columns.append([target.sums(groups, own * value) for own in (positive, ~positive) for value in (placement, 1)])
        sample_aucs.append(placement[positive].mean() if positive.any() and not positive.all() else np.nan)
    above, positives, below, negatives = (np.hstack(kind) for kind in zip(*columns))
    one, other, sample_auc = _ratio(above, positives), _ratio(below, negatives), np.array(sample_aucs)
    return lambda weights: one(weights) + other(weights) - sample_auc


STATISTICS: Mapping[Measure, Callable[[Sequence[TargetRows], int], Statistic]] = {
    Measure.BALANCED_ACCURACY: _balanced_accuracy,
    Measure.AUC: _auc,
    Measure.ACCURACY: _accuracy,
    Measure.MCC: _mcc,
    Measure.BITS: _bits,
}
"""(targets, number of groups) -> the measure of each."""


def _class_starts(targets: Sequence[TargetRows]) -> Int[np.ndarray, "target"]:
    """The column of each target's first class, if the columns are all targets' classes."""
    return np.cumsum([0, *(target.classes for target in targets[:-1])])


def _over_classes(
    values: Float[np.ndarray, "draw column"], starts: Int[np.ndarray, "target"]
) -> Float[np.ndarray, "draw target"]:
    """Sum over each target's classes. Unlike in a matrix product, the order of adding does not depend on the other
    targets."""
    return np.add.reduceat(values, starts, axis=1)
