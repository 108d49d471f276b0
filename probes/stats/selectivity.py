"""Is a score about the features? Control labels, code length, bits over a baseline, permuted labels, and a choice that
does not flatter.

Selectivity itself is a paired difference: `differences(measure, tasks, controls)` of `probes.stats.scores`, with
controls that were fitted and held out as the tasks were.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy import linalg, stats

from probes.stats.scores import Estimate, Measure, Predictions, differences, estimates
from probes.stats.splits import Fold, Names, folds

CODED = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Shares of the groups at which a probe is fitted anew (Voita and Titov 2020)."""
FEWEST = 5
"""Groups in a block of the code; smaller blocks go into the next."""
_RIDGE = 1.0
"""Penalty over the mean eigenvalue of the Gram matrix: strong enough for more features than rows."""
_COLUMNS = 500
"""Of permuted one-hot labels in one matrix product."""


def control_labels(types: Names, labels: Int[np.ndarray, "row"], classes: int, seed: int = 0) -> Int[np.ndarray, "row"]:
    """The control task (Hewitt and Liang 2019): one label for each type (the text of a statement, a token), the same
    wherever it occurs.

    Labels are drawn as often as they occur in the task, and again while all types have the same one. They can only be
    known by heart, so a probe's score on them is what it can memorise. -1 stays -1.

    Raises ValueError where rows with a label are not of at least two types and two labels.
    """
    labels, kept = np.asarray(labels), np.asarray(labels) >= 0
    names, which = np.unique(np.asarray(types)[kept], return_inverse=True)
    shares = np.bincount(labels[kept], minlength=classes) / max(1, kept.sum())
    if len(names) < 2 or (shares > 0).sum() < 2:
        raise ValueError(
            f"a control task needs at least 2 types and 2 labels, not {len(names)} types and {(shares > 0).sum()}"
            " labels"
        )
    draw, drawn = np.random.default_rng(seed), np.zeros(len(names), int)
    while len(np.unique(drawn)) < 2:
        drawn = draw.choice(classes, size=len(names), p=shares)
    control = np.full(len(labels), -1)
    control[kept] = drawn[which]
    return control


class ProbeReader(Protocol):
    """A fitted probe."""

    def log_probabilities(self, features: Float32[np.ndarray, "row d"], /) -> Float[np.ndarray, "row class"]: ...


Fit = Callable[[Float32[np.ndarray, "row d"], Int[np.ndarray, "target row"], Sequence[int]], Sequence[ProbeReader]]
"""(features, labels, classes of each target) -> a probe for each target. A label of -1 leaves the row out."""


@dataclass(frozen=True, kw_only=True)
class CodeLength:
    """How long a message is that tells the labels to someone who has the features."""

    n: int
    """Labels told."""
    bits: float
    uniform: float
    """Bits where every class is as likely: n log2(classes)."""
    blocks: tuple[int, ...]
    """Groups told up to the end of each block."""

    @property
    def compression(self) -> float:
        """Uniform over online: about 1 where features tell nothing of classes that are as frequent (a class that
        prevails is told in fewer bits without any feature); nan without a label."""
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

    Groups are shuffled and told in blocks that end at the shares in `CODED`, each of at least `FEWEST` groups. The
    first is coded uniformly, each other with what `fit` learns from all before it, or uniformly while that is of one
    class. A class that has not been told yet must have a code too: with m rows learnt from, p becomes (m p + 1) / (m +
    classes), as if each class had been seen once more.

    Raises ValueError for fewer groups than two blocks need.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2 * FEWEST:
        raise ValueError(f"an online code needs at least {2 * FEWEST} groups, not {len(names)}")
    labels, counts, blocks = np.asarray(labels), np.asarray(classes), _blocks(len(names))
    order = np.random.default_rng(seed).permutation(len(names))
    block_of_group = np.searchsorted(blocks, np.argsort(order), side="right")
    told, kept, bits = block_of_group[member], labels >= 0, np.zeros(len(labels))
    for block in range(len(blocks)):
        before, now = np.flatnonzero(told < block), np.flatnonzero(told == block)
        known = np.flatnonzero([len(np.unique(own[own >= 0])) > 1 for own in labels[:, before]])
        m, likely = np.zeros(len(labels)), np.zeros((len(labels), len(now)))
        m[known] = kept[known][:, before].sum(1)
        fitted = fit(features[before], labels[known][:, before], counts[known].tolist()) if len(known) else ()
        for target, reader in zip(known, fitted, strict=True):
            said = np.exp(np.asarray(reader.log_probabilities(features[now]), np.float64))
            likely[target] = said[np.arange(len(now)), np.maximum(labels[target, now], 0)]
        bits -= (kept[:, now] * np.log2((m[:, None] * likely + 1) / (m + counts)[:, None])).sum(1)
    return tuple(
        CodeLength(n=int(n), bits=float(coded), uniform=float(n * np.log2(count)), blocks=blocks)
        for n, coded, count in zip(kept.sum(1), bits, classes)
    )


def bits_gained(sites: Sequence[Predictions], baselines: Sequence[Predictions], seed: int = 0) -> tuple[Estimate, ...]:
    """How many bits of each label a site's probe tells beyond a baseline's: cross-entropy of the baseline less the
    site's.

    A difference of V-informations (Xu et al. 2020; the gain of Pimentel et al. 2020): it is about this family of
    probes, and negative where the site's is worse. Both on the same rows; intervals are paired. Raises ValueError as
    `differences` does.
    """
    return differences(Measure.BITS, baselines, sites, seed)


@dataclass(frozen=True, kw_only=True)
class Permuted:
    """What a light probe reads, beside what it reads of labels that were dealt out anew."""

    value: float
    """Held-out balanced accuracy with the labels as they are."""
    null: float
    """Its mean over permutations."""
    p: float
    """One-sided, (1 + hits) / (1 + permutations)."""
    moving: float
    """Share of the rows whose labels can go elsewhere. Where it is small, so is the power; at 0, p is 1."""


def permutation_test(
    features: Float32[np.ndarray, "row d"],
    labels: Int[np.ndarray, "target row"],
    groups: Names,
    documents: Names,
    *,
    permutations: int = 999,
    seed: int = 0,
) -> tuple[Permuted, ...]:
    """Do labels go with features? Each target is read again from labels that whole documents have exchanged. -1 leaves
    a row out.

    Groups whose documents are as long, one by one, exchange all their labels, row by row in the order given. In a group
    without such another, documents that are as long exchange theirs (whole-block and within-block exchange, Winkler et
    al. 2015). Lengths are in rows with a label. Single rows never move: where rows of a document are alike, that finds
    far more than is there.

    The probe is a ridge on class indicators over 5 folds of whole groups, standardised by its training rows. Scores are
    divided by the class's share of all rows, which makes the highest one the best guess for balanced accuracy. A fold's
    Gram matrix is factored once: for all permutations, and all targets with labels on the same rows. p: Phipson and
    Smyth (2010).

    Raises ValueError where fewer groups than folds have a label, and without a permutation.
    """
    if permutations < 1:
        raise ValueError(f"a test needs at least 1 permutation, not {permutations}")
    labels, groups, documents = np.asarray(labels), np.asarray(groups), np.asarray(documents)
    masks, which = np.unique(labels >= 0, axis=0, return_inverse=True)
    found: dict[int, Permuted] = {}
    for at, mask in enumerate(masks):
        parts = [fold.test for fold in folds(groups[mask], seed=seed)]
        rows = np.flatnonzero(mask)[np.concatenate(parts)]  # a fold's rows lie side by side
        tests, readers = _readers(features[rows], np.cumsum([len(part) for part in parts])[:-1])
        blocks = _exchangeable(groups[rows], documents[rows])
        for target in np.flatnonzero(which == at):
            drawn = _exchanged(labels[target, rows], blocks, permutations, seed)
            values = np.concatenate([_balanced_accuracy(tests, readers, few) for few in drawn])
            hits = (values[1:] >= values[0] - 1e-6).sum()  # a tie is a tie in whatever order it was summed
            found[int(target)] = Permuted(
                value=float(values[0]),
                null=float(values[1:].mean()),
                p=float((1 + hits) / (1 + permutations)),
                moving=sum(block.size for block in blocks) / len(rows),
            )
    return tuple(found[target] for target in range(len(labels)))


def q_values(p: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """p adjusted for the whole grid that was looked at, of any shape (Benjamini and Hochberg 1995). nan was not looked
    at and stays nan."""
    p = np.asarray(p, np.float64)
    q, known = np.full(p.shape, np.nan), ~np.isnan(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return q


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the best site is worth when it was not chosen by what it is judged on."""

    estimate: Estimate
    chosen: tuple[int, ...]
    """In how many folds each site was."""


def nested_choice(
    inner: Float[np.ndarray, "site fold"],
    sites: Sequence[Predictions],
    folds: Sequence[Fold],
    measure: Measure,
    seed: int = 0,
) -> Choice:
    """The held-out score of a site that is chosen anew in each outer fold (nested cross-validation, Varma and Simon
    2006).

    `inner`: a score of each site on the training groups of each fold alone; more is better, and the first of equals is
    chosen. `sites`: their held-out predictions of the same rows. A row's prediction is that of the site chosen in the
    fold that tests it; rows that no fold tests are left out.

    Raises ValueError for inner scores that are not finite or not one for each site and fold, and as `estimates` does.
    """
    inner, first = np.asarray(inner), sites[0]
    if inner.shape != (len(sites), len(folds)) or not np.isfinite(inner).all():
        raise ValueError(
            f"inner scores must be finite, one for each of {len(sites)} sites and {len(folds)} folds, not {inner.shape}"
        )
    if any(not np.array_equal(site.labels, first.labels) for site in sites):
        raise ValueError("sites must be asked for the same labels")
    source = np.full(len(first.labels), -1)
    for site, fold in zip(inner.argmax(0), folds):
        source[fold.test] = site
    name = "predicted" if first.log_probabilities is None else "log_probabilities"
    said = getattr(first, name).copy()
    for at, site in enumerate(sites):
        said[source == at] = getattr(site, name)[source == at]
    labels = np.where(source >= 0, first.labels, -1)
    pooled = Predictions(labels=labels, groups=first.groups, classes=first.classes, **{name: said})
    chosen = np.bincount(inner.argmax(0), minlength=len(sites))
    return Choice(estimate=estimates(measure, [pooled], seed)[0], chosen=tuple(chosen.tolist()))


def _blocks(groups: int) -> tuple[int, ...]:
    """Groups told up to the end of each block of the code."""
    ends = [0]
    for share in CODED:
        end = round(share * groups)
        if end - ends[-1] >= FEWEST and (end == groups or groups - end >= FEWEST):
            ends.append(end)
    return tuple(ends[1:])


def _exchangeable(groups: Names, documents: Names) -> list[Int[np.ndarray, "unit row"]]:
    """Row indexes of what can exchange labels, an array for each set of units that are alike."""
    members: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (group, document) in enumerate(zip(groups, documents, strict=True)):
        members[group][document].append(row)
    alike: dict[tuple[int, ...], list[list[list[int]]]] = defaultdict(list)
    for parts in members.values():
        by_length = sorted(parts.values(), key=len)
        alike[tuple(map(len, by_length))].append(by_length)
    blocks = [np.array([[*chain(*parts)] for parts in units]) for units in alike.values() if len(units) > 1]
    for lengths, units in alike.items():
        for length in set(lengths) if len(units) == 1 else ():
            same = np.array([part for part in units[0] if len(part) == length])
            blocks += [same] if len(same) > 1 else []
    return blocks


def _exchanged(
    labels: Int[np.ndarray, "row"], blocks: Sequence[Int[np.ndarray, "unit row"]], permutations: int, seed: int
) -> Iterator[Int[np.ndarray, "row draw"]]:
    """The labels as they are, then `permutations` times exchanged; some at a time, as numbers of the labels that
    occur."""
    names, labels = np.unique(labels, return_inverse=True)
    draw, at_once = np.random.default_rng(seed), max(1, _COLUMNS // len(names))
    for start in range(0, 1 + permutations, at_once):
        draws = min(at_once, 1 + permutations - start)
        source = np.tile(np.arange(len(labels)), (draws, 1))
        for block in blocks:
            order = draw.permuted(np.tile(np.arange(len(block)), (draws, 1)), axis=1)
            source[start == 0 :, block.ravel()] = block[order].reshape(draws, -1)[start == 0 :]
        yield labels[source].T


def _readers(
    features: Float32[np.ndarray, "row d"], ends: Int[np.ndarray, "fold"]
) -> tuple[list[Float32[np.ndarray, "test column"]], list[Float32[np.ndarray, "test column"]]]:
    """For each fold, whose rows lie side by side: its features beside a 1, and what turns such columns' sums with any
    labels over its training rows into scores of its own rows."""
    features = np.asarray(features, np.float64)
    spread = features.std(0)
    scaled = ((features - features.mean(0)) / np.where(spread > 0, spread, 1)).astype(np.float32)
    tests = np.split(np.hstack([scaled, np.ones((len(scaled), 1), np.float32)]), ends)
    grams = [test.T.astype(np.float64) @ test for test in tests]
    readers = []
    for test, own in zip(tests, grams):
        gram = sum(grams) - own
        n, mean = gram[-1, -1], gram[-1, :-1] / gram[-1, -1]
        covariance = gram[:-1, :-1] / n - np.outer(mean, mean)
        variance = np.maximum(np.diag(covariance), 1e-6)  # a feature that varies in this test only says nothing here
        penalised = covariance + np.diag(_RIDGE * variance)  # the ridge of standardised features, in their own units
        reach = linalg.solve(penalised, (test[:, :-1] - mean).T, assume_a="pos").T / n
        readers.append(np.hstack([reach, 1 / n - reach @ mean[:, None]]).astype(np.float32))
    return tests, readers


def _balanced_accuracy(
    tests: Sequence[Float32[np.ndarray, "test column"]],
    readers: Sequence[Float32[np.ndarray, "test column"]],
    labels: Int[np.ndarray, "row draw"],
) -> Float[np.ndarray, "draw"]:
    """Held out, of each draw. All draws have each label as often."""
    counts = np.bincount(labels[:, 0])
    weights = (len(labels) / counts).astype(np.float32)
    told = np.where(labels[:, None] == np.arange(len(counts))[:, None], weights[:, None], np.float32(0)).reshape(
        len(labels), -1
    )
    ends = np.cumsum([len(test) for test in tests])[:-1]
    products = [test.T @ part for test, part in zip(tests, np.split(told, ends))]
    whole, found = sum(products), np.zeros(labels.shape[1])
    for test, reader, own, asked in zip(tests, readers, products, np.split(labels, ends)):
        scores = (reader @ (whole - own)).reshape(len(test), len(counts), -1)
        right = np.take_along_axis(scores, asked[:, None], axis=1)[:, 0] >= scores.max(1)
        found += (right / counts[asked]).sum(0)
    return found / len(counts)
