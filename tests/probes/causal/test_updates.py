"""Laws of probes.causal.updates: a walk is a generation with its banks kept, and between two readings nothing differs
but the bank."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from toys import REMEMBERING

from lm2.model.config import SegmentEnd
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.donors import Initial
from lm2.runs.generation import generate
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
from lm2.runs.operations import Add
from lm2.runs.runner import prepare, run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.cost import TooLargeError
from probes.causal.updates import TracedGeneration, divergence, generate_traced, reread

PROMPT = "Mary moved to the office. John went to the garden.\fWhere is Mary?"
TOKENS = 16


@pytest.fixture(scope="module", params=REMEMBERING)
def remembering(request: pytest.FixtureRequest) -> Checkpoint:
    """Each kind of model with a memory in turn."""
    return request.getfixturevalue(request.param)


def walked(checkpoint: Checkpoint, *changes: Intervention) -> TracedGeneration:
    spec = RunSpec(checkpoint=checkpoint.name, text=PROMPT, interventions=changes)
    return generate_traced(checkpoint, spec, tokens=TOKENS, layers=tuple(sorted(checkpoint.config.memory_layers)))


@pytest.fixture(scope="module")
def asked(remembering: Checkpoint) -> int:
    """The question's segment."""
    return len(prepare(remembering, RunSpec(checkpoint=remembering.name, text=PROMPT))[1]) - 1


@pytest.fixture(scope="module")
def on(remembering: Checkpoint) -> TracedGeneration:
    return walked(remembering)


@pytest.fixture(scope="module")
def off(remembering: Checkpoint, asked: int) -> TracedGeneration:
    """Nothing is written from the question on."""
    return walked(remembering, Freeze(segment=asked))


def test_a_walk_with_writes_on_is_the_generation(remembering: Checkpoint, on: TracedGeneration) -> None:
    whole = generate(remembering, PROMPT, max_tokens=TOKENS)
    assert on.ids == whole.ids
    np.testing.assert_allclose(on.logits, whole.logits, atol=5e-5)


def test_a_walk_under_interventions_is_the_generation_under_them(remembering: Checkpoint) -> None:
    direction = tuple(np.cos(np.arange(remembering.config.d_model)))
    changes = (
        Reset(segment=1),
        BankEdit(operation=Initial(), slots=(1,), persistence=Persistence.READ_ONLY),
        Edit(site=Site.RESID_MID, operation=Add(direction=direction)),
    )
    made, clean = walked(remembering, *changes), walked(remembering)
    whole = generate(remembering, PROMPT, max_tokens=TOKENS, interventions=changes)
    assert made.ids == whole.ids and not np.allclose(made.logits, clean.logits, atol=1e-3)
    np.testing.assert_allclose(made.logits, whole.logits, atol=5e-5)


def test_a_segment_whose_tokens_are_all_blocked_does_not_write(gated: Checkpoint) -> None:
    second = walked(gated).segments[1]
    made = walked(gated, WriteBlock(tokens=tuple(range(second.start, second.end))))
    assert [made.writes(segment) for segment in range(3)] == [True, False, True]
    assert np.array_equal(made.banks[1], made.banks[2]) and not np.array_equal(made.banks[2], made.banks[3])


def test_a_walk_cuts_at_sentences_as_generation_does(build: Callable[..., Checkpoint], gated_config) -> None:
    for seed in range(2):
        checkpoint = build(replace(gated_config, segment_end=SegmentEnd.SENTENCE, attention_window=None), seed)
        np.testing.assert_allclose(
            walked(checkpoint).logits, generate(checkpoint, PROMPT, max_tokens=TOKENS).logits, atol=5e-5
        )


@pytest.mark.parametrize("changes", [(), (Freeze(segment=1),), (WriteBlock(tokens=(5, 25)), MemoryOff(layers=(2,)))])
def test_banks_and_reads_are_those_of_one_run_over_the_finished_text(gated: Checkpoint, changes: tuple) -> None:
    made = walked(gated, *changes)
    spec = replace(made.spec, captures=tuple(map(Capture, (Site.BANK_PRE, Site.READ_PATTERN))))
    records: dict = {}
    with gated.lock:
        outputs = [output for _, output, _ in run_segments(gated.model, made.segments, spec, records)]
    kept = {(capture.site, place.segment, place.layer): value for (capture, place), value in records.items()}
    for segment in made.segments:
        np.testing.assert_allclose(
            made.banks[segment.index], kept[Site.BANK_PRE, segment.index, made.layers[0]], atol=1e-5
        )
    np.testing.assert_allclose(made.banks[-1], outputs[-1].bank[0].detach().numpy(), atol=1e-5)
    for step in range(len(made.ids)):
        segment = made.segments[made.segment_of(step)]
        for block, layer in enumerate(made.layers):
            whole = kept[Site.READ_PATTERN, segment.index, layer][:, made.predictor(step) - segment.start]
            np.testing.assert_allclose(made.reads[step, block], whole, atol=1e-5)


def test_with_writes_off_the_bank_stays_and_nothing_is_read_otherwise(
    remembering: Checkpoint, on: TracedGeneration, off: TracedGeneration, asked: int
) -> None:
    assert np.array_equal(on.banks[: asked + 1], off.banks[: asked + 1])
    assert all(np.array_equal(bank, off.banks[asked]) for bank in off.banks[asked:])
    assert not np.allclose(on.banks[asked + 1], off.banks[asked + 1])
    held = reread(remembering, on.prompt.ids[-3:], off.banks, layers=off.layers)
    assert not held.moved(asked, len(off.banks) - 1).any()
    assert [off.writes(at) for at in range(len(off.segments))] == [at < asked for at in range(len(off.segments))]
    updated = reread(remembering, on.prompt.ids[-3:], on.banks, layers=on.layers)
    assert updated.moved(asked, len(on.banks) - 1).any()


def test_both_walks_write_the_same_until_the_bank_differs(on: TracedGeneration, off: TracedGeneration) -> None:
    first = next(step for step in range(len(on.ids)) if on.closed(step))
    np.testing.assert_allclose(on.logits[:first], off.logits[:first], atol=1e-5)
    assert divergence(on, on) is None
    parted = divergence(on, off)
    assert parted is None or (
        parted >= first and on.ids[:parted] == off.ids[:parted] and on.ids[parted] != off.ids[parted]
    )


def test_a_probe_that_is_the_last_segment_is_read_as_in_the_run(remembering: Checkpoint, on: TracedGeneration) -> None:
    trace = run(remembering, RunSpec(checkpoint=remembering.name, text=PROMPT, captures=(Capture(Site.READ_PATTERN),)))
    last = trace.segments[-1]
    read = reread(remembering, last.ids, on.banks, layers=on.layers)
    for block, layer in enumerate(on.layers):
        np.testing.assert_allclose(
            read.patterns[last.index, block], trace.at(Site.READ_PATTERN, segment=last.index, layer=layer), atol=1e-5
        )
    np.testing.assert_allclose(read.logits[last.index], trace.logits[-1], atol=5e-5)


def test_a_reading_is_a_run_of_the_probe_that_begins_with_the_carried_bank(
    remembering: Checkpoint, on: TracedGeneration
) -> None:
    facts, question = PROMPT.split("\f")
    spec = RunSpec(
        checkpoint=remembering.name,
        text=question,
        captures=(Capture(Site.READ_PATTERN),),
        interventions=(Carry(texts=(facts,)),),
    )
    carried = run(remembering, spec)
    read = reread(remembering, carried.segments[0].ids, on.banks, layers=on.layers)
    before = len(prepare(remembering, replace(spec, text=facts, interventions=()))[1])
    for block, layer in enumerate(on.layers):
        np.testing.assert_allclose(
            read.patterns[before, block], carried.at(Site.READ_PATTERN, segment=0, layer=layer), atol=1e-5
        )


def test_a_probe_sees_nothing_but_the_bank_whatever_the_window(build: Callable[..., Checkpoint], gated_config) -> None:
    near, far = build(gated_config, 1), build(replace(gated_config, attention_window=None), 1)
    banks, layers = (
        np.random.default_rng(0).normal(size=(3, gated_config.slots, gated_config.slot_dim)),
        gated_config.memory_layers,
    )
    one, other = (reread(checkpoint, (5, 6, 7), banks, layers=layers) for checkpoint in (near, far))
    assert np.array_equal(one.patterns, other.patterns)


def test_what_moved_is_a_distance_between_0_and_1(remembering: Checkpoint, on: TracedGeneration) -> None:
    read = reread(remembering, on.prompt.ids[-3:], on.banks, layers=on.layers)
    there, back = read.moved(0, 2), read.moved(2, 0)
    assert there.shape == read.patterns.shape[1:4]
    assert np.array_equal(there, back) and not read.moved(1, 1).any()
    assert (there >= 0).all() and (there <= 1 + 1e-6).all()
    assert (read.moved(0, 2) <= read.moved(0, 1) + read.moved(1, 2) + 1e-6).all()
    assert np.array_equal(read.difference(0, 2), -read.difference(2, 0))


def test_a_segment_is_closed_where_a_new_one_begins(on: TracedGeneration, asked: int) -> None:
    starts = {segment.start for segment in on.segments[asked + 1 :]}
    assert starts and {on.predictor(step) for step in range(len(on.ids)) if on.closed(step)} == starts
    assert len(on.banks) == len(on.segments) + 1
    assert sum(len(segment.ids) for segment in on.segments) == len(on.pieces) - 1


def test_walking_hears_of_every_segment_and_leaves_no_trace(gated: Checkpoint) -> None:
    heard: list[tuple[int, int]] = []
    spec = RunSpec(checkpoint=gated.name, text=PROMPT)
    first = generate_traced(
        gated, spec, tokens=5, layers=(0,), on_segment=lambda done, count: heard.append((done, count))
    )
    count = len(prepare(gated, spec)[1])
    assert heard == [(done, count) for done in range(1, count)]
    assert np.array_equal(first.logits, generate_traced(gated, spec, tokens=5, layers=(0,)).logits)
    assert first.bytes > 0
    with pytest.raises(ValueError, match="read-only"):
        first.banks[0] = 0


@pytest.mark.parametrize(
    ("changed", "arguments", "said"),
    [
        ({}, {"tokens": 0}, "at least 1 token must be written, not 0"),
        ({"text": ""}, {}, "at least one token"),
        ({}, {"layers": (1,)}, r"no block 1; this run has blocks \[0, 2\]"),
        ({}, {"layers": ()}, "at least one block"),
        ({"interventions": (Freeze(segment=99),)}, {}, "no segment 99"),
        ({"captures": (Capture(Site.READ_PATTERN),)}, {}, "no captures"),
    ],
)
def test_an_impossible_walk_is_refused_with_its_numbers(
    gated: Checkpoint, changed: dict, arguments: dict, said: str
) -> None:
    spec = replace(RunSpec(checkpoint=gated.name, text=PROMPT), **changed)
    with pytest.raises(ValueError, match=said):
        generate_traced(gated, spec, **({"tokens": 3, "layers": (0,)} | arguments))


def test_an_impossible_reading_is_refused_with_its_numbers(
    gated: Checkpoint, release: Checkpoint, plain: Checkpoint
) -> None:
    fresh = np.zeros((1, 5, 12))
    with pytest.raises(ValueError, match="at least 1 token; this one has 0"):
        reread(gated, (), fresh, layers=(0,))
    with pytest.raises(ValueError, match="at most 16; this one has 17"):
        reread(release, (1,) * 17, np.zeros((1, 16, 16)), layers=(0,))
    with pytest.raises(ValueError, match=r"\(any, 5, 12\), not \(5, 12\)"):
        reread(gated, (1,), fresh[0], layers=(0,))
    with pytest.raises(TooLargeError, match="more than the 10 allowed"):
        reread(gated, (1,), fresh, layers=(0,), limit_bytes=10)
    with pytest.raises(ValueError, match="kind 'none' has no bank"):
        generate_traced(plain, RunSpec(checkpoint=plain.name, text=PROMPT), tokens=1, layers=(0,))
