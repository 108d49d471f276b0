"""Laws of erasers."""

import numpy as np
import pytest

from probes.erasure.erasers import Eraser, Method, TransportEraser, inlp, leace, qleace, random_share, random_subspace
from probes.estimators.linear import fit
from probes.features.targets import Labels

ROWS, D, CLASSES = 3000, 16, 4
MIXED = np.random.default_rng(0).standard_normal((D, D))
MEANS = np.random.default_rng(1).standard_normal((CLASSES, D))


def sample(seed: int, rows: int = ROWS) -> tuple[np.ndarray, Labels]:
    """Features that lean on each other, and a concept that shifts them."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, CLASSES, rows)
    features = (draw.standard_normal((rows, D)) + 2 * MEANS[labels]) @ MIXED
    return features.astype(np.float32), Labels(labels, tuple("abcd"))


def groups(rows: int = ROWS) -> np.ndarray:
    return np.array([f"story {at // 3}" for at in range(rows)])


def fresh(eraser: Eraser | None, seed: int = 8) -> float:
    """Share that a fresh probe gets right: fitted on new rows that are erased, asked of other new ones."""
    (told, labels), (asked, truth) = sample(seed, 1000), sample(seed + 1, 1000)
    told, asked = (one if eraser is None else eraser.apply(one) for one in (told, asked))
    return float((fit(told, labels.values, CLASSES).predict(asked) == truth.values).mean())


def covariance(features: np.ndarray, labels: Labels) -> np.ndarray:
    """With each class: correlations, so that rounding has a scale."""
    columns = (labels.values[:, None] == np.arange(len(labels.names))).astype(float)
    features = (features - features.mean(0)) / features.std(0)
    return features.T @ (columns - columns.mean(0)) / len(features)


@pytest.fixture(scope="module")
def least() -> Eraser:
    return leace(*(lambda features, labels: (features, [labels]))(*sample(0)))


@pytest.fixture(scope="module")
def projected() -> Eraser:
    features, labels = sample(0)
    return inlp(features, [labels], groups())


def test_after_leace_a_fresh_probe_is_at_chance(least: Eraser) -> None:
    assert fresh(None) > 0.9
    assert fresh(least) < 0.32
    features, labels = sample(0)
    assert np.abs(covariance(least.apply(features), labels)).max() < 1e-5


def test_after_inlp_a_fresh_probe_is_at_chance(projected: Eraser) -> None:
    assert projected.method is Method.INLP and fresh(projected) < 0.32


def test_a_random_subspace_of_the_same_rank_leaves_the_concept(least: Eraser) -> None:
    assert fresh(random_subspace(sample(0)[0], least.rank, seed=0)) > 0.8


def test_leace_moves_features_less_than_inlp_does(least: Eraser, projected: Eraser) -> None:
    features, _ = sample(2)
    moved = [((one.apply(features) - features) ** 2).sum() for one in (least, projected)]
    assert moved[0] < moved[1] and least.rank <= projected.rank


def test_the_rank_is_at_most_the_classes_less_one_where_all_rows_have_one(least: Eraser) -> None:
    features, labels = sample(0)
    twice = leace(features, [labels, labels])
    assert least.rank == twice.rank == CLASSES - 1
    np.testing.assert_allclose(twice.apply(features), least.apply(features), atol=1e-2)


def test_a_row_of_which_nothing_is_known_is_as_good_as_one_of_a_class_of_its_own() -> None:
    features, labels = sample(0)
    known = np.where(np.arange(ROWS) % 5 == 0, -1, labels.values)
    one = leace(features, [Labels(known, labels.names)])
    other = leace(features, [Labels(np.where(known < 0, CLASSES, known), (*labels.names, "unknown"))])
    assert one.rank == other.rank <= CLASSES
    np.testing.assert_allclose(one.apply(features), other.apply(features), atol=1e-2)
    assert np.abs(covariance(one.apply(features)[known >= 0], Labels(known[known >= 0], labels.names))).max() < 1e-5


def test_slots_erased_one_by_one_guard_the_whole_bank() -> None:
    (one, labels), other = sample(0), sample(3)[0]
    slots = np.stack([one, np.roll(one, 3, 1) + other], axis=1)
    erased = np.stack(
        [leace(np.ascontiguousarray(slots[:, slot]), [labels]).apply(slots[:, slot]) for slot in range(2)], axis=1
    )
    whole = erased.reshape(ROWS, -1)
    assert np.abs(covariance(whole, labels)).max() < 1e-5
    assert (fit(whole, labels.values, CLASSES).predict(whole) == labels.values).mean() < 0.32


def test_a_concept_that_no_row_has_takes_no_dimension() -> None:
    features, _ = sample(0)
    nothing = Labels(np.full(ROWS, -1), ("a", "b"))
    eraser = leace(features, [nothing])
    assert (
        eraser.rank == 0 and np.array_equal(eraser.apply(features), features) and len(eraser.operation.left.array) == 0
    )


def twisted(seed: int, rows: int = ROWS) -> tuple[np.ndarray, Labels]:
    """A concept that no mean tells: it says which way the first feature leans on the second."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, rows)
    features = draw.standard_normal((rows, D))
    features[:, 0] += 2 * np.where(labels, 1, -1) * features[:, 1]
    return features.astype(np.float32), Labels(labels, ("a", "b"))


def told_apart(features: np.ndarray, labels: Labels) -> float:
    """Share that a quadratic reader gets right on the second half of rows."""
    products = (features[:, 0] * features[:, 1])[:, None].astype(np.float32)
    half = len(features) // 2
    return float(
        (fit(products[:half], labels.values[:half], 2).predict(products[half:]) == labels.values[half:]).mean()
    )


def test_behind_qleace_a_quadratic_reader_is_at_chance_where_leace_leaves_it_everything() -> None:
    features, labels = twisted(0)
    new, truth = twisted(1)
    blind, by_class = leace(features, [labels]), qleace(features, labels)
    knowing = np.where(truth.values[:, None] == 0, *(one.apply(new) for one in by_class[:2])).astype(np.float32)
    assert told_apart(new, truth) > 0.8 and told_apart(blind.apply(new), truth) > 0.8
    assert told_apart(knowing, truth) < 0.55


def test_behind_qleace_all_classes_have_one_mean_and_nearly_one_covariance() -> None:
    features, labels = sample(0)
    by_class = qleace(features, labels)
    moved = [one.apply(features[labels.values == at]) for at, one in enumerate(by_class[:CLASSES])]
    scale = features.std()
    for one in moved:
        np.testing.assert_allclose(one.mean(0), moved[0].mean(0), atol=1e-3 * scale)
        np.testing.assert_allclose(np.cov(one.T), np.cov(moved[0].T), atol=0.05 * scale**2)


def test_rows_of_which_nothing_is_known_are_moved_as_a_class_and_a_class_of_one_row_stays() -> None:
    features, labels = sample(0)
    known = np.where(np.arange(ROWS) % 5 == 0, -1, labels.values)
    known[np.flatnonzero(known == 3)[1:]] = -1
    *_, lonely, unknown = qleace(features, Labels(known, labels.names))
    assert isinstance(unknown, TransportEraser) and lonely.rank == 0
    assert np.array_equal(lonely.apply(features), features)
    assert all(one.rank == 0 for one in qleace(features[:1], Labels(known[:1], labels.names)))


def test_inlp_takes_nothing_where_nothing_can_be_read() -> None:
    features, labels = sample(0)
    strewn = Labels(np.random.default_rng(5).permutation(labels.values), labels.names)
    assert inlp(features, [strewn], groups()).rank == 0


def test_a_random_subspace_is_projected_out_once_and_for_all() -> None:
    features, _ = sample(0)
    eraser = random_subspace(features, 5, seed=1)
    once = eraser.apply(features)
    assert eraser.rank == 5 and np.linalg.matrix_rank(once - once.mean(0), tol=1) == D - 5
    np.testing.assert_allclose(eraser.apply(once), once, atol=1e-3)
    np.testing.assert_allclose(once.mean(0), features.mean(0), atol=1e-3)
    assert not np.array_equal(eraser.left, random_subspace(features, 5, seed=2).left)


def test_a_random_share_takes_as_much_variance_as_is_asked_and_hardly_more() -> None:
    features, _ = sample(0)

    def taken(eraser: Eraser) -> float:
        return ((eraser.apply(features) - features) ** 2).sum() / ((features - features.mean(0)) ** 2).sum()

    eraser = random_share(features, 0.4, seed=0)
    assert taken(eraser) > 0.4 - 1e-6 > taken(random_subspace(features, eraser.rank - 1, seed=0))
    assert random_share(features, 0.0, seed=0).rank == 0
