"""Erasers: affine maps that remove a concept, or a random subspace, from features."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
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
"""Smaller singular values of the whitened cross-covariance are rounding errors."""


class Method(Enum):
    """How a projection was found."""

    LEACE = "LEACE"
    """The least change, in squared distance, after which no linear reader beats a constant (Belrose et al. 2023)."""
    INLP = "INLP"
    """Directions of linear probes are projected out until fresh ones find nothing (Ravfogel et al. 2020)."""
    RANDOM = "random subspace"
    """The control: a random subspace is projected out."""


class Eraser(ABC):
    """An affine map of features."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """The most dimensions in which it moves features."""

    @abstractmethod
    def apply(self, features: Float32[np.ndarray, "row d"]) -> Float32[np.ndarray, "row d"]: ...

    @cached_property
    def operation(self) -> Operation:
        """The same map, for a run."""
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
    """Erases several targets at once: on these rows no linear reader of any of them is better than a constant.

    The concept has a column for each class of each target. Rows for which a target is unknown have 0 in all of its
    columns, which amounts to a class of their own: its column would be 1 less the others. So these rows are covered,
    too, and the rank is at most the number of classes.

    On new rows the erasure is only as good as the estimate: a linear reader of d features can still explain about
    d / rows of a column's variance, where `rows` were fitted on.
    """
    concept = np.concatenate(
        [(label.values[:, None] == np.arange(len(label.names))).astype(np.float64) for label in labels], axis=1
    )
    # LEACE never adds variance, so there is nothing to constrain; by rounding the library could find that it does, and
    # mix in another map.
    fitted = LeaceFitter.fit(
        torch.from_numpy(features).double(), torch.from_numpy(concept), svd_tol=_SMALLEST, constrain_cov_trace=False
    ).eraser
    right = fitted.proj_right.numpy()
    nonzero = right.any(1)
    return _projection(Method.LEACE, fitted.proj_left.T.numpy()[nonzero], right[nonzero], fitted.bias.numpy())


def qleace(features: Float32[np.ndarray, "row d"], labels: Labels) -> tuple[Eraser, ...]:
    """Erases a target from rows whose class is known: an eraser for each class, and the last for rows for which the
    target is unknown.

    Each is the least change, in squared distance, after which mean and covariance are the same for all classes (Quirke
    and Belrose 2025, arXiv 2502.02820): no quadratic reader beats a constant on these rows. Such a reader could find
    the class in a direction that depends on something else. Covariances are shrunk, as few rows require. A class of
    fewer than two rows has none, and is not changed.
    """
    values = np.where(labels.values < 0, len(labels.names), labels.values)
    classes = np.flatnonzero(np.bincount(values, minlength=len(labels.names) + 1) > 1)
    no_rows = np.zeros((0, features.shape[1]))
    identity = _projection(Method.LEACE, no_rows, no_rows, features.mean(0))
    erasers: list[Eraser] = [identity] * (len(labels.names) + 1)
    if len(classes) < 2:
        return tuple(erasers)
    rows = np.isin(values, classes)
    fitter = QuadraticFitter(features.shape[1], len(classes), dtype=torch.float64)
    fitter.update(torch.from_numpy(features[rows]).double(), torch.from_numpy(np.searchsorted(classes, values[rows])))
    fitted = fitter.eraser
    for i, number in enumerate(classes):
        erasers[number] = TransportEraser(
            matrix=_frozen(fitted.ot_maps[i].numpy()),
            mean=_frozen(fitted.class_means[i].numpy()),
            to=_frozen(fitted.global_mean.numpy()),
        )
    return tuple(erasers)


def inlp(
    features: Float32[np.ndarray, "row d"], labels: Sequence[Labels], groups: Shaped[np.ndarray, "row"], seed: int = 0
) -> Projection:
    """Projects out, round by round, the directions of ridge probes of all targets that can still be read.

    A target can be read while its probe, fitted on three quarters of the groups, is right on the others more often than
    their most frequent class, by the whole of a 95 % interval. Raises ValueError as `fit_many` does.
    """
    fold, mean = hold_out(groups, seed=seed), features.mean(0)
    basis = np.zeros((0, len(mean)))
    while len(basis) < len(mean):
        projected = (features - (features - mean) @ basis.T @ basis).astype(np.float32)
        probes = fit_many(
            projected[fold.train],
            np.stack([label.values[fold.train] for label in labels]),
            [len(label.names) for label in labels],
            family=Family.RIDGE,
            strengths=[Family.RIDGE.default] * len(labels),
        )
        directions = [
            probe.raw_direction - probe.raw_direction.mean(1, keepdims=True)
            for probe, label in zip(probes, labels)
            if _reads(probe, projected[fold.test], label.values[fold.test], groups[fold.test])
        ]
        if not directions:
            break
        new = np.concatenate(directions, axis=1)
        new = new - basis.T @ (basis @ new)
        vectors, sizes, _ = np.linalg.svd(new, full_matrices=False)
        basis = np.linalg.qr(np.concatenate([basis.T, vectors[:, sizes > 1e-3 * sizes[0]]], axis=1))[0].T
    return _projection(Method.INLP, basis, basis, mean)


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
    """Projects out the first `rank` vectors of a random orthonormal basis."""
    basis = _random_basis(features.shape[1], seed)[:rank]
    return _projection(Method.RANDOM, basis, basis, features.mean(0))


def random_share(features: Float32[np.ndarray, "row d"], share: float, seed: int) -> Projection:
    """Projects out as many vectors of a random orthonormal basis as hold at least `share` of the variance."""
    basis = _random_basis(features.shape[1], seed)
    variance = ((features - features.mean(0)) @ basis.T).var(0).cumsum()
    rank = int(np.searchsorted(variance, share * variance[-1])) + 1 if share > 0 else 0
    return random_subspace(features, rank, seed)


def _random_basis(d: int, seed: int) -> Float[np.ndarray, "d d"]:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0].T


def _projection(
    method: Method, left: Float[np.ndarray, "rank d"], right: Float[np.ndarray, "rank d"], mean: Float[np.ndarray, "d"]
) -> Projection:
    return Projection(method=method, left=_frozen(left), right=_frozen(right), mean=_frozen(mean))


def _frozen(array: Float[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    return read_only(np.ascontiguousarray(array, np.float32))
