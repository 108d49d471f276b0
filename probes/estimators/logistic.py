"""L2 multinomial logistic regression of many targets on the same features: batched, preconditioned L-BFGS.

Weights are [d + 1, class x target]: a row for each feature and one for the intercept, whose feature is 1. The logits of
all targets are then one matrix product, and the softmax over classes is computed for all targets side by side.

Two things make it fast. Matrix products of many targets use a processor better than those of one. And the curvature of
each target and class is about X'X / n, up to a factor: the Hessian at zero weights, X'X / (classes n) + penalty, is
factored once as L L', and L-BFGS (Liu and Nocedal 1989) works on u = L'w, in which the curvature is about the identity.
(Boehning's bound, 1992, has 1/2 for 1 / classes; that took up to a fifth more evaluations.) Each direction is scaled by
s'y / y'y of the last step.
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
"""Evaluations of loss and gradient after which a target is left where it is."""
_BLOCK = 1024
"""Rows whose logits are held at a time; 512 took a tenth longer with 16 targets."""
_MEMORY = 5
"""Steps that L-BFGS remembers; 10 and 20 took as many evaluations, and more time."""
_COLUMNS = 640
"""Classes times targets that are minimised side by side."""
_ALIKE = 100.0
"""Largest ratio of penalties that share a factor."""
_FULL = 0.875
"""Share of targets that must still be running; with fewer, the arrays are cut down to those."""
_ARMIJO = 1e-4
_FLATTER = 0.8
"""A step whose slope at its end is at most this share of that at its start is not too long."""
_NOISE = 1e-6
"""Rounding error of a loss: within it, steps are judged by their slopes (Hager and Zhang 2005)."""
_SHORTEST = 1e-9
"""A shorter step is not halved again: the target is left where it is."""
_LARGE = 50.0
"""Logits up to this are exponentiated without a shift: they sum to 0 over classes, so the largest is at least 0."""
_NEVER = -1e4
"""Logit of a class that a target does not have: its probability and gradient are 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Minimum:
    """The end of one target's descent."""

    weights: Float32[np.ndarray, "d+1 class"]
    """Intercepts come last."""
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
    """Minimise each target's mean cross-entropy + penalty / 2 x sum of squared weights, but for its intercepts'.

    Args:
        rows: standardised features, and 1 in the last column.
        labels: -1 leaves a row out of the target's mean.
        tol: a target is done when no entry of its gradient is larger. In float32, 1e-6 can be reached and 1e-8 cannot.
        start: initial weights, which sum to 0 over classes as at the minimum; None, zeros.
    """
    counts, strengths = np.asarray(classes), np.asarray(penalties, np.float64)
    minima: dict[int, Minimum] = {}
    with threadpool_limits(1, "blas"):
        gram = rows.T @ rows / np.float32(len(rows))
        for batch in _batches(counts, strengths):
            most = int(counts[batch].max())
            weights = np.zeros((rows.shape[1], most, len(batch)), np.float32)
            for i, target in enumerate(batch):
                weights[-1, counts[target] :, i] = _NEVER
                if start is not None:
                    weights[:, : counts[target], i] = start[target]
            objective = _Objective(rows, labels[batch], counts[batch], strengths[batch])
            scaling = _Scaling(gram, most, float(np.exp(np.log(strengths[batch]).mean())))
            for i, minimum in _descend(objective, scaling, weights.reshape(len(weights), -1), tol, limit):
                minima[batch[i]] = replace(minimum, weights=minimum.weights[:, : counts[batch[i]]])
    return tuple(minima[target] for target in range(len(labels)))


def _batches(classes: Int[np.ndarray, "target"], penalties: Float[np.ndarray, "target"]) -> Iterator[list[int]]:
    """Targets to minimise side by side: not too many, with similar numbers of classes and similar penalties."""
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
    """Loss and gradient of several targets."""

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
        known = labels >= 0
        self._share = np.ascontiguousarray((known / known.sum(1, keepdims=True)).T, np.float32)
        """[row, target]: a row's weight in the target's mean."""
        self._cross = np.zeros((rows.shape[1], self.classes * len(labels)), np.float32)
        """X'Y: the part of the gradient that does not depend on the weights."""
        for block in self._blocks():
            one_hot = (labels.T[block, None] == np.arange(self.classes)[:, None]) * self._share[block, None]
            self._cross += rows[block].T @ one_hot.reshape(len(one_hot), -1)

    def _blocks(self) -> list[slice]:
        return [slice(start, start + _BLOCK) for start in range(0, len(self._rows), _BLOCK)]

    def keep(self, live: Int[np.ndarray, "live"]) -> None:
        """Continue with these targets only."""
        self._cross, self._own = (_columns(array, live, len(self._penalties)) for array in (self._cross, self._own))
        self._share, self._penalties = np.ascontiguousarray(self._share[:, live]), self._penalties[live]

    def __call__(
        self, weights: Float32[np.ndarray, "d+1 column"]
    ) -> tuple[Float[np.ndarray, "target"], Float32[np.ndarray, "d+1 column"]]:
        targets = len(self._penalties)
        pull = weights * np.tile(self._penalties / 2, self.classes)
        pull[-1] = 0
        gradient = pull - self._cross
        loss = np.einsum("ij,ij->j", weights, gradient, dtype=np.float64).reshape(-1, targets).sum(0)
        gradient += pull
        logits = np.empty((_BLOCK, weights.shape[1]), np.float32)
        for block in self._blocks():
            rows, share = self._rows[block], self._share[block]
            flat = np.matmul(rows, weights, out=logits[: len(rows)])
            cube = flat.reshape(len(rows), -1, targets)
            top = cube.max(1) if flat.max() > _LARGE else np.zeros_like(share)
            if top.any():
                cube -= top[:, None]
            total = np.exp(cube, out=cube).sum(1)
            loss += (share * (top + np.log(total))).sum(0, dtype=np.float64)
            cube *= (share / total)[:, None]
            gradient += rows.T @ flat
        # The gradient sums to 0 over classes up to rounding, which would add up: a constant added to all intercepts
        # does not change the loss.
        gradient -= np.tile(gradient.reshape(len(gradient), -1, targets).sum(1), self.classes) * self._own
        return loss, gradient


class _Scaling:
    """Between w and u = L'w, where L L' approximates the curvature."""

    def __init__(self, gram: Float32[np.ndarray, "d+1 d+1"], classes: int, penalty: float) -> None:
        penalty = max(penalty, 1e-6 * float(np.trace(gram)) / classes)  # below this, float32 may find no factor
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
        """The gradient by u, from that by w."""
        return _trmm(1.0, self._inverse, gradient.T, side=True, lower=True, trans_a=True).T

    def direction(self, direction: Float32[np.ndarray, "d+1 column"]) -> Float32[np.ndarray, "d+1 column"]:
        """The direction in w, from that in u."""
        return _trmm(1.0, self._inverse, direction.T, side=True, lower=True).T


class _Memory:
    """The last steps of each target and the changes of its gradient, in u."""

    def __init__(self, shape: tuple[int, int], targets: int) -> None:
        self._steps, self._changes = np.zeros((_MEMORY, *shape), np.float32), np.zeros((_MEMORY, *shape), np.float32)
        self._inverse, self._scale, self._added = np.zeros((_MEMORY, targets)), np.ones(targets), 0

    def keep(self, live: Int[np.ndarray, "live"]) -> None:
        self._steps, self._changes = (_columns(array, live, len(self._scale)) for array in (self._steps, self._changes))
        self._inverse, self._scale = self._inverse[:, live], self._scale[live]

    def add(
        self,
        step: Float32[np.ndarray, "d+1 column"],
        change: Float32[np.ndarray, "d+1 column"],
        along: Float[np.ndarray, "target"],
    ) -> None:
        """`along` is s'y. Steps with s'y <= 0 are ignored."""
        i, useful = self._added % _MEMORY, along > 0
        self._steps[i], self._changes[i], self._inverse[i] = step, change, 0
        np.divide(1, along, out=self._inverse[i], where=useful)
        np.divide(along, _dot(change, change, len(along)), out=self._scale, where=useful)
        self._added += 1

    def direction(self, gradient: Float32[np.ndarray, "d+1 column"]) -> Float32[np.ndarray, "d+1 column"]:
        """Minus the approximate inverse Hessian times the gradient (the two loops of L-BFGS)."""
        targets, direction, factors = len(self._scale), -gradient, []
        work, classes = np.empty_like(gradient), gradient.shape[1] // len(self._scale)
        order = [i % _MEMORY for i in range(max(0, self._added - _MEMORY), self._added)]
        for i in reversed(order):
            factors.append(self._inverse[i] * _dot(self._steps[i], direction, targets))
            direction -= np.multiply(self._changes[i], _repeat(factors[-1], classes), out=work)
        direction *= _repeat(self._scale, classes)
        for i in order:
            factor = factors.pop() - self._inverse[i] * _dot(self._changes[i], direction, targets)
            direction += np.multiply(self._steps[i], _repeat(factor, classes), out=work)
        return direction


def _descend(
    objective: _Objective, scaling: _Scaling, weights: Float32[np.ndarray, "d+1 column"], tol: float, limit: int
) -> Iterator[tuple[int, Minimum]]:
    """(target, its minimum) as each of them ends.

    Each target halves its own step if it was too long, while the others go on. The curvature along such a step is
    remembered, too.
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
            for i in np.flatnonzero(done):
                own = weights.reshape(len(weights), classes, -1)[..., i].copy()
                yield running[i], Minimum(weights=own, gradient_norm=float(norm[i]), evaluations=int(spent[i]))
            if not len(live):
                return
            weights, gradient, scaled = (_columns(array, live, len(done)) for array in (weights, gradient, scaled))
            running, spent, size, loss, done = running[live], spent[live], size[live], loss[live], done[live]
            objective.keep(live)
            memory.keep(live)
        direction = memory.direction(scaled)
        slope = _dot(direction, scaled, len(done))
        direction *= _repeat(np.where(done, 0, size), classes)
        tried = weights + scaling.direction(direction)
        tried_loss, tried_gradient = objective(tried)
        tried_scaled = scaling.gradient(tried_gradient)
        change = tried_scaled - scaled
        along = _dot(direction, change, len(done))
        memory.add(direction, change, along)
        flatter = (slope + along / size <= -_FLATTER * slope) & (tried_loss <= loss + _NOISE * (1 + np.abs(loss)))
        accepted = (tried_loss <= loss + _ARMIJO * size * slope) | flatter
        columns = np.tile(accepted, classes)
        weights, gradient = np.where(columns, tried, weights), np.where(columns, tried_gradient, gradient)
        scaled, loss = np.where(columns, tried_scaled, scaled), np.where(accepted, tried_loss, loss)
        size, spent = np.where(accepted | done, 1.0, size / 2), spent + ~done


def _dot(
    one: Float32[np.ndarray, "row column"], other: Float32[np.ndarray, "row column"], targets: int
) -> Float[np.ndarray, "target"]:
    return np.einsum("ij,ij->j", one, other).reshape(-1, targets).sum(0, dtype=np.float64)


def _repeat(values: Float[np.ndarray, "target"], classes: int) -> Float32[np.ndarray, "column"]:
    """Each target's value in the columns of all its classes."""
    return np.tile(values.astype(np.float32), classes)


def _columns(
    array: Float32[np.ndarray, "*axes column"], live: Int[np.ndarray, "live"], targets: int
) -> Float32[np.ndarray, "*axes column"]:
    """The columns of the live targets."""
    return np.ascontiguousarray(array.reshape(*array.shape[:-1], -1, targets)[..., live]).reshape(*array.shape[:-1], -1)
