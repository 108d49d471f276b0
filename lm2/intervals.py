"""Confidence intervals of shares and differences, whose items may belong together in groups."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, isnan, sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Bounded(NamedTuple):
    """A number with the ends of its 95 % interval, NaN where there is none."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        """For example "71.3 (68.0 to 74.4)"; `form` applies to each number."""
        ends = "" if isnan(self.low) else f" ({self.low:{form}} to {self.high:{form}})"
        return f"{self.value:{form}}{ends}"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share with its 95 % interval."""

    n: int
    groups: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean paired difference with its 95 % interval."""

    n: int
    groups: int
    mean: float
    low: float
    high: float


def rate(right: Sequence[float], groups: Sequence[str], *, seeds: int = 1) -> Rate:
    """Accuracy with a Wilson 95 % interval (Wilson 1927) for the effective sample size of clustered items.

    `groups` has the group of each item, such as its story: items of one group share their facts. The sample size is
    divided by the design effect (Kish 1965), the variance of the mean over whole groups divided by the binomial one,
    at least 1. Items may be right in part, from 0 to 1: they vary less than the binomial has it, and the interval is
    no narrower than it should be. Where an item's number is a mean over `seeds` models, as many answers are counted;
    the interval is for other items and the same models. Raises ValueError for no items.
    """
    n = len(right)
    if not n:
        raise ValueError("a share needs at least one item")
    accuracy = sum(right) / n
    deviations = _deviations(right, groups)
    k = len(deviations)
    effective = float(k)
    if k > 1 and 0 < accuracy < 1:  # else all is right or wrong, or of one group: the spread between groups is unknown
        sums, answers = np.array([*deviations.values()]), n * seeds
        variance = k / (k - 1) * float((sums**2).sum()) / n**2
        effective = answers / max(1.0, variance / (accuracy * (1 - accuracy) / answers))
    z = 1.959964
    scale = 1 + z**2 / effective
    centre = (accuracy + z**2 / (2 * effective)) / scale
    half = z / scale * sqrt(accuracy * (1 - accuracy) / effective + z**2 / (4 * effective**2))
    return Rate(
        n=n,
        groups=k,
        accuracy=accuracy,
        low=min(accuracy, max(0.0, centre - half)),
        high=max(accuracy, min(1.0, centre + half)),
    )


def _deviations(right: Sequence[float], groups: Sequence[str]) -> dict[str, float]:
    """For each group, how much more is right of it than accuracy has it."""
    members: dict[str, list[float]] = defaultdict(list)
    for group, hit in zip(groups, right, strict=True):
        members[group].append(hit)
    accuracy = sum(right) / len(right)
    return {group: sum(hits) - accuracy * len(hits) for group, hits in members.items()}


def correlation(
    first: Sequence[float], first_groups: Sequence[str], second: Sequence[float], second_groups: Sequence[str]
) -> float:
    """How the errors of two shares go together because of the groups that both have: 0 without any, at most 1.

    Where a share is all right or all wrong, the spread between groups is unknown: the share of groups in common.
    """
    mine, theirs = _deviations(first, first_groups), _deviations(second, second_groups)
    common = mine.keys() & theirs.keys()
    scale = sqrt(sum(each**2 for each in mine.values()) * sum(each**2 for each in theirs.values()))
    if not scale:
        return len(common) / sqrt(len(mine) * len(theirs))
    return max(0.0, sum(mine[group] * theirs[group] for group in common) / scale)


def bootstrap(
    values: Float[np.ndarray, "item column"], groups: Sequence[str], *, seed: int, resamples: int = 2000
) -> Float[np.ndarray, "resample column"]:
    """Column means of `resamples` draws of whole groups with replacement (Efron and Tibshirani 1993)."""
    names, indexes = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, indexes, values)
    counts = np.bincount(indexes)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return (draws @ sums) / (draws @ counts)[:, None]


def difference(first: Sequence[float], second: Sequence[float], groups: Sequence[str], *, seed: int = 0) -> Difference:
    """Mean of first - second over the same items, with a percentile interval from a bootstrap over groups, NaN with one
    group.

    Raises ValueError for no items.
    """
    if not len(first):
        raise ValueError("a difference needs at least one item")
    pairs, count = np.array(first, float) - np.array(second, float), len(set(groups))
    ends = [0.025, 0.975]
    low, high = np.quantile(bootstrap(pairs[:, None], groups, seed=seed)[:, 0], ends) if count > 1 else (np.nan, np.nan)
    return Difference(n=len(pairs), groups=count, mean=float(pairs.mean()), low=float(low), high=float(high))


def half_over_seeds(*samples: Float[np.ndarray, "seed"]) -> float:
    """Half of a 95 % interval of a mean over training seeds, as far as seeds make it vary; of several samples, of the
    sum or difference of their means. By Student's t (1908), with the degrees of freedom of Satterthwaite (1946).

    A sample of one seed says nothing about others, and adds 0.

    Seeds and stories are crossed: every seed answers the same stories. The two-way bootstrap, which draws both with
    replacement (the pigeonhole bootstrap, Owen 2007), is not used, because it knows no seed beyond the few that there
    are. With three, a 95 % interval must reach 4.3 standard errors to each side, and no draw lies beyond the best or
    worst of them: in a simulation of 300 recipes with 400 stories it held the truth 250 times, and this one 290 times
    (tests/lm2/test_intervals.py).
    """
    from scipy.special import stdtrit  # slow to import, and not needed to draw a page

    parts = [(float(np.var(sample, ddof=1)) / len(sample), len(sample) - 1) for sample in samples if len(sample) > 1]
    variance = sum(part for part, _ in parts)
    if not variance:
        return 0.0
    freedom = variance**2 / sum(part**2 / of_part for part, of_part in parts)
    return float(stdtrit(freedom, 0.975)) * sqrt(variance)


def over_seeds(mean: float, low: float, high: float, half: float) -> tuple[float, float]:
    """Ends of the interval for other stories and other seeds, from those for other stories and the half for other
    seeds: halves add up as squares (Zou and Donner 2008). What differs from seed to seed by the draw of stories is in
    both, so that the interval is rather too wide than too narrow."""
    return (mean - hypot(mean - low, half), mean + hypot(high - mean, half)) if half else (low, high)
