"""Laws of what each token of a document has to do with each slot."""

from dataclasses import replace

import numpy as np
import pytest

from lm2.model.sites import Site
from lm2.runs.capture import Capture, HeadMean
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint
from probes.experiments.contents.provenance import writes
from probes.explain import passages as module
from probes.explain.corpus import Entry
from probes.explain.passages import LONGEST, passages
from probes.explain.spec import ExplainSpec, Signal

TEXTS = (
    "Mary moved to the bathroom. John went to the hallway. Zoë 🙂 took the apple.",
    "Sandra journeyed to the office. Where is Mary?",
)
ENTRIES = [Entry(str(at), text) for at, text in enumerate(TEXTS)]


def _read(checkpoint: Checkpoint, **chosen: object) -> list[tuple[module.Passage, ...]]:
    return list(passages(checkpoint, ENTRIES, ExplainSpec(checkpoint=checkpoint.name, **chosen)))


@pytest.mark.parametrize("kind", ["gated", "rmt"])
def test_documents_read_side_by_side_are_read_as_each_alone(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = request.getfixturevalue(kind)
    together = _read(checkpoint)
    monkeypatch.setattr("lm2.runs.batched.can_batch", lambda config: False)
    for beside, alone in zip(together, _read(checkpoint), strict=True):
        for one, other in zip(beside, alone, strict=True):
            assert (one.text, one.spans, one.words, one.values.keys()) == (
                other.text,
                other.spans,
                other.words,
                other.values.keys(),
            )
            assert all(np.allclose(one.values[signal], other.values[signal], atol=1e-5) for signal in one.values)


def test_reading_is_the_read_pattern_and_writing_the_credit_of_provenance(gated: Checkpoint) -> None:
    sites = (Site.GATE_IN, Site.CANDIDATE, Site.GATE_FORGET)
    captures = (Capture(Site.READ_PATTERN, HeadMean()), Capture(Site.WRITE_PATTERN, HeadMean()), *map(Capture, sites))
    trace = run(gated, RunSpec(checkpoint=gated.name, text=TEXTS[0], captures=captures))
    found = _read(gated)[0]
    for one, segment in zip(found, trace.segments, strict=True):
        assert (Signal.READ in one.values, Signal.WRITE in one.values) == (
            segment.index > 0,
            segment is not trace.segments[-1],
        )
        if Signal.READ in one.values:
            read = np.mean(
                [trace.at(Site.READ_PATTERN, segment=segment.index, layer=layer) for layer in (0, 2)], axis=0
            )
            np.testing.assert_allclose(one.values[Signal.READ], read, atol=1e-5)
        if Signal.WRITE in one.values:
            here = writes(replace(trace, segments=(segment,)), 1)
            credit = sum(np.linalg.norm(write.left, axis=-1)[:, None] * write.pattern for write in here)
            np.testing.assert_allclose(one.values[Signal.WRITE], credit.T, atol=1e-5)


def test_a_memory_tokens_writing_is_shared_out_over_what_it_attends_to(rmt: Checkpoint) -> None:
    captures = (Capture(Site.WRITE_PATTERN, HeadMean()), Capture(Site.BANK_PRE), Capture(Site.BANK_POST))
    trace = run(rmt, RunSpec(checkpoint=rmt.name, text=TEXTS[0], captures=captures))
    moved = np.linalg.norm(
        trace.at(Site.BANK_POST, segment=0, layer=2) - trace.at(Site.BANK_PRE, segment=0, layer=0), axis=-1
    )
    pattern = np.mean([trace.at(Site.WRITE_PATTERN, segment=0, layer=layer) for layer in (0, 1, 2)], axis=0)
    np.testing.assert_allclose(_read(rmt)[0][0].values[Signal.WRITE], (moved[:, None] * pattern).T, atol=1e-5)


def test_one_block_alone_can_be_looked_at(gated: Checkpoint) -> None:
    both, first, last = (
        _read(gated, signals=(Signal.READ,), block=block)[0][1].values[Signal.READ] for block in (None, 0, 2)
    )
    np.testing.assert_allclose(both, (first + last) / 2, atol=1e-6)


def test_passages_tell_the_whole_text_and_pieces_of_a_word_belong_together(gated: Checkpoint) -> None:
    for document, entry in zip(_read(gated), ENTRIES, strict=True):
        told = "".join("".join(one.text for one in document).split())
        assert told.replace("🙂🙂", "🙂") == "".join(entry.text.split())  # whose bytes are tokens of two segments
        for one in document:
            assert len(one.spans) == len(one.words) == len(next(iter(one.values.values())))
            assert all(one.text[left:right].strip() in word for (left, right), word in zip(one.spans, one.words))
    words = {word for document in _read(gated) for one in document for word in one.words}
    assert {"Mary", "journeyed", "Zoë", "apple", ".", "?"} <= words


def test_long_segments_are_cut(gated: Checkpoint) -> None:
    entry = Entry("long", TEXTS[0] * 8)
    (found,) = passages(gated, [entry], ExplainSpec(checkpoint=gated.name, segment_length=100))
    assert max(len(one.spans) for one in found) == LONGEST
    assert len({one.segment for one in found}) < len(found)
    assert "".join("".join(one.text for one in found).split()) == "".join(entry.text.split())


def test_the_released_arithmetic_can_be_read_and_has_no_write_attention(release: Checkpoint) -> None:
    found = _read(release, signals=(Signal.READ,))
    assert any(Signal.READ in one.values for document in found for one in document)
    with pytest.raises(ValueError, match="no write attention"):
        _read(release)


def test_what_is_not_there_is_refused(gated: Checkpoint, plain: Checkpoint) -> None:
    with pytest.raises(ValueError, match="a model of memory kind 'none' has no slots"):
        _read(plain)
    with pytest.raises(ValueError, match=r"block 1 has no memory; blocks \[0, 2\] have one"):
        _read(gated, block=1)
    with pytest.raises(ValueError, match="no slot 9; this model has slots 0..4"):
        _read(gated, slots=(1, 9))
