"""Laws of the half-life: found where accuracy declines exponentially, and refused where it does not."""

from collections.abc import Callable

import numpy as np
import pytest

from probes.stats.half_life import HalfLife, half_life

CHANCE = 0.2


def fitted(accuracy: Callable[[int], float], last: int = 8, stories: int = 400) -> HalfLife:
    """One question of every story at every distance, right exactly as often as `accuracy` says."""
    distances, right, groups = [], [], []
    order = np.random.default_rng(0)
    for distance in range(1, last + 1):
        hits = order.permutation(np.arange(stories) < round(stories * accuracy(distance)))
        distances += [distance] * stories
        right += hits.tolist()
        groups += [str(story) for story in range(stories)]
    return half_life(distances, right, groups, dict.fromkeys(range(1, last + 1), CHANCE))


@pytest.mark.parametrize("true", [1.5, 4.0])
def test_an_exponential_decline_gives_back_its_half_life(true: float) -> None:
    result = fitted(lambda distance: CHANCE + 0.75 * 2 ** (-distance / true))
    assert result.reason is None and result.segments == pytest.approx(true, rel=0.05)
    assert result.low < true < result.high and result.misfit > 0.5


@pytest.mark.parametrize(
    ("accuracy", "last", "expected"),
    [
        (lambda distance: 0.9, 8, "less than half is lost within the 8 segments"),
        (lambda distance: 0.95 if distance < 5 else 0.21, 8, "not exponential"),
        (lambda distance: CHANCE, 8, "nothing is above chance"),
        (lambda distance: 0.9 / distance, 2, "takes 3 distances to see, and 2"),
    ],
)
def test_no_half_life_is_told_where_none_can_be_and_the_reason_is(accuracy: Callable, last: int, expected: str) -> None:
    result = fitted(accuracy, last)
    assert result.segments is None and np.isnan(result.low) and expected in result.reason
