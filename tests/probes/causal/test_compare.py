"""Laws of probes.causal.compare: two runs of one text, token by token."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lm2.runs.interventions import MemoryOff
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from probes.causal import compare as module
from probes.causal.compare import compare


@pytest.fixture(scope="module")
def runs(gated, text):
    spec = RunSpec(checkpoint=gated.name, text=text)
    return run(gated, spec), run(gated, replace(spec, interventions=(MemoryOff(),)))


def _chances(trace, token: int) -> np.ndarray:
    weights = np.exp(trace.logits[token].astype(np.float64))
    return weights / weights.sum()


def test_a_run_beside_itself_has_not_moved(runs) -> None:
    found = compare(runs[0], runs[0])
    assert not found.kl.any()
    assert not found.change[:-1].any()


def test_each_token_has_the_divergence_of_its_two_distributions(runs) -> None:
    found = compare(*runs)
    for token in (0, 9, len(found.kl) - 1):
        assert found.kl[token] == pytest.approx(
            stats.entropy(_chances(runs[0], token), _chances(runs[1], token)), abs=1e-12
        )
    assert found.kl.max() > 1e-3


def test_the_change_is_that_of_the_token_that_follows(runs) -> None:
    found = compare(*runs)
    follows = runs[0].tokens.ids
    for token in (0, 9, len(follows) - 2):
        one, other = (_chances(trace, token)[follows[token + 1]] for trace in runs)
        assert found.change[token] == pytest.approx(np.log(other / one))
    assert np.isnan(found.change[-1])


def test_it_does_not_matter_how_many_tokens_are_compared_at_once(runs, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare(*runs)
    monkeypatch.setattr(module, "_ROWS", 5)
    assert np.array_equal(compare(*runs).kl, whole.kl)
    assert np.array_equal(compare(*runs).change, whole.change, equal_nan=True)


def test_the_tokens_that_moved_most_come_first(runs) -> None:
    found = compare(*runs)
    top = found.top(4)
    assert len(top) == 4
    assert list(found.kl[top]) == sorted(found.kl, reverse=True)[:4]
    assert list(compare(runs[0], runs[0]).top(3)) == [0, 1, 2]


def test_nobody_can_change_what_was_found(runs) -> None:
    found = compare(*runs)
    for values in (found.kl, found.change):
        with pytest.raises(ValueError):
            values[0] = 1


def test_runs_of_different_texts_are_refused_with_both_sizes(runs, gated) -> None:
    other = run(gated, RunSpec(checkpoint=gated.name, text="Mary moved."))
    with pytest.raises(ValueError, match=f"{len(runs[0].tokens)} and {len(other.tokens)} tokens"):
        compare(runs[0], other)
