"""Laws of lm2.runs.likelihood: streaming a text gives what a run of all of it gives, whoever shares the reading."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lm2.model.config import GatePooling, LM2Config, MemoryKind, SegmentEnd
from lm2.model.lm2 import LM2
from lm2.runs.likelihood import Likelihood, log_likelihoods, perplexity
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint

CONTEXT = "Mary moved to the bathroom. John went to the hallway. Zoë 🙂 took the apple. Where is"
CONTINUATIONS = (
    " Mary",
    " John? hallway.",
    " the kitchen. Mary travelled to the garden. Where is Mary? garden",
    "🙂",
    " Mary? bathroom",
)


def by_run(checkpoint: Checkpoint, context: str, continuation: str, length: int | None = None) -> Likelihood:
    """The same from the logits of a run of the whole text, tokens found by their characters."""
    text = context + continuation
    trace = run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text, segment_length=length))
    places = [at for at, (left, right) in enumerate(trace.tokens.spans) if at and right > len(context) and right > left]
    rows = trace.logits[[place - 1 for place in places]].astype(np.float64)
    rows -= rows.max(-1, keepdims=True)
    ids = [trace.tokens.ids[place] for place in places]
    summed = sum(row[token] - math.log(np.exp(row).sum()) for row, token in zip(rows, ids))
    return Likelihood(log_probability=float(summed), greedy=list(rows.argmax(-1)) == ids, tokens=len(ids))


def agree(checkpoint: Checkpoint, pairs: list[tuple[str, str]], length: int | None = None) -> None:
    for found, (context, continuation) in zip(
        log_likelihoods(checkpoint, pairs, segment_length=length), pairs, strict=True
    ):
        wanted = by_run(checkpoint, context, continuation, length)
        assert found.log_probability == pytest.approx(wanted.log_probability, abs=1e-4)
        assert (found.greedy, found.tokens) == (wanted.greedy, wanted.tokens)


def test_streamed_continuations_are_worth_what_a_run_of_the_whole_text_says(checkpoint: Checkpoint) -> None:
    agree(checkpoint, [(CONTEXT, continuation) for continuation in CONTINUATIONS])


@pytest.mark.parametrize("window", [7, 14, None])
@pytest.mark.parametrize("kind", ["plain", "gated"])
def test_this_holds_however_far_tokens_may_look_back(
    build: Callable[..., Checkpoint], request: pytest.FixtureRequest, kind: str, window: int | None
) -> None:
    own = build(replace(request.getfixturevalue(f"{kind}_config"), attention_window=window), 5)
    agree(own, [(CONTEXT, continuation) for continuation in CONTINUATIONS])


def test_this_holds_where_segments_end_with_sentences_and_where_gates_pool_over_prefixes(
    build: Callable[..., Checkpoint], gated_config: LM2Config, release_config: LM2Config
) -> None:
    pairs = [(CONTEXT, continuation) for continuation in CONTINUATIONS]
    agree(build(replace(gated_config, segment_end=SegmentEnd.SENTENCE), 6), pairs)
    agree(build(replace(release_config, gate_pooling=GatePooling.PREFIX), 6), pairs)


@pytest.mark.parametrize("length", [1, 3, 100])
def test_this_holds_for_any_segment_length(gated: Checkpoint, plain: Checkpoint, length: int) -> None:
    for checkpoint in (gated, plain):
        agree(checkpoint, [(CONTEXT, " Mary"), (CONTEXT, " John? garden.")], length)


def test_a_context_may_be_empty_one_token_or_end_in_a_break(checkpoint: Checkpoint) -> None:
    agree(checkpoint, [("", "Mary moved to the garden."), ("M", "ary moved")])
    agree(checkpoint, [("Mary moved.\f", "Where is Mary?"), ("Mary moved.", "\fWhere")])


def test_answers_come_in_the_order_of_the_pairs_and_do_not_depend_on_the_other_pairs(checkpoint: Checkpoint) -> None:
    pairs = [
        (CONTEXT, " Mary"),
        ("Where is", " John?"),
        (CONTEXT, " John? hallway."),
        ("Where is", " Mary"),
        (CONTEXT, " Mary"),
    ]
    together = log_likelihoods(checkpoint, pairs)
    for found, pair in zip(together, pairs, strict=True):
        assert found.log_probability == pytest.approx(log_likelihoods(checkpoint, [pair])[0].log_probability, abs=1e-5)
    assert together[0] == together[4]
    assert log_likelihoods(checkpoint, []) == []


def fed(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, pairs: list[tuple[str, str]]) -> int:
    """How many segments the model was given."""
    calls: list[int] = []
    segment = LM2.segment

    def counted(self: LM2, *arguments: object, **named: object) -> object:
        calls.append(1)
        return segment(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(LM2, "segment", counted)
        log_likelihoods(checkpoint, pairs)
    return len(calls)


def test_one_context_is_read_once_for_all_its_continuations(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = [(f"{CONTEXT}. {CONTEXT}", f" {letter}") for letter in "ABCD"]
    alone = fed(checkpoint, monkeypatch, letters[:1])
    assert alone > 4
    assert fed(checkpoint, monkeypatch, letters) <= alone + 3 * 2, "a letter reaches into two segments at most"
    assert fed(checkpoint, monkeypatch, [letters[0]] * 4) == alone


def test_one_token_continuations_cost_one_reading_where_no_gate_sees_the_future(
    gated: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [(f"{CONTEXT} Mary?", f" {place}") for place in ("garden", "office", "kitchen")]
    assert {len(gated.tokenizer.encode(answer)) for _, answer in answers} == {1}
    assert fed(gated, monkeypatch, answers) == fed(gated, monkeypatch, answers[:1])


def test_a_likelihood_is_greedy_exactly_when_it_is_what_the_model_would_have_said(checkpoint: Checkpoint) -> None:
    trace = run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=CONTEXT))
    best = checkpoint.tokenizer.piece(int(trace.logits[-1].argmax()))
    for continuation in (best, " garden"):
        found = log_likelihoods(checkpoint, [(CONTEXT, continuation)])[0]
        assert found.greedy is by_run(checkpoint, CONTEXT, continuation).greedy
        assert found.log_probability < 0


def test_perplexity_counts_every_token_but_the_first(checkpoint: Checkpoint, text: str) -> None:
    found, wanted = perplexity(checkpoint, text), by_run(checkpoint, "", text)
    assert found.tokens == wanted.tokens == len(checkpoint.tokenizer.encode(text)) - 1
    assert found.nats_per_token == pytest.approx(-wanted.log_probability / wanted.tokens, abs=1e-4)
    assert found.bits_per_byte * len(text.encode("utf-8")) * math.log(2) == pytest.approx(
        found.nats_per_token * found.tokens
    )
    assert len(text.encode("utf-8")) > len(text)


def test_uniform_predictions_cost_the_logarithm_of_the_vocabulary(
    build: Callable[..., Checkpoint], gated_config: LM2Config, text: str
) -> None:
    own = build(gated_config, 8)
    with torch.inference_mode(False), torch.no_grad():
        own.model.unembed.weight.zero_()
    assert perplexity(own, text).nats_per_token == pytest.approx(math.log(gated_config.d_vocab), abs=1e-5)


@pytest.mark.parametrize("continuation", ["", "\f"])
def test_a_continuation_without_a_token_to_predict_is_refused(gated: Checkpoint, continuation: str) -> None:
    with pytest.raises(ValueError, match="nothing in it can be predicted"):
        log_likelihoods(gated, [("Mary", continuation)])
    with pytest.raises(ValueError, match="nothing in it can be predicted"):
        log_likelihoods(gated, [("", "M")])


def test_what_a_run_refuses_is_refused(gated: Checkpoint, release: Checkpoint) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        log_likelihoods(gated, [("", "")])
    with pytest.raises(ValueError, match="at least 1 token, not 0"):
        perplexity(gated, "Mary moved", segment_length=0)
    with pytest.raises(ValueError, match="16 tokens long"):
        perplexity(release, "Mary moved", segment_length=8)
    assert release.config.memory is MemoryKind.RELEASE


def test_reading_leaves_no_trace_on_the_model(checkpoint: Checkpoint, text: str) -> None:
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    perplexity(checkpoint, text)
    log_likelihoods(checkpoint, [(CONTEXT, " Mary"), (CONTEXT, " John")])
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())
