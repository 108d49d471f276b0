"""L2 multinomial logistic regression of many targets on the same features at once: batched, preconditioned L-BFGS.

Weights are [d + 1, class x target]: a row for each feature and one for the intercept, whose feature is 1. The logits of
all targets then are one matrix product, and the softmax over classes runs over targets side by side.

Two things make it fast. Matrix products of many targets use a processor as those of one target cannot. And the
curvature of each target and class is about X'X / n, up to a factor: the Hessian at zero weights, X'X / (classes n) +
penalty, is factored once as L L', and L-BFGS (Liu and Nocedal 1989) works on u = L'w, in which the curvature is about
the identity. (Boehning's bound, 1992, has 1/2 for 1 / classes; that took up to a fifth more evaluations.) Each
direction is scaled by s'y / y'y of the last step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.linalg import get_blas_funcs, get_lapack_funcs
from threadpoolctl import threadpool_limits

(_trmm,) = get_blas_funcs(("trmm",), dtype=np.float32)
_potrf, _trtri = get_lapack_funcs(("potrf", "trtri"), dtype=np.float32)

EVALUATIONS = 1000
"""Of loss and gradient. A target that needs more is left where it is."""
_BLOCK = 1024
"""Rows whose logits are held at a time; 512 took a tenth longer with 16 targets."""
_MEMORY = 5
"""Steps that L-BFGS remembers. 10 and 20 took as many evaluations, and more time."""
_COLUMNS = 640
"""Classes times targets that are minimised side by side."""
_ALIKE = 100.0
"""Largest ratio of penalties that share a factor."""
_FULL = 0.875
"""Share of targets that must still run; with fewer, the arrays are cut down to those."""
_ARMIJO = 1e-4
_FLATTER = 0.8
"""A step that ends with at most so much of the slope that it began with has not gone too far."""
_NOISE = 1e-6
"""What rounding may do to a loss: within it, steps are judged by their slopes (Hager and Zhang 2005)."""
_SHORTEST = 1e-9
"""Step that is no longer halved: the target is left where it is."""
_LARGE = 50.0
"""Logits up to this need no shift before they are exponentiated: they sum to 0 over classes, so one of them is 0 at
least."""
_NEVER = -1e4
"""Logit of a class that a target does not have: its probability is 0, and so is its gradient."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Minimum:
    """Where one target's descent ended."""

    weights: Float32[np.ndarray, "d+1 class"]
    """The intercepts last."""
    gradient_norm: float
    """Largest absolute entry of the gradient."""
    evaluations: int
    """Of loss and gradient."""


def minimise(
    rows: Float32[np.ndarray, "row d+1"],
    labels: Int[np.ndarray, "target row"],
    classes: Sequence[int],
    penalties: Sequence[float],
    *,
    tol: float,
    start: Sequence[Float32[np.ndarray, "d+1 class"]] | None = None,
    limit: int = EVALUATIONS,
) -> tuple[Minimum, ...]:
    """Minimise mean cross-entropy + penalty / 2 x sum of squared weights, for each target. Intercepts are not
    penalised.

    Args:
        rows: standardised features, and 1 in the last column.
        labels: -1 leaves a row out of the target's mean.
        tol: a target is done when no entry of its gradient is larger. In float32, 1e-6 can be reached and 1e-8 cannot.
        start: weights to begin with, which sum to 0 over classes as at the minimum; None, zeros.
    """
    counts, strengths = np.asarray(classes), np.asarray(penalties, np.float64)
    found: dict[int, Minimum] = {}
    with threadpool_limits(1, "blas"):
        gram = rows.T @ rows / np.float32(len(rows))
        for batch in _batches(counts, strengths):
            most = int(counts[batch].max())
            weights = np.zeros((rows.shape[1], most, len(batch)), np.float32)
            for at, target in enumerate(batch):
                weights[-1, counts[target] :, at] = _NEVER
                if start is not None:
                    weights[:, : counts[target], at] = start[target]
            objective = _Objective(rows, labels[batch], counts[batch], strengths[batch])
            scaling = _Scaling(gram, most, float(np.exp(np.log(strengths[batch]).mean())))
            for at, minimum in _descend(objective, scaling, weights.reshape(len(weights), -1), tol, limit):
                found[batch[at]] = replace(minimum, weights=minimum.weights[:, : counts[batch[at]]])
    return tuple(found[target] for target in range(len(labels)))


def _batches(classes: Int[np.ndarray, "target"], penalties: Float[np.ndarray, "target"]) -> Iterator[list[int]]:
    """Targets that are minimised side by side: not too many, of about as many classes and about the same penalty."""
    batch: list[int] = []
    for target in np.lexsort((penalties, classes)).tolist():
        more = [*batch, target]
        most, strength = classes[target], penalties[more]
        if (
            most * len(more) > max(most, _COLUMNS)
            or most > 2 * classes[more[0]]
            or strength.max() > _ALIKE * strength.min()
        ):
            yield batch
            more = [target]
        batch = more
    yield batch


class _Objective:
    """Loss and gradient of targets side by side."""

    def __init__(
        self,
        rows: Float32[np.ndarray, "row d+1"],
        labels: Int[np.ndarray, "target row"],
        classes: Int[np.ndarray, "target"],
        penalties: Float[np.ndarray, "target"],
    ) -> None:
        self._rows, self.classes, self._penalties = rows, int(max(classes)), penalties.astype(np.float32)
        own = (np.arange(self.classes)[:, None] < classes) / np.asarray(classes)
        self._own = own.astype(np.float32).reshape(1, -1)
        """[1, column]: 1 / classes for the classes that a target has, 0 for others."""
        kept = labels >= 0
        self._share = np.ascontiguousarray((kept / kept.sum(1, keepdims=True)).T, np.float32)
        """[row, target]: a row's part in the target's mean."""
        self._told = np.zeros((rows.shape[1], self.classes * len(labels)), np.float32)
        """X'Y: what the gradient has of the labels, whatever the weights."""
        for some in self._blocks():
            one_hot = (labels.T[some, None] == np.arange(self.classes)[:, None]) * self._share[some, None]
            self._told += rows[some].T @ one_hot.reshape(len(one_hot), -1)

    def _blocks(self) -> list[slice]:
        return [slice(at, at + _BLOCK) for at in range(0, len(self._rows), _BLOCK)]

    def keep(self, live: Int[np.ndarray, "live"]) -> None:
        """Go on with these targets alone."""
        self._told, self._own = (_of(one, live, len(self._penalties)) for one in (self._told, self._own))
        self._share, self._penalties = np.ascontiguousarray(self._share[:, live]), self._penalties[live]

    def __call__(
        self, weights: Float32[np.ndarray, "d+1 column"]
    ) -> tuple[Float[np.ndarray, "target"], Float32[np.ndarray, "d+1 column"]]:
        targets = len(self._penalties)
        pull = weights * np.tile(self._penalties / 2, self.classes)
        pull[-1] = 0
        gradient = pull - self._told
        loss = np.einsum("ij,ij->j", weights, gradient, dtype=np.float64).reshape(-1, targets).sum(0)
        gradient += pull
        logits = np.empty((_BLOCK, weights.shape[1]), np.float32)
        for some in self._blocks():
            rows, share = self._rows[some], self._share[some]
            flat = np.matmul(rows, weights, out=logits[: len(rows)])
            cube = flat.reshape(len(rows), -1, targets)
            top = cube.max(1) if flat.max() > _LARGE else np.zeros_like(share)
            if top.any():
                cube -= top[:, None]
            total = np.exp(cube, out=cube).sum(1)
            loss += (share * (top + np.log(total))).sum(0, dtype=np.float64)
            cube *= (share / total)[:, None]
            gradient += rows.T @ flat
        # It sums to 0 over classes, but for rounding, which nothing would hold back: a constant added to all intercepts
        # changes no loss.
        gradient -= np.tile(gradient.reshape(len(gradient), -1, targets).sum(1), self.classes) * self._own
        return loss, gradient


class _Scaling:
    """To u = L'w and back, where L L' is about the curvature."""

    def __init__(self, gram: Float32[np.ndarray, "d+1 d+1"], classes: int, penalty: float) -> None:
        penalty = max(penalty, 1e-6 * float(np.trace(gram)) / classes)  # with less, float32 may find no factor
        features = np.arange(len(gram) - 1)
        while True:
            curvature = gram / np.float32(classes)
            curvature[features, features] += penalty
            factor, failed = _potrf(curvature, lower=True)
            if not failed:
                break
            penalty *= 10
        self._inverse, _ = _trtri(factor, lower=True)

    def gradient(self, gradient: Float32[np.ndarray, "d+1 column"]) -> Float32[np.ndarray, "d+1 column"]:
        """By u, of one by w."""
        return _trmm(1.0, self._inverse, gradient.T, side=True, lower=True, trans_a=True).T

    def direction(self, direction: Float32[np.ndarray, "d+1 column"]) -> Float32[np.ndarray, "d+1 column"]:
        """In w, of one in u."""
        return _trmm(1.0, self._inverse, direction.T, side=True, lower=True).T


class _Memory:
    """The last steps of each target and what they changed of its gradient, in u."""

    def __init__(self, shape: tuple[int, int], targets: int) -> None:
        self._steps, self._changes = np.zeros((_MEMORY, *shape), np.float32), np.zeros((_MEMORY, *shape), np.float32)
        self._inverse, self._scale, self._added = np.zeros((_MEMORY, targets)), np.ones(targets), 0

    def keep(self, live: Int[np.ndarray, "live"]) -> None:
        self._steps, self._changes = (_of(one, live, len(self._scale)) for one in (self._steps, self._changes))
        self._inverse, self._scale = self._inverse[:, live], self._scale[live]

    def add(
        self,
        step: Float32[np.ndarray, "d+1 column"],
        change: Float32[np.ndarray, "d+1 column"],
        along: Float[np.ndarray, "target"],
    ) -> None:
        """`along` is s'y. Where it is not positive nothing has been learnt."""
        at, learnt = self._added % _MEMORY, along > 0
        self._steps[at], self._changes[at], self._inverse[at] = step, change, 0
        np.divide(1, along, out=self._inverse[at], where=learnt)
        np.divide(along, _dot(change, change, len(along)), out=self._scale, where=learnt)
        self._added += 1

    def direction(self, gradient: Float32[np.ndarray, "d+1 column"]) -> Float32[np.ndarray, "d+1 column"]:
        """Minus the inverse Hessian, as far as it is known, times the gradient (the two loops of L-BFGS)."""
        targets, found, parts = len(self._scale), -gradient, []
        work, classes = np.empty_like(gradient), gradient.shape[1] // len(self._scale)
        order = [at % _MEMORY for at in range(max(0, self._added - _MEMORY), self._added)]
        for at in reversed(order):
            parts.append(self._inverse[at] * _dot(self._steps[at], found, targets))
            found -= np.multiply(self._changes[at], _each(parts[-1], classes), out=work)
        found *= _each(self._scale, classes)
        for at in order:
            part = parts.pop() - self._inverse[at] * _dot(self._changes[at], found, targets)
            found += np.multiply(self._steps[at], _each(part, classes), out=work)
        return found


def _descend(
    objective: _Objective, scaling: _Scaling, weights: Float32[np.ndarray, "d+1 column"], tol: float, limit: int
) -> Iterator[tuple[int, Minimum]]:
    """(target, where it ended) of each, as they end.

    A step that is too long is halved, target by target, while the others go on. What it showed of the curvature is
    remembered.
    """
    classes, count = objective.classes, weights.shape[1] // objective.classes
    running, spent, size, memory = np.arange(count), np.ones(count, int), np.ones(count), _Memory(weights.shape, count)
    loss, gradient = objective(weights)
    scaled = scaling.gradient(gradient)
    while True:
        norm = np.maximum(gradient.max(0), -gradient.min(0)).reshape(classes, -1).max(0)
        done = (norm <= tol) | (spent >= limit) | (size < _SHORTEST)
        live = np.flatnonzero(~done)
        if len(live) <= _FULL * len(done):
            for at in np.flatnonzero(done):
                own = weights.reshape(len(weights), classes, -1)[..., at].copy()
                yield running[at], Minimum(weights=own, gradient_norm=float(norm[at]), evaluations=int(spent[at]))
            if not len(live):
                return
            weights, gradient, scaled = (_of(one, live, len(done)) for one in (weights, gradient, scaled))
            running, spent, size, loss, done = running[live], spent[live], size[live], loss[live], done[live]
            objective.keep(live)
            memory.keep(live)
        direction = memory.direction(scaled)
        slope = _dot(direction, scaled, len(done))
        direction *= _each(np.where(done, 0, size), classes)
        tried = weights + scaling.direction(direction)
        tried_loss, tried_gradient = objective(tried)
        tried_scaled = scaling.gradient(tried_gradient)
        change = tried_scaled - scaled
        along = _dot(direction, change, len(done))
        memory.add(direction, change, along)
        flatter = (slope + along / size <= -_FLATTER * slope) & (tried_loss <= loss + _NOISE * (1 + np.abs(loss)))
        taken = (tried_loss <= loss + _ARMIJO * size * slope) | flatter
        there = np.tile(taken, classes)
        weights, gradient = np.where(there, tried, weights), np.where(there, tried_gradient, gradient)
        scaled, loss = np.where(there, tried_scaled, scaled), np.where(taken, tried_loss, loss)
        size, spent = np.where(taken | done, 1.0, size / 2), spent + ~done


def _dot(
    one: Float32[np.ndarray, "row column"], other: Float32[np.ndarray, "row column"], targets: int
) -> Float[np.ndarray, "target"]:
    return np.einsum("ij,ij->j", one, other).reshape(-1, targets).sum(0, dtype=np.float64)


def _each(values: Float[np.ndarray, "target"], classes: int) -> Float32[np.ndarray, "column"]:
    """A target's value in the columns of all its classes."""
    return np.tile(values.astype(np.float32), classes)


def _of(
    array: Float32[np.ndarray, "*axes column"], live: Int[np.ndarray, "live"], targets: int
) -> Float32[np.ndarray, "*axes column"]:
    """The columns of some of the targets."""
    return np.ascontiguousarray(array.reshape(*array.shape[:-1], -1, targets)[..., live]).reshape(*array.shape[:-1], -1)
