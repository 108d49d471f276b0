"""Tokens to segments, and segments to padded batches."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lm2.model.config import SegmentEnd
from lm2.text.sequence import TokenSequence

PADDING_ID = 0
"""Any id would do, as padding is masked."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Consecutive tokens that the model reads at once."""

    index: int
    start: int
    """Index of its first token in the document."""
    ids: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.start + len(self.ids)


def is_full(count: int, length: int, end: SegmentEnd, piece: str) -> bool:
    """Whether a segment of `count` tokens ends with the token that spells `piece`.

    Later tokens do not matter, so a text being generated is cut like the finished text. A line break in front of a word
    does not count: it ended the line before.
    """
    if count >= length:
        return True
    piece = piece.lstrip() or piece
    return end is SegmentEnd.SENTENCE and 2 * count >= length and ("\n" in piece or piece.rstrip().endswith((".", "!")))


def split_segments(tokens: TokenSequence, length: int, end: SegmentEnd = SegmentEnd.LENGTH) -> tuple[Segment, ...]:
    """Cut where segments are full, and at every break of the text. Raises ValueError for a length below 1."""
    if length < 1:
        raise ValueError(f"a segment holds at least 1 token, not {length}")
    starts, breaks = [0] if tokens.ids else [], set(tokens.breaks)
    for index, piece in enumerate(tokens.pieces[:-1], start=1):
        if index in breaks or is_full(index - starts[-1], length, end, piece):
            starts.append(index)
    return as_segments([tokens.ids[start:stop] for start, stop in zip(starts, [*starts[1:], len(tokens)])])


def possible_segments(
    segments: Sequence[Segment], new_tokens: int, length: int, end: SegmentEnd
) -> tuple[Segment, ...]:
    """A text's segments, the last of which is open, and as many more as `new_tokens` more tokens can make. The open one
    and each new one have all tokens that can be in them; only their indexes, starts and lengths mean anything."""
    if not new_tokens:
        return tuple(segments)
    *closed, open_segment = segments
    written, total = open_segment.end, open_segment.end + new_tokens
    shortest = -(-length // 2) if end is SegmentEnd.SENTENCE else length
    possible, earliest, latest = closed, open_segment.start, open_segment.start
    while earliest < total:
        latest = min(max(latest + length, written), total)
        ids = cast("tuple[int, ...]", range(earliest, latest))  # a long text has too many for a tuple in each segment
        possible.append(Segment(index=len(possible), start=earliest, ids=ids))
        earliest = max(earliest + shortest, written)
    return tuple(possible)


def as_segments(ids: Sequence[Sequence[int]], first: int = 0) -> tuple[Segment, ...]:
    """Token ids as consecutive segments with indexes from `first` on; the first of them starts at token 0."""
    starts = itertools.accumulate(map(len, ids), initial=0)
    return tuple(
        Segment(index=index, start=start, ids=tuple(row)) for index, (row, start) in enumerate(zip(ids, starts), first)
    )


def pad(
    rows: Sequence[Sequence[int]], length: int | None = None, device: torch.device | None = None
) -> tuple[Int[Tensor, "batch token"], Bool[Tensor, "batch token"]]:
    """Ids padded at the end to `length` (None for that of the longest row), and the mask of real tokens."""
    length = max(map(len, rows)) if length is None else length
    ids = torch.tensor([[*row, *[PADDING_ID] * (length - len(row))] for row in rows], dtype=torch.long, device=device)
    non_padding = [[index < len(row) for index in range(length)] for row in rows]
    return ids, torch.tensor(non_padding, dtype=torch.bool, device=device)
