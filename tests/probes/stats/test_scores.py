"""Laws of probes.stats.scores: what held-out predictions are worth, to those who know which rows belong together."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics

from probes.stats.effects import FEW_GROUPS, Interval, effect
from probes.stats.predictions import Measure, Predictions
from probes.stats.scores import differences, estimates, scores

DRAW = np.random.default_rng(11)
DOCUMENTS = np.repeat([str(i) for i in range(120)], 6)


def skilled(
    labels: np.ndarray, classes: int, groups: np.ndarray, skill: float = 1.0, draw: np.random.Generator = DRAW
) -> Predictions:
    """Predictions that favour the label more or less."""
    logits = draw.standard_normal((len(labels), classes)) + skill * np.eye(classes)[labels]
    return Predictions(
        labels=labels, groups=groups, classes=classes, log_probabilities=special.log_softmax(logits, axis=1)
    )


def classified(labels: np.ndarray, right: np.ndarray, groups: np.ndarray, classes: int = 3) -> Predictions:
    """Predictions that are right where it says so."""
    return Predictions(
        labels=labels, groups=groups, classes=classes, predicted=np.where(right, labels, (labels + 1) % classes)
    )


def by_odds(labels: np.ndarray, odds: np.ndarray, groups: np.ndarray) -> Predictions:
    """Of two classes, by their log-odds."""
    return Predictions(labels=labels, groups=groups, classes=2, log_probabilities=np.stack([0 * odds, odds], 1))


def alone(n: int) -> np.ndarray:
    """Every row a group of its own."""
    return np.array([str(i) for i in range(n)])


def hits(draw: np.random.Generator, targets: int, documents: int, each: int = 6, classes: int = 3) -> list[Predictions]:
    """Predictions that are right six times in ten, much more often in some documents than in others."""
    groups, rows = np.repeat(np.arange(documents).astype(str), each), documents * each
    labels = draw.integers(0, classes, (targets, rows))
    right = draw.random((targets, rows)) < draw.beta(0.9, 0.6, (targets, documents)).repeat(each, 1)
    predicted = np.where(right, labels, (labels + draw.integers(1, classes, labels.shape)) % classes)
    return [
        Predictions(labels=label, groups=groups, classes=classes, predicted=guess)
        for label, guess in zip(labels, predicted)
    ]


def held(result: tuple, truth: float) -> float:
    return float(np.mean([target.low <= truth <= target.high for target in result]))


@pytest.mark.parametrize("classes", [2, 5])
def test_every_measure_is_what_its_definition_says(classes: int) -> None:
    labels = DRAW.choice(classes, 300, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    target = skilled(labels, classes, alone(300))
    result = scores([target])[0]
    book = {
        Measure.BALANCED_ACCURACY: metrics.balanced_accuracy_score(labels, target.predicted),
        Measure.ACCURACY: metrics.accuracy_score(labels, target.predicted),
        Measure.MCC: metrics.matthews_corrcoef(labels, target.predicted),
        Measure.BITS: metrics.log_loss(labels, np.exp(target.log_probabilities)) / np.log(2),
    }
    if classes == 2:
        book[Measure.AUC] = metrics.roc_auc_score(labels, target.log_probabilities[:, 1])
    assert {measure: estimate.value for measure, estimate in result.estimates.items()} == pytest.approx(book)
    assert all(estimate.low < estimate.value < estimate.high for estimate in result.estimates.values())
    assert (result.n, result.groups, result.chance) == (300, 300, 1 / classes)
    assert result.majority == np.bincount(labels).max() / 300
    assert result.headline is (Measure.AUC if classes == 2 else Measure.BALANCED_ACCURACY)


def test_ties_count_half_in_an_auc() -> None:
    labels, odds = DRAW.integers(0, 2, 200), DRAW.integers(0, 3, 200) * 1.0
    assert estimates(Measure.AUC, [by_odds(labels, odds, alone(200))])[0].value == pytest.approx(
        metrics.roc_auc_score(labels, odds)
    )


def test_without_log_probabilities_there_are_the_measures_of_classes() -> None:
    target = Predictions(labels=np.array([0, 1, 1]), groups=alone(3), classes=2, predicted=np.array([0, 1, 0]))
    assert target.headline is Measure.BALANCED_ACCURACY
    assert set(scores([target])[0].estimates) == {Measure.BALANCED_ACCURACY, Measure.ACCURACY, Measure.MCC}
    for measure in (Measure.AUC, Measure.BITS):
        with pytest.raises(ValueError, match="need log-probabilities"):
            estimates(measure, [target])
    with pytest.raises(ValueError, match="two classes, not 3"):
        estimates(Measure.AUC, [skilled(np.array([0, 1, 2]), 3, alone(3))])


@pytest.mark.parametrize("groups", [20, 60])
def test_a_difference_of_accuracies_has_the_interval_of_a_mean(groups: int) -> None:
    target, other = hits(np.random.default_rng(12), 2, groups)
    result = differences(Measure.ACCURACY, [target], [other])[0]
    mean = effect((target.predicted == target.labels) - (other.predicted == other.labels) * 1.0, target.groups.tolist())
    assert result.value == pytest.approx(mean.mean) and result.interval is mean.interval
    assert (result.low, result.high) == pytest.approx((mean.low, mean.high), abs=1e-6 if groups < 30 else 0.005)


@pytest.mark.parametrize("measure", Measure)
def test_t_and_the_bootstrap_tell_the_same_spread(measure: Measure) -> None:
    draw, several = np.random.default_rng(9), {}
    labels, names = draw.integers(0, 2, 600), np.arange(30).repeat(20).astype(str)
    result = skilled(labels, 2, names, draw=draw).log_probabilities
    for groups in (29, 30):
        arguments = dict(labels=labels[: groups * 20], groups=names[: groups * 20], classes=2)
        target, nothing = (
            Predictions(**arguments, log_probabilities=target[: groups * 20])
            for target in (result, np.full_like(result, -1))
        )
        several[groups] = differences(measure, [target], [nothing])[0]
    assert (several[29].interval, several[30].interval) == (Interval.T, Interval.BOOTSTRAP)
    t, bootstrap = (target.high - target.low for target in several.values())
    assert bootstrap == pytest.approx(t * 1.96 / stats.t.ppf(0.975, 28), rel=0.15)


def test_a_linearised_auc_varies_as_one_counted_anew_in_every_resample() -> None:
    draw = np.random.default_rng(5)
    labels, groups = draw.integers(0, 2, 240), np.arange(40).repeat(6)
    target = skilled(labels, 2, groups.astype(str), skill=0.7, draw=draw)
    odds, positive = target.log_probabilities[:, 1] - target.log_probabilities[:, 0], labels == 1
    drawn = draw.multinomial(40, np.full(40, 1 / 40), size=4000)[:, groups]  # how often each row is drawn
    more, less = drawn[:, positive], drawn[:, ~positive]
    counted = ((more @ (odds[positive][:, None] > odds[~positive])) * less).sum(1) / (more.sum(1) * less.sum(1))
    result = estimates(Measure.AUC, [target])[0]
    assert result.interval is Interval.BOOTSTRAP
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(counted, [0.025, 0.975])), abs=0.01)


def test_the_interval_holds_the_truth_as_often_as_it_says_and_that_of_rows_does_not() -> None:
    documents = hits(np.random.default_rng(1), 250, 120)
    rows = [
        Predictions(labels=document.labels, groups=alone(720), classes=3, predicted=document.predicted)
        for document in documents[:40]
    ]
    assert 0.92 <= held(estimates(Measure.BALANCED_ACCURACY, documents), 0.6) <= 0.97
    assert held(estimates(Measure.BALANCED_ACCURACY, rows), 0.6) < 0.88


def test_so_it_does_with_few_groups() -> None:
    result = estimates(Measure.BALANCED_ACCURACY, hits(np.random.default_rng(2), 400, 20))
    assert result[0].interval is Interval.T and 0.92 <= held(result, 0.6) <= 0.97


@pytest.mark.parametrize(("documents", "targets"), [(20, 400), (120, 200)])
def test_the_interval_of_an_auc_holds_the_truth_as_often_as_it_says(documents: int, targets: int) -> None:
    draw, groups, several = np.random.default_rng(1), np.arange(documents).repeat(6).astype(str), []
    for labels in draw.integers(0, 2, (targets, documents * 6)):
        odds = (2 * labels - 1) * draw.normal(0.8, 0.8, documents).repeat(6) + draw.standard_normal(len(labels))
        several.append(by_odds(labels, odds, groups))
    truth = stats.norm.cdf(1.6 / np.sqrt(2 * (0.8**2 + 1)))
    assert 0.92 <= held(estimates(Measure.AUC, several), truth) <= (0.97 if documents >= FEW_GROUPS else 0.98)


def test_rows_told_twice_are_no_new_evidence() -> None:
    once = hits(np.random.default_rng(4), 1, 40)[0]
    twice = Predictions(
        labels=once.labels.repeat(2), groups=once.groups.repeat(2), classes=3, predicted=once.predicted.repeat(2)
    )
    for measure in once.measures:
        assert estimates(measure, [once])[0].low == pytest.approx(estimates(measure, [twice])[0].low)


@pytest.mark.parametrize("measure", Measure)
def test_one_group_has_a_value_and_no_interval(measure: Measure) -> None:
    for skill in (1, 100):
        target = skilled(np.array([0, 1, 1, 0, 1]), 2, np.full(5, "story"), skill)
        for result in (estimates(measure, [target])[0], differences(measure, [target], [target])[0]):
            assert np.isfinite(result.value) and np.isnan(result.low) and np.isnan(result.high)


@pytest.mark.parametrize("groups", [5, 20, 200])
def test_where_all_is_right_the_interval_is_still_no_point(groups: int) -> None:
    labels = np.tile([0, 1], groups)
    for right, end in ((True, "high"), (False, "low")):
        logits = np.where(np.eye(2)[labels] == right, -0.01, -5)
        target = Predictions(
            labels=labels, groups=np.arange(groups).repeat(2).astype(str), classes=2, log_probabilities=logits
        )
        for measure in (Measure.BALANCED_ACCURACY, Measure.AUC, Measure.ACCURACY, Measure.MCC):
            result = estimates(measure, [target])[0]
            assert result.value == getattr(result, end) == (measure.best if right else measure.worst)
            assert result.high - result.low == pytest.approx(
                (measure.best - measure.worst) * 3.84 / (groups + 3.84), rel=0.01
            )


def test_all_right_is_all_right_however_many_classes_there_are() -> None:
    labels = np.append(np.arange(7), DRAW.choice(7, 293, p=np.arange(1, 8) / 28))
    result = scores([classified(labels, np.ones(300, bool), alone(300), 7)])[0].estimates
    assert all(
        target.value == pytest.approx(1) and 0 < target.low < 1 and target.high == 1 for target in result.values()
    )


def test_an_auc_without_one_of_its_classes_is_nan() -> None:
    result = estimates(Measure.AUC, [by_odds(np.zeros(50, int), DRAW.standard_normal(50), alone(50))])[0]
    assert np.isnan([result.value, result.low, result.high]).all()


def test_where_all_is_right_a_class_of_few_groups_makes_it_wider() -> None:
    labels = np.zeros(200, int)
    labels[:3] = 1
    result = estimates(
        Measure.BALANCED_ACCURACY, [Predictions(labels=labels, groups=alone(200), classes=2, predicted=labels)]
    )[0]
    assert result.high == 1 and result.low < 0.8


def test_no_interval_reaches_beyond_what_a_measure_can_be() -> None:
    for groups in (6, 40):
        labels = np.tile([0, 1], groups)
        predicted = np.append(labels[:-1], 0)
        target = Predictions(
            labels=labels, groups=np.arange(groups).repeat(2).astype(str), classes=2, predicted=predicted
        )
        result = estimates(Measure.ACCURACY, [target])[0]
        assert result.interval is Interval.T  # one group differs from the rest: that is few, however many there are
        assert result.low < result.value < result.high < 1 and result.high - result.value < result.value - result.low


def test_near_the_end_of_a_range_the_interval_still_holds_the_truth() -> None:
    draw, groups = np.random.default_rng(10), np.arange(40).repeat(6).astype(str)
    labels = draw.integers(0, 3, (200, 240))
    right = draw.random((200, 240)) < draw.beta(1.455, 0.045, (200, 40)).repeat(6, 1)
    result = estimates(Measure.BALANCED_ACCURACY, [classified(label, hit, groups) for label, hit in zip(labels, right)])
    assert 0.92 <= held(result, 0.97) <= 0.99


def test_a_slice_is_scored_as_its_rows_alone() -> None:
    target, first = skilled(DRAW.integers(0, 3, 720), 3, DOCUMENTS), np.tile(np.arange(6) < 2, 120)
    inside = Predictions(
        labels=target.labels[first],
        groups=DOCUMENTS[first],
        classes=3,
        log_probabilities=target.log_probabilities[first],
    )
    slice_, whole = scores([target.where(first), inside.where(np.ones(240, bool))][:1])[0], scores([inside])[0]
    assert slice_.n == 240 and slice_.groups == 120
    for measure, estimate in whole.estimates.items():
        same = slice_.estimates[measure]
        assert (same.value, same.low, same.high) == pytest.approx((estimate.value, estimate.low, estimate.high))


def test_a_slice_in_few_groups_is_judged_by_those_it_has() -> None:
    target = skilled(DRAW.integers(0, 3, 720), 3, DOCUMENTS)
    rows = np.isin(DOCUMENTS, DOCUMENTS[:60])
    inside = Predictions(
        labels=target.labels[rows], groups=DOCUMENTS[rows], classes=3, log_probabilities=target.log_probabilities[rows]
    )
    for measure in inside.measures:
        result, book = estimates(measure, [target.where(rows)])[0], estimates(measure, [inside])[0]
        assert result.interval is Interval.T and (result.low, result.high) == pytest.approx((book.low, book.high))
    result = estimates(Measure.ACCURACY, [target.where(DOCUMENTS == "3")])[0]
    assert np.isfinite(result.value) and np.isnan(result.low)
    nothing = scores([target.where(DOCUMENTS == "nobody")])[0]
    assert nothing.n == 0 and np.isnan(nothing.estimates[Measure.ACCURACY].value) and np.isnan(nothing.majority)


def test_a_target_is_worth_the_same_alone_and_among_others() -> None:
    several = [skilled(DRAW.integers(0, k, 720), k, DOCUMENTS).where(DRAW.random(720) < 0.9) for k in (2, 3, 7)]
    for target, score in zip(several, scores(several)):
        assert set(score.estimates) == set(target.measures)
        for measure in target.measures:
            book, result = estimates(measure, [target])[0], score.estimates[measure]
            assert (result.value, result.low, result.high) == pytest.approx((book.value, book.low, book.high), abs=1e-6)


def test_a_difference_is_paired() -> None:
    draw = np.random.default_rng(6)
    target = hits(draw, 1, 120)[0]
    changed = np.where(draw.random(720) < 0.05, target.labels, target.predicted)
    better = Predictions(labels=target.labels, groups=target.groups, classes=3, predicted=changed)
    for measure in target.measures:
        result, apart = differences(measure, [better], [target])[0], estimates(measure, [better, target])
        assert result.value == pytest.approx(apart[0].value - apart[1].value)
        assert result.low > 0 and result.high - result.low < 0.5 * (apart[0].high - apart[0].low)
    nothing = differences(Measure.ACCURACY, [target], [target])[0]
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


@pytest.mark.parametrize("documents", [20, 50])
def test_a_difference_of_two_that_are_as_good_holds_zero_as_often_as_it_says(documents: int) -> None:
    draw = np.random.default_rng(7)
    result = differences(Measure.BALANCED_ACCURACY, hits(draw, 200, documents), hits(draw, 200, documents, classes=4))
    assert 0.92 <= held(result, 0) <= 0.97


def test_who_says_always_the_same_has_no_correlation() -> None:
    target = Predictions(labels=DRAW.integers(0, 3, 50), groups=alone(50), classes=3, predicted=np.ones(50, int))
    result = scores([target])[0].estimates
    assert result[Measure.MCC].value == 0 and result[Measure.BALANCED_ACCURACY].value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (dict(classes=1), "2 classes or more"),
        (dict(labels=np.array([0.0, 1.0])), "integers"),
        (dict(groups=np.array(["a"])), r"\(1,\)"),
        (dict(labels=np.array([0, 2])), "from -1 to 1, not 0 to 2"),
        (dict(labels=np.array([-2, 1])), "not -2 to 1"),
        (dict(predicted=np.array([0, 1])), "either"),
        (dict(log_probabilities=None), "either"),
        (dict(log_probabilities=np.zeros((2, 3))), r"\(2, 2\), not \(2, 3\)"),
        (dict(log_probabilities=np.array([[0, -np.inf], [0, 0]])), "1 of 4 are not"),
        (dict(log_probabilities=None, predicted=np.array([0, 2])), "one of 2 classes"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(change: dict, complaint: str) -> None:
    arguments = dict(
        labels=np.array([0, 1]), groups=np.array(["a", "b"]), classes=2, log_probabilities=np.zeros((2, 2))
    )
    with pytest.raises(ValueError, match=complaint):
        Predictions(**{**arguments, **change})


def test_rows_left_out_may_hold_anything() -> None:
    target = Predictions(
        labels=np.array([0, -1]), groups=alone(2), classes=2, log_probabilities=np.array([[-1, -2], [np.nan, np.nan]])
    )
    assert estimates(Measure.ACCURACY, [target])[0].value == 1


@pytest.mark.parametrize(
    "ask",
    [
        scores,
        lambda pair: estimates(Measure.ACCURACY, pair),
        lambda pair: differences(Measure.ACCURACY, pair[:1], pair[1:]),
    ],
)
def test_targets_of_other_rows_are_refused(ask: Callable) -> None:
    pair = [classified(np.array([0, 1]), np.array([True, True]), np.array(list(names))) for names in ("ab", "ac")]
    with pytest.raises(ValueError, match="target 1 has others"):
        ask(pair)
    with pytest.raises(ValueError, match="1 and 0 predictions"):
        differences(Measure.ACCURACY, pair[:1], [])


def test_hundreds_of_targets_are_scored_as_a_few_are() -> None:
    draw = np.random.default_rng(13)
    several = [
        classified(label, draw.random(48) < 0.7, np.arange(12).repeat(4).astype(str))
        for label in draw.integers(0, 3, (150, 48))
    ]
    pairs = [
        *((target.estimates[measure], other.estimates[measure]) for target,
            other in zip(scores(several)[140:], scores(several[140:]), strict=True) for measure in target.estimates),
        (estimates(Measure.MCC, several)[70], estimates(Measure.MCC, several[70:71])[0]),
        (differences(Measure.MCC, several, several[::-1])[149],
            differences(Measure.MCC, several[149:], several[:1])[0]),
    ]  # fmt: skip
    for target, other in pairs:  # of other batches, so to rounding alone; a derivative's step of 1e-6 enlarges that
        assert target.interval is other.interval
        assert (target.value, target.low, target.high) == pytest.approx((other.value, other.low, other.high), rel=1e-6)
    assert scores([]) == estimates(Measure.MCC, []) == differences(Measure.MCC, [], []) == ()
