"""Laws of lm2.interventions: declared changes do what they say, where they say, and nothing else."""

import json

import numpy as np
import pytest
import torch

from lm2.capture import Capture
from lm2.checkpoint import Checkpoint
from lm2.interventions import Clamp, Freeze, Intervention, Reset
from lm2.runner import run
from lm2.sites import Site
from lm2.spec import RunSpec


def trace_of(checkpoint: Checkpoint, text: str, *changes: Intervention, captures: tuple[Capture, ...] = ()):
    return run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text, interventions=changes, captures=captures))


def test_an_empty_tuple_of_interventions_is_the_identity(checkpoint: Checkpoint, text: str) -> None:
    plain = run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text))
    assert np.array_equal(plain.logits, trace_of(checkpoint, text).logits)


def test_a_capture_shows_the_value_that_an_edit_put_in(gated: Checkpoint, text: str) -> None:
    change = Clamp(site=Site.GATE_IN, value=0.25, layers=(2,), segments=(1, 2), slots=(0, 4))
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
    clean, changed = trace_of(gated, text), trace_of(gated, text, Clamp(site=Site.GATE_IN, value=0.0, segments=(2,)))
    assert np.array_equal(clean.logits[:21], changed.logits[:21])  # a write shows in the next segment only
    assert not np.allclose(clean.logits[21:28], changed.logits[21:28])


def test_later_edits_of_the_same_place_win(gated: Checkpoint, text: str) -> None:
    one, two = Clamp(site=Site.GATE_IN, value=0.1), Clamp(site=Site.GATE_IN, value=0.9)
    captures = (Capture(Site.GATE_IN),)
    assert all((v == np.float32(0.9)).all() for v in trace_of(gated, text, one, two, captures=captures).records.values())
    assert all((v == np.float32(0.1)).all() for v in trace_of(gated, text, two, one, captures=captures).records.values())


def test_clamping_slots_reaches_the_slot_axis_wherever_it_lies(gated: Checkpoint, text: str) -> None:
    for site in (Site.READ_PATTERN, Site.WRITE_PATTERN, Site.READ_K):
        trace = trace_of(gated, text, Clamp(site=site, value=0.5, slots=(3,)), captures=(Capture(site),))
        axis = [a.value for a in site.axes].index("slot")
        for value in trace.records.values():
            assert (np.take(value, 3, axis) == 0.5).all()
            assert not (np.take(value, 1, axis) == 0.5).all()


def test_freezing_hands_on_the_bank_that_the_segment_began_with(gated: Checkpoint, text: str) -> None:
    captures = (Capture(Site.BANK_PRE, layers=(0,)),)
    clean, frozen = (trace_of(gated, text, *changes, captures=captures) for changes in ((), (Freeze(segment=2),)))
    last = len(clean.segments) - 1
    begins = [[one.at(Site.BANK_PRE, segment=at, layer=0) for at in range(last + 1)] for one in (clean, frozen)]
    for at in range(3):
        assert np.array_equal(begins[0][at], begins[1][at])
    for at in range(3, last + 1):
        assert np.array_equal(begins[1][at], begins[1][2])
        assert not np.array_equal(begins[0][at], begins[1][at])


def test_freezing_from_the_start_leaves_each_segment_alone_with_a_fresh_bank(gated: Checkpoint, text: str, tokenizer) -> None:
    frozen = trace_of(gated, text, Freeze())
    last = frozen.segments[-1]
    alone = gated.model.segment(torch.tensor([last.ids])).logits[0].detach().numpy()
    np.testing.assert_allclose(frozen.logits[last.start :], alone, atol=1e-5)


def test_a_reset_segment_begins_with_a_fresh_bank_and_writing_goes_on(gated: Checkpoint, text: str) -> None:
    captures = (Capture(Site.BANK_PRE, layers=(0,)),)
    clean, reset = trace_of(gated, text, captures=captures), trace_of(gated, text, Reset(segment=2), captures=captures)
    fresh = np.eye(gated.config.slots, gated.config.slot_dim)
    assert np.array_equal(reset.logits[:14], clean.logits[:14])
    assert np.array_equal(reset.at(Site.BANK_PRE, segment=2, layer=0), fresh)
    assert not np.array_equal(reset.at(Site.BANK_PRE, segment=3, layer=0), fresh)


def test_resetting_a_document_at_a_segment_equals_starting_there(gated: Checkpoint) -> None:
    later = "John went to the garden. Where is Mary?"
    alone = trace_of(gated, later)
    clean = trace_of(gated, f"Sandra moved to the office.\f{later}")
    at = len(clean.segments) - len(alone.segments)
    whole = trace_of(gated, clean.tokens.text, Reset(segment=at))
    assert np.array_equal(whole.logits[whole.segments[at].start :], alone.logits)
    assert np.array_equal(whole.bank, alone.bank)
    assert not np.allclose(whole.bank, clean.bank)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Clamp(site=Site.GATE_IN, value=0.0, layers=(1,)), r"there is no block 1; this run has blocks \[0, 2\]"),
        (Clamp(site=Site.RESID_PRE, value=0.0, layers=(3,)), r"there is no block 3; this run has blocks 0\.\.2"),
        (Clamp(site=Site.GATE_IN, value=0.0, slots=(1, 5)), r"there is no slot 5; this run has slots 0\.\.4"),
        (Clamp(site=Site.GATE_IN, value=0.0, slots=(-1,)), r"there is no slot -1"),
        (Clamp(site=Site.GATE_IN, value=0.0, segments=(99,)), r"there is no segment 99; this run has segments 0\.\.9"),
        (Clamp(site=Site.RESID_POST, value=0.0, slots=(0,)), "RESID_POST has no slots"),
        (Freeze(segment=13), r"there is no segment 13; this run has segments 0\.\.9"),
        (Reset(segment=-1), r"there is no segment -1"),
    ],
)
def test_places_that_are_not_there_are_refused_with_the_range(gated: Checkpoint, text: str, change: Intervention, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trace_of(gated, text, change)


def test_models_refuse_changes_to_what_they_lack(plain: Checkpoint, release: Checkpoint, text: str) -> None:
    with pytest.raises(ValueError, match="a none model has no site GATE_IN"):
        trace_of(plain, text, Clamp(site=Site.GATE_IN, value=0.0))
    with pytest.raises(ValueError, match="a none model has no bank"):
        trace_of(plain, text, Freeze())
    with pytest.raises(ValueError, match="a release model has no site GATE_OUT"):
        trace_of(release, text, Clamp(site=Site.GATE_OUT, value=0.0))


@pytest.mark.parametrize(
    "change",
    [
        Clamp(site=Site.GATE_IN, value=0.5, layers=(0, 2), segments=(1,), slots=(3,)),
        Clamp(site=Site.EMBED, value=0.0),
        Freeze(segment=2),
        Reset(segment=1),
    ],
)
def test_json_gives_every_intervention_back(change: Intervention) -> None:
    assert Intervention.from_json(json.loads(json.dumps(change.to_json()))) == change


def test_json_of_an_intervention_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no intervention is called 'Explode'; there are .*Clamp.*Reset"):
        Intervention.from_json({"kind": "Explode"})
    with pytest.raises(ValueError, match="None"):
        Intervention.from_json({})
    with pytest.raises(ValueError, match="Freeze cannot be made from .*speed"):
        Intervention.from_json({"kind": "Freeze", "speed": 2})
    with pytest.raises(ValueError, match="Edit"):  # what only other interventions are made of
        Intervention.from_json({"kind": "Edit", "site": "GATE_IN"})
    with pytest.raises(ValueError, match="NOWHERE"):
        Intervention.from_json({"kind": "Clamp", "site": "NOWHERE", "value": 0.0})
