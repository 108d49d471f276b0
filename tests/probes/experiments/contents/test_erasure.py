"""Laws of concepts erased from a bank or a stream."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from lm2.intervals import Difference
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.runner import run
from lm2.tasks.babi import ask
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint
from probes.erasure.conditions import Bank, Place, StreamPlace
from probes.erasure.erasers import random_subspace
from probes.experiments.contents import erasure as erased
from probes.experiments.contents.erasure import Erasure, erasure


def encoded_prompts(checkpoint: Checkpoint) -> list[EncodedPrompt]:
    stories = [simulate(1, seed=seed, statements=4, questions=1).story for seed in range(6)]
    return [encode_prompt(checkpoint, ask(story, story.questions[-1])) for story in stories]


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """Toys are read in few documents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(erased, "_MOST", 60)
        yield


@pytest.fixture(scope="module")
def found(gated: Checkpoint, few: None) -> Erasure:
    return erasure(gated, encoded_prompts(gated))


def test_a_run_begins_the_question_with_every_slot_erased_by_its_own_eraser(gated: Checkpoint) -> None:
    asked = encoded_prompts(gated)[0]
    layer = min(gated.config.memory_layers)
    captures = (Capture(Site.BANK_PRE, layers=(layer,)),)
    clean = run(gated, replace(asked.spec, captures=captures))
    features = np.random.default_rng(0).standard_normal((50, 12)).astype(np.float32)
    erasers = [random_subspace(features, slot, seed=slot) for slot in range(5)]
    edited = run(gated, replace(asked.spec, captures=captures, interventions=Bank().unit(erasers, asked)))
    for segment in range(asked.segment + 1):
        before, after = (one.at(Site.BANK_PRE, segment=segment, layer=layer) for one in (clean, edited))
        by_hand = (
            np.stack([one.apply(row[None])[0] for one, row in zip(erasers, before)])
            if segment == asked.segment
            else before
        )
        np.testing.assert_allclose(after, by_hand, atol=1e-5)


def test_a_run_erases_the_stream_of_the_questions_segment_alone(gated: Checkpoint) -> None:
    asked = encoded_prompts(gated)[0]
    captures = (Capture(Site.RESID_POST, layers=(1,)),)
    clean = run(gated, replace(asked.spec, captures=captures))
    eraser = random_subspace(np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32), 4, seed=0)
    edited = run(
        gated, replace(asked.spec, captures=captures, interventions=StreamPlace(layer=1).unit([eraser], asked))
    )
    for segment in range(len(clean.segments)):
        before, after = (one.at(Site.RESID_POST, segment=segment, layer=1) for one in (clean, edited))
        np.testing.assert_allclose(after, eraser.apply(before) if segment == asked.segment else before, atol=1e-5)


def test_decodable_and_used_stand_side_by_side_with_their_controls(found: Erasure) -> None:
    nothing, least, control, large, projected, as_many, alone, knowing, somebody_else, others = found.conditions
    assert nothing.rank == nothing.moved == 0 and not nothing.effect.values.any()
    assert least.rank == control.rank and projected.rank == as_many.rank and least.moved <= large.moved + 0.1
    assert alone.rank <= others.rank <= least.rank
    assert knowing.rank == somebody_else.rank == 12 and knowing.moved > 0 < somebody_else.moved
    assert {condition.right.n for condition in found.conditions} == {6} and found.chance.n == 6
    assert all(
        word in found.verdict
        for word in (
            "decodable",
            "by guessing",
            "behind LEACE",
            "behind QLEACE",
            "a random subspace",
            "another concept",
            "best constant",
        )
    )


def test_a_report_without_the_models_answers_says_that_use_was_not_tested(gated: Checkpoint) -> None:
    documents: list[None] = []
    found = erasure(
        gated, encoded_prompts(gated), StreamPlace(layer=2), use=False, on_document=lambda: documents.append(None)
    )
    assert found.verdict.endswith("use not tested") and len(documents) == found.documents
    assert all(condition.right is condition.effect is None for condition in found.conditions)


def test_a_concept_is_used_where_answers_suffer_more_than_by_either_control(found: Erasure) -> None:
    worse, same = (
        Difference(n=6, groups=6, mean=-0.5, low=-0.6, high=-0.4),
        Difference(n=6, groups=6, mean=0.0, low=-0.1, high=0.1),
    )
    assert "; used (" in replace(found, beyond_random=worse, beyond_other=worse).verdict
    for one, other in ((worse, same), (same, worse)):
        assert "; no use shown (" in replace(found, beyond_random=one, beyond_other=other).verdict


@pytest.mark.parametrize("place", [Bank(), StreamPlace(layer=0)])
def test_both_places_of_a_model_with_memory_tokens_can_be_erased(rmt: Checkpoint, place: Place) -> None:
    assert len(erasure(rmt, encoded_prompts(rmt)[:2], place).conditions) == (10 if isinstance(place, Bank) else 9)


def test_questions_that_ask_for_nobody_are_refused(gated: Checkpoint) -> None:
    story = simulate(6, seed=0).story
    with pytest.raises(ValueError, match="asks for nobody's place"):
        erasure(gated, [encode_prompt(gated, ask(story, story.questions[-1]))])
