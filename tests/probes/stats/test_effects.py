"""Laws of probes.stats.metrics and probes.stats.effects: what is measured per document, and what it is worth."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from probes.stats.effects import (
    Interval,
    effect,
    effects_of_units,
    joint_beside_singles,
    normalised_recovery,
    topk_stability,
)
from probes.stats.metrics import Answer, Metric, measure

ANSWER = Answer(ids=(3, 5), foils=(1, 4), before=(0, 2))
DRAW = np.random.default_rng(7)
CLEAN, EDITED = DRAW.standard_normal((2, 4, 9)) * 3


def alone(n: int) -> list[str]:
    """Every document a group of its own."""
    return [str(i) for i in range(n)]


def clustered(draw: np.random.Generator, groups: int, units: int = 1, each: int = 3) -> tuple[np.ndarray, list[str]]:
    """Effects of mean 0 whose documents share most of their fate within a group."""
    shared = draw.standard_normal((units, groups)).repeat(each, 1)
    return shared + 0.3 * draw.standard_normal(shared.shape), [str(i // each) for i in range(groups * each)]


def probabilities(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_every_metric_is_what_its_definition_says() -> None:
    clean, edited = probabilities(CLEAN), probabilities(EDITED)
    result = {metric: measure(metric, ANSWER, EDITED, CLEAN) for metric in Metric}
    assert result[Metric.LOGIT_DIFFERENCE] == pytest.approx(EDITED[2, 3] - (EDITED[2, 1] + EDITED[2, 4]) / 2)
    assert result[Metric.LOG_PROBABILITY] == pytest.approx(np.log(edited[2, 3] * edited[3, 5]))
    assert result[Metric.KL] == pytest.approx(np.mean([stats.entropy(clean[row], edited[row]) for row in (2, 3)]))
    assert result[Metric.CROSS_ENTROPY] == pytest.approx(
        -np.log([edited[0, 0], edited[1, 2], edited[2, 3], edited[3, 5]]).mean()
    )
    assert result[Metric.EXACT] == 0


def test_an_exact_match_needs_every_token_of_the_answer() -> None:
    logits = np.zeros((2, 9), np.float32)
    logits[0, 3], logits[1, 5] = 2, 2
    answer = Answer(ids=(3, 5))
    assert measure(Metric.EXACT, answer, logits, logits) == 1
    logits[1, 6] = 3
    assert measure(Metric.EXACT, answer, logits, logits) == 0


def test_kl_is_zero_for_equal_runs_and_never_negative() -> None:
    assert measure(Metric.KL, ANSWER, CLEAN, CLEAN) == 0
    for scale in (1e-9, 1e-3, 1, 1e3):
        assert measure(Metric.KL, ANSWER, CLEAN + scale * EDITED, CLEAN) >= 0
    assert measure(Metric.KL, ANSWER, EDITED, CLEAN) > 0


@pytest.mark.parametrize("metric", Metric)
def test_a_constant_added_to_all_logits_changes_no_metric(metric: Metric) -> None:
    shifted = measure(metric, ANSWER, EDITED + 1000, CLEAN - 1000)
    assert shifted == pytest.approx(measure(metric, ANSWER, EDITED, CLEAN), abs=1e-9)


@pytest.mark.parametrize("metric", Metric)
def test_logits_of_any_size_give_finite_values(metric: Metric) -> None:
    assert np.isfinite(measure(metric, ANSWER, 1e5 * EDITED.astype(np.float32), -1e5 * CLEAN.astype(np.float32)))


@pytest.mark.parametrize("metric", Metric)
def test_harm_points_to_where_an_edit_that_hides_the_answer_leads(metric: Metric) -> None:
    good = np.zeros((4, 9))
    good[np.arange(4), ANSWER.before + ANSWER.ids] = 4
    change = measure(metric, ANSWER, -good, good) - measure(metric, ANSWER, good, good)
    assert change * metric.harm > 0
    assert Metric(metric.value) is metric and metric.label.endswith(")")


def test_an_answer_and_logits_that_do_not_fit_are_refused() -> None:
    for arguments, message in (
        (dict(ids=()), "at least one token"),
        (dict(ids=(3,), foils=(-1,)), "not -1"),
        (dict(ids=(3, 4), foils=(3,)), "first token 3"),
        (dict(ids=(3,), foils=(4, 4)), "differ from each other"),
    ):
        with pytest.raises(ValueError, match=message):
            Answer(**arguments)
    with pytest.raises(ValueError, match="4 rows"):
        measure(Metric.KL, ANSWER, EDITED[1:], CLEAN[1:])
    with pytest.raises(ValueError, match=r"\(4, 9\) and \(4, 8\)"):
        measure(Metric.KL, ANSWER, EDITED, CLEAN[:, :8])
    with pytest.raises(ValueError, match="below d_vocab 5, not 5"):
        measure(Metric.KL, ANSWER, EDITED[:, :5], CLEAN[:, :5])
    with pytest.raises(ValueError, match="at least one foil"):
        measure(Metric.LOGIT_DIFFERENCE, Answer(ids=(3,)), EDITED[:1], CLEAN[:1])


@pytest.mark.parametrize("groups", [12, 40])
def test_identical_runs_have_no_effect_at_all(groups: int) -> None:
    result = effect(np.zeros(groups), alone(groups))
    assert (result.mean, result.low, result.high, result.p, result.q) == (0, 0, 0, 1, 1)
    assert np.isnan(result.d_z)


def test_an_effect_is_the_mean_over_documents_and_keeps_them() -> None:
    values = DRAW.standard_normal(40) + 0.5
    result = effect(values, alone(40), seed=1)
    assert (result.n, result.groups, result.mean) == (40, 40, pytest.approx(values.mean()))
    assert result.d_z == pytest.approx(values.mean() / values.std(ddof=1))
    assert result.low < result.mean < result.high
    assert np.array_equal(result.values, values) and not result.values.flags.writeable
    constant = effect(np.full(7, 0.1), alone(7))
    assert np.isnan(constant.d_z) and constant.mean == pytest.approx(0.1)


def test_few_groups_get_the_t_interval_and_many_the_bootstrap() -> None:
    values = DRAW.standard_normal(30)
    few, many = effect(values[:29], alone(29)), effect(values, alone(30))
    assert (few.interval, many.interval) == (Interval.T, Interval.BOOTSTRAP)
    book = stats.ttest_1samp(values[:29], 0).confidence_interval()
    assert (few.low, few.high) == (pytest.approx(book.low), pytest.approx(book.high))
    book = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0))
    assert (many.low, many.high) == pytest.approx(tuple(book.confidence_interval), abs=0.03)


def test_documents_that_share_a_group_count_once() -> None:
    values = DRAW.standard_normal(20)
    once = effect(values, alone(20))
    again = effect(values.repeat(5), [str(i // 5) for i in range(100)])
    assert (again.n, again.groups) == (100, 20)
    assert (again.low, again.high, again.p) == (pytest.approx(once.low), pytest.approx(once.high), once.p)


def test_one_group_has_a_mean_and_no_interval() -> None:
    for values in ([1.0], [1.0, 2.0]):
        result = effect(np.array(values), ["story"] * len(values))
        assert result.mean == np.mean(values) and np.isnan(result.low) and np.isnan(result.high) and result.p == 1
    matrix = np.ones((2, 3))
    assert np.isnan(topk_stability(matrix, ["story"] * 3, 1))


def test_groups_that_all_point_one_way_have_the_exact_p() -> None:
    assert effect(np.array([1, 2, 0.5, 3, 1]), alone(5)).p == 2 / 2**5
    assert effect(-np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.3]), alone(6)).p == 2 / 2**6


def test_sign_flips_agree_with_scipy() -> None:
    values, groups = DRAW.standard_normal(24) + 0.4, [str(i % 8) for i in range(24)]
    sums = values.reshape(3, 8).sum(0)
    exact = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert effect(values, groups).p == pytest.approx(exact.pvalue)
    values = DRAW.standard_normal(50) + 0.25
    drawn = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=4000, rng=np.random.default_rng(0)
    )
    assert effect(values, alone(50)).p == pytest.approx(drawn.pvalue, abs=0.02)
    assert effect(values + 9, alone(50)).p == 1 / 10_001


@pytest.mark.parametrize("groups", [10, 20])
def test_without_an_effect_p_is_uniform_and_the_interval_holds_zero(groups: int) -> None:
    result = effects_of_units(*clustered(np.random.default_rng(1), groups, units=600))
    ps = [one.p for one in result]
    assert 0.03 <= np.mean([p <= 0.05 for p in ps]) <= 0.07
    assert np.mean(ps) == pytest.approx(0.5, abs=0.05)
    assert 0.92 <= np.mean([one.low <= 0 <= one.high for one in result]) <= 0.98


def test_the_bootstrap_interval_holds_the_truth_as_often_as_it_says() -> None:
    result = effects_of_units(*clustered(np.random.default_rng(2), 60, units=300))
    assert 0.92 <= np.mean([one.low <= 0 <= one.high for one in result]) <= 0.98


def test_a_unit_is_worth_the_same_alone_and_among_others_but_for_q() -> None:
    matrix, groups = clustered(np.random.default_rng(3), 40, units=6)
    matrix += np.linspace(0, 1, 6)[:, None]
    together, each = effects_of_units(matrix, groups, 5), [effect(row, groups, seed=5) for row in matrix]
    for one, other in zip(together, each):
        assert (one.mean, one.low, one.high, one.p) == pytest.approx((other.mean, other.low, other.high, other.p))
        assert other.q == other.p <= one.q
    p, q = np.array([(one.p, one.q) for one in together]).T
    assert np.array_equal(q, stats.false_discovery_control(p))
    assert (np.diff(q[np.argsort(p)]) >= 0).all()
    assert together[0].values.tolist() == matrix[0].tolist()


def test_the_top_k_is_stable_where_effects_stand_out_and_not_where_they_do_not() -> None:
    noise, groups = clustered(np.random.default_rng(6), 30, units=20)
    strong = noise.copy()
    strong[[2, 7]] -= 50
    assert topk_stability(strong, groups, 2) == 1
    assert topk_stability(noise, groups, 20) == 1
    assert topk_stability(noise, groups, 2) < 0.6
    for k in (0, 21):
        with pytest.raises(ValueError, match=f"from 1 to 20 units, not {k}"):
            topk_stability(noise, groups, k)


def test_recovery_is_zero_at_the_corrupt_run_and_one_at_the_clean_one() -> None:
    clean, corrupt = DRAW.standard_normal(12) + 6, DRAW.standard_normal(12)
    for edited, value in ((corrupt, 0), (clean, 1), ((clean + corrupt) / 2, 0.5)):
        result = normalised_recovery(clean, corrupt, edited)
        assert result.values == pytest.approx(value) and result.mean == pytest.approx(value) and result.left_out == 0


def test_documents_whose_runs_hardly_differ_are_left_out_and_counted() -> None:
    clean, corrupt = np.array([0.0, 4.0, 2.0, 2.0]), np.array([0.0, 0.0, 2.1, 1.0])
    result = normalised_recovery(clean, corrupt, np.array([5.0, 1.0, 7.0, 2.0]))
    assert result.left_out == 2 and np.isnan(result.values[[0, 2]]).all()
    assert result.values[[1, 3]].tolist() == [0.25, 1] and result.mean == 0.625
    nothing = normalised_recovery(clean, clean, clean)
    assert nothing.left_out == 4 and np.isnan(nothing.mean)


def test_units_that_stand_in_for_each_other_weigh_more_together() -> None:
    draw = np.random.default_rng(8)
    singles = 0.1 * draw.standard_normal((3, 40))
    result = joint_beside_singles(singles.sum(0) - 2, singles, alone(40))
    assert result.joint.mean - result.singles.mean == pytest.approx(result.difference.mean) == pytest.approx(-2)
    assert result.singles.values == pytest.approx(singles.sum(0))
    assert result.difference.high - result.difference.low < 1e-9  # paired: what both share cancels
    assert result.joint.high - result.joint.low > 0.01


@pytest.mark.parametrize(
    "ask", [effects_of_units, lambda matrix, groups: topk_stability(matrix, groups, 1),
            lambda matrix, groups: joint_beside_singles(matrix[0], matrix, groups)],
)  # fmt: skip
def test_effects_that_are_missing_or_not_finite_are_refused(ask: Callable) -> None:
    with pytest.raises(ValueError, match="1 of 6 are not"):
        ask(np.array([[1, 2, 3], [1, np.nan, 3]]), alone(3))
    with pytest.raises(ValueError, match=r"a group for each document, not \(2, 3\) with 2 groups"):
        ask(np.ones((2, 3)), alone(2))
    with pytest.raises(ValueError, match="not empty"):
        ask(np.ones((1, 0)), [])
    with pytest.raises(ValueError, match="same documents"):
        normalised_recovery(np.ones(3), np.ones(2), np.ones(3))
