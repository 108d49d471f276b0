"""Laws of lm2.runs.runner: what a run shows depends on its specification and its weights alone."""

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lm2.model.config import LM2Config, MemoryKind
from lm2.model.lm2 import LM2
from lm2.model.sites import Site, sites_of
from lm2.runs.capture import Capture
from lm2.runs.donors import Mean, Patch
from lm2.runs.hooks import bank_in, bank_out, hooks
from lm2.runs.interventions import (  # fmt: skip
    BankEdit,
    Carry,
    Edit,
    Freeze,
    Intervention,
    MemoryOff,
    Persistence,
    WriteBlock,
)
from lm2.runs.loop import run_segments
from lm2.runs.operations import Add, ProjectOut, Scale, Set
from lm2.runs.runner import predicted_bytes, prepare, run, source_activations
from lm2.runs.spec import RunSpec
from lm2.text.segments import split_segments
from lm2.weights.checkpoint import Checkpoint


def has_hooks(checkpoint: Checkpoint) -> bool:
    return any(
        point.fwd_hooks or point.bwd_hooks or point._forward_hooks for point in checkpoint.model.hook_dict.values()
    )


def same(one, other) -> bool:
    return np.array_equal(one.logits, other.logits) and (one.bank is None or np.array_equal(one.bank, other.bank))


def test_observing_every_site_changes_nothing_bitwise(checkpoint: Checkpoint, text: str) -> None:
    quiet = RunSpec(checkpoint=checkpoint.name, text=text)
    watched = replace(quiet, captures=tuple(Capture(site) for site in sites_of(checkpoint.config.memory)))
    assert same(run(checkpoint, quiet), run(checkpoint, watched))


def test_every_site_is_recorded_once_per_segment_and_block_with_the_shape_of_its_axes(
    checkpoint: Checkpoint, text: str
) -> None:
    captures = tuple(Capture(site) for site in sites_of(checkpoint.config.memory))
    trace = run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text, captures=captures))
    places = [(capture.site, at.segment, at.layer) for capture, at in trace.records]
    assert len(places) == len(set(places))
    assert set(places) == {
        (capture.site, segment.index, layer)
        for capture in captures
        for segment in trace.segments
        for layer in capture.site.layers(checkpoint.config)
    }
    for (capture, at), value in trace.records.items():
        assert value.ndim == len(capture.site.axes) and value.dtype == np.float32
        for axis, size in zip(capture.site.axes, value.shape):
            if axis.value == "token":
                assert size == len(trace.segments[at.segment].ids)


def test_the_recorded_stream_is_the_sum_of_its_parts(checkpoint: Checkpoint, text: str) -> None:
    sites = [Site.RESID_PRE, Site.RESID_MID, Site.ATTN_OUT]
    adding = Site.MEM_OUT.layers(checkpoint.config)
    sites += [Site.MEM_OUT] if adding else []
    trace = run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text, captures=tuple(map(Capture, sites))))
    for layer in range(checkpoint.config.n_layers):
        parts = trace.across(Site.RESID_PRE, layer=layer) + trace.across(Site.ATTN_OUT, layer=layer)
        if layer in adding:
            parts = parts + trace.across(Site.MEM_OUT, layer=layer)
        np.testing.assert_allclose(trace.across(Site.RESID_MID, layer=layer), parts, atol=1e-5)


def test_recorded_attention_patterns_sum_to_one_over_the_keys_that_are_kept(
    build: Callable[..., Checkpoint], checkpoint: Checkpoint, text: str
) -> None:
    length = checkpoint.config.segment_length
    if checkpoint.config.memory is MemoryKind.TOKENS:
        return  # their other keys are slots: see test_rmt
    for window in (length, 2 * length, None) if checkpoint.config.memory is not MemoryKind.ARMT else (length,):
        own = build(replace(checkpoint.config, attention_window=window), 1)
        spec = RunSpec(checkpoint=own.name, text=f"Mary.\f{text}", captures=(Capture(Site.ATTN_PATTERN),))
        for value in run(own, spec).records.values():
            np.testing.assert_allclose(value.sum(-1), 1, atol=1e-5)
            assert (np.triu(value[0], 1 + value.shape[2] - value.shape[1]) == 0).all()


def test_rows_of_logits_and_segments_follow_the_tokens(checkpoint: Checkpoint, text: str) -> None:
    trace = run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text))
    assert trace.logits.shape == (len(trace.tokens), checkpoint.config.d_vocab)
    assert trace.segments == split_segments(trace.tokens, checkpoint.config.segment_length)
    assert (trace.checkpoint_digest, trace.device, trace.dtype) == (checkpoint.digest, "cpu", "float32")


@pytest.mark.parametrize("window", [7, 14, None])
@torch.inference_mode()
def test_a_bank_computed_once_continues_where_the_run_stopped(
    build: Callable[..., Checkpoint], gated_config, text, window
) -> None:
    checkpoint = build(replace(gated_config, attention_window=window), 2)
    whole = run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text))
    if window == 7:  # the bank is all there is to hand over
        middle = len(whole.segments) // 2
        first = whole.tokens.text[: whole.tokens.spans[whole.segments[middle].start][0]]
        begun = run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=first))
        assert np.array_equal(begun.logits, whole.logits[: len(begun.tokens)])
        out = checkpoint.model.segment(
            torch.tensor([whole.segments[middle].ids]), torch.tensor(begun.bank.copy())[None]
        )
        segment = whole.segments[middle]
        assert np.array_equal(out.logits[0].numpy(), whole.logits[segment.start : segment.end])
    bank, cache, rows = None, None, []
    for segment in whole.segments:
        out = checkpoint.model.segment(torch.tensor([segment.ids]), bank, cache=cache)
        lookback = checkpoint.config.lookback
        bank, cache = out.bank, out.cache if lookback is None else out.cache.last(lookback) if lookback else None
        rows.append(out.logits[0].numpy())
    np.testing.assert_allclose(np.concatenate(rows), whole.logits, atol=1e-5)


def test_without_memory_segments_change_nothing(plain: Checkpoint, text: str) -> None:
    one, other = (run(plain, RunSpec(checkpoint=plain.name, text=text, segment_length=length)) for length in (7, 1000))
    assert len(one.segments) > 4 and len(other.segments) == 1
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)


def test_the_same_spec_gives_the_same_trace_in_any_order_of_runs(checkpoint: Checkpoint, text: str) -> None:
    spec, other = (RunSpec(checkpoint=checkpoint.name, text=one) for one in (text, "Where is Mary?"))
    first = run(checkpoint, spec)
    run(checkpoint, other)
    run(checkpoint, replace(spec, interventions=(Edit(site=Site.RESID_MID, operation=Set(value=0.0)),)))
    assert same(run(checkpoint, spec), first)


def test_a_run_leaves_weights_and_hooks_alone(checkpoint: Checkpoint, text: str) -> None:
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    captures = tuple(Capture(site) for site in sites_of(checkpoint.config.memory))
    changes = (Edit(site=Site.RESID_MID, operation=Set(value=0.0)),)
    run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text, captures=captures, interventions=changes))
    assert checkpoint.model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())
    assert not has_hooks(checkpoint)


def test_an_exception_inside_a_run_leaves_no_hooks_and_frees_the_lock(
    checkpoint: Checkpoint, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(
        checkpoint=checkpoint.name, text=text, interventions=(Edit(site=Site.RESID_MID, operation=Set(value=0.0)),)
    )
    clean = run(checkpoint, replace(spec, interventions=()))
    with monkeypatch.context() as patch:
        patch.setattr(Set, "replace", stumble)
        with pytest.raises(RuntimeError, match="stumbled"):
            run(checkpoint, spec)
    with pytest.raises(RuntimeError, match="stumbled"):
        run(checkpoint, replace(spec, interventions=()), on_segment=stumble)
    assert not has_hooks(checkpoint)
    free: list[bool] = []

    def knock() -> None:
        free.append(checkpoint.lock.acquire(timeout=5))
        checkpoint.lock.release()

    thread = threading.Thread(target=knock)
    thread.start()
    thread.join()
    assert free == [True]
    assert same(run(checkpoint, replace(spec, interventions=())), clean)


def stumble(*arguments: object) -> torch.Tensor:
    raise RuntimeError("stumbled")


def test_four_hundred_clean_runs_are_untouched_by_a_neighbour_that_ablates(
    build: Callable[..., Checkpoint], gated_config: LM2Config
) -> None:
    checkpoint = build(replace(gated_config, n_layers=1, memory_layers=(0,)), 7)
    clean = RunSpec(checkpoint=checkpoint.name, text="Mary moved")
    ablated = replace(
        clean,
        interventions=(
            Edit(site=Site.GATE_IN, operation=Set(value=0.0)),
            Edit(site=Site.RESID_MID, operation=Set(value=1.0)),
        ),
    )
    quiet, loud = run(checkpoint, clean), run(checkpoint, ablated)
    assert not np.allclose(quiet.logits, loud.logits)
    stop, neighbours = threading.Event(), []

    def ablate() -> None:
        while not stop.is_set():
            neighbours.append(same(run(checkpoint, ablated), loud))

    thread = threading.Thread(target=ablate)
    thread.start()
    try:
        equal = [same(run(checkpoint, clean), quiet) for _ in range(400)]
    finally:
        stop.set()
        thread.join()
    assert len(equal) == 400 and all(equal)
    assert neighbours and all(neighbours)


def test_on_segment_hears_of_every_segment_in_order(gated: Checkpoint, text: str) -> None:
    heard: list[tuple[int, int]] = []
    trace = run(gated, RunSpec(checkpoint=gated.name, text=text), on_segment=lambda done, of: heard.append((done, of)))
    assert heard == [(done + 1, len(trace.segments)) for done in range(len(trace.segments))]


def test_a_form_feed_opens_a_segment_and_is_no_token(gated: Checkpoint) -> None:
    spec = RunSpec(checkpoint=gated.name, text="Mary.\fJohn.", segment_length=100)
    tokens, segments = prepare(gated, spec)
    assert len(segments) == 2
    assert "\f" not in "".join(tokens.pieces)


@pytest.mark.parametrize("empty", ["", "\f", "\f\f"])
def test_a_text_without_tokens_is_refused(checkpoint: Checkpoint, empty: str) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=empty))


def test_what_a_model_cannot_run_is_refused(gated: Checkpoint, plain: Checkpoint, release: Checkpoint) -> None:
    with pytest.raises(ValueError, match="for checkpoint 'other', not 'toy-gated'"):
        run(gated, RunSpec(checkpoint="other", text="a"))
    with pytest.raises(ValueError, match="16 tokens long, as many as it has slots, not 8"):
        run(release, RunSpec(checkpoint=release.name, text="a", segment_length=8))
    with pytest.raises(ValueError, match="a model of memory kind 'none' has no site GATE_IN"):
        run(plain, RunSpec(checkpoint=plain.name, text="a", captures=(Capture(Site.GATE_IN),)))


def test_a_run_in_bfloat16_is_close_to_float32(checkpoint: Checkpoint) -> None:
    model = LM2.empty(checkpoint.config, torch.device("cpu"), torch.bfloat16)
    model.load_weights(checkpoint.model.weights())
    rough = Checkpoint(name=checkpoint.name, model=model, tokenizer=checkpoint.tokenizer, digest="rough")
    captures = tuple(Capture(site) for site in sites_of(checkpoint.config.memory))
    spec = RunSpec(checkpoint=checkpoint.name, text="Mary moved to the garden. Where is Mary?", captures=captures)
    one, other = run(checkpoint, spec), run(rough, spec)
    assert other.dtype == "bfloat16" and other.logits.dtype == np.float32
    assert np.abs(one.logits - other.logits).mean() < 0.1 * np.abs(one.logits).mean()
    assert same(run(rough, replace(spec, captures=())), other)


# Donors

OTHER = "John moved to the office. Mary went back to the garden. Sandra travelled to the hallway."


def fed(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The tokens of every segment that will be fed from now on."""
    heard: list[tuple[int, ...]] = []
    segment = checkpoint.model.segment
    monkeypatch.setattr(
        checkpoint.model,
        "segment",
        lambda ids, *given, **named: (heard.append(tuple(ids[0].tolist())), segment(ids, *given, **named))[1],
    )
    return heard


def test_a_donor_is_run_once_however_many_edits_name_it_and_as_far_as_it_is_needed(
    gated: Checkpoint, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = (
        Edit(site=Site.RESID_MID, operation=Patch(text=OTHER, segment=0)),
        Edit(site=Site.GATE_IN, operation=Patch(text=OTHER), segments=(1,)),
        BankEdit(operation=Mean(texts=(OTHER, text, OTHER), segment=1), segments=(0,)),
    )
    spec = RunSpec(checkpoint=gated.name, text=text, interventions=changes)
    own = [segment.ids for segment in prepare(gated, spec)[1]]
    donor = [segment.ids for segment in prepare(gated, replace(spec, text=OTHER, interventions=()))[1]]
    heard = fed(gated, monkeypatch)
    run(gated, spec)
    assert heard == [*donor[:2], *own[:2], *own]


def test_donors_run_clean_and_with_the_segment_length_of_the_run(gated: Checkpoint, text: str) -> None:
    last, capture = (2,), (Capture(Site.RESID_POST, layers=(2,), segments=(1,)),)
    patch = Edit(site=Site.RESID_POST, operation=Patch(text=OTHER), layers=last, segments=(1,))
    loud = Edit(site=Site.GATE_IN, operation=Set(value=1.0))
    changed = run(
        gated,
        RunSpec(checkpoint=gated.name, text=text, segment_length=5, captures=capture, interventions=(loud, patch)),
    )
    donor = run(gated, RunSpec(checkpoint=gated.name, text=OTHER, segment_length=5, captures=capture))
    assert np.array_equal(
        changed.at(Site.RESID_POST, segment=1, layer=2), donor.at(Site.RESID_POST, segment=1, layer=2)
    )


def every_way(text: str) -> tuple[Intervention, ...]:
    return (
        Carry(texts=(OTHER,)),
        BankEdit(operation=Patch(text=OTHER, segment=0), segments=(1,), slots=(0, 2)),
        Edit(site=Site.RESID_MID, operation=Mean(texts=(OTHER, text), segment=0), segments=(2,), tokens=(16, 17)),
        Edit(site=Site.READ_PATTERN, operation=Set(value=0.1), heads=(1,), segments=(3,)),
        WriteBlock(tokens=range(20, 29)),
        MemoryOff(layers=(0,), segments=(4,)),
        Freeze(segment=5),
    )


@pytest.mark.parametrize("name", ["gated", "rmt"])
def test_a_spec_s_hooks_banks_and_donations_are_all_that_its_run_is_made_of(
    name: str, text: str, request: pytest.FixtureRequest
) -> None:
    checkpoint = request.getfixturevalue(name)
    spec = RunSpec(checkpoint=checkpoint.name, text=text, interventions=every_way(text))
    model, config, changes, given = (
        checkpoint.model,
        checkpoint.config,
        spec.interventions,
        source_activations(checkpoint, spec),
    )
    trace = run(checkpoint, spec)
    with torch.inference_mode():
        fresh = model.fresh_bank(2)
        bank = fresh
        for segment in trace.segments:
            began = bank_in(changes, config, segment, bank, fresh, given)
            with model.hooks(fwd_hooks=hooks(changes, config, segment, given)):
                output = model.segment(torch.tensor([segment.ids] * 2), began)  # two rows, edited alike
            bank = bank_out(changes, segment, began, output.bank)
            for row in output.logits:
                np.testing.assert_allclose(row.numpy(), trace.logits[segment.start : segment.end], atol=1e-4)
    np.testing.assert_allclose(bank[1].numpy(), trace.bank, atol=1e-4)
    some = replace(spec, interventions=changes[1:3])
    assert set(source_activations(checkpoint, some).values) == set(given.values)


@pytest.mark.parametrize("name", ["gated", "rmt"])
def test_a_run_with_interventions_can_be_gone_on_with_and_ends_alike(
    name: str, text: str, request: pytest.FixtureRequest
) -> None:
    checkpoint = request.getfixturevalue(name)
    read_only = Edit(site=Site.RESID_MID, operation=Scale(by=0.5), segments=(1, 6), persistence=Persistence.READ_ONLY)
    spec = RunSpec(checkpoint=checkpoint.name, text=text, interventions=(*every_way(text), read_only))
    trace, given = run(checkpoint, spec), source_activations(checkpoint, spec)
    with checkpoint.lock, torch.inference_mode():
        *_, (_, _, left) = run_segments(checkpoint.model, trace.segments[:3], spec, {}, sources=given)
        rest = run_segments(checkpoint.model, trace.segments[3:], spec, {}, left, given)
        rows = [output.logits[0].numpy() for _, output, _ in rest]
    assert np.array_equal(np.concatenate(rows), trace.logits[trace.segments[3].start :])


@pytest.mark.parametrize("name", ["gated", "rmt"])
def test_what_other_texts_give_can_be_found_once_for_many_runs(
    name: str, text: str, request: pytest.FixtureRequest
) -> None:
    checkpoint = request.getfixturevalue(name)
    every = RunSpec(checkpoint=checkpoint.name, text=text, interventions=every_way(text))
    given = source_activations(checkpoint, every)
    for changes in (every.interventions, every.interventions[1:3], ()):
        spec = replace(every, interventions=changes)
        assert np.array_equal(run(checkpoint, spec, sources=given).logits, run(checkpoint, spec).logits)


def test_predicted_bytes_are_those_that_a_run_with_interventions_keeps(gated: Checkpoint, text: str) -> None:
    read_only = Edit(site=Site.RESID_MID, operation=Set(value=0.0), segments=(1,), persistence=Persistence.READ_ONLY)
    captures = tuple(Capture(site) for site in sites_of(gated.config.memory))
    spec = RunSpec(checkpoint=gated.name, text=text, captures=captures, interventions=(*every_way(text), read_only))
    assert run(gated, spec).bytes == predicted_bytes(gated, spec)


def test_interventions_keep_a_model_s_own_precision(gated: Checkpoint, text: str) -> None:
    model = LM2.empty(gated.config, torch.device("cpu"), torch.bfloat16)
    model.load_weights(gated.model.weights())
    rough = Checkpoint(name=gated.name, model=model, tokenizer=gated.tokenizer, digest="rough")
    direction = tuple(np.sin(np.arange(1, 13)))
    changes = (
        *every_way(text),
        *(BankEdit(operation=operation) for operation in (Add(direction=direction), ProjectOut(direction=direction))),
    )
    trace = run(rough, RunSpec(checkpoint=gated.name, text=text, interventions=changes))
    assert trace.dtype == "bfloat16" and np.isfinite(trace.logits).all()


def test_the_lock_is_let_go_between_segments(gated: Checkpoint, text: str) -> None:
    met: list[bool] = []

    def on_segment(done: int, count: int) -> None:
        other = threading.Thread(
            target=lambda: met.append(gated.lock.acquire(blocking=False) and (gated.lock.release() or True))
        )
        other.start()
        other.join()

    trace = run(gated, RunSpec(checkpoint=gated.name, text=text), on_segment=on_segment)
    assert met == [True] * len(trace.segments)


def test_each_segment_looks_only_at_the_captures_that_name_it(
    gated: Checkpoint, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text lends to another one segment by segment: as many captures as segments."""
    looks: list[Capture] = []
    real = Capture.blocks
    monkeypatch.setattr(Capture, "blocks", lambda capture, config: (looks.append(capture), real(capture, config))[1])
    count = len(prepare(gated, RunSpec(checkpoint=gated.name, text=text))[1])
    spec = RunSpec(
        checkpoint=gated.name, text=text, captures=tuple(Capture(Site.GATE_IN, segments=(at,)) for at in range(count))
    )
    trace = run(gated, spec)
    assert len(looks) == 2 * count, "once to predict its size, once to keep it"
    assert sorted({place.segment for _, place in trace.records}) == list(range(count))


def test_a_text_is_encoded_once_for_all_that_ask_for_it(gated, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, encode = [], gated.tokenizer.encode
    monkeypatch.setattr(gated.tokenizer, "encode", lambda text, bos: (texts.append(text), encode(text, bos))[1])
    spec = RunSpec(checkpoint=gated.name, text="Mary went home, and nobody else did.")
    assert prepare(gated, spec) == prepare(gated, replace(spec, captures=(Capture(Site.EMBED),))) and len(texts) == 1
    prepare(gated, replace(spec, segment_length=4))
    assert len(texts) == 2, "other segments are cut anew"
