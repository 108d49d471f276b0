"""Laws of lm2.runs.interventions: declared changes do what they say, where they say, and nothing else."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import REMEMBERING

from lm2.model.config import MemoryKind
from lm2.model.sites import Axis, Site, sites_of
from lm2.runs.capture import Capture
from lm2.runs.donors import Initial, Mean, Patch
from lm2.runs.interventions import (  # fmt: skip
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
from lm2.runs.operations import Add, Operation, Permute, ProjectOut, Scale, Set
from lm2.runs.runner import prepare, run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.weights.checkpoint import Checkpoint

OTHER = (
    "John moved to the office. Mary went back to the garden. Sandra travelled to the hallway. Daniel went to the"
    " bedroom. Where is Mary? garden."
)
READ_ONLY = Persistence.READ_ONLY
ZERO = Set(value=0.0)


def trace_of(checkpoint: Checkpoint, text: str, *changes: Intervention, captures: tuple[Capture, ...] = ()) -> Trace:
    return run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text, interventions=changes, captures=captures))


def begins(checkpoint: Checkpoint, text: str, *changes: Intervention) -> list[np.ndarray]:
    """The bank that each segment begins to write to."""
    layer = min(checkpoint.config.memory_layers)
    trace = trace_of(checkpoint, text, *changes, captures=(Capture(Site.BANK_PRE, layers=(layer,)),))
    return [trace.at(Site.BANK_PRE, segment=segment.index, layer=layer) for segment in trace.segments]


def same(one: Trace, other: Trace) -> bool:
    return np.array_equal(one.logits, other.logits) and (one.bank is None or np.array_equal(one.bank, other.bank))


@pytest.fixture
def text(text: str) -> str:
    """Seven segments of 7 tokens, the last one shorter; three of 16."""
    return text[: text.index(" Mary travelled")]


@pytest.fixture(params=REMEMBERING)
def remembering(request: pytest.FixtureRequest) -> Checkpoint:
    """Each kind of model with a bank in turn."""
    return request.getfixturevalue(request.param)


# Where: blocks, segments, slots, heads, tokens


def test_an_empty_tuple_of_interventions_is_the_identity(checkpoint: Checkpoint, text: str) -> None:
    plain = run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text))
    assert same(plain, trace_of(checkpoint, text))


def test_an_edit_of_no_place_is_the_identity(checkpoint: Checkpoint, text: str) -> None:
    changes = [Edit(site=Site.RESID_MID, operation=ZERO, **{name: ()}) for name in ("layers", "segments", "tokens")]
    changes.append(Edit(site=Site.ATTN_Z, operation=ZERO, heads=()))
    if checkpoint.config.memory_layers:
        changes += [
            Edit(site=Site.READ_PATTERN, operation=ZERO, slots=(), persistence=READ_ONLY),
            BankEdit(operation=ZERO, slots=()),
        ]
        changes += [MemoryOff(layers=()), MemoryOff(segments=())]
    if checkpoint.config.memory in (MemoryKind.GATED, MemoryKind.TOKENS):
        changes.append(WriteBlock(tokens=()))
    assert same(trace_of(checkpoint, text, *changes), trace_of(checkpoint, text))


def test_a_capture_shows_the_value_that_an_edit_put_in(gated: Checkpoint, text: str) -> None:
    change = Edit(site=Site.GATE_IN, operation=Set(value=0.25), layers=(2,), segments=(1, 2), slots=(0, 4))
    trace = trace_of(gated, text, change, captures=(Capture(Site.GATE_IN),))
    clean = trace_of(gated, text, captures=(Capture(Site.GATE_IN),))
    for segment in range(len(trace.segments)):
        edited, before = (one.at(Site.GATE_IN, segment=segment, layer=2) for one in (trace, clean))
        assert (edited[[0, 4]] == 0.25).all() if segment in (1, 2) else not (edited == 0.25).any()
        assert not (edited[1:4] == 0.25).any()
        assert not (trace.at(Site.GATE_IN, segment=segment, layer=0) == 0.25).any()
        if segment == 0:
            assert np.array_equal(edited, before)


def test_an_edit_changes_nothing_before_its_segment_and_something_after(gated: Checkpoint, text: str) -> None:
    clean, changed = (
        trace_of(gated, text),
        trace_of(gated, text, Edit(site=Site.GATE_IN, operation=ZERO, segments=(2,))),
    )
    assert np.array_equal(clean.logits[:21], changed.logits[:21])  # a write shows in the next segment only
    assert not np.allclose(clean.logits[21:28], changed.logits[21:28])


def test_later_edits_of_the_same_place_win(gated: Checkpoint, text: str) -> None:
    one, two = Edit(site=Site.GATE_IN, operation=Set(value=0.1)), Edit(site=Site.GATE_IN, operation=Set(value=0.9))
    captures = (Capture(Site.GATE_IN),)
    assert all(
        (v == np.float32(0.9)).all() for v in trace_of(gated, text, one, two, captures=captures).records.values()
    )
    assert all(
        (v == np.float32(0.1)).all() for v in trace_of(gated, text, two, one, captures=captures).records.values()
    )


def test_slots_are_found_wherever_their_axis_lies(gated: Checkpoint, text: str) -> None:
    for site in (Site.READ_PATTERN, Site.WRITE_PATTERN, Site.READ_K):
        trace = trace_of(gated, text, Edit(site=site, operation=Set(value=0.5), slots=(3,)), captures=(Capture(site),))
        axis = site.axes.index(Axis.SLOT)
        for value in trace.records.values():
            assert (np.take(value, 3, axis) == 0.5).all()
            assert not (np.take(value, 1, axis) == 0.5).all()


def test_slots_heads_and_tokens_are_chosen_together_and_tokens_by_their_place_in_the_document(
    gated: Checkpoint, text: str
) -> None:
    captures = (Capture(Site.READ_PATTERN, layers=(2,)), Capture(Site.ATTN_K, layers=(1,)))
    changes = (
        Edit(
            site=Site.READ_PATTERN, operation=Set(value=0.5), layers=(2,), slots=(1, 3), heads=(1,), tokens=(8, 12, 15)
        ),
        Edit(site=Site.ATTN_K, operation=Set(value=7.0), layers=(1,), heads=(1,), tokens=(9,)),
    )
    trace, clean = trace_of(gated, text, *changes, captures=captures), trace_of(gated, text, captures=captures)
    for segment, tokens in ((0, []), (1, [1, 5]), (2, [1]), (3, [])):  # segments of 7 tokens
        value, before = (one.at(Site.READ_PATTERN, segment=segment, layer=2) for one in (trace, clean))
        there = np.zeros(value.shape, bool)
        there[np.ix_([1], tokens, [1, 3])] = True
        assert (value[there] == 0.5).all() and not (value[~there] == 0.5).any()
        if segment == 0:
            assert np.array_equal(value, before)
    keys = trace.at(Site.ATTN_K, segment=1, layer=1)
    assert (keys[2, 1] == 7).all() and not (keys[2, 0] == 7).any() and not (keys[[0, 1, 3, 4, 5, 6]] == 7).any()


def test_rows_that_are_no_tokens_are_left_alone(rmt: Checkpoint, release: Checkpoint, text: str) -> None:
    rows: list[torch.Tensor] = []
    for checkpoint in (rmt, release):
        change = Edit(site=Site.RESID_POST, operation=Set(value=3.0), layers=(0,))
        name = Site.RESID_PRE.hook_name(1)
        spec = RunSpec(checkpoint=checkpoint.name, text=text, interventions=(change,))
        _, segments = prepare(checkpoint, spec)
        with (
            checkpoint.model.hooks(fwd_hooks=[(name, lambda value, hook: rows.append(value[0]))]),
            torch.inference_mode(),
        ):
            list(run_segments(checkpoint.model, segments, spec, {}))
        last = len(segments[-1].ids)
        assert (rows[-1][:last] == 3).all() and len(rows[-1]) > last and not (rows[-1][last:] == 3).all(-1).any()


def test_no_edit_of_scores_lets_a_token_see_what_is_hidden(checkpoint: Checkpoint, text: str) -> None:
    turned = (
        Permute(order=tuple(reversed(range(checkpoint.config.slots)))) if checkpoint.config.slots else Set(value=1.0)
    )
    for site in (Site.ATTN_SCORES, Site.READ_SCORES, Site.WRITE_SCORES):
        if site.layers(checkpoint.config):
            capture = (Capture(site),)
            clean = trace_of(checkpoint, text, captures=capture)
            for operation in (Set(value=1.0), Scale(by=0.0), *((turned,) if Axis.SLOT in site.axes else ())):
                changed = trace_of(checkpoint, text, Edit(site=site, operation=operation), captures=capture)
                assert np.isfinite(changed.logits).all()
                for key, value in clean.records.items():
                    assert np.array_equal(np.isneginf(value), np.isneginf(changed.records[key]))


# What: operations


def test_twice_is_once(gated: Checkpoint, text: str) -> None:
    direction = tuple(np.sin(np.arange(1, 17)))
    for site, operation in (
        (Site.GATE_OUT, Set(value=0.3)),
        (Site.RESID_MID, ProjectOut(direction=direction)),
        (Site.RESID_MID, Patch(text=OTHER, segment=0)),
        (Site.RESID_MID, Mean(texts=(OTHER, text), segment=0)),
    ):
        change = Edit(site=site, operation=operation, segments=(1,))
        once, twice = trace_of(gated, text, change), trace_of(gated, text, change, change)
        assert not np.allclose(once.logits, trace_of(gated, text).logits)
        np.testing.assert_allclose(once.logits, twice.logits, atol=1e-4 if isinstance(operation, ProjectOut) else 0)


def test_operations_compute_what_they_say(gated: Checkpoint, text: str) -> None:
    clean = trace_of(gated, text, captures=(Capture(Site.GATE_IN, layers=(0,), segments=(0,)),))
    value = clean.at(Site.GATE_IN, segment=0, layer=0)
    direction = np.cos(np.arange(12))
    unit = direction / np.linalg.norm(direction)
    for operation, expected in (
        (Scale(by=2.0), 2 * value),
        (Add(direction=tuple(direction), by=0.5), value + 0.5 * direction),
        (ProjectOut(direction=tuple(direction)), value - (value @ unit)[:, None] * unit),
        (Permute(order=(4, 2, 0, 1, 3)), value[[4, 2, 0, 1, 3]]),
    ):
        change = Edit(site=Site.GATE_IN, operation=operation, layers=(0,), segments=(0,))
        trace = trace_of(gated, text, change, captures=tuple(capture for capture, _ in clean.records))
        np.testing.assert_allclose(trace.at(Site.GATE_IN, segment=0, layer=0), expected, atol=1e-6)


def test_a_patch_with_the_own_text_is_the_identity(checkpoint: Checkpoint, text: str) -> None:
    changes = [Edit(site=site, operation=Patch(text=text)) for site in sites_of(checkpoint.config.memory)]
    changes += [BankEdit(operation=Patch(text=text))] if checkpoint.config.memory_layers else []
    assert same(trace_of(checkpoint, text, *changes), trace_of(checkpoint, text))


def test_a_patch_lays_segments_end_to_end(gated: Checkpoint, text: str) -> None:
    captures = (Capture(Site.RESID_MID, layers=(1,)),)
    donor = trace_of(gated, OTHER, captures=captures).at(Site.RESID_MID, segment=0, layer=1)
    last = trace_of(gated, text).segments[-1]
    assert 1 < len(last.ids) < len(donor)
    change = Edit(site=Site.RESID_MID, operation=Patch(text=OTHER, segment=0), layers=(1,), segments=(last.index,))
    shown = trace_of(gated, text, change, captures=captures).at(Site.RESID_MID, segment=last.index, layer=1)
    assert np.array_equal(shown, donor[-len(last.ids) :])
    one = replace(change, tokens=(last.end - 1,))
    shown = trace_of(gated, text, one, captures=captures).at(Site.RESID_MID, segment=last.index, layer=1)
    assert np.array_equal(shown[-1], donor[-1]) and not np.allclose(shown[:-1], donor[-len(last.ids) : -1])


def test_a_shorter_donor_is_enough_for_the_tokens_that_are_replaced(gated: Checkpoint, text: str) -> None:
    short = "Mary moved to"
    assert len(gated.tokenizer.encode(short)) == 3
    change = Edit(site=Site.RESID_MID, operation=Patch(text=short, segment=-1), segments=(1,), tokens=(11, 13))
    trace_of(gated, text, change)
    with pytest.raises(
        ValueError, match="the last 4 tokens of a segment are to be replaced; the donor's segment has 3"
    ):
        trace_of(gated, text, replace(change, tokens=(10,)))
    with pytest.raises(
        ValueError, match="the last 7 tokens of a segment are to be replaced; the donor's segment has 3"
    ):
        trace_of(gated, text, replace(change, tokens=None))


def test_attention_over_tokens_is_patched_where_there_are_as_many_alone(gated: Checkpoint, text: str) -> None:
    for site in (Site.WRITE_PATTERN, Site.ATTN_PATTERN, Site.ATTN_SCORES):
        trace_of(gated, text, Edit(site=site, operation=Patch(text=OTHER, segment=0), segments=(1,)))
        with pytest.raises(ValueError, match=f"{site.name} spans 7 .* here and 3 in the donor"):
            trace_of(gated, text, Edit(site=site, operation=Patch(text="Mary moved to", segment=0), segments=(1,)))


def test_a_mean_is_over_texts_and_over_tokens(gated: Checkpoint, text: str) -> None:
    captures = (Capture(Site.RESID_MID, layers=(1,)), Capture(Site.GATE_IN, layers=(0,)))
    texts = (OTHER, text, "Mary moved to the garden.")
    donors = [trace_of(gated, text, captures=captures) for text in texts]
    changes = tuple(
        Edit(site=c.site, operation=Mean(texts=texts, segment=0), layers=c.layers, segments=(2,)) for c in captures
    )
    trace = trace_of(gated, text, *changes, captures=captures)
    tokens = np.mean([donor.at(Site.RESID_MID, segment=0, layer=1).mean(0) for donor in donors], 0)
    shown = trace.at(Site.RESID_MID, segment=2, layer=1)
    np.testing.assert_allclose(shown, np.tile(tokens, (7, 1)), atol=1e-6)
    slots = np.mean([donor.at(Site.GATE_IN, segment=0, layer=0) for donor in donors], 0)
    np.testing.assert_allclose(trace.at(Site.GATE_IN, segment=2, layer=0), slots, atol=1e-6)


def test_the_mean_of_one_text_is_its_patch_where_there_are_no_tokens(remembering: Checkpoint, text: str) -> None:
    patch, mean = (
        trace_of(remembering, text, BankEdit(operation=one, segments=(1,)))
        for one in (Patch(text=OTHER), Mean(texts=(OTHER,)))
    )
    assert same(patch, mean)


# The bank: BankEdit, Freeze, Reset, Carry


def test_a_permutation_of_slots_changes_no_logit_and_permutes_the_bank(gated: Checkpoint, text: str) -> None:
    clean, order = trace_of(gated, text), (3, 0, 4, 2, 1)
    for segment in (0, 2):
        permuted = trace_of(gated, text, BankEdit(operation=Permute(order=order), segments=(segment,)))
        for value, expected in ((permuted.logits, clean.logits), (permuted.bank, clean.bank[list(order)])):
            # Slots are summed in another order.
            np.testing.assert_allclose(value, expected, atol=1e-5 * np.abs(expected).max())


def test_the_bank_swapped_at_the_question_gives_the_donors_logits(remembering: Checkpoint, text: str) -> None:
    question = "\fWhere is Mary?"
    own, donor = f"Sandra went back to the office. {text}{question}", f"{OTHER}{question}"
    given, clean = trace_of(remembering, donor), trace_of(remembering, own)
    last = clean.segments[-1]
    swap = BankEdit(operation=Patch(text=donor, segment=-1), segments=(last.index,))
    swapped = trace_of(remembering, own, swap)
    assert np.array_equal(swapped.logits[: last.start], clean.logits[: last.start])
    assert np.array_equal(swapped.logits[last.start :], given.logits[given.segments[-1].start :])
    assert np.array_equal(swapped.bank, given.bank)
    assert not np.allclose(swapped.logits[last.start :], clean.logits[last.start :])
    some = trace_of(remembering, own, replace(swap, slots=(0, 1)))
    assert not np.allclose(some.logits[last.start :], clean.logits[last.start :]) and not np.allclose(
        some.bank, given.bank
    )


def test_a_persistent_bank_edit_is_what_the_segment_writes_to(remembering: Checkpoint, text: str) -> None:
    clean = begins(remembering, text)
    edited = begins(remembering, text, BankEdit(operation=Scale(by=0.5), segments=(1,), slots=(2,)))
    expected = clean[1].copy()
    expected[2] *= 0.5
    assert np.array_equal(edited[0], clean[0]) and np.array_equal(edited[1], expected)
    assert not np.allclose(edited[2], clean[2])


def test_the_initial_bank_from_a_segment_on_equals_a_reset(remembering: Checkpoint, text: str) -> None:
    one, other = (
        trace_of(remembering, text, change)
        for change in (BankEdit(operation=Initial(), segments=(2,)), Reset(segment=2))
    )
    assert same(one, other)
    some = begins(remembering, text, BankEdit(operation=Initial(), segments=(2,), slots=(1,)))[2]
    fresh = remembering.model.fresh_bank(1)[0].detach().numpy()
    assert np.array_equal(some[1], fresh[1]) and not np.allclose(some[0], fresh[0])


def test_changes_of_the_bank_apply_in_their_order(gated: Checkpoint, text: str) -> None:
    zero, reset = BankEdit(operation=ZERO, segments=(2,)), Reset(segment=2)
    assert (begins(gated, text, reset, zero)[2] == 0).all()
    assert np.array_equal(begins(gated, text, zero, reset)[2], np.eye(5, 12))


def test_freezing_hands_on_the_bank_that_the_segment_began_with(remembering: Checkpoint, text: str) -> None:
    clean, frozen = begins(remembering, text), begins(remembering, text, Freeze(segment=1))
    assert np.array_equal(clean[1], frozen[1])
    for before, after in zip(clean[2:], frozen[2:], strict=True):
        assert np.array_equal(after, frozen[1]) and not np.array_equal(before, after)
    assert np.array_equal(trace_of(remembering, text, Freeze(segment=1)).bank, frozen[1])


def test_freezing_from_the_start_leaves_each_segment_alone_with_a_fresh_bank(gated: Checkpoint, text: str) -> None:
    frozen = trace_of(gated, text, Freeze())
    last = frozen.segments[-1]
    alone = gated.model.segment(torch.tensor([last.ids])).logits[0].detach().numpy()
    np.testing.assert_allclose(frozen.logits[last.start :], alone, atol=1e-5)


def test_a_frozen_bank_can_be_reset(gated: Checkpoint, text: str) -> None:
    for changes in ((Freeze(segment=1), Reset(segment=3)), (Reset(segment=3), Freeze(segment=1))):
        banks = begins(gated, text, *changes)
        assert np.array_equal(banks[2], banks[1]) and not np.array_equal(banks[1], np.eye(5, 12))
        assert all(np.array_equal(bank, np.eye(5, 12)) for bank in banks[3:])


def test_a_reset_segment_begins_with_a_fresh_bank_and_writing_goes_on(gated: Checkpoint, text: str) -> None:
    clean, reset = trace_of(gated, text), trace_of(gated, text, Reset(segment=2))
    banks, fresh = begins(gated, text, Reset(segment=2)), np.eye(gated.config.slots, gated.config.slot_dim)
    assert np.array_equal(reset.logits[:14], clean.logits[:14])
    assert np.array_equal(banks[2], fresh) and not np.array_equal(banks[3], fresh)


def test_resetting_a_document_at_a_segment_equals_starting_there(remembering: Checkpoint) -> None:
    later = "John went to the garden. Where is Mary?"
    alone = trace_of(remembering, later)
    clean = trace_of(remembering, f"Sandra moved to the office.\f{later}")
    at = len(clean.segments) - len(alone.segments)
    whole = trace_of(remembering, clean.tokens.text, Reset(segment=at))
    assert np.array_equal(whole.logits[whole.segments[at].start :], alone.logits)
    assert np.array_equal(whole.bank, alone.bank)
    assert not np.allclose(whole.bank, clean.bank)


def test_carrying_equals_reading_the_texts_in_one_where_segments_do_not_look_back(
    remembering: Checkpoint, text: str
) -> None:
    texts = ("Sandra moved to the office.", "Zoë.\fJohn went to the garden.")
    joined, carried = trace_of(remembering, "\f".join((*texts, text))), trace_of(remembering, text, Carry(texts=texts))
    assert np.array_equal(joined.logits[-len(carried.logits) :], carried.logits) and np.array_equal(
        joined.bank, carried.bank
    )
    assert not same(carried, trace_of(remembering, text))
    assert same(trace_of(remembering, text, Carry(texts=texts), Reset(segment=0)), trace_of(remembering, text))


# The ways in and out: READ_ONLY, WriteBlock, MemoryOff


def read_only_changes(checkpoint: Checkpoint) -> tuple[Intervention, ...]:
    return (
        Edit(site=Site.RESID_MID, operation=Scale(by=0.5), layers=(0,), segments=(1,), persistence=READ_ONLY),
        BankEdit(operation=Patch(text=OTHER, segment=1), segments=(2,), persistence=READ_ONLY),
    )


def test_read_only_changes_the_logits_of_its_segments_and_no_bank(remembering: Checkpoint, text: str) -> None:
    clean = trace_of(remembering, text)
    for change in read_only_changes(remembering):
        edited, segment = trace_of(remembering, text, change), clean.segments[change.segments[0]]
        assert np.array_equal(edited.bank, clean.bank)
        assert all(
            np.array_equal(one, other)
            for one, other in zip(begins(remembering, text, change), begins(remembering, text))
        )
        differs = np.abs(edited.logits - clean.logits).max(-1) > 1e-6
        assert differs[segment.start : segment.end].all()
        assert not differs[: segment.start].any() and not differs[segment.end :].any()
        lasting = trace_of(remembering, text, replace(change, persistence=Persistence.PERSIST))
        np.testing.assert_allclose(edited.logits[: segment.end], lasting.logits[: segment.end], atol=1e-5)
        assert not np.allclose(lasting.bank, clean.bank)


def test_with_read_only_the_sites_of_writing_are_those_of_the_pass_that_wrote(
    remembering: Checkpoint, text: str
) -> None:
    captures = tuple(Capture(site) for site in sites_of(remembering.config.memory))
    clean = trace_of(remembering, text, captures=captures)
    for change in read_only_changes(remembering):
        edited = trace_of(remembering, text, change, captures=captures)
        lasting = trace_of(remembering, text, replace(change, persistence=Persistence.PERSIST), captures=captures)
        assert edited.records.keys() == clean.records.keys()
        for key, value in edited.records.items():
            if key[0].site.writing:
                assert np.array_equal(value, clean.records[key])
            elif key[1].segment <= change.segments[0]:
                np.testing.assert_allclose(value, lasting.records[key], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [14, None])
def test_with_read_only_later_segments_look_back_on_the_edited_stream_and_write_as_if_it_were_not_there(
    build: Callable[..., Checkpoint], gated: Checkpoint, text: str, window: int | None
) -> None:
    checkpoint = build(replace(gated.config, attention_window=window), 2)
    clean = trace_of(checkpoint, text)
    edited = trace_of(checkpoint, text, read_only_changes(checkpoint)[0])
    assert np.array_equal(edited.bank, clean.bank)
    assert not np.allclose(edited.logits[14:21], clean.logits[14:21])


def test_a_read_only_edit_beside_lasting_ones_leaves_the_bank_of_the_lasting_ones(gated: Checkpoint, text: str) -> None:
    lasting = (
        Edit(site=Site.GATE_IN, operation=Set(value=0.7), segments=(1,)),
        BankEdit(operation=Scale(by=0.5), segments=(2,)),
    )
    both = trace_of(gated, text, *lasting, *read_only_changes(gated))
    assert np.array_equal(both.bank, trace_of(gated, text, *lasting).bank)
    assert not np.allclose(both.logits, trace_of(gated, text, *lasting).logits)


@pytest.mark.parametrize("name", ["gated", "rmt"])
def test_blocking_every_token_that_can_write_equals_freezing(
    name: str, text: str, request: pytest.FixtureRequest
) -> None:
    checkpoint = request.getfixturevalue(name)
    clean = trace_of(checkpoint, text)
    first = clean.segments[2].start
    blocked = trace_of(
        checkpoint,
        text,
        WriteBlock(tokens=range(first, first + 4)),
        WriteBlock(tokens=range(first + 4, len(clean.tokens))),
    )
    assert same(blocked, trace_of(checkpoint, text, Freeze(segment=2)))


@pytest.mark.parametrize("name", ["gated", "rmt"])
def test_blocked_tokens_get_no_weight_in_a_write_and_others_share_it(
    name: str, text: str, request: pytest.FixtureRequest
) -> None:
    checkpoint = request.getfixturevalue(name)
    captures = (Capture(Site.WRITE_PATTERN), Capture(Site.RESID_POST), Capture(Site.BANK_POST))
    clean, blocked = (
        trace_of(checkpoint, text, *changes, captures=captures) for changes in ((), (WriteBlock(tokens=(8, 13, 14)),))
    )
    assert np.array_equal(blocked.logits[:14], clean.logits[:14])  # the segment itself reads what was written before
    assert not np.allclose(blocked.logits[14:21], clean.logits[14:21])
    for layer in checkpoint.config.memory_layers:
        weights = blocked.at(Site.WRITE_PATTERN, segment=1, layer=layer)
        assert (weights[..., [1, 6]] == 0).all() and (weights[..., [0, 2, 3, 4, 5]] > 0).all()
        assert (blocked.at(Site.WRITE_PATTERN, segment=2, layer=layer)[..., 0] == 0).all()
        if name == "gated":
            np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
        assert np.array_equal(
            blocked.at(Site.RESID_POST, segment=1, layer=layer), clean.at(Site.RESID_POST, segment=1, layer=layer)
        )


def test_a_segment_that_writes_nothing_shows_closed_gates_and_the_bank_that_it_keeps(
    gated: Checkpoint, text: str
) -> None:
    captures = (Capture(Site.GATE_IN), Capture(Site.WRITE_PATTERN), Capture(Site.BANK_PRE), Capture(Site.BANK_POST))
    trace = trace_of(gated, text, WriteBlock(tokens=range(7, 14)), captures=captures)
    for layer in gated.config.memory_layers:
        assert (trace.at(Site.GATE_IN, segment=1, layer=layer) == 0).all() and (
            trace.at(Site.WRITE_PATTERN, segment=1, layer=layer) == 0
        ).all()
        assert np.array_equal(
            trace.at(Site.BANK_PRE, segment=1, layer=layer), trace.at(Site.BANK_POST, segment=1, layer=layer)
        )


def test_memory_off_equals_an_output_projection_of_zero(
    build: Callable[..., Checkpoint], gated: Checkpoint, text: str
) -> None:
    silent = build(gated.config, 2)
    with torch.no_grad():
        for layer in gated.config.memory_layers:
            silent.model.blocks[layer].mem.o.weight.zero_()
    expected = trace_of(silent, text)
    assert same(trace_of(gated, text, MemoryOff()), expected)
    some = trace_of(gated, text, MemoryOff(layers=(2,), segments=(1,)))
    assert np.array_equal(some.logits[:7], trace_of(gated, text).logits[:7])
    assert not np.allclose(some.logits[7:14], trace_of(gated, text).logits[7:14])
    assert not np.allclose(some.logits[7:14], expected.logits[7:14])


def test_with_memory_off_no_bank_reaches_a_logit(remembering: Checkpoint, text: str) -> None:
    swap = BankEdit(operation=Patch(text=OTHER, segment=1), segments=(1,))
    off, other = trace_of(remembering, text, MemoryOff()), trace_of(remembering, text, MemoryOff(), swap)
    assert np.array_equal(off.logits, other.logits) and not np.allclose(off.bank, other.bank)
    read_only = replace(swap, persistence=READ_ONLY)
    np.testing.assert_allclose(trace_of(remembering, text, MemoryOff(), read_only).logits, off.logits, atol=1e-5)


def test_with_memory_off_memory_tokens_get_no_weight_and_tokens_share_it(rmt: Checkpoint, text: str) -> None:
    captures = (Capture(Site.READ_PATTERN), Capture(Site.ATTN_PATTERN))
    trace = trace_of(rmt, text, MemoryOff(layers=(1,)), captures=captures)
    for segment in trace.segments:
        assert (trace.at(Site.READ_PATTERN, segment=segment.index, layer=1) == 0).all()
        np.testing.assert_allclose(trace.at(Site.ATTN_PATTERN, segment=segment.index, layer=1).sum(-1), 1, atol=1e-5)
        assert (trace.at(Site.READ_PATTERN, segment=segment.index, layer=0) > 0).all()


# Refusals


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Edit(site=Site.GATE_IN, operation=ZERO, layers=(1,)), r"there is no block 1; this run has blocks \[0, 2\]"),
        (Edit(site=Site.RESID_PRE, operation=ZERO, layers=(3,)), r"there is no block 3; this run has blocks 0\.\.2"),
        (Edit(site=Site.GATE_IN, operation=ZERO, slots=(1, 5)), r"there is no slot 5; this run has slots 0\.\.4"),
        (Edit(site=Site.GATE_IN, operation=ZERO, slots=(-1,)), r"there is no slot -1"),
        (
            Edit(site=Site.GATE_IN, operation=ZERO, segments=(99,)),
            r"there is no segment 99; this run has segments 0\.\.6",
        ),
        (Edit(site=Site.READ_Q, operation=ZERO, heads=(2,)), r"there is no head 2; this run has heads 0\.\.1"),
        (Edit(site=Site.ATTN_Z, operation=ZERO, heads=(4,)), r"there is no head 4; this run has heads 0\.\.3"),
        (Edit(site=Site.ATTN_V, operation=ZERO, heads=(2,)), r"there is no head 2; this run has heads 0\.\.1"),
        (Edit(site=Site.EMBED, operation=ZERO, tokens=(500,)), r"there is no token 500; this run has tokens 0\.\.\d+"),
        (
            Edit(site=Site.EMBED, operation=ZERO, tokens=(3, 16), segments=(0, 1)),
            r"token 16 is in none of .* tokens are 0\.\.6, 7\.\.13",
        ),
        (
            Edit(site=Site.EMBED, operation=Add(direction=(1.0,) * 12)),
            "must have 16 entries, as EMBED has features, not 12",
        ),
        (
            BankEdit(operation=ProjectOut(direction=(1.0,) * 16)),
            "must have 12 entries, as the bank has features, not 16",
        ),
        (Edit(site=Site.READ_PATTERN, operation=Permute(order=(1, 0))), "each of the 5 slots, not 2"),
        (BankEdit(operation=Permute(order=(1, 0))), "each of the 5 slots, not 2"),
        (BankEdit(operation=ZERO, slots=(5,)), r"there is no slot 5; this run has slots 0\.\.4"),
        (BankEdit(operation=ZERO, segments=(10,)), r"there is no segment 10; this run has segments 0\.\.6"),
        (
            BankEdit(operation=Patch(text="Mary."), segments=(4,)),
            r"there is no segment 4 in the donor 'Mary\.'; it has segments 0\.\.0",
        ),
        (
            Edit(site=Site.GATE_IN, operation=Mean(texts=(OTHER, "Mary."), segment=1)),
            r"no segment 1 in the donor 'Mary\.'; .* 0\.\.0",
        ),
        (Edit(site=Site.GATE_IN, operation=Patch(text="\f")), r"the donor '\\x0c' is empty"),
        (Carry(texts=(OTHER, "\f\f")), "is empty"),
        (Edit(site=Site.GATE_IN, operation=ZERO, persistence=READ_ONLY), "no token of the segment sees GATE_IN"),
        (Freeze(segment=13), r"there is no segment 13; this run has segments 0\.\.6"),
        (Reset(segment=-1), r"there is no segment -1"),
        (WriteBlock(tokens=(3, 400)), r"there is no token 400; this run has tokens 0\.\.\d+"),
        (MemoryOff(layers=(1,)), r"there is no block 1; this run has blocks \[0, 2\]"),
        (MemoryOff(segments=(10,)), r"there is no segment 10; this run has segments 0\.\.6"),
    ],
)
def test_places_that_are_not_there_are_refused_with_the_range_before_anything_runs(
    gated: Checkpoint, text: str, change: Intervention, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gated.model, "segment", None)
    with pytest.raises(ValueError, match=said):
        trace_of(gated, text, Carry(texts=(OTHER,)), change)


def test_models_refuse_changes_to_what_they_lack(
    plain: Checkpoint, release: Checkpoint, rmt: Checkpoint, text: str
) -> None:
    for change, said in (
        (Edit(site=Site.GATE_IN, operation=ZERO), "a model of memory kind 'none' has no site GATE_IN"),
        (
            Edit(site=Site.EMBED, operation=ZERO, persistence=READ_ONLY),
            "a model of memory kind 'none' has no bank: READ_ONLY",
        ),
        (BankEdit(operation=ZERO), "a model of memory kind 'none' has no bank"),
        (Freeze(), "a model of memory kind 'none' has no bank"),
        (Carry(texts=("Mary.",)), "a model of memory kind 'none' has no bank"),
        (WriteBlock(tokens=(0,)), "a model of memory kind 'none' has no bank"),
        (MemoryOff(), "a model of memory kind 'none' has no memory"),
    ):
        with pytest.raises(ValueError, match=said):
            trace_of(plain, text, change)
    with pytest.raises(ValueError, match="a model of memory kind 'release' has no site GATE_OUT"):
        trace_of(release, text, Edit(site=Site.GATE_OUT, operation=ZERO))
    with pytest.raises(ValueError, match="in the released arithmetic a token reads what it writes"):
        trace_of(release, text, WriteBlock(tokens=(0,)))
    with pytest.raises(ValueError, match="a model of memory kind 'tokens' has no site MEM_OUT"):
        trace_of(rmt, text, Edit(site=Site.MEM_OUT, operation=ZERO))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Set(value="big"), "value must be a finite number, not 'big'"),
        (lambda: Set(value=float("nan")), "value must be a finite number, not nan"),
        (lambda: Set(value=True), "value must be a finite number, not True"),
        (lambda: Scale(by=None), "by must be a finite number, not None"),
        (lambda: Add(direction=()), "must have an entry that is not 0"),
        (lambda: ProjectOut(direction=(0.0, 0.0)), "must have an entry that is not 0"),
        (lambda: ProjectOut(direction="north"), "direction must be a sequence, not 'north'"),
        (lambda: Add(direction=(1.0, "x")), "direction must be a finite number, not 'x'"),
        (lambda: Permute(order=(0, 2)), r"every slot from 0 on once, not \(0, 2\)"),
        (lambda: Permute(order=()), "every slot from 0 on once"),
        (lambda: Permute(order=(0.0, 1.0)), "order must be a whole number, not 0.0"),
        (lambda: Patch(text=""), "text must be a text with something in it"),
        (lambda: Patch(text="a", segment=-2), "a number from 0, or -1 for its last, not -2"),
        (lambda: Mean(texts=()), "texts must hold one text at least"),
        (lambda: Mean(texts="abc"), "texts must be a sequence, not 'abc'"),
        (lambda: Mean(texts=("a", "")), "with something in it"),
        (lambda: Carry(texts=()), "texts must hold one text at least"),
        (lambda: WriteBlock(tokens=None), "tokens must be a sequence"),
        (lambda: Freeze(segment="1"), "segment must be a whole number, not '1'"),
        (lambda: Reset(segment=1.5), "segment must be a whole number, not 1.5"),
        (lambda: MemoryOff(layers=3), "layers must be a sequence, not 3"),
        (lambda: Edit(site="GATE_IN", operation=ZERO), "site must be a Site, not 'GATE_IN'"),
        (lambda: Edit(site=Site.GATE_IN, operation=0.0), "operation must be an operation"),
        (lambda: Edit(site=Site.GATE_IN, operation=ZERO, persistence="persist"), "persistence must be a Persistence"),
        (lambda: Edit(site=Site.GATE_IN, operation=ZERO, slots=(1, 1)), r"slots names a place twice: \(1, 1\)"),
        (lambda: Edit(site=Site.GATE_IN, operation=ZERO, slots=("1",)), "slots must be a whole number, not '1'"),
        (lambda: Edit(site=Site.RESID_POST, operation=ZERO, slots=(0,)), "RESID_POST has no slots"),
        (lambda: Edit(site=Site.RESID_POST, operation=ZERO, heads=(0,)), "RESID_POST has no heads"),
        (lambda: Edit(site=Site.GATE_IN, operation=ZERO, tokens=(0,)), "GATE_IN has no tokens"),
        (lambda: Edit(site=Site.BANK_PRE, operation=Initial()), "needs a BankEdit, not an Edit of BANK_PRE"),
        (lambda: Edit(site=Site.RESID_PRE, operation=Permute(order=(0,))), "RESID_PRE has no slots to permute"),
        (lambda: Edit(site=Site.READ_PATTERN, operation=Add(direction=(1.0,))), "last axis of READ_PATTERN is slot"),
        (
            lambda: Edit(site=Site.WRITE_PATTERN, operation=Mean(texts=("a",))),
            "WRITE_PATTERN runs over the tokens of one text",
        ),
        (
            lambda: Edit(site=Site.ATTN_PATTERN, operation=Mean(texts=("a",))),
            "ATTN_PATTERN runs over the keys of one text",
        ),
    ],
)
def test_nonsense_is_refused_as_it_is_made(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


# JSON


OPERATIONS = [
    Set(value=0.5), Scale(by=-1.0), Add(direction=(1.0, 0.5)), Add(direction=(1.0,), by=2.5),
    ProjectOut(direction=(0.25, 3.0)),
    Permute(order=(2, 0, 1)), Initial(), Patch(text="Zoë 🙂\fa"), Patch(text="a", segment=-1),
    Mean(texts=("a", "b"), segment=2),
]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        *(BankEdit(operation=operation) for operation in OPERATIONS),
        Edit(site=Site.GATE_IN, operation=Set(value=0.5), layers=(0, 2), segments=(1,), slots=(3,)),
        Edit(
            site=Site.READ_PATTERN,
            operation=Patch(text="a"),
            slots=(0,),
            heads=(1,),
            tokens=(4, 5),
            persistence=READ_ONLY,
        ),
        Edit(site=Site.EMBED, operation=ZERO),
        BankEdit(operation=Initial(), segments=(1,), slots=(0, 2), persistence=READ_ONLY),
        Freeze(segment=2),
        Reset(segment=1),
        Carry(texts=("a", "b")),
        WriteBlock(tokens=(1, 2)),
        MemoryOff(),
        MemoryOff(layers=(0,), segments=(1, 2)),
    ],
)
def test_json_gives_every_intervention_back(change: Intervention) -> None:
    values = json.loads(json.dumps(change.to_json()))
    back = Intervention.from_json(values)
    assert back == change and hash(back) == hash(change) and back.to_json() == change.to_json()
    if isinstance(change, BankEdit):
        assert Operation.from_json(values["operation"]) == change.operation


def test_equal_values_have_equal_json_however_they_were_given() -> None:
    one = Edit(site=Site.EMBED, operation=Set(value=0), tokens=range(2, 4))
    other = Edit(site=Site.EMBED, operation=Set(value=np.float32(0.0)), tokens=[np.int64(2), 3])
    assert one == other and json.dumps(one.to_json()) == json.dumps(other.to_json())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "Explode"}, "no intervention is called 'Explode'; there are .*BankEdit.*Reset"),
        ({}, "no intervention is called None"),
        ("Freeze", "no intervention is called 'Freeze'"),
        ({"kind": ["Freeze"]}, "no intervention is called"),
        ({"kind": "Handover"}, "no intervention is called 'Handover'"),
        ({"kind": "Freeze", "speed": 2}, "Freeze cannot be made from .*speed"),
        ({"kind": "Reset"}, "Reset cannot be made from"),
        ({"kind": "Edit", "site": "NOWHERE", "operation": {"kind": "Initial"}}, "no site is called 'NOWHERE'"),
        ({"kind": "Edit", "site": 3, "operation": {"kind": "Initial"}}, "no site is called 3"),
        ({"kind": "Edit", "site": "EMBED"}, "Edit cannot be made from"),
        (
            {"kind": "Edit", "site": "EMBED", "operation": {"kind": "Melt"}},
            "no operation is called 'Melt'; there are .*Add.*Set",
        ),
        ({"kind": "Edit", "site": "EMBED", "operation": None}, "no operation is called None"),
        ({"kind": "Edit", "site": "EMBED", "operation": {"kind": "Set"}}, "Set cannot be made from"),
        (
            {"kind": "Edit", "site": "EMBED", "operation": {"kind": "Set", "value": "1"}},
            "value must be a finite number, not '1'",
        ),
        (
            {"kind": "BankEdit", "operation": {"kind": "Initial"}, "persistence": "for ever"},
            "persistence must be of .*read_only",
        ),
        ({"kind": "BankEdit", "operation": {"kind": "Initial"}, "slots": 3}, "slots must be a sequence, not 3"),
        ({"kind": "BankEdit", "operation": {"kind": "Initial"}, "slots": {"0": 1}}, "slots must be a sequence"),
    ],
)
def test_json_of_an_intervention_that_does_not_exist_is_refused(values: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Intervention.from_json(values)
