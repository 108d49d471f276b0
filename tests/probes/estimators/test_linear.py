"""Laws of probes.estimators.linear: a probe finds what was planted, knows its own scaler, and says whether it has
converged."""

from dataclasses import FrozenInstanceError
from functools import partial

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from probes.estimators import linear
from probes.estimators.linear import choose, fit, fit_many
from probes.estimators.probe import Family, Probe

DRAW = np.random.default_rng(2)
N, D = 300, 10
MIXED = DRAW.standard_normal((N + 100, D)) @ DRAW.standard_normal((D, D))
ALL = (MIXED * np.geomspace(0.01, 100, D) + np.linspace(-50, 500, D)).astype(np.float32)
"""Features of very different sizes."""
X, ASKED = ALL[:N], ALL[N:]
WITHIN = (MIXED - MIXED[:N].mean(0)) / MIXED[:N].std(0)
CLASSES = (4, 2, 3)
EVERY = np.stack([(WITHIN @ DRAW.standard_normal((D, k)) + DRAW.gumbel(size=(N + 100, k))).argmax(1) for k in CLASSES])
LABELS = EVERY[:, :N]
GROUPS = [f"story {i // 4}" for i in range(N)]


def many(
    family: Family = Family.LOGISTIC, labels: np.ndarray = LABELS, features: np.ndarray = X, **given
) -> tuple[Probe, ...]:
    return fit_many(features, labels, CLASSES, family=family, strengths=[0.2] * len(CLASSES), **given)


def same(one: Probe, other: Probe, tolerance: float = 2e-3) -> None:
    np.testing.assert_allclose(
        np.exp(one.log_probabilities(ASKED)), np.exp(other.log_probabilities(ASKED)), atol=tolerance
    )


@pytest.mark.parametrize("target", range(3))
def test_logistic_probes_are_scikit_learns_logistic_regression(target: int) -> None:
    book = StandardScaler().fit(X)
    model = LogisticRegression(C=0.5, tol=1e-8, max_iter=10_000).fit(book.transform(X).astype(float), LABELS[target])
    probe = fit(X, LABELS[target], CLASSES[target], strength=0.5)
    assert probe.converged and probe.gradient_norm <= 2e-5 and probe.evaluations > 1 and probe.strength == 0.5
    np.testing.assert_allclose(
        np.exp(probe.log_probabilities(ASKED)), model.predict_proba(book.transform(ASKED)), atol=2e-3
    )
    assert (probe.predict(ASKED) == model.predict(book.transform(ASKED))).mean() >= 0.99


@pytest.mark.parametrize("family", Family)
def test_a_planted_direction_is_found_by_every_family(family: Family) -> None:
    planted, features = np.array([0, 3, 0, 4.0]) / 5, DRAW.standard_normal((2000, 4)).astype(np.float32)
    labels = (features @ planted + 0.5 * DRAW.standard_normal(2000) > 0).astype(int)
    result = np.diff(fit(features * [1, 2, 1, 7], labels, 2, family=family).raw_direction * [[1], [2], [1], [7]])[:, 0]
    assert result @ planted / np.linalg.norm(result) > 0.99


@pytest.mark.parametrize("family", Family)
def test_log_probabilities_are_finite_sum_to_one_and_beat_the_shares_of_the_classes(family: Family) -> None:
    for probe, labels, count in zip(many(family), EVERY[:, N:], CLASSES):
        likely = probe.log_probabilities(ASKED)
        assert likely.shape == (100, count) and np.isfinite(likely).all()
        np.testing.assert_allclose(np.exp(likely).sum(1), 1, rtol=1e-6)
        assert (likely.argmax(1) == probe.predict(ASKED)).all()
        shares = np.bincount(labels) / len(labels)
        assert -likely[np.arange(100), labels].mean() < -(shares * np.log(shares)).sum()


@pytest.mark.parametrize("family", Family)
def test_the_scaler_is_of_the_training_rows_and_units_do_not_matter(family: Family) -> None:
    probe = many(family)[0]
    np.testing.assert_allclose(probe.mean, X.mean(0, dtype=float), rtol=1e-5)
    np.testing.assert_allclose(probe.scale, X.std(0, dtype=float), rtol=1e-5)
    np.testing.assert_allclose(
        probe.score(ASKED), (ASKED - probe.mean) / probe.scale @ probe.direction + probe.bias, atol=2e-3
    )
    other = many(family, features=X * 7 - 3)[0]
    np.testing.assert_allclose(other.log_probabilities(ASKED * 7 - 3), probe.log_probabilities(ASKED), atol=2e-2)


@pytest.mark.parametrize("family", Family)
def test_rows_without_a_label_change_nothing_but_the_scaler(family: Family) -> None:
    labels = LABELS.copy()
    labels[1, ::3] = -1
    result = many(family, labels)
    for i in (0, 2):
        same(result[i], many(family)[i])
    noise = X.copy()
    noise[::3] = X.mean(0)[None] + (X[::3] - X.mean(0))[::-1]  # the scaler stays
    same(result[1], many(family, labels, noise)[1])


@pytest.mark.parametrize("family", Family)
def test_many_targets_at_once_are_those_targets_one_by_one(family: Family) -> None:
    for i, probe in enumerate(many(family)):
        same(probe, fit(X, LABELS[i], CLASSES[i], family=family, strength=0.2))


@pytest.mark.parametrize("family", Family)
def test_a_class_that_no_row_has_is_improbable_and_changes_nothing_else(family: Family) -> None:
    labels = np.array([0, 2, 3, 5])[LABELS[0]]
    gaps, plain = fit(X, labels, 7, family=family, strength=0.2), fit(X, LABELS[0], 4, family=family, strength=0.2)
    likely = np.exp(gaps.log_probabilities(ASKED))
    assert (likely[:, [1, 4, 6]] < 1 / N).all() and np.isfinite(gaps.log_probabilities(ASKED)).all()
    assert (gaps.predict(ASKED) == np.array([0, 2, 3, 5])[plain.predict(ASKED)]).all()
    np.testing.assert_allclose(gaps.direction[:, [0, 2, 3, 5]], plain.direction, atol=1e-3)


def test_lda_gives_scikit_learns_posterior() -> None:
    book = StandardScaler().fit(X.astype(float))
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2).fit(book.transform(X), LABELS[0])
    result = many(Family.LDA)[0].log_probabilities(ASKED)
    np.testing.assert_allclose(result, model.predict_log_proba(book.transform(ASKED)), atol=1e-2)


def test_closed_forms_have_nothing_to_converge() -> None:
    for family in (Family.MASS_MEAN, Family.LDA, Family.RIDGE):
        assert all((one.converged, one.gradient_norm, one.evaluations) == (True, 0.0, 1) for one in many(family))


def test_a_probe_that_has_not_converged_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "minimise", partial(linear.minimise, limit=3))
    hasty = fit(X, LABELS[0], 4)
    assert not hasty.converged and hasty.gradient_norm > 1e-4 and hasty.evaluations <= 3


def test_a_fitted_probe_cannot_be_changed() -> None:
    probe = many()[0]
    with pytest.raises(FrozenInstanceError):
        probe.strength = 2.0
    for name in ("direction", "bias", "mean", "scale"):
        assert not getattr(probe, name).flags.writeable


def test_a_warm_start_ends_in_the_same_place_sooner() -> None:
    cold = many()
    other_rows = fit_many(ALL[20:], EVERY[:, 20:], CLASSES, strengths=[0.1] * 3)
    warm = many(start=other_rows)
    assert sum(one.evaluations for one in warm) < sum(one.evaluations for one in cold)
    for one, other in zip(cold, warm):
        same(one, other)
    assert all(one.evaluations <= 3 for one in many(start=cold))
    with pytest.raises(ValueError, match=r"target 0 cannot start from .* \(10, 2\)"):
        many(start=[cold[1], cold[1], cold[2]])


@pytest.mark.parametrize("family", Family)
def test_the_chosen_strength_is_the_best_on_groups_held_out(family: Family) -> None:
    grid = (0.5, 1e-4, 0.02)
    result = choose(X, LABELS, CLASSES, GROUPS, family=family, strengths=grid, seed=4)
    fold = linear.hold_out(GROUPS, seed=4)
    for target in range(3):
        losses = {}
        for strength in grid:
            probe = fit(X[fold.train], LABELS[target, fold.train], CLASSES[target], family=family, strength=strength)
            likely = probe.log_probabilities(X[fold.test])
            losses[strength] = -likely[np.arange(len(likely)), LABELS[target, fold.test]].mean()
        assert losses[result[target].strength] <= min(losses.values()) + 1e-3
        assert result[target].loss == pytest.approx(losses[result[target].strength], abs=1e-3)


def test_labels_without_a_reason_choose_the_strongest_penalty() -> None:
    labels = DRAW.integers(0, 3, (2, N))
    assert [one.strength for one in choose(X, labels, (3, 3), GROUPS, strengths=(1.0, 1e-5))] == [1e-5, 1e-5]


def test_a_target_that_the_groups_cannot_tell_of_takes_the_usual_strength() -> None:
    labels, fold = LABELS.copy(), linear.hold_out(GROUPS, seed=0)
    labels[1, fold.test] = -1
    labels[2, fold.train] = 0
    result, whole = (choose(X, some, CLASSES, GROUPS, strengths=(10.0, 1e-4, 0.03)) for some in (labels, LABELS))
    assert result[0].strength == whole[0].strength and result[0].loss == pytest.approx(whole[0].loss, abs=1e-3)
    assert result[1:] == ((0.03, np.log(2)), (0.03, np.log(3)))


def test_no_targets_have_no_probes() -> None:
    assert fit_many(X, LABELS[:0], (), strengths=()) == choose(X, LABELS[:0], (), GROUPS, strengths=(0.1, 1.0)) == ()


def test_what_does_not_fit_is_refused_with_its_numbers() -> None:
    holes = X.copy()
    holes[3, 4] = np.inf
    one_class = LABELS.copy()
    one_class[2] = -1
    one_class[2, :5] = 1
    for arguments, message in (
        (dict(features=X[:-1]), r"\(299, 10\) and \(3, 300\)"),
        (dict(features=X[0]), r"\(10,\)"),
        (dict(labels=LABELS[:2]), r"\(2, 300\)"),
        (dict(features=holes), "finite; 1 of 10"),
        (dict(labels=LABELS - 2), "target 0 must be -1 to 3, not -2"),
        (dict(labels=LABELS[[0, 0, 2]]), "target 1 must be -1 to 1, not 0 to 3"),
        (dict(labels=one_class), r"target 2 needs rows of at least two classes.* \[0, 5, 0\]"),
        (dict(strengths=[0.1, 0.1, 0.0]), "above 0"),
        (dict(strengths=[0.1, 0.1]), "3 in all"),
        (dict(strengths=[0.1, np.nan, 1]), "above 0"),
        (dict(strengths=[0.1, 2.0, 0.1], family=Family.LDA), "at most 1.0"),
        (dict(tol=0.0), "tolerance"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_many(**(dict(features=X, labels=LABELS, classes=CLASSES, strengths=[0.1] * 3) | arguments))
    with pytest.raises(ValueError, match=r"\[row, 10\].*\(5, 9\)"):
        many()[0].score(X[:5, :9])
