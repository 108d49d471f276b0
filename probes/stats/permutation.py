"""Permutation tests of probes: labels exchanged between whole documents."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy import linalg

from probes.stats.splits import Names, folds

_RIDGE = 1.0
"""Penalty over the mean eigenvalue of the Gram matrix: strong enough for more features than rows."""
_COLUMNS = 500
"""Permuted one-hot labels in one matrix product."""


@dataclass(frozen=True, kw_only=True)
class Permuted:
    """A light probe's score, and its score on permuted labels."""

    value: float
    """Held-out balanced accuracy with the true labels."""
    null: float
    """Its mean over permutations."""
    p: float
    """One-sided, (1 + hits) / (1 + permutations)."""
    moving: float
    """Share of the rows whose labels can be exchanged. A small share has little power; at 0, p is 1."""


def permutation_test(
    features: Float32[np.ndarray, "row d"],
    labels: Int[np.ndarray, "target row"],
    groups: Names,
    documents: Names,
    *,
    permutations: int = 999,
    seed: int = 0,
) -> tuple[Permuted, ...]:
    """Test whether labels depend on features: each target is read again after whole documents have exchanged labels. -1
    leaves a row out.

    Groups whose documents have the same lengths exchange all their labels, row by row in the order given. Within a
    group that has no such partner, documents of one length exchange theirs (whole-block and within-block exchange,
    Winkler et al. 2015). Lengths count rows with a label. Single rows are never exchanged: if rows of a document are
    alike, that finds far more than is there.

    The probe is a ridge on class indicators over 5 folds of whole groups, standardised by its training rows. Scores are
    divided by the class's share of all rows, so that the highest one is the best guess for balanced accuracy. A fold's
    Gram matrix is factored once, for all permutations and all targets with labels on the same rows. p: Phipson and
    Smyth (2010).

    Raises ValueError if fewer groups than folds have a label, and without permutations.
    """
    if permutations < 1:
        raise ValueError(f"a test needs at least 1 permutation, not {permutations}")
    labels, groups, documents = np.asarray(labels), np.asarray(groups), np.asarray(documents)
    masks, mask_of_target = np.unique(labels >= 0, axis=0, return_inverse=True)
    results: dict[int, Permuted] = {}
    for i, mask in enumerate(masks):
        tests = [fold.test for fold in folds(groups[mask], seed=seed)]
        rows = np.flatnonzero(mask)[np.concatenate(tests)]  # a fold's rows lie side by side
        probes = _fold_probes(features[rows], np.cumsum([len(test) for test in tests])[:-1])
        blocks = _exchangeable(groups[rows], documents[rows])
        for target in np.flatnonzero(mask_of_target == i):
            draws = _exchanged(labels[target, rows], blocks, permutations, seed)
            values = np.concatenate([_balanced_accuracy(probes, drawn) for drawn in draws])
            hits = (values[1:] >= values[0] - 1e-6).sum()  # ties stay ties in whatever order they are summed
            results[int(target)] = Permuted(
                value=float(values[0]),
                null=float(values[1:].mean()),
                p=float((1 + hits) / (1 + permutations)),
                moving=sum(block.size for block in blocks) / len(rows),
            )
    return tuple(results[target] for target in range(len(labels)))


def _exchangeable(groups: Names, documents: Names) -> list[Int[np.ndarray, "unit row"]]:
    """Row indexes of units (groups or documents) that can exchange labels, an array for each set of them."""
    rows_of: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (group, document) in enumerate(zip(groups, documents, strict=True)):
        rows_of[group][document].append(row)
    groups_of: dict[tuple[int, ...], list[list[list[int]]]] = defaultdict(list)
    for by_document in rows_of.values():
        by_length = sorted(by_document.values(), key=len)
        groups_of[tuple(map(len, by_length))].append(by_length)
    blocks = [np.array([[*chain(*rows)] for rows in alike]) for alike in groups_of.values() if len(alike) > 1]
    for lengths, alike in groups_of.items():
        for length in set(lengths) if len(alike) == 1 else ():
            same = np.array([rows for rows in alike[0] if len(rows) == length])
            blocks += [same] if len(same) > 1 else []
    return blocks


def _exchanged(
    labels: Int[np.ndarray, "row"], blocks: Sequence[Int[np.ndarray, "unit row"]], permutations: int, seed: int
) -> Iterator[Int[np.ndarray, "row draw"]]:
    """The true labels, then `permutations` exchanged ones; some at a time, and renumbered by the labels that occur."""
    names, labels = np.unique(labels, return_inverse=True)
    generator, at_once = np.random.default_rng(seed), max(1, _COLUMNS // len(names))
    for start in range(0, 1 + permutations, at_once):
        draws = min(at_once, 1 + permutations - start)
        source = np.tile(np.arange(len(labels)), (draws, 1))
        for block in blocks:
            order = generator.permuted(np.tile(np.arange(len(block)), (draws, 1)), axis=1)
            source[start == 0 :, block.ravel()] = block[order].reshape(draws, -1)[start == 0 :]
        yield labels[source].T


class _FoldProbe(NamedTuple):
    """A fold's test rows, and the ridge fitted on all other rows, which is linear in the labels."""

    test: Float32[np.ndarray, "test column"]
    """Features, and a last column of 1."""
    to_scores: Float32[np.ndarray, "test column"]
    """Times the sums of such columns with any labels over the training rows: scores of the test rows."""


def _fold_probes(features: Float32[np.ndarray, "row d"], ends: Int[np.ndarray, "fold"]) -> list[_FoldProbe]:
    """`ends`: where each fold but the last ends; its rows lie side by side."""
    features = np.asarray(features, np.float64)
    spread = features.std(0)
    scaled = ((features - features.mean(0)) / np.where(spread > 0, spread, 1)).astype(np.float32)
    tests = np.split(np.hstack([scaled, np.ones((len(scaled), 1), np.float32)]), ends)
    grams = [test.T.astype(np.float64) @ test for test in tests]
    probes = []
    for test, own in zip(tests, grams):
        gram = sum(grams) - own
        n, mean = gram[-1, -1], gram[-1, :-1] / gram[-1, -1]
        covariance = gram[:-1, :-1] / n - np.outer(mean, mean)
        variance = np.maximum(np.diag(covariance), 1e-6)  # a feature that varies in test rows alone says nothing here
        penalised = covariance + np.diag(_RIDGE * variance)  # the ridge of standardised features, in their own units
        weights = linalg.solve(penalised, (test[:, :-1] - mean).T, assume_a="pos").T / n
        probes.append(_FoldProbe(test, np.hstack([weights, 1 / n - weights @ mean[:, None]]).astype(np.float32)))
    return probes


def _balanced_accuracy(probes: Sequence[_FoldProbe], labels: Int[np.ndarray, "row draw"]) -> Float[np.ndarray, "draw"]:
    """Held-out balanced accuracy of each draw. All draws have each label equally often."""
    counts = np.bincount(labels[:, 0])
    one_hot = labels[:, None] == np.arange(len(counts))[:, None]
    weights = (len(labels) / counts).astype(np.float32)[:, None]
    weighted = np.where(one_hot, weights, np.float32(0)).reshape(len(labels), -1)
    ends = np.cumsum([len(probe.test) for probe in probes])[:-1]
    sums = [probe.test.T @ own for probe, own in zip(probes, np.split(weighted, ends))]
    total, right = sum(sums), np.zeros(labels.shape[1])
    for probe, own, truth in zip(probes, sums, np.split(labels, ends)):
        scores = (probe.to_scores @ (total - own)).reshape(len(truth), len(counts), -1)
        hits = np.take_along_axis(scores, truth[:, None], axis=1)[:, 0] >= scores.max(1)
        right += (hits / counts[truth]).sum(0)
    return right / len(counts)
