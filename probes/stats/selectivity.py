"""Whether a score is about the features: control labels, code length, bits over a baseline, and a nested choice.

Selectivity itself is a paired difference: `differences(measure, tasks, controls)` of `probes.stats.scores`, with
controls that were fitted and held out as the tasks were.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy import stats

from probes.stats.predictions import Measure, Predictions
from probes.stats.scores import Estimate, differences, estimates
from probes.stats.splits import Fold, Names

CODED = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Shares of the groups after which a probe is fitted again (Voita and Titov 2020)."""
FEWEST = 5
"""Groups in a block of the code; a smaller block is joined to the next."""


def control_labels(types: Names, labels: Int[np.ndarray, "row"], classes: int, seed: int = 0) -> Int[np.ndarray, "row"]:
    """Labels of the control task (Hewitt and Liang 2019): each type (the text of a statement, a token) has one label,
    the same wherever it occurs.

    Labels are drawn with their frequencies in the task, and drawn again while all types have the same one. A probe can
    only memorise them, so its score on them is what it can memorise. -1 stays -1.

    Raises ValueError unless rows with a label have at least two types and two labels.
    """
    labels, known = np.asarray(labels), np.asarray(labels) >= 0
    names, type_of_row = np.unique(np.asarray(types)[known], return_inverse=True)
    shares = np.bincount(labels[known], minlength=classes) / max(1, known.sum())
    if len(names) < 2 or (shares > 0).sum() < 2:
        raise ValueError(
            f"a control task needs at least 2 types and 2 labels, not {len(names)} types and {(shares > 0).sum()}"
            " labels"
        )
    generator, drawn = np.random.default_rng(seed), np.zeros(len(names), int)
    while len(np.unique(drawn)) < 2:
        drawn = generator.choice(classes, size=len(names), p=shares)
    control = np.full(len(labels), -1)
    control[known] = drawn[type_of_row]
    return control


class FittedProbe(Protocol):
    def log_probabilities(self, features: Float32[np.ndarray, "row d"], /) -> Float[np.ndarray, "row class"]: ...


Fit = Callable[[Float32[np.ndarray, "row d"], Int[np.ndarray, "target row"], Sequence[int]], Sequence[FittedProbe]]
"""(features, labels, classes of each target) -> a probe for each target. A label of -1 leaves the row out."""


@dataclass(frozen=True, kw_only=True)
class CodeLength:
    """Length of a message that encodes the labels for someone who has the features."""

    n: int
    """Labels."""
    bits: float
    uniform: float
    """Bits of the uniform code: n log2(classes)."""
    blocks: tuple[int, ...]
    """Groups encoded up to the end of each block."""

    @property
    def compression(self) -> float:
        """Uniform over online code: about 1 if features say nothing of equally frequent classes (a prevailing class
        takes fewer bits even without features); nan without labels."""
        return self.uniform / self.bits if self.n else np.nan


def online_code(
    features: Float32[np.ndarray, "row d"],
    labels: Int[np.ndarray, "target row"],
    classes: Sequence[int],
    groups: Names,
    fit: Fit,
    seed: int = 0,
) -> tuple[CodeLength, ...]:
    """Minimum description length of each target by online coding (Voita and Titov 2020).

    Groups are shuffled and encoded in blocks that end at the shares in `CODED`, each of at least `FEWEST` groups. The
    first is encoded uniformly, each other by a probe fitted on all before it, or uniformly while these have one class.
    A class that has not occurred yet needs a code, too: with m training rows, p becomes (m p + 1) / (m + classes), as
    if each class had occurred once more.

    Raises ValueError for fewer groups than two blocks need.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2 * FEWEST:
        raise ValueError(f"an online code needs at least {2 * FEWEST} groups, not {len(names)}")
    labels, counts, blocks = np.asarray(labels), np.asarray(classes), _blocks(len(names))
    order = np.random.default_rng(seed).permutation(len(names))
    block_of_row = np.searchsorted(blocks, np.argsort(order), side="right")[member]
    known, bits = labels >= 0, np.zeros(len(labels))
    for block in range(len(blocks)):
        train, test = np.flatnonzero(block_of_row < block), np.flatnonzero(block_of_row == block)
        fittable = np.flatnonzero([len(np.unique(own[own >= 0])) > 1 for own in labels[:, train]])
        m, likely = np.zeros(len(labels)), np.zeros((len(labels), len(test)))
        m[fittable] = known[fittable][:, train].sum(1)
        probes = fit(features[train], labels[fittable][:, train], counts[fittable].tolist()) if len(fittable) else ()
        for target, probe in zip(fittable, probes, strict=True):
            probabilities = np.exp(np.asarray(probe.log_probabilities(features[test]), np.float64))
            likely[target] = probabilities[np.arange(len(test)), np.maximum(labels[target, test], 0)]
        bits -= (known[:, test] * np.log2((m[:, None] * likely + 1) / (m + counts)[:, None])).sum(1)
    return tuple(
        CodeLength(n=int(n), bits=float(length), uniform=float(n * np.log2(count)), blocks=blocks)
        for n, length, count in zip(known.sum(1), bits, classes)
    )


def bits_gained(sites: Sequence[Predictions], baselines: Sequence[Predictions], seed: int = 0) -> tuple[Estimate, ...]:
    """Bits per label that a site's probe gains over a baseline's: the baseline's cross-entropy less the site's.

    A difference of V-informations (Xu et al. 2020; the gain of Pimentel et al. 2020) for this family of probes;
    negative if the site's probe is worse. Intervals are paired. Raises ValueError as `differences` does.
    """
    return differences(Measure.BITS, baselines, sites, seed)


def q_values(p: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """p adjusted for all tests of a grid (Benjamini and Hochberg 1995); nan, no test, stays nan."""
    p = np.asarray(p, np.float64)
    q, known = np.full(p.shape, np.nan), ~np.isnan(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return q


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best site's score, unbiased by the choice."""

    estimate: Estimate
    chosen: tuple[int, ...]
    """In how many folds each site was chosen."""


def nested_choice(
    inner: Float[np.ndarray, "site fold"],
    sites: Sequence[Predictions],
    folds: Sequence[Fold],
    measure: Measure,
    seed: int = 0,
) -> Choice:
    """The held-out score of a site that is chosen again in each outer fold (nested cross-validation, Varma and Simon
    2006).

    `inner`: each site's score on the training groups of each fold alone; the first of the highest is chosen. `sites`:
    held-out predictions of the same rows. A row's prediction is that of the site chosen in the fold that tests it; rows
    that no fold tests are left out.

    Raises ValueError for inner scores that are not finite or not one for each site and fold, and as `estimates` does.
    """
    inner, first = np.asarray(inner), sites[0]
    if inner.shape != (len(sites), len(folds)) or not np.isfinite(inner).all():
        raise ValueError(
            f"inner scores must be finite, one for each of {len(sites)} sites and {len(folds)} folds, not {inner.shape}"
        )
    if any(not np.array_equal(site.labels, first.labels) for site in sites):
        raise ValueError("sites must be asked for the same labels")
    best, site_of_row = inner.argmax(0), np.full(len(first.labels), -1)
    for site, fold in zip(best, folds):
        site_of_row[fold.test] = site
    name = "predicted" if first.log_probabilities is None else "log_probabilities"
    values = np.stack([getattr(site, name) for site in sites])[site_of_row, np.arange(len(site_of_row))]
    labels = np.where(site_of_row >= 0, first.labels, -1)
    pooled = Predictions(labels=labels, groups=first.groups, classes=first.classes, **{name: values})
    chosen = np.bincount(best, minlength=len(sites))
    return Choice(estimate=estimates(measure, [pooled], seed)[0], chosen=tuple(chosen.tolist()))


def _blocks(groups: int) -> tuple[int, ...]:
    """Groups encoded up to the end of each block."""
    ends = [0]
    for share in CODED:
        end = round(share * groups)
        if end - ends[-1] >= FEWEST and (end == groups or groups - end >= FEWEST):
            ends.append(end)
    return tuple(ends[1:])
