"""What a measured share or difference is worth: intervals that know which items belong together."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Bounded(NamedTuple):
    """A number with the ends of its 95 % interval, which are NaN where it has none."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        """Such as "71.3 (68.0 to 74.4)": each number in the form that is asked for."""
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


def rate(right: Sequence[bool], groups: Sequence[str]) -> Rate:
    """Accuracy with a Wilson 95 % interval (Wilson 1927) whose sample size is cut down to what clustering leaves.

    `groups` names for each item the group it belongs to (its story): items of one group share their facts. The
    design effect is the variance of the mean over whole groups divided by the binomial one, at least 1 (Kish 1965);
    so an interval at 100 % is still no point. Raises ValueError when there is nothing to count.
    """
    n = len(right)
    if not n:
        raise ValueError("a share needs at least one item")
    members: dict[str, list[bool]] = defaultdict(list)
    for group, hit in zip(groups, right, strict=True):
        members[group].append(hit)
    accuracy = sum(right) / n
    k = len(members)
    effective = float(n)
    if k > 1 and 0 < accuracy < 1:
        sums = np.array([sum(hits) - accuracy * len(hits) for hits in members.values()])
        variance = k / (k - 1) * float((sums**2).sum()) / n**2
        effective = n / max(1.0, variance / (accuracy * (1 - accuracy) / n))
    elif k < n:  # all right or all wrong: nothing is known of the spread between groups but their number
        effective = float(k)
    z = 1.959964
    centre = (accuracy + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = (
        z / (1 + z**2 / effective) * float(np.sqrt(accuracy * (1 - accuracy) / effective + z**2 / (4 * effective**2)))
    )
    return Rate(
        n=n,
        groups=k,
        accuracy=accuracy,
        low=min(accuracy, max(0.0, centre - half)),
        high=max(accuracy, min(1.0, centre + half)),
    )


def bootstrap(
    values: Float[np.ndarray, "item column"], groups: Sequence[str], *, seed: int, resamples: int = 2000
) -> Float[np.ndarray, "resample column"]:
    """Column means of `resamples` draws of whole groups with replacement (Efron and Tibshirani 1993), seeded."""
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, member, values)
    counts = np.bincount(member)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return (drawn @ sums) / (drawn @ counts)[:, None]


def difference(one: Sequence[bool], other: Sequence[bool], groups: Sequence[str], *, seed: int = 0) -> Difference:
    """Mean of one - other over the same items, with a percentile interval from a bootstrap over groups; nan with one
    group.

    Raises ValueError when there is nothing to compare.
    """
    if not len(one):
        raise ValueError("a difference needs at least one item")
    pairs = np.array(one, float) - np.array(other, float)
    low, high = (
        np.quantile(bootstrap(pairs[:, None], groups, seed=seed)[:, 0], [0.025, 0.975])
        if len(set(groups)) > 1
        else (np.nan, np.nan)
    )
    return Difference(n=len(pairs), groups=len(set(groups)), mean=float(pairs.mean()), low=float(low), high=float(high))
