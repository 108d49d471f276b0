"""Laws of lm2.runs.generation: decoding with a cache equals full recomputation."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lm2.model.config import GatePooling, MemoryKind, SegmentEnd
from lm2.runs.generation import Generation, generate
from lm2.runs.runner import prepare, run
from lm2.runs.spec import RunSpec
from lm2.text.segments import pad, split_segments
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
