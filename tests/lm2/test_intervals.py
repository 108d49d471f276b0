"""Laws of lm2.intervals: how sure a share is, and a difference."""

import numpy as np
import pytest
from scipy import stats

from lm2.intervals import bootstrap, difference, half_over_seeds, over_seeds, rate


def shares(right: list[bool], groups: list[int] | None = None):
    """Items of groups of their own unless said otherwise."""
    return rate(right, [str(group) for group in groups or range(len(right))])


def test_all_right_gives_an_interval_that_is_no_point() -> None:
    for n in (1, 10, 200):
        found = shares([True] * n)
        assert found.accuracy == 1 and found.high == 1 and 0 < found.low < 1
    wrong = shares([False] * 10)
    assert wrong.accuracy == 0 and wrong.low == 0 and 0 < wrong.high < 1


def test_more_questions_narrow_the_interval_and_it_holds_the_share() -> None:
    few, many = (shares([at % 4 > 0 for at in range(n)]) for n in (20, 400))
    for found in (few, many):
        assert 0 <= found.low < found.accuracy < found.high <= 1
    assert many.high - many.low < few.high - few.low


def test_the_interval_of_independent_questions_is_the_textbook_wilson_one_to_a_hundredth() -> None:
    found = shares([at < 15 for at in range(20)])
    assert (found.low, found.high) == (pytest.approx(0.5313, abs=1e-2), pytest.approx(0.8881, abs=1e-2))


def test_questions_of_one_story_that_share_their_fate_widen_the_interval() -> None:
    alone = shares([at % 2 == 0 for at in range(100)])
    clustered = shares([at // 10 % 2 == 0 for at in range(100)], [at // 10 for at in range(100)])
    assert clustered.accuracy == alone.accuracy == 0.5
    assert (clustered.n, clustered.groups, alone.groups) == (100, 10, 100)
    assert clustered.low < alone.low and clustered.high > alone.high
    assert shares([True] * 100, [at // 10 for at in range(100)]).low < shares([True] * 100).low


def test_nothing_to_count_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        rate([], [])
    with pytest.raises(ValueError, match="at least one"):
        difference([], [], [])


def test_a_difference_is_paired_and_covers_the_truth_as_often_as_it_says() -> None:
    draw, covered = np.random.default_rng(0), 0
    for trial in range(200):
        good = draw.random(40).repeat(5) < 0.6  # five items of a group share their fate
        bad = draw.random(200) < 0.4
        found = difference(list(good), list(bad), [str(at // 5) for at in range(200)], seed=trial)
        covered += found.low <= 0.2 <= found.high
    assert 0.9 <= covered / 200 <= 0.99
    same = difference(list(good), list(good), [str(at // 5) for at in range(200)])
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_resampled_means_have_the_mean_of_the_items_and_one_seed_gives_one_draw() -> None:
    values = np.arange(30, dtype=float)[:, None]
    groups = [str(at % 10) for at in range(30)]
    means = bootstrap(values, groups, seed=3)
    assert means.mean() == pytest.approx(14.5, abs=0.2)
    assert np.array_equal(means, bootstrap(values, groups, seed=3))


def test_an_interval_over_seeds_holds_the_mean_of_all_seeds_where_a_two_way_bootstrap_misses_it() -> None:
    random = np.random.default_rng(0)
    seeds, stories, worlds, held = 3, 400, 300, {"ours": 0, "bootstrap": 0, "one seed": 0}
    for _ in range(worlds):
        right = 0.6 + random.normal(0, 0.08, (seeds, 1)) + random.uniform(-0.2, 0.2, stories)
        scores = (random.random(right.shape) < right).astype(float)
        groups = [str(story) for story in range(stories)]
        over_stories = rate(scores.mean(0).tolist(), groups, seeds=seeds)
        low, high = over_seeds(
            over_stories.accuracy, over_stories.low, over_stories.high, half_over_seeds(scores.mean(1))
        )
        held["ours"] += low <= 0.6 <= high
        of_seeds, of_stories = (random.multinomial(n, [1 / n] * n, 200) / n for n in (seeds, stories))
        ends = np.quantile(((of_seeds @ scores) * of_stories).sum(1), [0.025, 0.975])
        held["bootstrap"] += ends[0] <= 0.6 <= ends[1]
        alone = rate(scores[0].tolist(), groups)
        held["one seed"] += alone.low <= 0.6 <= alone.high
    assert held["ours"] >= 0.94 * worlds
    assert held["one seed"] < held["bootstrap"] < 0.9 * worlds


def test_over_seeds_is_the_textbook_interval_where_stories_leave_no_doubt() -> None:
    mine, theirs = np.array([0.5, 0.6, 0.7]), np.array([0.4, 0.5, 0.6, 0.5])
    assert half_over_seeds(mine) == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    welch = stats.ttest_ind(mine, theirs, equal_var=False).confidence_interval()
    assert half_over_seeds(mine, theirs) == pytest.approx((welch.high - welch.low) / 2)
    assert over_seeds(0.6, 0.6, 0.6, 0.1) == pytest.approx((0.5, 0.7))


def test_one_seed_says_nothing_of_others() -> None:
    assert half_over_seeds(np.array([0.5])) == 0 and over_seeds(0.5, 0.4, 0.61, 0.0) == (0.4, 0.61)
