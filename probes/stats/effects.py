"""What an intervention is worth over many documents: paired differences, with statistics that know which documents
belong together."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float
from scipy import stats

from lm2.intervals import bootstrap

DRAWS = 10_000
"""Resamples of a bootstrap; sign flips of a test, where there are more than so many."""
FEW_GROUPS = 30
"""With fewer, the percentile interval is too narrow: over 20 groups it holds 92 % and the t interval 94 %."""


class Interval(Enum):
    """How a 95 % interval was made."""

    BOOTSTRAP = "percentiles of a bootstrap over groups"
    T = "cluster-robust t: too few groups for a bootstrap"


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect:
    """A mean paired difference, edited less baseline, and what it is worth."""

    n: int
    """Documents."""
    groups: int
    mean: float
    low: float
    high: float
    interval: Interval
    d_z: float
    """Mean over the standard deviation of the differences (Cohen 1988); nan where they do not vary."""
    p: float
    """Two-sided, from flipping the signs of whole groups. With G groups it is at least 2 / 2^G."""
    q: float
    """p adjusted for all units that were tested together (Benjamini and Hochberg 1995)."""
    values: Float[np.ndarray, "document"]
    """The differences themselves, read-only."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovery:
    """How much of the way from the corrupt run to the clean one an edit goes: 0 none, 1 all."""

    values: Float[np.ndarray, "document"]
    """nan for the documents that are left out."""
    mean: float
    """Over the others; nan without any."""
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Redundancy:
    """Units knocked out together beside the sum of what each does alone. Where one stands in for another, single
    effects look harmless."""

    joint: Effect
    singles: Effect
    """Of the sum, document by document."""
    difference: Effect
    """joint - singles, paired."""


def effect(values: Float[np.ndarray, "document"], groups: Sequence[str], *, seed: int = 0) -> Effect:
    """The effect of one unit from its per-document differences. See `effects_of_units`; q is p."""
    return effects_of_units(np.asarray(values, np.float64)[None], groups, seed)[0]


def effects_of_units(
    matrix: Float[np.ndarray, "unit document"], groups: Sequence[str], seed: int = 0
) -> tuple[Effect, ...]:
    """The effect of each unit from its differences (edited - baseline) on the same documents.

    `groups` names the story that each document comes from; whole groups are resampled and flipped, the same ones for
    every unit. All sign patterns are counted where they are at most `DRAWS`; else `DRAWS` are drawn and p is
    (1 + hits) / (1 + draws) (Phipson and Smyth 2010). The interval is the percentile bootstrap's, or t with
    groups - 1 degrees of freedom below `FEW_GROUPS` groups; nan with one group.

    Raises ValueError where there is no document, a value is not finite or groups are not one a document.
    """
    matrix = _checked(matrix, groups)
    sums, sizes = _by_group(matrix, groups)
    mean, few = matrix.mean(1), len(sizes) < FEW_GROUPS
    if few:
        half = stats.t.ppf(0.975, len(sizes) - 1) * _standard_error(sums, sizes)
        low, high = mean - half, mean + half
    else:
        low, high = np.quantile(bootstrap(matrix.T, groups, seed=seed, resamples=DRAWS), [0.025, 0.975], axis=0)
    p = _sign_flip(sums, seed)
    q = stats.false_discovery_control(p)
    deviation = np.sqrt(((matrix - mean[:, None]) ** 2).sum(1) / max(1, matrix.shape[1] - 1))
    deviation[np.ptp(matrix, 1) == 0] = np.nan
    return tuple(
        Effect(
            n=len(values),
            groups=len(sizes),
            mean=float(mean[unit]),
            low=float(low[unit]),
            high=float(high[unit]),
            interval=Interval.T if few else Interval.BOOTSTRAP,
            d_z=float(mean[unit] / deviation[unit]),
            p=float(p[unit]),
            q=float(q[unit]),
            values=values,
        )
        for unit, values in enumerate(matrix)
    )


def topk_stability(matrix: Float[np.ndarray, "unit document"], groups: Sequence[str], k: int, seed: int = 0) -> float:
    """How far the k units of largest |mean| depend on the documents: mean Jaccard overlap with those of resampled
    groups.

    1 when every resample has the same k; nan with one group. Raises ValueError as `effects_of_units` does, and for a k
    that is not from 1 to the number of units.
    """
    matrix = _checked(matrix, groups)
    if not 1 <= k <= len(matrix):
        raise ValueError(f"k must be from 1 to {len(matrix)} units, not {k}")
    if len(set(groups)) < 2:
        return np.nan
    means = np.concatenate([matrix.mean(1)[None], bootstrap(matrix.T, groups, seed=seed)])
    chosen = np.zeros(means.shape, bool)
    np.put_along_axis(chosen, np.argsort(-np.abs(means), axis=1, kind="stable")[:, :k], True, axis=1)
    shared = (chosen[1:] & chosen[0]).sum(1)
    return float((shared / (2 * k - shared)).mean())


def normalised_recovery(
    clean: Float[np.ndarray, "document"], corrupt: Float[np.ndarray, "document"], edited: Float[np.ndarray, "document"]
) -> Recovery:
    """(edited - corrupt) / (clean - corrupt) of each document, from a metric of its three runs.

    Left out are the documents whose clean and corrupt runs lie no further apart than a tenth of the pooled standard
    deviation (the root of the mean of both variances): what is divided by nearly nothing means nothing.

    Raises ValueError for arrays that are empty, not finite or not of one length.
    """
    runs = [np.asarray(run, np.float64) for run in (clean, corrupt, edited)]
    if runs[0].ndim != 1 or not runs[0].size or len({run.shape for run in runs}) > 1 or not np.isfinite(runs).all():
        raise ValueError(
            f"clean, corrupt and edited must be finite values of the same documents, not {[run.shape for run in runs]}"
        )
    clean, corrupt, edited = runs
    apart = clean - corrupt
    kept = np.abs(apart) > 0.1 * np.sqrt((clean.var() + corrupt.var()) / 2)
    values = np.full(len(apart), np.nan)
    values[kept] = (edited - corrupt)[kept] / apart[kept]
    return Recovery(
        values=values, mean=float(values[kept].mean()) if kept.any() else np.nan, left_out=int((~kept).sum())
    )


def joint_beside_singles(
    joint: Float[np.ndarray, "document"],
    singles: Float[np.ndarray, "unit document"],
    groups: Sequence[str],
    seed: int = 0,
) -> Redundancy:
    """The effect of units knocked out together beside the sum of their single effects, on the same documents.

    Raises ValueError as `effects_of_units` does.
    """
    total = _checked(singles, groups).sum(0)
    joint = _checked(np.asarray(joint)[None], groups)[0]
    together, alone, difference = (effect(values, groups, seed=seed) for values in (joint, total, joint - total))
    return Redundancy(joint=together, singles=alone, difference=difference)


def _checked(matrix: Float[np.ndarray, "unit document"], groups: Sequence[str]) -> Float[np.ndarray, "unit document"]:
    """A read-only float64 copy."""
    matrix = np.array(matrix, np.float64)
    if matrix.ndim != 2 or not matrix.size or matrix.shape[1] != len(groups):
        raise ValueError(
            f"effects must be [unit, document] with one of {len(groups)} groups a document, and some of each, not"
            f" {matrix.shape}"
        )
    if not np.isfinite(matrix).all():
        raise ValueError(f"effects must be finite; {(~np.isfinite(matrix)).sum()} of {matrix.size} are not")
    matrix.setflags(write=False)
    return matrix


def _by_group(
    matrix: Float[np.ndarray, "unit document"], groups: Sequence[str]
) -> tuple[Float[np.ndarray, "group unit"], Float[np.ndarray, "group"]]:
    """Sums over each group's documents, and how many those are."""
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), len(matrix)))
    np.add.at(sums, member, matrix.T)
    return sums, np.bincount(member).astype(np.float64)


def _standard_error(
    sums: Float[np.ndarray, "group unit"], sizes: Float[np.ndarray, "group"]
) -> Float[np.ndarray, "unit"]:
    """Of the mean over documents, from the residuals of whole groups; nan with one group."""
    if len(sizes) < 2:
        return np.full(sums.shape[1], np.nan)
    residuals = sums - sums.sum(0) / sizes.sum() * sizes[:, None]
    return np.sqrt(len(sizes) / (len(sizes) - 1) * (residuals**2).sum(0)) / sizes.sum()


def _signs(groups: int, seed: int) -> Float[np.ndarray, "draw group"]:
    """Every pattern of signs where there are at most `DRAWS`, else so many drawn."""
    if 2**groups <= DRAWS:
        return 1.0 - 2 * (np.arange(2**groups)[:, None] >> np.arange(groups) & 1)
    return 1.0 - 2 * np.random.default_rng(seed).integers(0, 2, size=(DRAWS, groups))


def _sign_flip(sums: Float[np.ndarray, "group unit"], seed: int) -> Float[np.ndarray, "unit"]:
    """Two-sided p of each unit's mean when the signs of whole groups are exchangeable."""
    signs = _signs(len(sums), seed)
    reached = np.abs(sums.sum(0)) - 1e-12 * np.abs(sums).sum(0)  # a tie is a tie in whatever order it was summed
    hits = (np.abs(signs @ sums) >= reached).sum(0)
    return hits / len(signs) if 2 ** len(sums) <= DRAWS else (1 + hits) / (1 + len(signs))
