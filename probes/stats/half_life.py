"""The half-life of a declining accuracy curve: an exponential decline to chance, reported only if it fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from jaxtyping import Float
from scipy import stats

from lm2.intervals import bootstrap, rate


@dataclass(frozen=True, kw_only=True)
class HalfLife:
    """Segments after which accuracy has lost half of its margin over chance; or why there is no such number."""

    segments: float | None
    low: float
    """Of its 95 % interval, percentiles of a bootstrap over stories; nan without a half-life."""
    high: float
    """Infinite if some resamples hardly decline."""
    misfit: float
    """p of the fit's chi-square; nan if nothing was fitted."""
    reason: str | None
    """Why there is no half-life."""


def half_life(
    distances: Sequence[int],
    right: Sequence[bool],
    groups: Sequence[str],
    chance: Mapping[int, float],
    *,
    seed: int = 0,
) -> HalfLife:
    """Fit chance + a (1 - chance) 2^(-distance / h) to the accuracies by weighted least squares, with a from 0 to 1.

    Weights come from the accuracies' intervals, clustered by story. There is no half-life if fewer than 3 distances
    were measured, if accuracy at the first is not above chance, if half is lost only beyond the last (that would be
    extrapolation), or if chi-square rejects the fit (p < 0.05).

    `chance`: accuracy without memory, for each distance.
    """
    steps = np.array(sorted(chance), float)
    if len(steps) < 3:
        return _none(f"a decline takes 3 distances to see, and {len(steps)} were measured")
    is_at = np.array(distances)[:, None] == steps
    rates = [rate(list(compress(right, column)), list(compress(groups, column))) for column in is_at.T]
    floor = np.array([chance[int(step)] for step in steps])
    if rates[0].low <= floor[0]:
        return _none("nothing is above chance at the smallest distance")
    fit = _Fit(steps, floor, np.array([(point.high - point.low) / (2 * 1.959964) for point in rates]))
    best, square = fit(np.array([[point.accuracy for point in rates]]))
    misfit = float(stats.chi2.sf(square[0], len(steps) - 2))
    if best[0] > steps[-1]:
        return _none(f"less than half is lost within the {int(steps[-1])} segments measured", misfit)
    if misfit < 0.05:
        return _none(f"the decline is not exponential (chi-square p = {misfit:.2g})", misfit)
    resamples = bootstrap(
        np.concatenate([is_at * np.array(right)[:, None], is_at], axis=1, dtype=float), groups, seed=seed
    )
    with np.errstate(invalid="ignore"):  # nan if a resample has no story at a distance
        low, high = np.quantile(fit(resamples[:, : len(steps)] / resamples[:, len(steps) :])[0], [0.025, 0.975])
    return HalfLife(
        segments=float(best[0]),
        low=float(low),
        high=float(high) if high < fit.longest else float("inf"),
        misfit=misfit,
        reason=None,
    )


def _none(reason: str, misfit: float = float("nan")) -> HalfLife:
    return HalfLife(segments=None, low=float("nan"), high=float("nan"), misfit=misfit, reason=reason)


class _Fit:
    """The best half-life on a fine grid. The amplitude is linear, so each half-life's best is in closed form."""

    def __init__(
        self,
        steps: Float[np.ndarray, "distance"],
        floor: Float[np.ndarray, "distance"],
        error: Float[np.ndarray, "distance"],
    ) -> None:
        self._floor, self._weights = floor, 1 / error**2
        self._grid = np.geomspace(0.1, 10 * steps[-1], 400)
        self._shape = (1 - floor) * 2.0 ** (-steps / self._grid[:, None])

    @property
    def longest(self) -> float:
        """The half-life of a curve that does not decline."""
        return self._grid[-1]

    def __call__(
        self, accuracy: Float[np.ndarray, "curve distance"]
    ) -> tuple[Float[np.ndarray, "curve"], Float[np.ndarray, "curve"]]:
        """Half-life and chi-square of each curve; nan is ignored."""
        weights, above = np.where(np.isnan(accuracy), 0.0, self._weights), np.nan_to_num(accuracy - self._floor)
        crossed, squared = (weights * above) @ self._shape.T, weights @ self._shape.T**2
        amplitude = np.clip(crossed / np.maximum(squared, 1e-300), 0, 1)
        squares = (weights * above**2).sum(1)[:, None] - 2 * amplitude * crossed + amplitude**2 * squared
        best = squares.argmin(1)
        return self._grid[best], squares[np.arange(len(best)), best]
