"""What held-out predictions are worth: measures with intervals that know which rows belong together, and paired
differences."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped
from scipy import special, stats

from lm2.intervals import rate
from probes.stats.effects import DRAWS, FEW_GROUPS, Interval

_AT_ONCE = 500
"""Resamples in one matrix product: small enough to stay in the cache."""
_TARGETS = 64
"""Resampled together: more would take memory and save nothing."""
_STEP = 1e-6
"""Of the derivatives by a group's weight."""
_NOT_GIVEN = np.zeros(0, int)


class Measure(Enum):
    """What is said of predictions. `worst` and `best` are the ends of its range, nan where it has none."""

    BALANCED_ACCURACY = "balanced_accuracy", "balanced accuracy", 0, 1
    """Mean share of right predictions over the classes that occur."""
    AUC = "auc", "ROC AUC", 0, 1
    """How often a row of class 1 has more log-odds than one of class 0, ties half. Two classes only."""
    ACCURACY = "accuracy", "accuracy", 0, 1
    MCC = "mcc", "Matthews correlation", -1, 1
    """Of any number of classes (Gorodkin 2004); 0 where all predictions or all labels are of one class."""
    BITS = "bits", "cross-entropy (bits per row)", np.nan, np.nan
    """Mean of -log2 p(label)."""

    label: str
    worst: float
    best: float

    def __new__(cls, value: str, label: str, worst: float, best: float) -> "Measure":
        member = object.__new__(cls)
        member._value_, member.label, member.worst, member.best = value, label, worst, best
        return member


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a probe said of rows that it had not seen, pooled over folds.

    Give `log_probabilities`, or `predicted` alone where there are none. Raises ValueError for values that do not fit
    together, labels outside their classes and log-probabilities that are not finite; rows left out may hold anything.
    """

    labels: Int[np.ndarray, "row"]
    """-1 leaves the row out."""
    groups: Shaped[np.ndarray, "row"]
    """Names of what rows belong to. Targets that are scored or compared together have the same rows and groups."""
    classes: int
    log_probabilities: Float[np.ndarray, "row class"] | None = None
    """Natural logarithms."""
    predicted: Int[np.ndarray, "row"] = field(default_factory=lambda: _NOT_GIVEN)
    """Filled in with the most probable classes."""

    def __post_init__(self) -> None:
        labels, groups = np.asarray(self.labels), np.asarray(self.groups)
        if (
            self.classes < 2
            or labels.ndim != 1
            or labels.shape != groups.shape
            or not np.issubdtype(labels.dtype, np.integer)
        ):
            given = f"{labels.dtype} {labels.shape} of {self.classes} classes in groups {groups.shape}"
            raise ValueError(f"labels must be integers of 2 classes or more with one group each, not {given}")
        if len(labels) and not -1 <= labels.min() <= labels.max() < self.classes:
            raise ValueError(f"labels must be from -1 to {self.classes - 1}, not {labels.min()} to {labels.max()}")
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "groups", groups)
        if (self.log_probabilities is None) == (self.predicted is _NOT_GIVEN):
            raise ValueError("give either log-probabilities or predicted classes")
        if self.log_probabilities is None:
            predicted = np.asarray(self.predicted)
        else:
            shape = self.log_probabilities.shape
            if shape != (len(labels), self.classes):
                raise ValueError(f"log-probabilities must be [row, class] {(len(labels), self.classes)}, not {shape}")
            missing = (~np.isfinite(self.log_probabilities[labels >= 0])).sum()
            if missing:
                raise ValueError(
                    f"log-probabilities must be finite; {missing} of {self.log_probabilities.size} are not"
                )
            predicted = self.log_probabilities.argmax(1)
        if predicted.shape != labels.shape or not np.isin(predicted[labels >= 0], np.arange(self.classes)).all():
            raise ValueError(f"predicted must be one of {self.classes} classes for each of {len(labels)} rows")
        object.__setattr__(self, "predicted", predicted)

    @property
    def headline(self) -> Measure:
        """The measure that stands for all: AUC for two classes with log-probabilities, else balanced accuracy."""
        return Measure.AUC if self.classes == 2 and self.log_probabilities is not None else Measure.BALANCED_ACCURACY

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Those that can be taken."""
        without = set() if self.classes == 2 else {Measure.AUC}
        if self.log_probabilities is None:
            without = {Measure.AUC, Measure.BITS}
        return tuple(measure for measure in Measure if measure not in without)

    def where(self, rows: Bool[np.ndarray, "row"]) -> "Predictions":
        """A slice: the same rows, all but these left out. It can still be compared with others row by row."""
        name = "predicted" if self.log_probabilities is None else "log_probabilities"
        given = {name: getattr(self, name)}
        return Predictions(labels=np.where(rows, self.labels, -1), groups=self.groups, classes=self.classes, **given)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval, which is nan with one group. Without rows the value is nan, too.

    Where all is right (or all wrong) no group differs from another: the interval is then Wilson's of so many trials as
    there are groups, as `lm2.intervals.rate` has it; fewer where a class is in few of them.
    """

    value: float
    low: float
    high: float
    interval: Interval

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, kw_only=True)
class Score:
    """All that is said of one target's predictions."""

    n: int
    """Rows."""
    groups: int
    """Those that hold them."""
    headline: Measure
    estimates: Mapping[Measure, Estimate]
    majority: float
    """Share of the most frequent class: the accuracy of who knows nothing else."""
    chance: float
    """The headline of who knows nothing: one over the classes that occur."""


def scores(predictions: Sequence[Predictions], seed: int = 0) -> tuple[Score, ...]:
    """Every measure of each target, from the same resampled groups. Raises ValueError as `estimates` does."""
    member, groups = _members(predictions)
    found: list[Score] = []
    for few in _few(predictions):
        asked = [(measure, at) for measure in Measure for at, one in enumerate(few) if measure in one.measures]
        of_each: list[dict[Measure, Estimate]] = [{} for _ in few]
        for (measure, at), estimate in zip(
            asked, _estimated([(measure, few[at]) for measure, at in asked], member, groups, seed)
        ):
            of_each[at][measure] = estimate
        found += [_score(one, member, own) for one, own in zip(few, of_each)]
    return tuple(found)


def estimates(measure: Measure, predictions: Sequence[Predictions], seed: int = 0) -> tuple[Estimate, ...]:
    """One measure of each target.

    The interval is of the percentiles of `DRAWS` resamples of whole groups, the same ones for every target and every
    call with as many groups (Efron and Tibshirani 1993). A class without rows in a resample is left out of its balanced
    accuracy. Below `FEW_GROUPS` groups with rows of the target it is t with groups - 1 degrees of freedom, from how the
    measure changes with each group's weight (infinitesimal jackknife, Jaeckel 1972; for a mean, the cluster-robust
    variance of `probes.stats.effects`), on the logit scale of the measure's range. So it is where few groups differ
    from the rest: where (sum of squared changes)^2 over the sum of fourth powers is below what `FEW_GROUPS` normal ones
    come to, a third of them. Near the end of a range percentiles are too narrow: over 40 documents of six rows that are
    right 97 times in a hundred they hold 88 % and this interval 96 %.

    Resampled AUCs are linearised: a row counts with the share of the other class's rows on its right side in the whole
    sample (the placements of DeLong et al. 1988, by group as in Obuchowski 1997). Counting pairs anew in every resample
    would give the same interval to a hundredth, and cost many times more.

    Raises ValueError where rows or groups of targets differ, and for a measure that predictions cannot have.
    """
    member, groups = _members(predictions)
    return tuple(
        found
        for few in _few(predictions)
        for found in _estimated([(measure, one) for one in few], member, groups, seed)
    )


def differences(
    measure: Measure, ones: Sequence[Predictions], others: Sequence[Predictions], seed: int = 0
) -> tuple[Estimate, ...]:
    """one - other for each pair, with both measured on the same resampled groups: task less control, site less another.

    Percentiles, or plain t where one of the two has few groups. Raises ValueError as `estimates` does, and for unequal
    numbers of ones and others.
    """
    if len(ones) != len(others):
        raise ValueError(f"differences need pairs, not {len(ones)} and {len(others)} predictions")
    member, groups = _members([*ones, *others])
    found: list[Estimate] = []
    for few in zip(_few(ones), _few(others)):
        pairs = [[_Target(one, member) for one in side] for side in few]
        one, other = (_STATISTICS[measure](side, groups) for side in pairs)
        held = np.array([min(a.groups, b.groups) for a, b in zip(*pairs)])
        found += _intervals(_less(one, other), held, np.full((len(held), 2), np.nan), groups, seed)
    return tuple(found)


class _Target:
    """The rows of one target, and the group of each as a number."""

    def __init__(self, predictions: Predictions, member: Int[np.ndarray, "row"]) -> None:
        rows = np.flatnonzero(predictions.labels >= 0)
        self.given, self.rows, self.classes = predictions, rows, predictions.classes
        self.labels, self.predicted, self.member = predictions.labels[rows], predictions.predicted[rows], member[rows]
        self.groups = int(np.count_nonzero(np.bincount(self.member)))

    @property
    def log_probabilities(self) -> Float[np.ndarray, "row class"]:
        if self.given.log_probabilities is None:
            raise ValueError("AUC and bits need log-probabilities, and the predictions have none")
        return self.given.log_probabilities[self.rows].astype(np.float64)

    def sums(
        self,
        groups: int,
        values: Shaped[np.ndarray, "row"] | None,
        columns: Int[np.ndarray, "row"] | int = 0,
        width: int = 1,
    ) -> Shaped[np.ndarray, "group width"]:
        """`values` (None: ones) summed by group and column: [group, width]."""
        return np.bincount(self.member * width + columns, values, minlength=groups * width).reshape(groups, width)

    def trials(self) -> int:
        """As many trials of one proportion as a mean over classes is worth, where each is known from the groups that
        hold it."""
        held = [len(np.unique(self.member[self.labels == label])) for label in np.unique(self.labels)]
        return max(1, min(self.groups, round(len(held) ** 2 / sum(1 / groups for groups in held))))


Statistic = Callable[[Float[np.ndarray, "draw group"]], Float[np.ndarray, "draw target"]]
"""A measure of each target as a function of how often each group counts."""


def _ratio(sums: Float[np.ndarray, "group target"], sizes: Float[np.ndarray, "group target"]) -> Statistic:
    return lambda weights: (weights @ sums) / (weights @ sizes)


def _less(one: Statistic, other: Statistic) -> Statistic:
    return lambda weights: one(weights) - other(weights)


def _accuracy(targets: Sequence[_Target], groups: int) -> Statistic:
    right = [target.sums(groups, target.predicted == target.labels) for target in targets]
    return _ratio(np.hstack(right), np.hstack([target.sums(groups, None) for target in targets]))


def _bits(targets: Sequence[_Target], groups: int) -> Statistic:
    losses = [
        target.sums(groups, -target.log_probabilities[np.arange(len(target.labels)), target.labels] / np.log(2))
        for target in targets
    ]
    return _ratio(np.hstack(losses), np.hstack([target.sums(groups, None) for target in targets]))


def _balanced_accuracy(targets: Sequence[_Target], groups: int) -> Statistic:
    right = [
        target.sums(groups, target.predicted == target.labels, target.labels, target.classes) for target in targets
    ]
    told = [target.sums(groups, None, target.labels, target.classes) for target in targets]
    columns = np.hstack([*right, *told]).astype(np.float32)  # whole numbers: nothing is rounded
    begins = _begins(targets)

    def statistic(weights: Float[np.ndarray, "draw group"]) -> Float[np.ndarray, "draw target"]:
        hits, seen = np.split(weights @ columns, 2, axis=1)
        occurs = seen > 0
        shares = hits / np.where(occurs, seen, 1)
        return _over_classes(shares, begins) / _over_classes(occurs.astype(np.float32), begins)

    return statistic


def _mcc(targets: Sequence[_Target], groups: int) -> Statistic:
    told = [target.sums(groups, None, target.labels, target.classes) for target in targets]
    said = [target.sums(groups, None, target.predicted, target.classes) for target in targets]
    right = [target.sums(groups, target.predicted == target.labels) for target in targets]
    columns, begins = np.hstack([*told, *said, *right]).astype(np.float32), _begins(targets)
    classes = sum(target.classes for target in targets)

    def statistic(weights: Float[np.ndarray, "draw group"]) -> Float[np.ndarray, "draw target"]:
        told, said, right = np.split(weights @ columns, [classes, 2 * classes], axis=1)
        n = _over_classes(told, begins)
        spread = (n**2 - _over_classes(told**2, begins)) * (n**2 - _over_classes(said**2, begins))
        varies = spread > 0
        together = np.where(varies, right * n - _over_classes(told * said, begins), 0)
        return together / np.sqrt(np.where(varies, spread, 1))

    return statistic


def _auc(targets: Sequence[_Target], groups: int) -> Statistic:
    columns, whole = [], []
    for one in targets:
        odds, positive = np.diff(one.log_probabilities, axis=1)[:, 0], one.labels == 1
        if one.classes != 2:
            raise ValueError(f"an AUC is of two classes, not {one.classes}")
        above = np.where(positive, 1, -1) * stats.rankdata(odds)  # of all rows, less those of the row's own class
        for own in (positive, ~positive):
            above[own] -= np.where(positive[own], 1, -1) * stats.rankdata(odds[own])
        placement = above / np.maximum(1, np.where(positive, (~positive).sum(), positive.sum())) + ~positive
        ones = np.ones(len(odds))
        columns.append(
            [one.sums(groups, kind * value) for kind in (positive, ~positive) for value in (placement, ones)]
        )
        whole.append(placement[positive].mean() if positive.any() and not positive.all() else np.nan)
    above, positives, below, negatives = (np.hstack(kind) for kind in zip(*columns))
    one, other, whole = _ratio(above, positives), _ratio(below, negatives), np.array(whole)
    return lambda weights: one(weights) + other(weights) - whole


_STATISTICS: Mapping[Measure, Callable[[Sequence[_Target], int], Statistic]] = {
    Measure.BALANCED_ACCURACY: _balanced_accuracy,
    Measure.AUC: _auc,
    Measure.ACCURACY: _accuracy,
    Measure.MCC: _mcc,
    Measure.BITS: _bits,
}


def _begins(targets: Sequence[_Target]) -> Int[np.ndarray, "target"]:
    """The column of each target's first class, where columns are the classes of all targets."""
    return np.cumsum([0, *(target.classes for target in targets[:-1])])


def _over_classes(
    values: Float[np.ndarray, "draw column"], begins: Int[np.ndarray, "target"]
) -> Float[np.ndarray, "draw target"]:
    """Summed over each target's classes, in an order that the other targets do not change; a matrix product's order
    depends on its size."""
    return np.add.reduceat(values, begins, axis=1)


def _members(predictions: Sequence[Predictions]) -> tuple[Int[np.ndarray, "row"], int]:
    """The group of each row as a number, and how many there are."""
    if not predictions:
        return np.zeros(0, int), 0
    first = predictions[0].groups
    for at, one in enumerate(predictions):
        if not (one.groups is first or np.array_equal(one.groups, first)):
            raise ValueError(
                f"targets must have the same rows in the same groups; target {at} has others than the first"
            )
    names, member = np.unique(first, return_inverse=True)
    return member, len(names)


def _few(predictions: Sequence[Predictions]) -> Iterator[Sequence[Predictions]]:
    return (predictions[start : start + _TARGETS] for start in range(0, len(predictions), _TARGETS))


def _estimated(
    asked: Sequence[tuple[Measure, Predictions]], member: Int[np.ndarray, "row"], groups: int, seed: int
) -> tuple[Estimate, ...]:
    """Of each measure and target, in order; those of one measure come together."""
    targets = [_Target(one, member) for _, one in asked]
    statistics = [
        _STATISTICS[measure]([target for (own, _), target in zip(asked, targets) if own is measure], groups)
        for measure in dict.fromkeys(measure for measure, _ in asked)
    ]
    held = np.array([target.groups for target in targets])
    ends = np.array([(measure.worst, measure.best) for measure, _ in asked], float)
    found = _intervals(
        lambda weights: np.hstack([statistic(weights) for statistic in statistics]), held, ends, groups, seed
    )
    return tuple(_within(measure, target, estimate) for (measure, _), target, estimate in zip(asked, targets, found))


def _intervals(
    statistic: Statistic, held: Int[np.ndarray, "target"], ends: Float[np.ndarray, "target 2"], groups: int, seed: int
) -> tuple[Estimate, ...]:
    """`held`: how many groups hold rows of each target. `ends`: of its range, nan where it has none."""
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where a target has no rows: nan is the answer
        value = statistic(np.ones((1, groups)))[0]
        influence = (statistic(1 + _STEP * np.eye(groups)) - value) / _STEP
        squares = (influence**2).sum(0)
        few = (held < FEW_GROUPS) | (
            squares**2 / (influence**4).sum(0) < np.where(np.isnan(ends[:, 0]), 0, FEW_GROUPS / 3)
        )
        low, high = _t_interval(value, stats.t.ppf(0.975, held - 1) * np.sqrt(held / (held - 1) * squares), *ends.T)
        if not few.all():
            drawn = np.concatenate([statistic(weights)[:, ~few] for weights in _resamples(groups, seed)])
            low[~few], high[~few] = np.quantile(drawn, [0.025, 0.975], axis=0)
    numbers = np.stack([value, low, high], axis=1).tolist()
    return tuple(
        Estimate(value=value, low=low, high=high, interval=Interval.T if one else Interval.BOOTSTRAP)
        for (value, low, high), one in zip(numbers, few)
    )


def _t_interval(
    value: Float[np.ndarray, "target"],
    half: Float[np.ndarray, "target"],
    worst: Float[np.ndarray, "target"],
    best: Float[np.ndarray, "target"],
) -> Float[np.ndarray, "2 target"]:
    """`half` to each side; where there is a range, on its logit scale (for a correlation that is Fisher's z)."""
    reach = best - worst
    share = (value - worst) / reach
    logit, half_logit = special.logit(share), half / (reach * share * (1 - share))
    ranged = worst + reach * special.expit([logit - half_logit, logit + half_logit])
    return np.where(np.isnan(reach), [value - half, value + half], ranged)


def _resamples(groups: int, seed: int) -> Iterator[Float32[np.ndarray, "draw group"]]:
    """How often each group is drawn in each of `DRAWS` resamples with replacement, some at a time."""
    draw = np.random.default_rng(seed)
    for _ in range(0, DRAWS, _AT_ONCE):
        drawn = draw.integers(groups, size=(_AT_ONCE, groups)) + groups * np.arange(_AT_ONCE)[:, None]
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float32)


def _within(measure: Measure, target: _Target, estimate: Estimate) -> Estimate:
    """The interval cut to the measure's range, and Wilson's at its ends."""
    if np.isnan(measure.best) or np.isnan(estimate.value) or target.groups < 2:
        return estimate
    if min(measure.best - estimate.value, estimate.value - measure.worst) > 1e-12:
        return replace(estimate, low=max(estimate.low, measure.worst), high=min(estimate.high, measure.best))
    trials, reach = target.trials(), measure.best - measure.worst
    wilson = rate([estimate.value > measure.worst + reach / 2] * trials, [str(at) for at in range(trials)])
    return replace(estimate, low=measure.worst + reach * wilson.low, high=measure.worst + reach * wilson.high)


def _score(predictions: Predictions, member: Int[np.ndarray, "row"], found: Mapping[Measure, Estimate]) -> Score:
    kept = predictions.labels >= 0
    counts = np.bincount(predictions.labels[kept], minlength=predictions.classes)
    n = int(counts.sum())
    return Score(
        n=n,
        groups=int(np.count_nonzero(np.bincount(member[kept]))),
        headline=predictions.headline,
        estimates=found,
        majority=float(counts.max() / n) if n else np.nan,
        chance=1 / int((counts > 0).sum()) if n else np.nan,
    )
