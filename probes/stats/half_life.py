"""How fast a curve falls: an exponential decline to chance, told only where it fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from lm2.intervals import bootstrap, rate


@dataclass(frozen=True, kw_only=True)
class HalfLife:
    """Segments after which half of what accuracy has above chance is lost; or why there is no such number."""

    segments: float | None
    low: float
    """Ends of its 95 % interval, percentiles of a bootstrap over stories; nan where there is no half-life."""
    high: float
    """Infinite where some resamples hardly decline."""
    misfit: float
    """p of the fit's chi-square; nan where nothing was fitted."""
    reason: str | None
    """Why there is none."""


def half_life(
    distances: Sequence[int],
    right: Sequence[bool],
    groups: Sequence[str],
    chance: Mapping[int, float],
    *,
    seed: int = 0,
) -> HalfLife:
    """Fit chance + a (1 - chance) 2^(-distance / h) to the accuracies by weighted least squares, with a from 0 to 1.

    Weights come from the accuracies' intervals, clustered by story. There is no half-life where fewer than 3 distances
    were measured, where nothing is above chance at the first, where half is lost only beyond the last (that would be
    extrapolation), and where chi-square refuses the fit (p < 0.05).

    `chance`: accuracy without memory, for each distance.
    """
    at = np.array(sorted(chance), float)
    if len(at) < 3:
        return _none(f"a decline takes 3 distances to see, and {len(at)} were measured")
    rates = [
        rate(
            [hit for hit, d in zip(right, distances) if d == here], [g for g, d in zip(groups, distances) if d == here]
        )
        for here in at
    ]
    floor = np.array([chance[int(here)] for here in at])
    if rates[0].low <= floor[0]:
        return _none("nothing is above chance at the smallest distance")
    fit = _Fit(at, floor, np.array([(one.high - one.low) / (2 * 1.959964) for one in rates]))
    best, square = fit(np.array([[one.accuracy for one in rates]]))
    misfit = float(stats.chi2.sf(square[0], len(at) - 2))
    if best[0] > at[-1]:
        return _none(f"less than half is lost within the {int(at[-1])} segments measured", misfit)
    if misfit < 0.05:
        return _none(f"the decline is not exponential (chi-square p = {misfit:.2g})", misfit)
    member = np.array(distances)[:, None] == at
    drawn = bootstrap(
        np.concatenate([member * np.array(right)[:, None], member], axis=1, dtype=float), groups, seed=seed
    )
    with np.errstate(invalid="ignore"):  # nan where a resample has no story at a distance
        low, high = np.quantile(fit(drawn[:, : len(at)] / drawn[:, len(at) :])[0], [0.025, 0.975])
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
    """The best half-life on a fine grid. For each half-life the amplitude is linear, so found in closed form."""

    def __init__(
        self,
        at: Float[np.ndarray, "distance"],
        floor: Float[np.ndarray, "distance"],
        error: Float[np.ndarray, "distance"],
    ) -> None:
        self._floor, self._weights = floor, 1 / error**2
        self._grid = np.geomspace(0.1, 10 * at[-1], 400)
        self._shape = (1 - floor) * 2.0 ** (-at / self._grid[:, None])

    @property
    def longest(self) -> float:
        """What a curve that does not decline gets."""
        return self._grid[-1]

    def __call__(
        self, accuracy: Float[np.ndarray, "curve distance"]
    ) -> tuple[Float[np.ndarray, "curve"], Float[np.ndarray, "curve"]]:
        """Each curve's half-life and chi-square; a nan in a curve counts for nothing."""
        weights, above = np.where(np.isnan(accuracy), 0.0, self._weights), np.nan_to_num(accuracy - self._floor)
        crossed, squared = (weights * above) @ self._shape.T, weights @ self._shape.T**2
        amplitude = np.clip(crossed / np.maximum(squared, 1e-300), 0, 1)
        squares = (weights * above**2).sum(1)[:, None] - 2 * amplitude * crossed + amplitude**2 * squared
        best = squares.argmin(1)
        return self._grid[best], squares[np.arange(len(best)), best]
