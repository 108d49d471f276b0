"""Tokens to segments: what the model sees at once. The only place that pads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lm2.tokens import TokenSequence

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


def split_segments(tokens: TokenSequence, length: int) -> tuple[Segment, ...]:
    """Cut after every `length` tokens and at every break of the text; no token is lost.

    Raises ValueError for a length below 1.
    """
    if length < 1:
        raise ValueError(f"a segment holds at least 1 token, not {length}")
    edges = [0, *tokens.breaks, len(tokens)]
    starts = [at for left, right in zip(edges, edges[1:]) for at in range(left, right, length)]
    ends = [*starts[1:], len(tokens)]
    return tuple(
        Segment(index=index, start=start, ids=tokens.ids[start:end]) for index, (start, end) in enumerate(zip(starts, ends))
    )


def pad(
    rows: Sequence[Sequence[int]], length: int | None = None, device: torch.device | None = None
) -> tuple[Int[Tensor, "batch token"], Bool[Tensor, "batch token"]]:
    """Ids and the mask of real tokens, each row filled up at its end to `length` (None: the longest row)."""
    length = max(map(len, rows)) if length is None else length
    ids = torch.tensor([[*row, *[PADDING_ID] * (length - len(row))] for row in rows], dtype=torch.long, device=device)
    real = torch.tensor([[at < len(row) for at in range(length)] for row in rows], dtype=torch.bool, device=device)
    return ids, real
