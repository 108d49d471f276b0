"""Effects of interventions over many documents: paired differences, with statistics clustered by group."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float
from scipy import stats

from lm2.intervals import bootstrap

DRAWS = 10_000
"""Resamples of a bootstrap; at most so many sign flips of a test."""
FEW_GROUPS = 30
"""Below this, the percentile interval is too narrow: with 20 groups it covers 92 %, the t interval 94 %."""


class Interval(Enum):
    """How a 95 % interval was made."""

    BOOTSTRAP = "percentiles of a bootstrap over groups"
    T = "cluster-robust t: too few groups for a bootstrap"


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect:
    """A mean paired difference, edited - baseline, with its interval and tests."""

    n: int
    """Documents."""
    groups: int
    mean: float
    low: float
    high: float
    interval: Interval
    d_z: float
    """Mean over the standard deviation of the differences (Cohen 1988); nan if they do not vary."""
    p: float
    """Two-sided, by flipping the signs of whole groups. With G groups it is at least 2 / 2^G."""
    q: float
    """p adjusted for all units tested together (Benjamini and Hochberg 1995)."""
    values: Float[np.ndarray, "document"]
    """The differences, read-only."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovery:
    """How far an edit moves the corrupt run towards the clean one: 0 not at all, 1 all the way."""

    values: Float[np.ndarray, "document"]
    """nan for documents that are left out."""
    mean: float
    """Over the others; nan if there are none."""
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Redundancy:
    """The effect of units knocked out together, and the sum of their single effects, which are small if one unit stands
    in for another."""

    joint: Effect
    singles: Effect
    """Of the sum in each document."""
    difference: Effect
    """joint - singles, paired."""


def effect(values: Float[np.ndarray, "document"], groups: Sequence[str], *, seed: int = 0) -> Effect:
    """The effect of one unit, as `effects_of_units` computes it; q is p."""
    return effects_of_units(np.asarray(values, np.float64)[None], groups, seed)[0]


def effects_of_units(
    matrix: Float[np.ndarray, "unit document"], groups: Sequence[str], seed: int = 0
) -> tuple[Effect, ...]:
    """The effect of each unit from its differences (edited - baseline) on the same documents.

    `groups` names each document's story. Whole groups are resampled and flipped, the same ones for every unit. If there
    are more than `DRAWS` sign patterns, `DRAWS` are drawn, and p is (1 + hits) / (1 + draws) (Phipson and Smyth 2010).
    The interval is the percentile bootstrap's or, below `FEW_GROUPS` groups, t with groups - 1 degrees of freedom; nan
    with one group.

    Raises ValueError without documents, for values that are not finite, and unless each document has one group.
    """
    matrix = _checked(matrix, groups)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.zeros((len(names), len(matrix))), np.bincount(member).astype(np.float64)
    np.add.at(sums, member, matrix.T)
    mean, few = matrix.mean(1), len(sizes) < FEW_GROUPS
    if few:
        half = stats.t.ppf(0.975, len(sizes) - 1) * _standard_error(sums, sizes)
        low, high = mean - half, mean + half
    else:
        low, high = np.quantile(bootstrap(matrix.T, groups, seed=seed, resamples=DRAWS), [0.025, 0.975], axis=0)
    p = _sign_flip(sums, seed)
    deviation = np.sqrt(((matrix - mean[:, None]) ** 2).sum(1) / max(1, matrix.shape[1] - 1))
    deviation[np.ptp(matrix, 1) == 0] = np.nan
    numbers = np.stack([mean, low, high, mean / deviation, p, stats.false_discovery_control(p)], axis=1).tolist()
    return tuple(
        Effect(
            n=len(values),
            groups=len(sizes),
            mean=mean,
            low=low,
            high=high,
            interval=Interval.T if few else Interval.BOOTSTRAP,
            d_z=d_z,
            p=p,
            q=q,
            values=values,
        )
        for values, (mean, low, high, d_z, p, q) in zip(matrix, numbers)
    )


def topk_stability(matrix: Float[np.ndarray, "unit document"], groups: Sequence[str], k: int, seed: int = 0) -> float:
    """How stable the k units of largest |mean| are: their mean Jaccard overlap with those of resampled groups.

    1 if every resample has the same k; nan with one group. Raises ValueError as `effects_of_units` does, and for a k
    that is not from 1 to the number of units.
    """
    matrix = _checked(matrix, groups)
    if not 1 <= k <= len(matrix):
        raise ValueError(f"k must be from 1 to {len(matrix)} units, not {k}")
    if len(set(groups)) < 2:
        return np.nan
    means = np.concatenate([matrix.mean(1)[None], bootstrap(matrix.T, groups, seed=seed)])
    is_top = np.zeros(means.shape, bool)
    np.put_along_axis(is_top, np.argsort(-np.abs(means), axis=1, kind="stable")[:, :k], True, axis=1)
    shared = (is_top[1:] & is_top[0]).sum(1)
    return float((shared / (2 * k - shared)).mean())


def normalised_recovery(
    clean: Float[np.ndarray, "document"], corrupt: Float[np.ndarray, "document"], edited: Float[np.ndarray, "document"]
) -> Recovery:
    """(edited - corrupt) / (clean - corrupt) of a metric in each document.

    Documents are left out if their clean and corrupt runs differ by no more than a tenth of the pooled standard
    deviation (the root of the mean of both variances): a quotient of nearly nothing means nothing.

    Raises ValueError for arrays that are empty, not finite or of different lengths.
    """
    runs = [np.asarray(run, np.float64) for run in (clean, corrupt, edited)]
    if runs[0].ndim != 1 or not runs[0].size or len({run.shape for run in runs}) > 1 or not np.isfinite(runs).all():
        raise ValueError(
            f"clean, corrupt and edited must be finite values of the same documents, not {[run.shape for run in runs]}"
        )
    clean, corrupt, edited = runs
    gap = clean - corrupt
    used = np.abs(gap) > 0.1 * np.sqrt((clean.var() + corrupt.var()) / 2)
    values = np.full(len(gap), np.nan)
    values[used] = (edited - corrupt)[used] / gap[used]
    return Recovery(
        values=values, mean=float(values[used].mean()) if used.any() else np.nan, left_out=int((~used).sum())
    )


def joint_beside_singles(
    joint: Float[np.ndarray, "document"],
    singles: Float[np.ndarray, "unit document"],
    groups: Sequence[str],
    seed: int = 0,
) -> Redundancy:
    """Compare units knocked out together with the sum of their single effects on the same documents.

    Raises ValueError as `effects_of_units` does.
    """
    total = _checked(singles, groups).sum(0)
    joint = _checked(np.asarray(joint)[None], groups)[0]
    return Redundancy(
        joint=effect(joint, groups, seed=seed),
        singles=effect(total, groups, seed=seed),
        difference=effect(joint - total, groups, seed=seed),
    )


def _checked(matrix: Float[np.ndarray, "unit document"], groups: Sequence[str]) -> Float[np.ndarray, "unit document"]:
    """A read-only float64 copy."""
    matrix = np.array(matrix, np.float64)
    if matrix.ndim != 2 or not matrix.size or matrix.shape[1] != len(groups):
        raise ValueError(
            f"effects must be [unit, document], not empty, with a group for each document, not {matrix.shape} with"
            f" {len(groups)} groups"
        )
    if not np.isfinite(matrix).all():
        raise ValueError(f"effects must be finite; {(~np.isfinite(matrix)).sum()} of {matrix.size} are not")
    matrix.setflags(write=False)
    return matrix


def _standard_error(
    sums: Float[np.ndarray, "group unit"], sizes: Float[np.ndarray, "group"]
) -> Float[np.ndarray, "unit"]:
    """Cluster-robust standard error of the mean over documents; nan with one group."""
    if len(sizes) < 2:
        return np.full(sums.shape[1], np.nan)
    residuals = sums - sums.sum(0) / sizes.sum() * sizes[:, None]
    return np.sqrt(len(sizes) / (len(sizes) - 1) * (residuals**2).sum(0)) / sizes.sum()


def _sign_flip(sums: Float[np.ndarray, "group unit"], seed: int) -> Float[np.ndarray, "unit"]:
    """Two-sided p of each unit's mean if the signs of whole groups are exchangeable."""
    groups = len(sums)
    exact = 2**groups <= DRAWS
    if exact:
        bits = np.arange(2**groups)[:, None] >> np.arange(groups) & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, size=(DRAWS, groups))
    threshold = np.abs(sums.sum(0)) - 1e-12 * np.abs(sums).sum(0)  # ties stay ties in whatever order they are summed
    hits = (np.abs((1.0 - 2 * bits) @ sums) >= threshold).sum(0)
    return hits / len(bits) if exact else (1 + hits) / (1 + len(bits))
