"""Laws of probes.estimators.logistic: many targets at once come to where each would come alone."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from probes.estimators import logistic
from probes.estimators.logistic import Minimum, minimise

DRAW = np.random.default_rng(5)
N, D, TOL = 240, 12, 1e-5
X = (DRAW.standard_normal((N, D)) * np.linspace(3, 0.2, D)).astype(np.float32)
X = ((X - X.mean(0)) / X.std(0)) @ np.linalg.qr(DRAW.standard_normal((D, D)))[0].astype(np.float32)
ROWS = np.hstack([X, np.ones((N, 1), np.float32)])
CLASSES = (4, 2, 3, 4, 4, 2)
LABELS = np.stack([(X @ DRAW.standard_normal((D, k)) + DRAW.gumbel(size=(N, k))).argmax(1) for k in CLASSES])
PENALTIES = np.array([0.03, 0.01, 0.3, 0.001, 0.02, 0.1])


def alone(target: int, labels: np.ndarray = LABELS, **given) -> Minimum:
    return minimise(
        ROWS,
        labels[target : target + 1],
        CLASSES[target : target + 1],
        PENALTIES[target : target + 1],
        tol=TOL,
        **given,
    )[0]


def probabilities(one: Minimum) -> np.ndarray:
    logits = ROWS @ one.weights
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_the_minimum_is_scikit_learns() -> None:
    for target, one in enumerate(minimise(ROWS, LABELS, CLASSES, PENALTIES, tol=TOL)):
        # With two classes, scikit-learn penalises one direction, their difference.
        scale = 2 if CLASSES[target] == 2 else 1
        model = LogisticRegression(C=scale / (PENALTIES[target] * N), tol=1e-7, max_iter=10_000).fit(
            X.astype(float), LABELS[target]
        )
        assert one.gradient_norm <= TOL and one.weights.dtype == np.float32
        np.testing.assert_allclose(probabilities(one), model.predict_proba(X), atol=2e-3)


def test_many_at_once_and_each_alone_end_in_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    together = minimise(ROWS, LABELS, CLASSES, PENALTIES, tol=TOL)
    assert len({one.evaluations for one in together}) > 1, "some are dropped before others"
    for target, one in enumerate(together):
        np.testing.assert_allclose(probabilities(one), probabilities(alone(target)), atol=2e-3)
    for name, value in (("_BLOCK", 17), ("_COLUMNS", 4), ("_ALIKE", 2.0)):  # other cuts of the same work
        monkeypatch.setattr(logistic, name, value)
        for one, other in zip(together, minimise(ROWS, LABELS, CLASSES, PENALTIES, tol=TOL)):
            np.testing.assert_allclose(probabilities(one), probabilities(other), atol=2e-3)


def test_batches_hold_every_target_once_and_what_is_alike() -> None:
    classes = np.array([2, 10, 3, 2, 700, 9, 2])
    penalties = np.array([1e-3, 1, 1e-2, 1, 1, 1e-1, 0.02])
    batches = list(logistic._batches(classes, penalties))
    assert sorted(target for batch in batches for target in batch) == list(range(7))
    for batch in batches:
        assert (
            classes[batch].max() <= 2 * classes[batch].min() and penalties[batch].max() <= 100 * penalties[batch].min()
        )


def test_rows_without_a_label_change_nothing() -> None:
    labels = LABELS.copy()
    labels[:, ::3] = -1
    chosen = labels[0] >= 0
    left = minimise(ROWS, labels, CLASSES, PENALTIES, tol=TOL)
    cut = minimise(ROWS[chosen], labels[:, chosen], CLASSES, PENALTIES, tol=TOL)
    for one, other in zip(left, cut):
        np.testing.assert_allclose(probabilities(one), probabilities(other), atol=2e-3)


def test_a_minimum_is_where_a_start_from_it_stays() -> None:
    result = minimise(ROWS, LABELS, CLASSES, PENALTIES, tol=TOL)
    again = minimise(ROWS, LABELS, CLASSES, PENALTIES, tol=TOL, start=[one.weights for one in result])
    assert all(one.evaluations <= 3 for one in again)
    for one in again:
        np.testing.assert_allclose(one.weights.sum(1), 0, atol=1e-4)


def test_the_gradient_norm_is_that_of_the_mean_loss() -> None:
    one = alone(0, limit=3)
    likely = probabilities(one).astype(float) - (LABELS[0][:, None] == np.arange(4))
    gradient = ROWS.T.astype(float) @ likely / N
    gradient[:-1] += PENALTIES[0] * one.weights[:-1]
    assert one.gradient_norm == pytest.approx(np.abs(gradient).max(), rel=1e-3)


def test_a_target_that_may_not_go_on_says_how_far_it_is() -> None:
    one = alone(3, limit=4)
    assert one.evaluations == 4 and one.gradient_norm > TOL
    impossible = minimise(ROWS, LABELS[:1], CLASSES[:1], PENALTIES[:1], tol=1e-12, limit=200)[0]
    assert 1e-12 < impossible.gradient_norm < 1e-5 and impossible.evaluations <= 200
    assert np.isfinite(impossible.weights).all()


def test_classes_told_apart_without_error_and_features_beyond_rows_are_no_trouble() -> None:
    few = np.hstack([DRAW.standard_normal((20, 60)).astype(np.float32), np.ones((20, 1), np.float32)])
    labels = np.arange(20)[None] % 3
    one = minimise(few, labels, [3], [1e-4], tol=TOL)[0]
    assert one.gradient_norm <= TOL and ((few @ one.weights).argmax(1) == labels[0]).all()


def test_a_feature_that_never_varies_gets_no_weight() -> None:
    rows = ROWS.copy()
    rows[:, 3] = 0
    one = minimise(rows, LABELS[:1], CLASSES[:1], PENALTIES[:1], tol=TOL)[0]
    assert one.gradient_norm <= TOL and not one.weights[3].any()


@pytest.mark.parametrize("size", [0.1, 100.0])
def test_loss_and_gradient_are_what_their_definitions_say_however_large_the_logits(size: float) -> None:
    weights = size * DRAW.standard_normal((D + 1, 4))
    weights = (weights - weights.mean(1, keepdims=True)).astype(np.float32)
    loss, gradient = logistic._Objective(ROWS, LABELS[:1], [4], PENALTIES[:1])(weights)
    log_likely = log_softmax(ROWS.astype(float) @ weights, axis=1)
    own = np.eye(4)[LABELS[0]]
    assert loss[0] == pytest.approx(
        -(log_likely * own).sum() / N + PENALTIES[0] / 2 * (weights[:-1].astype(float) ** 2).sum(), rel=1e-5
    )
    expected = ROWS.T.astype(float) @ (np.exp(log_likely) - own) / N
    expected[:-1] += PENALTIES[0] * weights[:-1]
    np.testing.assert_allclose(gradient, expected, atol=1e-5 * max(1, size))
