"""Laws of probes.stats.selectivity: what a probe's score owes to the features, and what to memory, chance and
choice."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from probes.stats.permutation import permutation_test
from probes.stats.predictions import Measure, Predictions
from probes.stats.scores import differences, estimates
from probes.stats.selectivity import bits_gained, control_labels, nested_choice, online_code, q_values
from probes.stats.splits import folds

DOCUMENTS = np.repeat([f"document {i}" for i in range(60)], 6)


class Shares:
    """A toy probe: ridge on class indicators, its scores taken for probabilities."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, classes: int) -> None:
        features, labels = features[labels >= 0], labels[labels >= 0]
        trained = np.eye(classes)[labels]
        self.mean = trained.mean(0)
        self.weights = np.linalg.solve(
            features.T @ features + 20 * np.eye(features.shape[1]), features.T @ (trained - self.mean)
        )

    def log_probabilities(self, features: np.ndarray) -> np.ndarray:
        shares = np.clip(self.mean + features @ self.weights, 0.01, 1)
        return np.log(shares / shares.sum(1, keepdims=True))


def fit(features: np.ndarray, labels: np.ndarray, classes: Sequence[int]) -> list[Shares]:
    return [Shares(features, label, count) for label, count in zip(labels, classes, strict=True)]


def read(features: np.ndarray, labels: np.ndarray, classes: int, groups: np.ndarray = DOCUMENTS) -> Predictions:
    """Held-out predictions of the toy probe."""
    log_likely = np.zeros((len(labels), classes))
    for fold in folds(groups, 5):
        log_likely[fold.test] = Shares(features[fold.train], labels[fold.train], classes).log_probabilities(
            features[fold.test]
        )
    return Predictions(labels=labels, groups=groups, classes=classes, log_probabilities=log_likely)


def planted(draw: np.random.Generator, labels: np.ndarray, classes: int, clear: float = 3.0) -> np.ndarray:
    """Features that tell the label among other things."""
    return np.hstack([clear * np.eye(classes)[labels], np.zeros((len(labels), 5))]) + draw.standard_normal(
        (len(labels), classes + 5)
    )


def test_a_type_has_one_control_label_wherever_it_occurs() -> None:
    draw = np.random.default_rng(0)
    types = np.array([f"word {i}" for i in draw.integers(0, 3000, 9000)])
    labels = draw.choice(3, 9000, p=[0.6, 0.3, 0.1])
    labels[::10] = -1
    control = control_labels(types, labels, 3, seed=1)
    assert np.array_equal(control == -1, labels == -1)
    assert all(len(set(control[(types == word) & (labels >= 0)])) <= 1 for word in types[:50])
    assert np.bincount(control[control >= 0]) / 8100 == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    assert np.array_equal(control, control_labels(types, labels, 3, seed=1))
    assert not np.array_equal(control, control_labels(types, labels, 3, seed=2))


def test_a_control_task_is_never_of_one_label() -> None:
    types, labels = np.tile(["a", "b"], 50), np.append(np.zeros(97, int), [1, 1, 1])
    for seed in range(20):
        assert set(control_labels(types, labels, 2, seed)) == {0, 1}
    for arguments, message in (
        (("aaaa", [0, 1, 0, 1]), "1 types and 2 labels"),
        (("abab", [0, 0, -1, 0]), "2 types and 1 labels"),
    ):
        with pytest.raises(ValueError, match=message):
            control_labels(list(arguments[0]), np.array(arguments[1]), 2)


def test_what_is_planted_is_selective_and_what_is_memorised_is_not() -> None:
    draw = np.random.default_rng(1)
    kind = draw.integers(0, 12, 360)
    types, labels = kind.astype(str), kind % 3
    control = control_labels(types, labels, 3, seed=0)
    tells_label, tells_type = planted(draw, labels, 3), 3 * np.eye(12)[kind] + draw.standard_normal((360, 12)) * 0.3
    for features, low, high in ((tells_label, 0.3, 0.9), (tells_type, -0.1, 0.1)):
        task, memory = read(features, labels, 3), read(features, control, 3)
        result = differences(task.headline, [task], [memory])[0]
        assert low < result.low <= result.high < high


def test_a_random_label_is_not_compressed_and_a_planted_one_is() -> None:
    draw = np.random.default_rng(2)
    label, chance = draw.integers(0, 4, (2, 360))
    planted_code, random_code = online_code(planted(draw, label, 4), np.stack([label, chance]), [4, 4], DOCUMENTS, fit)
    assert planted_code.uniform == random_code.uniform == 720
    assert 0.9 < random_code.compression < 1.03
    assert planted_code.compression > 1.8


def test_a_code_is_told_in_blocks_of_whole_groups_by_what_came_before() -> None:
    names, trained, tested = np.unique(DOCUMENTS, return_inverse=True)[1], [], []

    class Knows:
        def log_probabilities(self, features: np.ndarray) -> np.ndarray:
            tested.append(set(features[:, 0]))
            return np.log(np.where(np.eye(4)[features[:, 1].astype(int)], 1, 1e-300))

    def remember(features: np.ndarray, labels: np.ndarray, classes: Sequence[int]) -> list[Knows]:
        trained.append((set(features[:, 0]), len(features)))
        return [Knows()]

    labels = np.random.default_rng(3).integers(0, 4, 360)
    code = online_code(np.stack([names, labels], 1).astype(float), labels[None], [4], DOCUMENTS, remember)[0]
    assert code.blocks == (8, 15, 30, 60)
    assert [len(groups) for groups, _ in trained] == [8, 15, 30] and [len(groups) for groups in tested] == [7, 15, 30]
    assert not any(before & now for (before, _), now in zip(trained, tested))
    rows = [(m, 6 * len(now)) for (_, m), now in zip(trained, tested)]
    assert code.bits == pytest.approx(6 * 8 * 2 + sum(n * np.log2((m + 4) / (m + 1)) for m, n in rows))


def test_a_class_that_was_never_told_costs_finite_bits() -> None:
    class Sure:
        def log_probabilities(self, features: np.ndarray) -> np.ndarray:
            return np.log(np.eye(4)[features[:, 0].astype(int)] * [1, 1, 0, 0])

    labels = np.tile([0, 1], 180)
    labels[-6:] = 2
    with np.errstate(divide="ignore"):
        result = online_code(labels[:, None], labels[None], [4], DOCUMENTS, lambda features, labels, classes: [Sure()])[
            0
        ]
    assert 8 * 6 * 2 + 6 * np.log2(50) < result.bits < 8 * 6 * 2 + 6 * np.log2(360) + 12


def test_what_is_of_one_class_so_far_is_told_uniformly() -> None:
    labels = np.zeros((1, 360), int)
    result = online_code(np.ones((360, 1)), labels, [2], DOCUMENTS, fit)[0]
    assert result.bits == result.uniform == 360


def test_rows_left_out_are_neither_told_nor_learnt_from() -> None:
    draw = np.random.default_rng(4)
    labels = draw.integers(0, 3, 360)
    features, known = planted(draw, labels, 3), draw.random(360) < 0.7
    features[~known] = 1e3
    some = np.where(known, labels, -1)
    book = online_code(features[known], labels[None, known], [3], DOCUMENTS[known], fit)[0]
    result, nothing = online_code(features, np.stack([some, np.full(360, -1)]), [3, 2], DOCUMENTS, fit)
    assert (result.n, result.bits) == (known.sum(), pytest.approx(book.bits))
    assert nothing.n == 0 and np.isnan(nothing.compression)


def test_a_code_of_few_groups_is_refused() -> None:
    names = np.arange(10).astype(str)
    assert online_code(np.ones((10, 1)), np.arange(10)[None] % 2, [2], names, fit)[0].blocks == (5, 10)
    with pytest.raises(ValueError, match="at least 10 groups, not 9"):
        online_code(np.ones((9, 1)), np.zeros((1, 9), int), [2], names[:9], fit)


def test_bits_gained_are_those_that_the_baseline_lacks() -> None:
    draw = np.random.default_rng(5)
    labels = draw.integers(0, 3, 360)
    site, baseline = read(planted(draw, labels, 3), labels, 3), read(draw.standard_normal((360, 8)), labels, 3)
    result, apart = bits_gained([site], [baseline])[0], estimates(Measure.BITS, [baseline, site])
    assert result.value == pytest.approx(apart[0].value - apart[1].value) and result.low > 0.5
    assert bits_gained([baseline], [site])[0].high < -0.5  # nothing is cut off at 0


def clustered(draw: np.random.Generator, targets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """120 documents of six questions, whose features and labels lean the document's way and have nothing to do with
    each other."""
    features = draw.standard_normal((120, 10)).repeat(6, 0) + 0.5 * draw.standard_normal((720, 10))
    labels = draw.random((targets, 720)) < draw.beta(0.7, 0.7, (targets, 120)).repeat(6, 1)
    return features, labels.astype(int), np.arange(120).repeat(6).astype(str)


def test_where_there_is_nothing_p_is_uniform_for_documents_and_not_for_rows() -> None:
    features, labels, documents = clustered(np.random.default_rng(6), 250)
    ps = [permuted.p for permuted in permutation_test(features, labels, documents, documents, permutations=99)]
    assert 0.03 <= np.mean([p <= 0.05 for p in ps]) <= 0.07 and np.mean(ps) == pytest.approx(0.5, abs=0.05)
    rows = np.arange(720).astype(str)
    assert (
        np.mean(
            [permuted.p <= 0.05 for permuted in permutation_test(features, labels[:30], rows, rows, permutations=99)]
        )
        > 0.15
    )


def test_what_is_planted_has_the_smallest_p_that_there_is() -> None:
    draw = np.random.default_rng(7)
    labels = draw.choice(3, 360, p=[0.8, 0.15, 0.05])
    result = permutation_test(planted(draw, labels, 3), labels[None], DOCUMENTS, DOCUMENTS, permutations=99)[0]
    assert (
        result.p == 1 / 100
        and result.moving == 1
        and result.value > 0.7
        and result.null == pytest.approx(1 / 3, abs=0.05)
    )


def test_the_permuted_statistic_is_that_of_a_plain_ridge() -> None:
    draw = np.random.default_rng(8)
    labels = draw.choice(3, 360, p=[0.6, 0.3, 0.1])
    features = planted(draw, labels, 3, clear=1) * draw.uniform(0.1, 10, 8) + 5
    features[:, -1] = 7  # never varies
    known = draw.random(360) < 0.8
    rows, guesses = np.flatnonzero(known), np.zeros(360)
    for fold in folds(DOCUMENTS[known]):
        train, test = rows[fold.train], rows[fold.test]
        scale = StandardScaler().fit(features[train])
        ridge = Ridge(alpha=len(train)).fit(scale.transform(features[train]), np.eye(3)[labels[train]])
        guesses[test] = (ridge.predict(scale.transform(features[test])) / np.bincount(labels[known])).argmax(1)
    result = permutation_test(features, np.where(known, labels, -1)[None], DOCUMENTS, DOCUMENTS, permutations=1)[0]
    assert result.value == pytest.approx(balanced_accuracy_score(labels[known], guesses[known]))


def test_only_documents_that_are_as_long_exchange_labels() -> None:
    long = np.arange(40) % 2 == 1
    documents = np.arange(40).repeat(np.where(long, 4, 2)).astype(str)
    labels = long.repeat(np.where(long, 4, 2)).astype(int)
    result = permutation_test(3 * np.eye(2)[labels], labels[None], documents, documents, permutations=99)[0]
    # The label is the length: what is exchanged is the same.
    assert (result.value, result.null, result.p, result.moving) == pytest.approx((1, 1, 1, 1))


def test_groups_move_as_a_whole_and_documents_within_one_that_has_no_like() -> None:
    draw = np.random.default_rng(9)
    lengths = {"a": (2, 3), "b": (3, 2), "c": (2, 2, 5), "d": (1, 2), "e": (4,)}
    groups = np.array([name for name, parts in lengths.items() for part in parts for _ in range(part)])
    documents = np.array(
        [f"{name}{i}" for name, parts in lengths.items() for i, part in enumerate(parts) for _ in range(part)]
    )
    labels = draw.integers(0, 2, (1, len(groups)))
    result = permutation_test(draw.standard_normal((len(groups), 2)), labels, groups, documents, permutations=9)[0]
    assert result.moving == (5 + 5 + 4) / len(groups)  # a with b, and c's two short documents


def test_what_cannot_move_has_p_1() -> None:
    lengths = np.arange(1, 9)
    documents = np.arange(8).repeat(lengths).astype(str)
    labels = np.arange(lengths.sum()) % 2
    result = permutation_test(3.0 * np.eye(2)[labels], labels[None], documents, documents, permutations=19)[0]
    assert (result.p, result.moving) == (1, 0)


def test_targets_are_tested_as_if_alone() -> None:
    draw = np.random.default_rng(10)
    labels = draw.integers(0, 3, (3, 360))
    labels[1, draw.random(360) < 0.3] = -1
    features = planted(draw, labels[2], 3, clear=0.5)
    together = permutation_test(features, labels, DOCUMENTS, DOCUMENTS, permutations=49)
    assert list(together) == [
        permutation_test(features, label[None], DOCUMENTS, DOCUMENTS, permutations=49)[0] for label in labels
    ]


def test_permutations_that_make_no_sense_are_refused() -> None:
    for arguments, message in (
        (dict(permutations=0), "at least 1 permutation, not 0"),
        (dict(permutations=9), "not 5 of 4 groups"),
    ):
        with pytest.raises(ValueError, match=message):
            permutation_test(np.ones((8, 1)), np.zeros((1, 8), int), list("aabbccdd"), list("aabbccdd"), **arguments)


def test_q_is_of_the_whole_grid_and_leaves_out_what_was_not_looked_at() -> None:
    p = np.array([[0.01, np.nan, 0.04], [0.5, 0.001, np.nan]])
    q = q_values(p)
    assert np.array_equal(np.isnan(q), np.isnan(p))
    assert q[~np.isnan(p)] == pytest.approx(stats.false_discovery_control(p[~np.isnan(p)]))
    assert np.isnan(q_values(np.full((2, 2), np.nan))).all()


def sites(draw: np.random.Generator, accuracies: Sequence[float]) -> list[Predictions]:
    labels = draw.integers(0, 2, 360)
    right = draw.random((len(accuracies), 360)) < np.array(accuracies)[:, None]
    return [
        Predictions(labels=labels, groups=DOCUMENTS, classes=2, predicted=np.where(hits, labels, 1 - labels))
        for hits in right
    ]


def test_the_best_of_equals_is_no_better_when_others_choose_it() -> None:
    draw, parts = np.random.default_rng(11), folds(DOCUMENTS, 5)
    flattered, honest = [], []
    for _ in range(12):
        candidates = sites(draw, [0.6] * 16)
        right = np.array([site.predicted == site.labels for site in candidates])
        inner = np.array([[one[fold.train].mean() for fold in parts] for one in right])
        honest.append(nested_choice(inner, candidates, parts, Measure.ACCURACY).estimate.value)
        flattered.append(right.mean(1).max())
    assert np.mean(flattered) > 0.635 and np.mean(honest) < 0.615


def test_a_site_that_is_better_is_chosen_and_reported_as_it_is() -> None:
    candidates, parts = sites(np.random.default_rng(12), [0.55, 0.9, 0.5]), folds(DOCUMENTS, 5)
    inner = np.array([[0.6] * 5, [0.9] * 5, [0.5] * 5])
    result = nested_choice(inner, candidates, parts, Measure.BALANCED_ACCURACY)
    assert result.chosen == (0, 5, 0) and result.estimate == estimates(Measure.BALANCED_ACCURACY, candidates[1:2])[0]
    inner[0, 3] = 1
    mixed = nested_choice(inner, candidates, parts, Measure.ACCURACY)
    right = [(site.predicted == site.labels) for site in candidates]
    book = np.concatenate([right[i][fold.test] for i, fold in zip((1, 1, 1, 0, 1), parts)]).mean()
    assert mixed.chosen == (1, 4, 0) and mixed.estimate.value == pytest.approx(book)


def test_a_choice_goes_by_log_probabilities_where_there_are_any() -> None:
    draw = np.random.default_rng(13)
    labels = draw.integers(0, 2, 360)
    candidates, parts = (
        [read(planted(draw, labels, 2), labels, 2), read(draw.standard_normal((360, 4)), labels, 2)],
        folds(DOCUMENTS, 5),
    )
    result = nested_choice(np.array([[1.0] * 5, [0.0] * 5]), candidates, parts, Measure.BITS)
    assert result.estimate == estimates(Measure.BITS, candidates[:1])[0]


def test_a_choice_among_what_does_not_fit_is_refused() -> None:
    candidates, parts = sites(np.random.default_rng(14), [0.6, 0.7]), folds(DOCUMENTS, 5)
    for inner in (np.ones((2, 4)), np.full((2, 5), np.nan)):
        with pytest.raises(ValueError, match="2 sites and 5 folds"):
            nested_choice(inner, candidates, parts, Measure.ACCURACY)
    with pytest.raises(ValueError, match="same labels"):
        nested_choice(
            np.ones((2, 5)), [candidates[0], sites(np.random.default_rng(15), [0.6])[0]], parts, Measure.ACCURACY
        )
