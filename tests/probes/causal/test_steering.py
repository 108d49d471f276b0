"""Laws of probes.causal.steering: a direction raises one word against another, as strongly as was said."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lm2.model.sites import Site
from lm2.runs.generation import generate
from lm2.runs.interventions import Freeze
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from probes.causal.steering import Steering

TEXT = "Mary moved to the garden. John went to the office.\fWhere is Mary?"
STEERING = Steering(toward="garden", away="office", layer=2, strength=1.5)


@pytest.fixture
def spec(gated) -> RunSpec:
    return RunSpec(checkpoint=gated.name, text=TEXT, interventions=(Freeze(segment=1),))


def test_what_is_added_has_the_norm_that_was_said_and_only_new_tokens_have_it(gated, spec) -> None:
    trace = run(gated, STEERING.measured(spec))
    direction, other = STEERING.direction(gated), STEERING.random_direction(gated)
    assert np.linalg.norm(direction) == pytest.approx(1) == pytest.approx(np.linalg.norm(other))
    freeze, edit = STEERING.steered(spec, trace, direction, 6).interventions
    last = len(trace.tokens) - 1
    norms = np.linalg.norm(trace.across(Site.RESID_POST, layer=2), axis=-1)
    assert freeze == Freeze(segment=1) and edit.tokens == tuple(range(last, last + 6)) and edit.layers == (2,)
    assert len(norms) == last + 1 and edit.operation.by == pytest.approx(1.5 * np.median(norms))


def test_in_the_last_block_the_logit_difference_moves_as_the_final_norm_says(gated) -> None:
    spec = RunSpec(checkpoint=gated.name, text=TEXT)
    steering = replace(STEERING, layer=gated.config.n_layers - 1)
    toward, away = steering.token_ids(gated)
    trace = run(gated, steering.measured(spec))
    steered = steering.steered(spec, trace, steering.direction(gated), 1)
    plain, moved = (generate(gated, TEXT, max_tokens=1, interventions=each.interventions) for each in (spec, steered))
    by = steered.interventions[-1].operation.by * torch.tensor(steering.direction(gated), dtype=torch.float32)
    stream = torch.tensor(trace.across(Site.RESID_POST, layer=steering.layer)[-1])
    with torch.inference_mode():
        expected = gated.model.unembed(gated.model.ln_final(stream + by))
    np.testing.assert_allclose(moved.logits[0], expected, atol=1e-4)
    assert moved.logits[0][toward] - moved.logits[0][away] > plain.logits[0][toward] - plain.logits[0][away]


def test_the_other_way_is_the_same_direction_backwards(gated) -> None:
    back = replace(STEERING, toward="office", away="garden")
    np.testing.assert_allclose(STEERING.direction(gated), -back.direction(gated))


def test_the_random_direction_follows_from_its_seed(gated) -> None:
    first, second = (replace(STEERING, seed=seed).random_direction(gated) for seed in (0, 1))
    np.testing.assert_array_equal(first, STEERING.random_direction(gated))
    assert abs(first @ second) < 0.9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"toward": "gardenoffice"}, "'gardenoffice' is 3 tokens of"),
        ({"toward": "office"}, "leads from one word to another, and both are 'office'"),
    ],
)
def test_words_that_have_no_direction_are_refused(gated, change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(STEERING, **change).direction(gated)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"away": ""}, "away"),
        ({"site": Site.MLP_POST}, "site must be one of RESID_POST, MEM_OUT, not MLP_POST"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_steering_that_cannot_be_is_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(STEERING, **change)
