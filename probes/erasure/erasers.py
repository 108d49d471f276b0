"""Erasers: affine maps that take a concept, or a subspace drawn at random, out of features."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
import torch
from concept_erasure import LeaceFitter, QuadraticFitter
from jaxtyping import Float, Float32, Int, Shaped

from lm2.intervals import rate
from lm2.runs.operations import Erase, Operation, Transport
from lm2.runs.trace import read_only
from lm2.serialize import Numbers
from probes.estimators.linear import fit_many
from probes.estimators.probe import Family, Probe
from probes.features.targets import Labels
from probes.stats.splits import hold_out

_SMALLEST = 1e-6
"""Singular values of the whitened cross-covariance below it are rounding: columns of a concept that follow from its
others."""


class Method(Enum):
    """How features are erased by one map for all rows."""

    LEACE = "LEACE"
    """The least change, in squared distance, after which no linear reader beats a constant (Belrose et al. 2023)."""
    INLP = "INLP"
    """What linear probes read by is projected out, until fresh ones find nothing (Ravfogel et al. 2020)."""
    RANDOM = "random subspace"
    """The control: a subspace drawn at random is projected out."""


class Eraser(ABC):
    """An affine map of features."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """Dimensions in which it moves features, at most."""

    @abstractmethod
    def apply(self, features: Float32[np.ndarray, "row d"]) -> Float32[np.ndarray, "row d"]: ...

    @cached_property
    def operation(self) -> Operation:
        """The same, for a run."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection(Eraser):
    """x becomes x - left^T right (x - mean), with read-only arrays."""

    method: Method
    left: Float32[np.ndarray, "rank d"]
    right: Float32[np.ndarray, "rank d"]
    mean: Float32[np.ndarray, "d"]

    @property
    def rank(self) -> int:
        return len(self.left)

    def apply(self, features: Float32[np.ndarray, "row d"]) -> Float32[np.ndarray, "row d"]:
        return features - (features - self.mean) @ self.right.T @ self.left

    @cached_property
    def operation(self) -> Erase:
        return Erase(
            left=Numbers("left", self.left, 2),
            right=Numbers("right", self.right, 2),
            mean=Numbers("mean", self.mean, 1),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TransportEraser(Eraser):
    """x becomes to + matrix (x - mean), with read-only arrays: for rows of one class."""

    matrix: Float32[np.ndarray, "d d"]
    mean: Float32[np.ndarray, "d"]
    to: Float32[np.ndarray, "d"]

    @property
    def rank(self) -> int:
        return len(self.mean)

    def apply(self, features: Float32[np.ndarray, "row d"]) -> Float32[np.ndarray, "row d"]:
        return self.to + (features - self.mean) @ self.matrix.T

    @cached_property
    def operation(self) -> Transport:
        return Transport(
            matrix=Numbers("matrix", self.matrix, 2), mean=Numbers("mean", self.mean, 1), to=Numbers("to", self.to, 1)
        )


def leace(features: Float32[np.ndarray, "row d"], labels: Sequence[Labels]) -> Projection:
    """Erases several targets at once: on these rows none of them has a linear reader that is better than a constant.

    The concept has a column for each class of each target. Rows of which a target says nothing have 0 in all of its
    columns: as good as a class of their own, since such a column would be 1 less the others. So those rows are guarded,
    too, and the rank is at most the number of classes.

    On other rows of the same kind the guard is as good as the estimate: what a linear reader of d features can still
    explain of a column is about d / rows of its variance, rows being those that were fitted on.
    """
    concept = np.concatenate(
        [(label.values[:, None] == np.arange(len(label.names))).astype(np.float64) for label in labels], axis=1
    )
    # LEACE never adds variance, so there is nothing to constrain; rounding alone could make the library think so, and
    # mix another map in.
    fitted = LeaceFitter.fit(
        torch.from_numpy(features).double(), torch.from_numpy(concept), svd_tol=_SMALLEST, constrain_cov_trace=False
    ).eraser
    right = fitted.proj_right.numpy()
    kept = right.any(1)
    return _eraser(Method.LEACE, fitted.proj_left.T.numpy()[kept], right[kept], fitted.bias.numpy())


def qleace(features: Float32[np.ndarray, "row d"], labels: Labels) -> tuple[Eraser, ...]:
    """Erases a target from rows whose class is known: an eraser for each class, and the last for rows of which it says
    nothing.

    Each is the least change, in squared distance, after which mean and covariance are the same for all classes (Quirke
    and Belrose 2025, arXiv 2502.02820): no quadratic reader beats a constant on these rows, such as one that reads a
    class in another direction where something else says so. Covariances are shrunk, as few rows need. A class of fewer
    than two rows has none, and stays as it is.
    """
    values = np.where(labels.values < 0, len(labels.names), labels.values)
    there = np.flatnonzero(np.bincount(values, minlength=len(labels.names) + 1) > 1)
    none = np.zeros((0, features.shape[1]))
    nothing = _eraser(Method.LEACE, none, none, features.mean(0))
    found: list[Eraser] = [nothing] * (len(labels.names) + 1)
    if len(there) < 2:
        return tuple(found)
    kept = np.isin(values, there)
    fitter = QuadraticFitter(features.shape[1], len(there), dtype=torch.float64)
    fitter.update(torch.from_numpy(features[kept]).double(), torch.from_numpy(np.searchsorted(there, values[kept])))
    eraser = fitter.eraser
    for at, one in enumerate(there):
        arrays = (eraser.ot_maps[at].numpy(), eraser.class_means[at].numpy(), eraser.global_mean.numpy())
        found[one] = TransportEraser(**dict(zip(("matrix", "mean", "to"), map(_kept, arrays))))
    return tuple(found)


def inlp(
    features: Float32[np.ndarray, "row d"], labels: Sequence[Labels], groups: Shaped[np.ndarray, "row"], seed: int = 0
) -> Projection:
    """Each round projects out the directions of ridge probes of all targets that can still be read, fitted on what is
    left.

    A target can be read while its probe, fitted on three quarters of the groups, is right on the others more often than
    their most frequent class, by the whole of a 95 % interval. Raises ValueError as `fit_many` does.
    """
    fold, mean = hold_out(groups, seed=seed), features.mean(0)
    basis = np.zeros((0, len(mean)))
    while len(basis) < len(mean):
        left = (features - (features - mean) @ basis.T @ basis).astype(np.float32)
        probes = fit_many(
            left[fold.train],
            np.stack([label.values[fold.train] for label in labels]),
            [len(label.names) for label in labels],
            family=Family.RIDGE,
            strengths=[Family.RIDGE.default] * len(labels),
        )
        read = [
            probe
            for probe, one in zip(probes, labels)
            if _reads(probe, left[fold.test], one.values[fold.test], groups[fold.test])
        ]
        if not read:
            break
        found = np.concatenate(
            [probe.raw_direction - probe.raw_direction.mean(1, keepdims=True) for probe in read], axis=1
        )
        found = found - basis.T @ (basis @ found)
        vectors, sizes, _ = np.linalg.svd(found, full_matrices=False)
        basis = np.linalg.qr(np.concatenate([basis.T, vectors[:, sizes > 1e-3 * sizes[0]]], axis=1))[0].T
    return _eraser(Method.INLP, basis, basis, mean)


def _reads(
    probe: Probe,
    features: Float32[np.ndarray, "row d"],
    labels: Int[np.ndarray, "row"],
    groups: Shaped[np.ndarray, "row"],
) -> bool:
    known = labels >= 0
    if not known.any():
        return False
    right = probe.predict(features[known]) == labels[known]
    return rate(right.tolist(), groups[known].tolist()).low > np.bincount(labels[known]).max() / known.sum()


def random_subspace(features: Float32[np.ndarray, "row d"], rank: int, seed: int) -> Projection:
    """Takes `rank` dimensions, drawn evenly from all directions."""
    return _drawn(features, lambda basis: rank, seed)


def random_share(features: Float32[np.ndarray, "row d"], share: float, seed: int) -> Projection:
    """Takes as many dimensions, drawn evenly from all directions, as hold at least `share` of the variance."""

    def enough(basis: Float[np.ndarray, "d d"]) -> int:
        held = ((features - features.mean(0)) @ basis.T).var(0).cumsum()
        return int(np.searchsorted(held, share * held[-1])) + 1 if share > 0 else 0

    return _drawn(features, enough, seed)


def _drawn(
    features: Float32[np.ndarray, "row d"], rank: Callable[[Float[np.ndarray, "d d"]], int], seed: int
) -> Projection:
    d = features.shape[1]
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0].T
    basis = basis[: rank(basis)]
    return _eraser(Method.RANDOM, basis, basis, features.mean(0))


def _eraser(
    method: Method, left: Float[np.ndarray, "rank d"], right: Float[np.ndarray, "rank d"], mean: Float[np.ndarray, "d"]
) -> Projection:
    return Projection(method=method, left=_kept(left), right=_kept(right), mean=_kept(mean))


def _kept(array: Float[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    return read_only(np.ascontiguousarray(array, np.float32))
