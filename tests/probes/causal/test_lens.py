"""Laws of probes.causal.lens and probes.experiments.contents.decoding: what slots say, and whether it is the answer."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Backend, models
from toys import REMEMBERING

from lm2.model.config import LM2Config
from lm2.tasks.babi import ask
from lm2.tasks.encoded_prompt import encode_prompt
from lm2.tasks.simulator import simulate
from lm2.text.tokens import Tokenizer
from lm2.weights.checkpoint import Checkpoint
from probes.causal.lens import decoding, read_out
from probes.experiments.contents.decoding import decode


def bank_of(checkpoint: Checkpoint, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((checkpoint.config.slots, checkpoint.config.slot_dim))


def decoded(checkpoint: Checkpoint, bank: np.ndarray, candidates, truth: int, other: np.ndarray | None = None):
    weights = np.linspace(0, 1, len(bank))
    other = bank if other is None else other
    return decoding(
        checkpoint,
        bank,
        max(checkpoint.config.memory_layers),
        weights=weights,
        candidates=candidates,
        truth=truth,
        other=other,
        random=7,
    )


@pytest.fixture(params=REMEMBERING)
def remembering(request: pytest.FixtureRequest) -> Checkpoint:
    return request.getfixturevalue(request.param)


def test_ranks_are_the_places_in_what_a_slot_says(remembering: Checkpoint) -> None:
    bank, truth = bank_of(remembering), 17
    said = read_out(
        remembering, bank, max(remembering.config.memory_layers), top=remembering.config.d_vocab, random=4, seed=0
    ).tokens
    found = decoded(remembering, bank, (3, 200, truth), truth)
    for slot, tokens in enumerate(said.tolist()):
        assert found.vocabulary_rank[slot] == tokens.index(truth) + 1
        assert found.rank[slot] == 1 + sum(tokens.index(other) < tokens.index(truth) for other in (3, 200))
    assert found.most_read == len(bank) - 1 and found.random_rank.shape == (7,)


def test_among_all_tokens_the_candidates_rank_is_the_vocabularys(remembering: Checkpoint) -> None:
    found = decoded(remembering, bank_of(remembering), range(remembering.config.d_vocab), 17)
    assert np.array_equal(found.rank, found.vocabulary_rank)


def test_another_storys_slots_are_read_the_same_way(remembering: Checkpoint) -> None:
    own, other = bank_of(remembering), bank_of(remembering, 1)
    found, swapped = (
        decoded(remembering, own, (3, 17, 200), 17, other),
        decoded(remembering, other, (3, 17, 200), 17, own),
    )
    assert np.array_equal(found.other_rank, swapped.rank) and np.array_equal(found.rank, swapped.other_rank)


def test_a_slot_that_is_an_answer_less_another_says_the_answer(rmt: Checkpoint) -> None:
    with torch.inference_mode():
        slot = (rmt.model.unembed.weight[17] - rmt.model.unembed.weight[3]).numpy()
    bank = np.tile(slot, (rmt.config.slots, 1))
    assert (decoded(rmt, bank, (3, 17), 17).rank == 1).all() and (decoded(rmt, bank, (3, 17), 3).rank == 2).all()


def test_a_slot_that_says_nothing_puts_the_truth_last(rmt: Checkpoint) -> None:
    nothing = np.zeros((rmt.config.slots, rmt.config.slot_dim))
    assert (decoded(rmt, nothing, (3, 17, 200), 17).rank == 3).all()


def test_what_cannot_be_decoded_is_refused(gated: Checkpoint) -> None:
    bank, last = bank_of(gated), {"candidates": (3, 17), "truth": 17}
    weights = np.ones(len(bank))
    with pytest.raises(ValueError, match="block 1 has no memory"):
        decoding(gated, bank, 1, weights=weights, other=bank, **last)
    with pytest.raises(ValueError, match="the bank must be"):
        decoding(gated, bank, 0, weights=weights, other=bank[1:], **last)
    with pytest.raises(ValueError, match="one for each of 5 slots"):
        decoding(gated, bank, 0, weights=weights[1:], other=bank, **last)
    for candidates in ((3, 200), (17, 17)):
        with pytest.raises(ValueError, match="the truth 17 among them"):
            decoding(gated, bank, 0, weights=weights, other=bank, candidates=candidates, truth=17)


@pytest.fixture(scope="module")
def prompts() -> list:
    stories = [simulate(1, seed=seed).story for seed in range(4)]
    return [ask(story, question) for story in stories for question in story.questions[-2:]]


def test_many_questions_are_decoded_through_every_block_with_a_memory(remembering: Checkpoint, prompts: list) -> None:
    heard, encoded_prompts = [], [encode_prompt(remembering, prompt) for prompt in prompts]
    found = decode(remembering, encoded_prompts, on_document=lambda: heard.append(1))
    assert len(heard) == len(encoded_prompts) and tuple(one.layer for one in found) == remembering.config.memory_layers
    assert [one.most_read for one in decode(remembering, encoded_prompts)] == [one.most_read for one in found]
    for one in found:
        assert one.candidates == len({asked.answer_ids[0] for asked in encoded_prompts})
        assert (one.most_read.n, one.most_read.groups) == (len(encoded_prompts), 4)
        for first in (one.random_slot, one.other_story, one.random_direction):
            assert first.behind.mean == pytest.approx(one.most_read.accuracy - first.rate.accuracy)


def test_one_slot_that_no_segment_changes_says_the_same_for_every_story(
    build: Callable[..., Checkpoint], gated_config: LM2Config, prompts: list
) -> None:
    single = build(replace(gated_config, slots=1), 2, "single")
    with torch.no_grad():
        for layer in single.config.memory_layers:
            memory = single.model.blocks[layer].mem
            for gate, bias in ((memory.in_gate, -1e4), (memory.forget_gate, 1e4)):
                gate.bias.fill_(bias)
    for one in decode(single, [encode_prompt(single, prompt) for prompt in prompts]):
        assert one.most_read == one.random_slot.rate == one.other_story.rate


def test_slots_of_one_story_or_of_no_memory_are_not_compared(
    gated: Checkpoint, plain: Checkpoint, prompts: list
) -> None:
    with pytest.raises(ValueError, match="at least 2 stories and 2 answers, not 1 and"):
        decode(gated, [encode_prompt(gated, prompt) for prompt in prompts[:2]])
    with pytest.raises(ValueError, match="a model of memory kind 'none' has no slots"):
        decode(plain, [encode_prompt(plain, prompt) for prompt in prompts])


def test_answers_that_begin_with_the_same_token_are_not_told_apart_by_it(gated: Checkpoint) -> None:
    letters = Tokenizer(
        Backend(
            models.BPE(vocab={piece: at for at, piece in enumerate("abcdefghijklmnopqrstuvwxyzDJMSW ?.")}, merges=[])
        )
    )
    own, prompts = replace(gated, tokenizer=letters), []
    for seed in range(6):
        story = simulate(1, seed=seed, statements=3, questions=1).story
        prompts.append(ask(story, story.questions[-1]))
    with pytest.raises(ValueError, match="some of the answers begin with the same token"):
        decode(own, [encode_prompt(own, prompt) for prompt in prompts])
