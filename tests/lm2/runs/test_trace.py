"""Laws of lm2.runs.trace: what a run left behind can be kept, addressed and not changed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lm2.model.sites import Site
from lm2.runs.capture import Capture, HeadMax, HeadMean, SlotMass, TopSlots
from lm2.runs.interventions import Edit
from lm2.runs.operations import Set
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.weights.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def trace(gated: Checkpoint, text: str) -> Trace:
    captures = (
        Capture(Site.GATE_IN, layers=(0,)),
        Capture(Site.READ_PATTERN, HeadMean()),
        Capture(Site.READ_PATTERN, HeadMax()),
        Capture(Site.READ_PATTERN, TopSlots(2), segments=(1,)),
        Capture(Site.ATTN_PATTERN),
        Capture(Site.EMBED),
    )
    change = Edit(site=Site.GATE_OUT, operation=Set(value=1.0), segments=(1,))
    return run(
        gated, RunSpec(checkpoint=gated.name, text=text + "\fWhere is Zoë?", captures=captures, interventions=(change,))
    )


@pytest.fixture(scope="module")
def saved(trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "one.npz"
    trace.save(path)
    return path


def test_saving_and_loading_gives_the_trace_back(trace: Trace, saved: Path) -> None:
    back = Trace.load(saved)
    for name in ("spec", "checkpoint_digest", "device", "dtype", "tokens", "segments"):
        assert getattr(back, name) == getattr(trace, name), name
    assert np.array_equal(back.logits, trace.logits) and np.array_equal(back.bank, trace.bank)
    assert list(back.records) == list(trace.records)
    for key, value in trace.records.items():
        assert np.array_equal(back.records[key], value) and back.records[key].dtype == value.dtype
    assert back.bytes == trace.bytes


def test_a_trace_without_a_bank_comes_back_without_one(plain: Checkpoint, tmp_path: Path) -> None:
    trace = run(plain, RunSpec(checkpoint=plain.name, text="Mary"))
    trace.save(tmp_path / "plain.npz")
    assert trace.bank is None and Trace.load(tmp_path / "plain.npz").bank is None


def test_arrays_are_read_only_before_and_after_saving(trace: Trace, saved: Path) -> None:
    for one in (trace, Trace.load(saved)):
        for array in (one.logits, one.bank, *one.records.values()):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_at_says_what_was_kept(trace: Trace) -> None:
    assert trace.at(Site.GATE_IN, segment=1, layer=0).shape == (5, 12)
    assert trace.at(Site.READ_PATTERN, segment=1, layer=2, reduction=TopSlots(2)).shape == (2, 7, 2, 2)
    with pytest.raises(
        KeyError, match="no capture holds GATE_IN at segment 0, layer 2; kept: .*GATE_IN.*READ_PATTERN TopSlots"
    ):
        trace.at(Site.GATE_IN, segment=0, layer=2)
    with pytest.raises(KeyError, match="several captures hold READ_PATTERN at segment 0, layer 0"):
        trace.at(Site.READ_PATTERN, segment=0, layer=0)
    with pytest.raises(KeyError, match="SlotMass"):
        trace.at(Site.READ_PATTERN, segment=0, layer=0, reduction=SlotMass())
    with pytest.raises(KeyError, match="no capture holds EMBED at segment 99"):
        trace.at(Site.EMBED, segment=99)


def test_a_trace_that_kept_nothing_says_so(plain: Checkpoint) -> None:
    with pytest.raises(KeyError, match="kept: nothing"):
        run(plain, RunSpec(checkpoint=plain.name, text="Mary")).at(Site.EMBED, segment=0)


def test_across_joins_tokens_and_stacks_what_has_none(trace: Trace) -> None:
    assert trace.across(Site.EMBED).shape == (len(trace.tokens), 16)
    assert trace.across(Site.GATE_IN, layer=0).shape == (len(trace.segments), 5, 12)
    means = trace.across(Site.READ_PATTERN, layer=2, reduction=HeadMean())
    assert means.shape == (len(trace.tokens), 5)
    last = trace.segments[-1]
    assert np.array_equal(
        means[last.start :], trace.at(Site.READ_PATTERN, segment=last.index, layer=2, reduction=HeadMean())
    )


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut short"])
def test_a_foreign_file_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="foreign.npz is not a trace"):
        Trace.load(path)


def test_a_truncated_trace_is_refused_with_its_path(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    for share in (0.3, 0.9, 0.999):
        path = tmp_path / "short.npz"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match="short.npz is not a trace"):
            Trace.load(path)


def test_another_programs_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", logits=np.zeros(3))
    with pytest.raises(ValueError, match="other.npz is not a trace"):
        Trace.load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="missing.npz"):
        Trace.load(tmp_path / "missing.npz")


def test_saving_leaves_one_file_and_replaces_the_old_one(trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "trace.npz"
    trace.save(path)
    trace.save(path)
    assert [p.name for p in path.parent.iterdir()] == ["trace.npz"]


class _Counted(dict):
    """Records that count how often one of them is looked at."""

    looks = 0

    def __iter__(self) -> Iterator:
        for key in super().__iter__():
            self.looks += 1
            yield key

    def items(self) -> Iterator:
        return ((key, self[key]) for key in self)


def test_reading_a_site_at_every_segment_looks_at_each_record_once(trace: Trace) -> None:
    records = _Counted(trace.records)
    counted = replace(trace, records=records)
    assert np.array_equal(counted.across(Site.GATE_IN, layer=0), trace.across(Site.GATE_IN, layer=0))
    for segment in trace.segments:
        counted.at(Site.READ_PATTERN, segment=segment.index, layer=2, reduction=HeadMean())
    assert records.looks == len(records)


def test_logits_kept_in_a_file_are_those_kept_in_memory(
    gated: Checkpoint, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(checkpoint=gated.name, text=text)
    held = run(gated, spec)
    monkeypatch.setattr("lm2.runs.trace._MOST_IN_MEMORY", 0)
    mapped = run(gated, spec)
    assert np.array_equal(mapped.logits, held.logits) and np.array_equal(
        mapped.surprisal, held.surprisal, equal_nan=True
    )
    assert mapped.bytes == held.bytes - held.logits.nbytes, "what is in a file takes no memory"
    with pytest.raises(ValueError, match="read-only"):
        mapped.logits[0] = 0
    mapped.save(tmp_path / "mapped.npz")
    assert np.array_equal(Trace.load(tmp_path / "mapped.npz").logits, held.logits)


def test_surprise_is_the_same_however_many_rows_are_worked_on_at_a_time(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm2.runs.trace._ROWS", 3)
    assert np.allclose(replace(trace).surprisal, trace.surprisal, equal_nan=True)
