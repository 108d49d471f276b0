"""Laws of probes.estimators.closed_form: what follows from sums over rows is what the rows themselves give."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from probes.estimators import closed_form
from probes.estimators.closed_form import (
    Spectrum,
    SufficientStatistics,
    by_rows,
    mass_mean,
    scaler,
    standardised,
    temperature,
)
from probes.stats.splits import folds

DRAW = np.random.default_rng(11)
N, D, K, T = 200, 9, 4, 3
X = (DRAW.standard_normal((N, D)) @ DRAW.standard_normal((D, D)) + 3).astype(np.float32)
EVERYONE = np.arange(N)
ROWS = standardised(X, EVERYONE, *scaler(X, EVERYONE))[:, :-1]
LABELS = np.stack([(ROWS @ DRAW.standard_normal((D, K)) + DRAW.gumbel(size=(N, K))).argmax(1) for _ in range(T)])
PARTS = folds(EVERYONE.astype(str), 5)


def test_the_scaler_is_of_the_rows_that_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form, "_BLOCK", 32)
    features = X.copy()
    features[:, 2] = 1234.567
    chosen = EVERYONE[::2]
    mean, scale = scaler(features, chosen)
    book = StandardScaler().fit(features[chosen].astype(float))
    np.testing.assert_allclose(mean, book.mean_, rtol=1e-6)
    np.testing.assert_allclose(scale, book.scale_, rtol=1e-6)
    assert scale[2] == 1
    result = standardised(features, chosen[:7], mean, scale)
    np.testing.assert_allclose(result, np.hstack([book.transform(features[chosen[:7]]), np.ones((7, 1))]), atol=1e-5)


def test_sums_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form, "_BLOCK", 64)
    total = SufficientStatistics.of(ROWS, LABELS, K)
    np.testing.assert_allclose(total.gram, ROWS.T @ ROWS, atol=1e-3)
    np.testing.assert_allclose(total.means(1)[:, 2], ROWS[LABELS[1] == 2].mean(0), atol=1e-5)


def test_ridge_is_the_direct_solution() -> None:
    spectrum = Spectrum(SufficientStatistics.of(ROWS, LABELS, K))
    for penalty in (0.01, 1.0):
        weights, bias = spectrum.ridge(2, penalty)
        book = Ridge(alpha=penalty * N).fit(ROWS.astype(float), np.eye(K)[LABELS[2]])
        np.testing.assert_allclose(weights, book.coef_.T, atol=1e-4)
        np.testing.assert_allclose(bias, book.intercept_, atol=1e-5)


@pytest.mark.parametrize("shrinkage", [0.001, 0.3, 1.0])
def test_lda_is_scikit_learns(shrinkage: float) -> None:
    shifted = ROWS + np.linspace(-1, 1, D, dtype=np.float32)  # it need not be centred
    weights, bias = Spectrum(SufficientStatistics.of(shifted, LABELS, K)).lda(1, shrinkage)
    book = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(shifted.astype(float), LABELS[1])
    np.testing.assert_allclose(
        log_softmax(shifted @ weights + bias, axis=1), book.predict_log_proba(shifted), atol=2e-3
    )


def test_the_mass_mean_direction_is_the_difference_of_means_and_the_nearest_mean_wins() -> None:
    labels = (LABELS[:1] > 1).astype(int)
    weights, bias = mass_mean(SufficientStatistics.of(ROWS, labels, 2), 0)
    means = np.stack([ROWS[labels[0] == k].mean(0) for k in (0, 1)])
    np.testing.assert_allclose(np.diff(weights)[:, 0], means[1] - means[0], atol=1e-5)
    nearest = ((ROWS[:, None] - means) ** 2).sum(2).argmin(1)
    assert ((ROWS @ weights + bias).argmax(1) == nearest).all()


def test_a_class_that_does_not_occur_takes_no_part() -> None:
    labels = LABELS[:1] % 3
    for name in ("ridge", "lda"):
        three, four = (getattr(Spectrum(SufficientStatistics.of(ROWS, labels, k)), name)(0, 0.1) for k in (3, 4))
        np.testing.assert_allclose(three[0], four[0], atol=1e-5)
        np.testing.assert_allclose(three[1], four[1], atol=1e-5)


def test_targets_with_labels_on_the_same_rows_are_found() -> None:
    labels = LABELS.copy()
    labels[[0, 2], 5] = -1
    result = {tuple(targets): known for targets, known in by_rows(labels)}
    assert set(result) == {(0, 2), (1,)} and result[1,].all() and (~result[0, 2]).nonzero()[0].tolist() == [5]


def test_the_temperature_has_the_lowest_cross_entropy() -> None:
    scores = 5 * log_softmax(ROWS @ DRAW.standard_normal((D, K)), axis=1)
    labels = (scores / 5 + DRAW.gumbel(size=scores.shape)).argmax(1)

    def loss(heat: float) -> float:  # with one row's worth of each class added to the labels
        log_likely = log_softmax(scores / heat, axis=1)
        return -(N * log_likely[EVERYONE, labels].mean() + log_likely.mean(0).sum()) / (N + K)

    result = temperature(scores, labels)
    assert 3 < result < 8 and temperature(10 * scores + 7, labels) == pytest.approx(10 * result, rel=1e-3)
    assert loss(result) <= min(loss(0.97 * result), loss(1.03 * result))


def test_scores_without_an_error_have_a_temperature_above_zero() -> None:
    labels = LABELS[0]
    result = temperature(np.eye(K)[labels], labels)
    assert result > 0.05 and np.exp(log_softmax(np.eye(K) / result, axis=1)).max() < 1 - 1 / (2 * N)


def test_features_that_are_not_finite_are_counted() -> None:
    features = X.copy()
    features[3, 4], features[8, 2] = np.nan, np.inf
    with pytest.raises(ValueError, match="finite; 2 of 9"):
        scaler(features, EVERYONE)
