"""Tokens to segments: what the model sees at once. The only place that pads."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lm2.model.config import SegmentEnd
from lm2.text.sequence import TokenSequence

PADDING_ID = 0
"""Any id would do: padding changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A run of tokens that the model sees at once."""

    index: int
    start: int
    """Place of its first token in the document."""
    ids: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.start + len(self.ids)


def is_full(count: int, length: int, end: SegmentEnd, piece: str) -> bool:
    """Whether a segment of `count` tokens, the last of which spells `piece`, is closed.

    It only looks back, so that a text that is being written is cut as the finished text would be. A line break in front
    of a word has ended the line before it: it is not this token that does.
    """
    if count >= length:
        return True
    own = piece.lstrip() or piece
    return end is SegmentEnd.SENTENCE and 2 * count >= length and ("\n" in own or own.rstrip().endswith((".", "!")))


def split_segments(tokens: TokenSequence, length: int, end: SegmentEnd = SegmentEnd.LENGTH) -> tuple[Segment, ...]:
    """Cut where segments are full and at every break of the text; no token is lost.

    Raises ValueError for a length below 1.
    """
    if length < 1:
        raise ValueError(f"a segment holds at least 1 token, not {length}")
    starts, breaks = [0] if tokens.ids else [], set(tokens.breaks)
    for at, piece in enumerate(tokens.pieces[:-1], start=1):
        if at in breaks or is_full(at - starts[-1], length, end, piece):
            starts.append(at)
    ends = [*starts[1:], len(tokens)]
    return tuple(
        Segment(index=index, start=start, ids=tokens.ids[start:stop])
        for index, (start, stop) in enumerate(zip(starts, ends))
    )


def numbered(ids: Sequence[Sequence[int]], first: int = 0) -> tuple[Segment, ...]:
    """Token ids as segments that follow one another from number `first` on; places count from the first of them."""
    starts = itertools.accumulate(map(len, ids), initial=0)
    return tuple(
        Segment(index=index, start=start, ids=tuple(own)) for index, (own, start) in enumerate(zip(ids, starts), first)
    )


def pad(
    rows: Sequence[Sequence[int]], length: int | None = None, device: torch.device | None = None
) -> tuple[Int[Tensor, "batch token"], Bool[Tensor, "batch token"]]:
    """Ids and the mask of real tokens, each row filled up at its end to `length` (None: the longest row)."""
    length = max(map(len, rows)) if length is None else length
    ids = torch.tensor([[*row, *[PADDING_ID] * (length - len(row))] for row in rows], dtype=torch.long, device=device)
    non_padding = torch.tensor(
        [[at < len(row) for at in range(length)] for row in rows], dtype=torch.bool, device=device
    )
    return ids, non_padding
