"""Laws of lm2.runs.capture: a reduction as the run goes equals the same reduction of the whole afterwards."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lm2.model.sites import Axis, Site, sites_of
from lm2.runs.capture import (
    Capture,
    Coordinate,
    HeadMax,
    HeadMean,
    PooledMax,
    PooledMean,
    Reduction,
    SlotMass,
    TopSlots,
    Whole,
)
from lm2.runs.runner import predicted_bytes, run
from lm2.runs.spec import RunSpec
from lm2.serialize import kinds_of
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.cost import TooLargeError


def pooled(whole: np.ndarray, at: int, tokens: int, pool) -> np.ndarray:
    blocks = np.split(whole, range(tokens, whole.shape[at], tokens), axis=at)
    return np.stack([pool(block, axis=at) for block in blocks], axis=at)


def top(whole: np.ndarray, at: int, count: int) -> np.ndarray:
    whole = np.moveaxis(whole, at, -1)
    order = np.argsort(-whole, axis=-1, kind="stable")[..., :count]
    return np.stack([order.astype(float), np.take_along_axis(whole, order, -1)], -1)


CASES = [
    (Site.READ_PATTERN, HeadMean(), lambda x: x.mean(0)),
    (Site.READ_PATTERN, HeadMax(), lambda x: x.max(0)),
    (Site.ATTN_Z, HeadMean(), lambda x: x.mean(1)),
    (Site.ATTN_PATTERN, HeadMax(), lambda x: x.max(0)),
    (Site.READ_PATTERN, SlotMass(), lambda x: x.mean((0, 1))),
    (Site.READ_PATTERN, TopSlots(2), lambda x: top(x, 2, 2)),
    (Site.READ_PATTERN, TopSlots(99), lambda x: top(x, 2, 5)),
    (Site.WRITE_PATTERN, TopSlots(3), lambda x: top(x, 1, 3)),
    (Site.GATE_IN, TopSlots(1), lambda x: top(x, 0, 1)),
    (Site.WRITE_PATTERN, PooledMax(3), lambda x: pooled(x, 2, 3, np.max)),
    (Site.RESID_POST, PooledMean(2), lambda x: pooled(x, 0, 2, np.mean)),
    (Site.READ_PATTERN, PooledMax(100), lambda x: x.max(1, keepdims=True)),
    (Site.EMBED, PooledMax(1), lambda x: x),
]


@pytest.mark.parametrize(("site", "reduction", "same"), CASES)
def test_a_reduction_equals_numpy_on_the_whole(
    gated: Checkpoint, text: str, site: Site, reduction: Reduction, same
) -> None:
    both = (Capture(site), Capture(site, reduction))
    trace = run(gated, RunSpec(checkpoint=gated.name, text=text, captures=both))
    assert len(trace.segments) >= 4 and len(trace.segments[-1].ids) < 7  # a short last segment is among them
    for segment in trace.segments:
        for layer in site.layers(gated.config):
            whole, reduced = (
                trace.at(site, segment=segment.index, layer=layer, reduction=kind.reduction) for kind in both
            )
            np.testing.assert_allclose(reduced, same(whole), rtol=1e-5, atol=1e-6)


def test_slot_mass_sums_to_one(gated: Checkpoint, text: str) -> None:
    trace = run(gated, RunSpec(checkpoint=gated.name, text=text, captures=(Capture(Site.READ_PATTERN, SlotMass()),)))
    for value in trace.records.values():
        assert value.shape == (5,) and value.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("window", [7, 14, None])
def test_predicted_bytes_are_the_bytes_of_the_trace(build, gated_config, text: str, window: int | None) -> None:
    checkpoint = build(replace(gated_config, attention_window=window), 2)
    captures = tuple(Capture(site) for site in sites_of(checkpoint.config.memory))
    captures += tuple(Capture(site, reduction) for site, reduction, _ in CASES)
    captures += (Capture(Site.GATE_OUT, PooledMax(2), layers=(2,), segments=(1, 2)), Capture(Site.READ, layers=(0,)))
    spec = RunSpec(checkpoint=checkpoint.name, text=text, captures=captures)
    assert predicted_bytes(checkpoint, spec) == run(checkpoint, spec).bytes


def test_predicted_bytes_hold_for_every_kind_of_model(checkpoint: Checkpoint, text: str) -> None:
    captures = tuple(Capture(site) for site in sites_of(checkpoint.config.memory))
    spec = RunSpec(checkpoint=checkpoint.name, text=text + "\fWhere is Mary?", captures=captures)
    assert predicted_bytes(checkpoint, spec) == run(checkpoint, spec).bytes


def test_a_run_that_is_too_large_is_refused_before_it_runs_with_both_numbers(gated: Checkpoint, text: str) -> None:
    spec = RunSpec(checkpoint=gated.name, text=text, captures=(Capture(Site.RESID_POST),))
    bytes_ = predicted_bytes(gated, spec)
    done = []
    with pytest.raises(TooLargeError, match=f"{bytes_:,} bytes, more than the {bytes_ - 1:,} allowed"):
        run(gated, spec, limit_bytes=bytes_ - 1, on_segment=lambda *at: done.append(at))
    assert done == []
    assert run(gated, spec, limit_bytes=bytes_).bytes == bytes_


@pytest.mark.parametrize(
    ("site", "reduction", "said"),
    [
        (Site.GATE_IN, HeadMean(), r"HeadMean needs a head axis, which \(slot, slot_dim\) lacks"),
        (Site.GATE_IN, PooledMax(2), "PooledMax needs a token axis"),
        (Site.RESID_POST, TopSlots(2), "TopSlots needs a slot axis"),
        (Site.WRITE_PATTERN, SlotMass(), r"read pattern .* not \(head, slot, token\)"),
        (Site.READ_Q, SlotMass(), "SlotMass needs a read pattern"),
    ],
)
def test_a_reduction_that_does_not_fit_the_axes_is_refused(site: Site, reduction: Reduction, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Capture(site, reduction)


@pytest.mark.parametrize("make", [lambda: TopSlots(0), lambda: PooledMax(0), lambda: PooledMean(-1)])
def test_reductions_to_nothing_are_refused(make) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make()


def test_json_gives_every_capture_back() -> None:
    for site, reduction, _ in [*CASES, (Site.BANK_POST, Whole(), None)]:
        capture = Capture(site, reduction, layers=(0, 2) if site.per_layer else None, segments=(1,))
        assert Capture.from_json(json.loads(json.dumps(capture.to_json()))) == capture
    assert {type(reduction).__name__ for _, reduction, _ in CASES} | {"Whole"} == set(kinds_of(Reduction))


def test_json_of_a_site_or_reduction_that_does_not_exist_is_refused() -> None:
    good = Capture(Site.READ_PATTERN, HeadMean()).to_json()
    with pytest.raises(ValueError, match="no site is called 'NOWHERE'"):
        Capture.from_json(good | {"site": "NOWHERE"})
    with pytest.raises(ValueError, match="TopSlots cannot be made from"):
        Capture.from_json(good | {"reduction": {"kind": "TopSlots", "size": 2}})
    with pytest.raises(ValueError, match="needs site"):
        Capture.from_json({"layers": [0]})
    with pytest.raises(ValueError, match="no reduction is called 'Whim'"):
        Capture.from_json(good | {"reduction": {"kind": "Whim"}})


def test_a_capture_wants_its_blocks_and_segments_alone(gated: Checkpoint, text: str) -> None:
    capture = Capture(Site.GATE_IN, layers=(2,), segments=(1, 3))
    trace = run(gated, RunSpec(checkpoint=gated.name, text=text, captures=(capture,)))
    assert [at for _, at in trace.records] == [Coordinate(1, 2), Coordinate(3, 2)]


def test_the_axes_of_a_capture_are_those_of_what_is_kept() -> None:
    assert Capture(Site.READ_PATTERN, TopSlots(2)).axes == (Axis.HEAD, Axis.TOKEN, Axis.RANK, Axis.SLOT_AND_VALUE)
    assert Capture(Site.ATTN_PATTERN, HeadMean()).axes == (Axis.TOKEN, Axis.KEY)


def test_a_capture_of_a_block_or_segment_that_is_not_there_is_refused_with_what_there_is(gated) -> None:
    for capture, said in (
        (Capture(Site.READ_PATTERN, layers=(1,)), r"no block 1; this run has blocks \[0, 2\]"),
        (Capture(Site.READ_PATTERN, segments=(99,)), "no segment 99; this run has segments 0..0"),
    ):
        with pytest.raises(ValueError, match=said):
            run(gated, RunSpec(checkpoint=gated.name, text="Mary", captures=(capture,)))
