"""Stream: one segment on its way through the blocks, a value that can be kept at any block and gone on from."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lm2.model.llama import KVCache


class TokenRows(NamedTuple):
    """Where the rows of a segment stand, and which of them are no padding."""

    positions: Int[Tensor, "batch row"]
    non_padding: Bool[Tensor, "batch row"]


def with_memory_rows(rows: TokenRows, front: int, back: int, before: Int[Tensor, "batch"]) -> TokenRows:
    """The rows of tokens, followed by those of a memory.

    The front rows stand at positions 0..front-1, tokens after them, and the back rows after the last token. Attention
    goes by position, not by row: with the tokens first, every site's token axis begins with the tokens.
    `before`: tokens of each row that were fed earlier.
    """
    positions, non_padding = rows
    place = torch.arange(max(front, back), device=positions.device).expand(len(positions), -1)
    behind = (front + before + non_padding.sum(1))[:, None] + place[:, :back]
    always = torch.ones_like(non_padding[:, :1]).expand(-1, front + back)
    return TokenRows(
        torch.cat([positions + front, place[:, :front], behind], dim=1), torch.cat([non_padding, always], dim=1)
    )


@dataclass(frozen=True)
class Cache:
    """Earlier tokens that may still be attended to, in every block."""

    layers: tuple[KVCache, ...]
    positions: Int[Tensor, "batch key"]
    """Place of each key in its document; -1 for padding, which nobody sees."""
    next_position: Int[Tensor, "batch"]

    def last(self, tokens: int) -> "Cache":
        """What stays when each row may look back on its last `tokens` real tokens."""
        keep = self.positions.argsort(dim=1, stable=True)[:, max(0, self.positions.shape[1] - tokens) :]
        return Cache(
            tuple(layer.take(keep) for layer in self.layers), self.positions.gather(1, keep), self.next_position
        )

    def repeated(self, count: int) -> "Cache":
        """What one document looks back on, or has in some blocks, for each of `count` rows; as it is where it has them
        all."""
        layers = tuple(_repeated(layer, count) for layer in self.layers)
        return Cache(layers, self.positions.expand(count, -1), self.next_position.expand(count))


def _repeated(layer: KVCache, count: int) -> KVCache:
    return KVCache(k=layer.k.expand(count, -1, -1, -1), v=layer.v.expand(count, -1, -1, -1))


@dataclass(frozen=True)
class Stream:
    """A segment as it enters a block, with all that this block and those behind it need."""

    layer: int
    """The block that it enters next; behind the last block, their number."""
    tokens: int
    """Rows of `resid` that are tokens; memory tokens are rows behind them."""
    resid: Float[Tensor, "batch row d_model"]
    bank_start: Float[Tensor, "batch slot slot_dim"] | None
    """The bank as the segment began."""
    bank: Float[Tensor, "batch slot slot_dim"] | None
    """The bank as the blocks so far have written it."""
    kept: tuple[KVCache, ...]
    """Keys and values of earlier and own tokens in the blocks that are behind it."""
    non_padding: Bool[Tensor, "batch token"]
    rows: TokenRows
    angles: Float[Tensor, "batch row half"]
    visible: Bool[Tensor, "batch one row key"]
    earlier: Cache | None
    """Tokens fed before this segment."""
    seen: Int[Tensor, "batch key"]
    """Places of earlier and own tokens, as the cache will hold them."""
    write: bool

    def before(self, layer: int) -> KVCache | None:
        """What block `layer` may look back on."""
        return None if self.earlier is None else _repeated(self.earlier.layers[layer], len(self.resid))

    def repeated(self, count: int) -> "Stream":
        """The stream of one document as that of `count` equal ones, which share the bank and all else as a batch of 1.

        Raises ValueError for a stream of several documents.
        """
        if len(self.resid) != 1:
            raise ValueError(f"the stream of one document can be repeated, not that of {len(self.resid)}")
        return replace(self, resid=self.resid.expand(count, -1, -1))

    def folded(self) -> "Stream":
        """The documents of a `repeated` stream as tokens of one row that do not see each other: the keys they look back
        on are there once.

        For streams that write nothing, of models without memory tokens. Their own keys are not kept.
        """
        count, tokens = self.resid.shape[:2]
        earlier = self.visible.shape[-1] - tokens
        same = (
            torch.eye(count, dtype=torch.bool, device=self.resid.device)
            .repeat_interleave(tokens, 0)
            .repeat_interleave(tokens, 1)
        )
        visible = self.visible.repeat(1, 1, count, 1)
        visible = torch.cat([visible[..., :earlier], visible[..., earlier:].repeat(1, 1, 1, count) & same], dim=-1)
        seen = torch.cat([self.seen[:, :earlier], self.seen[:, earlier:].repeat(1, count)], dim=1)
        return replace(
            self,
            tokens=count * tokens,
            resid=self.resid.flatten(0, 1)[None],
            non_padding=self.non_padding.repeat(1, count),
            rows=TokenRows(*(part.repeat(1, count) for part in self.rows)),
            angles=self.angles.repeat(1, count, 1),
            visible=visible,
            seen=seen,
            kept=(),
        )
