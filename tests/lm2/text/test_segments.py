"""Laws of lm2.text.segments: no token is lost, and padding is marked."""

import random
from itertools import pairwise

import pytest
import torch

from lm2.model.config import SegmentEnd
from lm2.text.segments import Segment, pad, split_segments
from lm2.text.sequence import TokenSequence


def sequence(length: int, breaks: tuple[int, ...] = ()) -> TokenSequence:
    return TokenSequence(
        text="x" * length, ids=tuple(range(100, 100 + length)), pieces=("x",) * length,
        spans=tuple((at, at + 1) for at in range(length)), breaks=breaks,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(200))
def test_no_token_is_lost_and_no_segment_is_too_long_or_crosses_a_break(seed: int) -> None:
    chance = random.Random(seed)
    count, length = chance.randrange(1, 60), chance.randrange(1, 20)
    breaks = tuple(sorted(chance.sample(range(1, count), chance.randrange(0, min(6, count)))))
    tokens = sequence(count, breaks)
    segments = split_segments(tokens, length)
    assert tuple(token for segment in segments for token in segment.ids) == tokens.ids
    assert [segment.index for segment in segments] == list(range(len(segments)))
    for segment in segments:
        assert 1 <= len(segment.ids) <= length
        assert segment.ids == tokens.ids[segment.start : segment.end]
        assert not any(segment.start < at < segment.end for at in breaks)
    edges = [0, *breaks, count]
    assert len(segments) == sum(-(-(right - left) // length) for left, right in pairwise(edges))


def test_no_tokens_make_no_segments() -> None:
    assert split_segments(sequence(0), 4) == ()


@pytest.mark.parametrize("length", [0, -1])
def test_a_length_below_one_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 token, not {length}"):
        split_segments(sequence(3), length)


def test_segments_know_where_they_lie() -> None:
    assert split_segments(sequence(5, (2,)), 2) == (
        Segment(index=0, start=0, ids=(100, 101)),
        Segment(index=1, start=2, ids=(102, 103)),
        Segment(index=2, start=4, ids=(104,)),
    )


def test_padding_follows_the_real_tokens_and_is_marked() -> None:
    ids, non_padding = pad([(5, 6, 7), (8,)])
    assert ids.dtype is torch.long and non_padding.dtype is torch.bool
    assert non_padding.tolist() == [[True, True, True], [True, False, False]]
    assert ids[non_padding].tolist() == [5, 6, 7, 8]
    assert pad([(1, 2)], 4)[0].shape == (1, 4)


def test_a_segment_ends_behind_the_first_sentence_of_its_second_half(gated) -> None:
    tokens = TokenSequence(
        text="",
        ids=tuple(range(14)),
        pieces=("a", ".", "b", "c", "d", ".", "e", "f", "g", "h", "i", "j", "k", "."),
        spans=((0, 0),) * 14,
    )
    found = split_segments(tokens, 8, SegmentEnd.SENTENCE)
    assert [segment.ids for segment in found] == [tuple(range(6)), tuple(range(6, 14))]


def test_a_text_that_is_being_written_is_cut_as_the_finished_text_is() -> None:
    chance = random.Random(0)
    for _ in range(50):
        pieces = tuple(chance.choice(("a", " b", ".", "\n", "?")) for _ in range(60))
        whole = TokenSequence(text="", ids=tuple(range(60)), pieces=pieces, spans=((0, 0),) * 60)
        edges = {segment.end for segment in split_segments(whole, 7, SegmentEnd.SENTENCE)}
        for count in range(1, 60):
            part = TokenSequence(text="", ids=whole.ids[:count], pieces=pieces[:count], spans=whole.spans[:count])
            grown = {segment.end for segment in split_segments(part, 7, SegmentEnd.SENTENCE)}
            assert grown - {count} == {edge for edge in edges if edge < count}
