"""Laws of stores: what is read from one is what the run had, however long the text and however often it was stopped."""

import errno
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lm2.model.config import LM2Config
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.intervention_base import Persistence
from lm2.runs.interventions import BankEdit, Edit, Freeze, WriteBlock
from lm2.runs.operations import Scale, Set
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.sealed import DamagedError
from lm2.stores import layout
from lm2.stores.capture import capture
from lm2.stores.growing import GrowingArray
from lm2.stores.layout import HOWS, What
from lm2.stores.prediction import predict
from lm2.stores.store import Store, open_store
from lm2.weights.checkpoint import Checkpoint

SHARD = 32
"""Tokens, so that a short text has several shards, and segments that go over their ends."""


@pytest.fixture(autouse=True, scope="module")
def small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_SHARDS", (SHARD, SHARD))
        yield


@pytest.fixture(scope="module")
def long_text(text: str) -> str:
    return " ".join([text] * 2)


@pytest.fixture(scope="module")
def stored(checkpoint: Checkpoint, long_text: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Trace]:
    """A store and a trace of one run, of each kind of model in turn."""
    spec = spec_of(checkpoint, long_text)
    return capture(checkpoint, spec, tmp_path_factory.mktemp("stores") / "whole"), trace_of(checkpoint, spec)


def spec_of(checkpoint: Checkpoint, text: str, *interventions) -> RunSpec:
    return RunSpec(checkpoint=checkpoint.name, text=text, interventions=interventions)


def trace_of(checkpoint: Checkpoint, spec: RunSpec) -> Trace:
    gates = [gate.site for gate in checkpoint.config.memory.design.gates.values()]
    sites = [Site.READ_PATTERN, Site.WRITE_PATTERN, *gates]
    captures = tuple(Capture(site) for site in sites if site.layers(checkpoint.config))
    return run(checkpoint, replace(spec, captures=captures))


def pattern(trace: Trace, what: What, layer: int) -> np.ndarray:
    """[head, token, slot] of the whole text."""
    if what is What.READS:
        return trace.across(Site.READ_PATTERN, layer=layer)
    values = [trace.at(Site.WRITE_PATTERN, segment=segment.index, layer=layer) for segment in trace.segments]
    return np.concatenate([value.transpose(0, 2, 1) for value in values], 1)


def maps(store: Store) -> list[tuple[What, int]]:
    sites = store.config.memory.design.sites
    return [(what, layer) for what in What if what.site in sites for layer in store.config.memory_layers]


def check_exact(store: Store, trace: Trace) -> None:
    for what, layer in maps(store):
        expected = pattern(trace, what, layer)
        read = store.reads if what is What.READS else store.writes
        for head, of_head in enumerate(expected):
            assert np.allclose(read(block=layer, head=head), of_head, rtol=0, atol=1e-6)
            window = read(block=layer, head=head, tokens=slice(9, 23), slots=slice(1, 4))
            assert np.allclose(window, of_head[9:23, 1:4], rtol=0, atol=1e-6)
        assert np.allclose(read(block=layer), expected.mean(0), rtol=0, atol=1e-6)


def test_any_window_of_reads_and_writes_is_what_a_trace_captures(stored: tuple[Store, Trace]) -> None:
    check_exact(*stored)


def test_a_store_has_what_a_trace_has(stored: tuple[Store, Trace]) -> None:
    store, trace = stored
    assert (store.tokens, store.segments, store.whole) == (trace.tokens, trace.segments, len(trace.segments))
    assert np.allclose(store.surprisal, trace.surprisal, atol=1e-4, equal_nan=True)
    ids, log_probabilities = store.top()
    assert np.array_equal(ids[:, 0], trace.logits.argmax(-1))
    assert (np.diff(log_probabilities) <= 0).all()
    if trace.bank is not None:
        assert np.allclose(store.bank(store.whole), trace.bank)
    for name, gate in store.config.memory.design.gates.items():
        for layer in store.config.memory_layers:
            values, summary = trace.across(gate.site, layer=layer), store.gates(name, block=layer)
            assert np.allclose(summary.rows.mean, values.mean(-1), atol=1e-6)
            assert np.array_equal(summary.rows.least, values.min(-1))
            by_segment = [trace.at(gate.site, segment=segment.index, layer=layer) for segment in trace.segments]
            assert np.array_equal(summary.features.most, np.stack([value.max(0) for value in by_segment]))


@pytest.mark.parametrize("how", HOWS)
def test_a_row_of_any_level_pools_the_tokens_that_it_says(stored: tuple[Store, Trace], how) -> None:
    store, trace = stored
    for what, layer in maps(store)[::2]:
        heads = pattern(trace, what, layer)
        assert store.largest(what, block=layer) == heads.max()
        for head, values in [(None, heads.max(0) if how == "max" else heads.mean(0)), (0, heads[0])]:
            for level in (1, 3, 5, 7):
                starts = np.arange(0, len(values), 2**level)
                rows = [values[start : start + 2**level] for start in starts]
                expected = np.stack([row.max(0) if how == "max" else row.mean(0) for row in rows])
                pooled = store.pooled(what, block=layer, head=head, how=how, level=level)
                assert pooled == pytest.approx(expected, rel=2e-3, abs=1e-6)
                part = store.pooled(what, block=layer, head=head, how=how, level=level, rows=slice(1, 3))
                assert np.array_equal(part, pooled[1:3])


def distributions(trace: Trace, what: What, layer: int, head: int) -> list[np.ndarray]:
    """What tokens read, over slots; or what slots are written from, over the tokens of each segment. Each sums to 1."""
    weights = pattern(trace, what, layer)[head].astype(np.float64)
    if what is What.WRITES:
        rows = [row for segment in trace.segments for row in weights[segment.start : segment.end].T]
    else:
        rows = list(weights)
    return [row / row.sum() for row in rows if row.sum() > 0]


def test_the_table_of_heads_is_that_of_their_patterns(stored: tuple[Store, Trace]) -> None:
    store, trace = stored
    for what in {what for what, _ in maps(store)}:
        for row in store.heads(what):
            shares = distributions(trace, what, row.block, row.head)
            entropies = [-(share[share > 0] * np.log2(share[share > 0])).sum() for share in shares]
            assert row.entropy == pytest.approx(np.mean(entropies), abs=1e-4)
            assert row.effective == pytest.approx(2 ** np.mean(entropies), rel=1e-3)
            assert row.top == pytest.approx(np.mean([share.max() for share in shares]), rel=1e-4)


def test_what_is_read_is_as_old_as_closed_gates_make_it(
    build: Callable[..., Checkpoint], gated_config: LM2Config, long_text: str, tmp_path: Path
) -> None:
    """Gates that admit everything and keep nothing: what is read was written one segment ago."""
    checkpoint = build(replace(gated_config, memory_layers=(0,)))
    gates = [Edit(site=Site.GATE_IN, operation=Set(value=1.0)), Edit(site=Site.GATE_FORGET, operation=Set(value=0.0))]
    store = capture(checkpoint, spec_of(checkpoint, long_text, *gates), tmp_path / "open")
    assert [row.distance for row in store.heads("reads")] == pytest.approx([1.0, 1.0])
    store = capture(checkpoint, spec_of(checkpoint, long_text, Freeze(segment=0)), tmp_path / "frozen")
    assert [row.distance for row in store.heads("reads")] == [None, None]


class Stopped(Exception):
    """A run that ends where the test says."""


def stop_after(count: int) -> Callable[[int, int], None]:
    def on_segment(done: int, total: int) -> None:
        if done == count:
            raise Stopped

    return on_segment


def shards(path: Path) -> dict[str, bytes]:
    """Every shard of a store, byte for byte."""
    files = [file for file in path.rglob("*") if file.is_file() and "c" in file.parts]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def test_a_stopped_run_goes_on_to_the_same_bytes(
    checkpoint: Checkpoint, stored: tuple[Store, Trace], tmp_path: Path
) -> None:
    whole, _ = stored
    for count in (6, len(whole.segments) - 1):
        with pytest.raises(Stopped):
            capture(checkpoint, whole.spec, tmp_path / "s", on_segment=stop_after(count))
        part = open_store(tmp_path / "s")
        assert 0 < part.whole <= count
        assert whole.segments[count].start - part.tokens_whole < SHARD + len(whole.segments[count].ids)
        assert np.array_equal(part.surprisal, whole.surprisal[: part.tokens_whole], equal_nan=True)
        for what, layer in maps(part)[::2]:
            for level in (0, 4, 6):
                rows = part.pooled(what, block=layer, how="max", level=level)
                assert len(rows) == -(-part.tokens_whole // 2**level)
                finished = part.tokens_whole // 2**level
                expected = whole.pooled(what, block=layer, how="max", level=level)
                assert np.array_equal(rows[:finished], expected[:finished])
    capture(checkpoint, whole.spec, tmp_path / "s")
    assert shards(tmp_path / "s") == shards(whole.path) != {}


def test_a_store_goes_on_only_with_its_own_run(gated: Checkpoint, text: str, tmp_path: Path) -> None:
    spec = spec_of(gated, text)
    capture(gated, spec, tmp_path / "s")
    for other in (replace(spec, text=f"{text} More."), replace(spec, interventions=(Freeze(segment=1),))):
        with pytest.raises(ValueError, match="holds another run, with another spec: name a new folder"):
            capture(gated, other, tmp_path / "s")
    with pytest.raises(ValueError, match="holds another run, with another checkpoint"):
        capture(replace(gated, digest="another"), spec, tmp_path / "s")
    with pytest.raises(ValueError, match="no captures, and not 1"):
        capture(gated, replace(spec, captures=(Capture(Site.READ),)), tmp_path / "t")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "letter.txt").touch()
    with pytest.raises(ValueError, match=r"holds other files, 'letter.txt' among them"):
        capture(gated, spec, tmp_path / "files")
    with pytest.raises(ValueError, match="is no store"):
        open_store(tmp_path / "files")


@pytest.fixture(scope="module")
def sound(gated: Checkpoint, text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests damage and repair."""
    store = capture(gated, spec_of(gated, text), tmp_path_factory.mktemp("stores") / "sound")
    store.check()
    return store.path


@pytest.mark.parametrize("name", ["reads/0/queries", "writes/2/pyramid", "bank", "next/top", "gates/2/in/rows"])
def test_a_changed_byte_and_a_missing_shard_are_noticed(sound: Path, name: str) -> None:
    shard = next(file for file in sorted((sound / name / "c").rglob("*")) if file.is_file())
    content = shard.read_bytes()
    shard.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
    with pytest.raises(DamagedError, match=f"is damaged: {name} cannot be read"):
        open_store(sound).check()
    shard.unlink()
    with pytest.raises(DamagedError, match=f"is damaged: {name}/c/.* is missing"):
        open_store(sound).check()
    shard.write_bytes(content)


@pytest.mark.parametrize("name", ["store.json", "text.npz", "weights.npz", "state.npz"])
def test_files_beside_the_arrays_that_are_cut_off_are_noticed(sound: Path, name: str) -> None:
    content = (sound / name).read_bytes()
    (sound / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedError, match=name):
        open_store(sound).check()
    (sound / name).write_bytes(content)


def test_a_full_disk_leaves_what_is_whole_and_the_run_goes_on(
    gated: Checkpoint, long_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, put = spec_of(gated, long_text), GrowingArray._put

    def full(array: GrowingArray, rows: np.ndarray) -> None:
        if array._start >= 2 * SHARD:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(array, rows)

    with monkeypatch.context() as patch:
        patch.setattr(GrowingArray, "_put", full)
        with pytest.raises(OSError, match=r"there is no room for .*: No space left on device; 9 of \d+ segments are"):
            capture(gated, spec, tmp_path / "s")
    assert open_store(tmp_path / "s").whole == 9
    assert capture(gated, spec, tmp_path / "s").whole > 9


def test_a_store_of_a_model_without_memory_has_predictions_and_says_what_it_lacks(
    plain: Checkpoint, text: str, tmp_path: Path
) -> None:
    store = capture(plain, spec_of(plain, text), tmp_path / "s")
    assert len(store.surprisal) == len(store.tokens)
    for ask in (lambda: store.reads(block=0), lambda: store.heads("writes"), lambda: store.bank(0)):
        with pytest.raises(ValueError, match="a plain decoder has no memory"):
            ask()
    with pytest.raises(ValueError, match="the store has no gates"):
        store.gates("in", block=0)


def test_interventions_are_in_what_is_kept(gated: Checkpoint, text: str, tmp_path: Path) -> None:
    """Also those after which a pattern does not follow from queries and bank, and those that only reading sees."""
    edits = [
        Edit(site=Site.READ_K, operation=Scale(by=0.5), layers=(0,)),
        BankEdit(operation=Scale(by=0.5), segments=(2,), persistence=Persistence.READ_ONLY),
        WriteBlock(tokens=(3, 4)),
    ]
    for number in range(len(edits)):
        spec = spec_of(gated, text, *edits[number:])
        check_exact(capture(gated, spec, tmp_path / str(number)), trace_of(gated, spec))


def test_a_model_that_looks_back_goes_on_with_the_tokens_before(
    build: Callable[..., Checkpoint], gated_config: LM2Config, long_text: str, tmp_path: Path
) -> None:
    checkpoint = build(replace(gated_config, attention_window=12, read_top_k=2))
    spec = spec_of(checkpoint, long_text, BankEdit(operation=Scale(by=0.5), persistence=Persistence.READ_ONLY))
    whole = capture(checkpoint, spec, tmp_path / "whole")
    check_exact(whole, trace_of(checkpoint, spec))
    with pytest.raises(Stopped):
        capture(checkpoint, spec, tmp_path / "s", on_segment=stop_after(len(whole.segments) - 1))
    assert 0 < open_store(tmp_path / "s").whole < len(whole.segments)
    capture(checkpoint, spec, tmp_path / "s")
    assert shards(tmp_path / "s") == shards(whole.path)


def test_a_store_in_bfloat16_keeps_its_bits(gated: Checkpoint, text: str, tmp_path: Path) -> None:
    half = replace(gated, model=deepcopy(gated.model).bfloat16(), digest="half")
    spec = spec_of(half, text)
    store, trace = capture(half, spec, tmp_path / "s"), trace_of(half, spec)
    assert np.array_equal(store.bank(store.whole), trace.bank)
    assert np.array_equal(store.writes(block=2, head=1), pattern(trace, What.WRITES, 2)[1])
    assert np.allclose(store.reads(block=2, head=1), pattern(trace, What.READS, 2)[1], rtol=2**-7)


def test_bytes_are_known_before(checkpoint: Checkpoint, stored: tuple[Store, Trace]) -> None:
    store, _ = stored
    predicted = predict(checkpoint, store.spec)
    assert sum(map(len, shards(store.path).values())) == predicted.bytes
    assert predicted.seconds > 0 and predicted.coarser[5] <= predicted.coarser[3]
