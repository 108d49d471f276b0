"""Laws of lm2.runs.generation: decoding with a cache equals full recomputation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lm2.model.config import GatePooling, MemoryKind, SegmentEnd
from lm2.model.sites import Site
from lm2.runs.donors import Initial, Mean, Patch
from lm2.runs.generation import Generation, generate
from lm2.runs.interventions import (
    BankEdit,
    Carry,
    Edit,
    Freeze,
    Intervention,
    MemoryOff,
    Persistence,
    Reset,
    WriteBlock,
)
from lm2.runs.loop import run_segments
from lm2.runs.operations import Add, Scale, Set
from lm2.runs.runner import prepare, run, source_activations
from lm2.runs.spec import RunSpec
from lm2.text.segments import as_segments, pad, split_segments
from lm2.text.sequence import TokenSequence
from lm2.weights.checkpoint import Checkpoint

PROMPT = "Mary moved to the office.\fJohn went to the garden. Where"


@torch.inference_mode()
def recomputed(checkpoint: Checkpoint, made: Generation, length: int) -> np.ndarray:
    """For each new token, the logits it was chosen from, every time from the whole text and a fresh bank."""
    _, segments = prepare(checkpoint, RunSpec(checkpoint=checkpoint.name, text=made.prompt.text, segment_length=length))
    lookback = checkpoint.config.lookback
    full = checkpoint.config.slots if checkpoint.config.memory is MemoryKind.RELEASE else None
    rows = []
    for count in range(len(made.ids)):
        last = [*segments[-1].ids, *made.ids[:count]]
        pieces = tuple(map(checkpoint.tokenizer.piece, last))
        written = TokenSequence(text="", ids=tuple(last), pieces=pieces, spans=((0, 0),) * len(last))
        cuts = [
            segment.ids for segment in (*segments[:-1], *split_segments(written, length, checkpoint.config.segment_end))
        ]
        bank = cache = None
        for cut in cuts:
            ids, non_padding = pad([cut], full)
            out = checkpoint.model.segment(ids, bank, cache=cache, non_padding=non_padding)
            bank, cache = out.bank, out.cache if lookback is None else out.cache.last(lookback) if lookback else None
        rows.append(out.logits[0, len(cuts[-1]) - 1].numpy())
    return np.stack(rows)


def agrees(checkpoint: Checkpoint, tokens: int, length: int | None = None) -> None:
    made = generate(checkpoint, PROMPT, max_tokens=tokens, segment_length=length)
    assert len(made.ids) == tokens
    np.testing.assert_allclose(
        made.logits, recomputed(checkpoint, made, length or checkpoint.config.segment_length), atol=5e-5
    )
    assert made.ids == tuple(int(token) for token in made.logits.argmax(-1))
    assert made.text == checkpoint.tokenizer.decode(made.ids)


@pytest.mark.parametrize("kind", ["plain", "gated"])
@pytest.mark.parametrize("segments_seen", [1, 2, None])
def test_greedy_decoding_equals_full_recomputation_over_segment_boundaries(
    build: Callable[..., Checkpoint], request: pytest.FixtureRequest, kind: str, segments_seen: int | None
) -> None:
    config = request.getfixturevalue(f"{kind}_config")
    window = None if segments_seen is None else segments_seen * config.segment_length
    agrees(build(replace(config, attention_window=window), 1), 17)


@pytest.mark.parametrize("pooling", list(GatePooling))
@pytest.mark.parametrize("window", [16, None])
def test_decoding_in_the_released_arithmetic_equals_full_recomputation(
    build: Callable[..., Checkpoint], release_config, pooling: GatePooling, window: int | None
) -> None:
    agrees(build(replace(release_config, gate_pooling=pooling, attention_window=window), 3), 14)


@pytest.mark.parametrize("seed", range(4))
def test_decoding_that_cuts_at_sentences_equals_full_recomputation(
    build: Callable[..., Checkpoint], gated_config, seed: int
) -> None:
    agrees(build(replace(gated_config, segment_end=SegmentEnd.SENTENCE), seed), 17)


@pytest.mark.parametrize("length", [1, 3])
def test_decoding_with_another_segment_length_equals_full_recomputation(gated: Checkpoint, length: int) -> None:
    agrees(gated, 7, length)


def test_writing_ends_with_the_token_that_completes_what_it_was_to_stop_at(checkpoint: Checkpoint) -> None:
    whole = generate(checkpoint, PROMPT, max_tokens=12)
    stop = whole.text[len(whole.text) // 2 :][:2]
    made = generate(checkpoint, PROMPT, max_tokens=12, until=("nowhere in it", stop))
    starts = [whole.ids[:count] for count in range(1, 13)]
    assert made.ids == next((ids for ids in starts if stop in checkpoint.tokenizer.decode(ids)), whole.ids)


def test_the_first_new_token_is_what_a_run_predicts(checkpoint: Checkpoint, text: str) -> None:
    made = generate(checkpoint, text, max_tokens=1)
    np.testing.assert_allclose(
        made.logits[0], run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text)).logits[-1], atol=1e-5
    )


def test_one_seed_gives_one_text_and_another_gives_another(gated: Checkpoint) -> None:
    def sample(seed: int) -> tuple[int, ...]:
        return generate(
            gated, PROMPT, max_tokens=10, temperature=1.0, generator=torch.Generator().manual_seed(seed)
        ).ids

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(3)}) > 1


def test_sampling_at_a_low_temperature_is_nearly_greedy(gated: Checkpoint) -> None:
    greedy = generate(gated, PROMPT, max_tokens=10)
    cold = generate(gated, PROMPT, max_tokens=10, temperature=1e-6, generator=torch.Generator().manual_seed(0))
    assert cold.ids == greedy.ids


def test_generating_leaves_no_trace_in_the_checkpoint(checkpoint: Checkpoint, text: str) -> None:
    before = generate(checkpoint, text, max_tokens=3)
    generate(checkpoint, "Where is Mary?", max_tokens=9)
    after = generate(checkpoint, text, max_tokens=3)
    assert np.array_equal(before.logits, after.logits)
    with pytest.raises(ValueError, match="read-only"):
        after.logits[0] = 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"text": "", "max_tokens": 1}, "at least one token"),
        ({"text": "a", "max_tokens": 0}, "max_tokens >= 1.*not 0"),
        ({"text": "a", "max_tokens": 1, "temperature": -1.0}, "temperature >= 0.*-1.0"),
        ({"text": "a", "max_tokens": 1, "temperature": 0.5}, "a generator; not 1, 0.5, None"),
        ({"text": "a", "max_tokens": 1, "segment_length": 0}, "at least 1 token, not 0"),
    ],
)
def test_impossible_requests_are_refused_with_their_numbers(gated: Checkpoint, arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        generate(gated, **arguments)


# Interventions


OTHER = "Sandra went back to the kitchen. Daniel journeyed to the bathroom. Where is Daniel? bathroom. Mary moved."


def interventions(checkpoint: Checkpoint) -> dict[str, Intervention]:
    """One of each kind that the model allows, in segments of the prompt, in new ones, and in all."""
    config = checkpoint.config
    direction = tuple(np.sin(np.arange(1.0, 1 + config.d_model)))
    add, patch = Add(direction=direction, by=3.0), Patch(text=OTHER, segment=-1)
    changes: dict[str, Intervention] = {
        "a direction": Edit(site=Site.RESID_MID, operation=add),
        "a direction in one block at some tokens": Edit(
            site=Site.RESID_POST, operation=add, layers=(1,), tokens=(3, 9, 15, 16, 20)
        ),
        "a mean": Edit(site=Site.MLP_POST, operation=Mean(texts=(OTHER, PROMPT), segment=0)),
        "a mean of like segments": Edit(site=Site.ATTN_Z, operation=Mean(texts=(OTHER * 2,)), heads=(1,)),
        "attention scores": Edit(site=Site.ATTN_SCORES, operation=Scale(by=0.3), heads=(0, 2)),
        "an attention pattern": Edit(site=Site.ATTN_PATTERN, operation=Scale(by=0.5), layers=(0,)),
        "a patch of a closed segment": Edit(site=Site.MLP_OUT, operation=Patch(text=OTHER, segment=1), segments=(0,)),
    }
    if not config.memory_layers:
        return changes
    design = config.memory.design
    last = len(prepare(checkpoint, RunSpec(checkpoint=checkpoint.name, text=PROMPT))[1]) - 1
    changes |= {
        "freeze": Freeze(),
        "freeze later": Freeze(segment=last),
        "reset": Reset(segment=last),
        "reset later": Reset(segment=last + 1),
        "carry": Carry(texts=(OTHER,)),
        "slots off": BankEdit(operation=Initial(), slots=(1, 3)),
        "a bank scaled in each segment": BankEdit(operation=Scale(by=1.5)),
        "a bank patched later": BankEdit(operation=patch, segments=(last, last + 1)),
        "a bank for reading": BankEdit(operation=Initial(), persistence=Persistence.READ_ONLY),
        "memory off": MemoryOff(),
        "memory off later": MemoryOff(segments=(last + 1,), layers=(0,)),
        "a direction for reading": Edit(site=Site.RESID_MID, operation=add, persistence=Persistence.READ_ONLY),
        "a direction for reading some tokens": Edit(
            site=Site.RESID_MID, operation=add, tokens=(2, 11, 17), persistence=Persistence.READ_ONLY
        ),
        "a bank inside a block": Edit(site=Site.BANK_POST, operation=Scale(by=0.7)),
        "a read pattern": Edit(site=Site.READ_PATTERN, operation=Scale(by=0.2), slots=(0, 2)),
    }
    if Site.READ_V in design.sites:
        changes["values read"] = Edit(site=Site.READ_V, operation=patch)
    if Site.GATE_IN in design.sites:
        changes["a gate"] = Edit(site=Site.GATE_IN, operation=Set(value=0.5), segments=(last, last + 1))
    if design.write_block_refused is None:
        changes["tokens that cannot write"] = WriteBlock(tokens=tuple(range(2, 11)))
        changes["a segment that cannot write"] = WriteBlock(tokens=tuple(range(7, 24)))
    return changes


@torch.inference_mode()
def is_recomputed(checkpoint: Checkpoint, *changes: Intervention, tokens: int = 10) -> Generation:
    """The generation, after a check that a run with the same interventions predicts each of its tokens: of the finished
    text, or of the text so far where later tokens change what earlier ones predict."""
    made = generate(checkpoint, PROMPT, max_tokens=tokens, interventions=changes)
    spec = RunSpec(checkpoint=checkpoint.name, text=PROMPT, interventions=changes)
    _, (*closed, last) = prepare(checkpoint, spec, tokens)
    sources = source_activations(checkpoint, spec, tokens)

    def predicted(count: int) -> np.ndarray:
        """What the prompt with `count` new tokens predicts, row by row."""
        ids = (*last.ids, *made.ids[:count])
        pieces = tuple(map(checkpoint.tokenizer.piece, ids))
        text = TokenSequence(text="", ids=ids, pieces=pieces, spans=((0, 0),) * len(ids))
        cuts = split_segments(text, checkpoint.config.segment_length, checkpoint.config.segment_end)
        segments = as_segments([segment.ids for segment in (*closed, *cuts)])
        outputs = run_segments(checkpoint.model, segments, spec, {}, sources=sources)
        return np.concatenate([output.logits[0, : len(segment.ids)].float() for segment, output, _ in outputs])

    if checkpoint.config.causal:
        np.testing.assert_allclose(made.logits, predicted(tokens - 1)[-tokens:], atol=1e-5, rtol=1e-4)
    else:
        for count in range(0, tokens, 3):
            np.testing.assert_allclose(made.logits[count], predicted(count)[-1], atol=1e-5, rtol=1e-4)
    assert made.ids == tuple(int(token) for token in made.logits.argmax(-1))
    return made


def test_each_new_token_is_what_a_run_with_the_same_interventions_predicts(precise: Checkpoint) -> None:
    clean = generate(precise, PROMPT, max_tokens=10)
    changes = list(interventions(precise).items())
    for name, change in changes if precise.config.causal else changes[::3]:  # one that reads segments whole is slow
        made = is_recomputed(precise, change)
        assert not np.allclose(made.logits, clean.logits, atol=1e-4), f"{name} changes nothing"


@pytest.mark.parametrize("window", [14, None])
def test_tokens_that_attend_to_earlier_segments_are_those_of_a_run_with_the_same_interventions(
    build: Callable[..., Checkpoint], gated_config, window: int | None
) -> None:
    checkpoint = build(replace(gated_config, attention_window=window), 1)
    checkpoint = replace(checkpoint, model=checkpoint.model.double())
    changes = interventions(checkpoint)
    for name in ("a direction for reading", "a bank for reading", "attention scores"):
        is_recomputed(checkpoint, changes[name])
    names = ("a direction for reading some tokens", "slots off", "tokens that cannot write", "freeze later")
    is_recomputed(checkpoint, *(changes[name] for name in names))


def test_a_text_that_is_cut_at_sentences_is_written_under_interventions(
    build: Callable[..., Checkpoint], gated_config
) -> None:
    checkpoint = build(replace(gated_config, segment_end=SegmentEnd.SENTENCE), 2)
    for change in (Freeze(segment=5), Reset(segment=4), WriteBlock(tokens=(12, 25)), BankEdit(operation=Scale(by=2.0))):
        is_recomputed(checkpoint, change, tokens=16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Freeze(segment=5), "no segment 5; this run has segments 0..4"),
        (WriteBlock(tokens=(31,)), "no token 31; this run has tokens 0..30"),
        (Edit(site=Site.MLP_OUT, operation=Patch(text=OTHER, segment=1)), "ends.* segment 2 has none"),
        (Edit(site=Site.READ_PATTERN, operation=Patch(text=OTHER, segment=1), segments=(3,)), "READ_PATTERN lines up"),
        (BankEdit(operation=Patch(text="Mary.")), "no segment 1 in the donor 'Mary.'"),
    ],
)  # fmt: skip
def test_interventions_of_what_the_finished_text_cannot_have_are_refused(
    gated: Checkpoint, change: Intervention, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generate(gated, PROMPT, max_tokens=16, interventions=(change,))
