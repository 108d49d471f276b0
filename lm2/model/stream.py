"""A segment between two blocks, as a value from which the computation can continue later."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lm2.model.llama import KVCache


class TokenRows(NamedTuple):
    """Positions of a segment's rows, and which of them are not padding."""

    positions: Int[Tensor, "batch row"]
    non_padding: Bool[Tensor, "batch row"]


def check_padding(non_padding: Bool[Tensor, "batch token"], input_ids: Int[Tensor, "batch token"]) -> None:
    """Raise ValueError unless each row has at least one real token, and padding only after its real tokens."""
    if non_padding.shape != input_ids.shape or non_padding.dtype is not torch.bool:
        raise ValueError(
            f"non_padding must be true or false for each of {tuple(input_ids.shape)} tokens, not {non_padding.dtype}"
            f" of shape {tuple(non_padding.shape)}"
        )
    wrong = torch.cat([~non_padding[:, :1], non_padding[:, 1:] & ~non_padding[:, :-1]], dim=1)
    if wrong.any():
        row, token = wrong.nonzero()[0].tolist()
        what = f"token {token} is real after padding" if token else "its first token is padding"
        raise ValueError(f"row {row} must be real tokens, one at least, and then padding, but {what}")


def with_memory_rows(rows: TokenRows, front: int, back: int, before: Int[Tensor, "batch"]) -> TokenRows:
    """The rows of tokens, followed by the front and back rows of a memory.

    In position, the front rows come first, then the tokens, then the back rows. Attention uses positions, so rows can
    be in the order that puts tokens first on every site's token axis. `before`: how many tokens of each document came
    before this segment.
    """
    positions, non_padding = rows
    counts = torch.arange(max(front, back), device=positions.device).expand(len(positions), -1)
    last = (front + before + non_padding.sum(1))[:, None] + counts[:, :back]
    always = torch.ones_like(non_padding[:, :1]).expand(-1, front + back)
    return TokenRows(
        torch.cat([positions + front, counts[:, :front], last], dim=1), torch.cat([non_padding, always], dim=1)
    )


@dataclass(frozen=True)
class Cache:
    """Keys and values in every block of earlier tokens that may still be attended to."""

    layers: tuple[KVCache, ...]
    positions: Int[Tensor, "batch key"]
    """Position of each key in its document; -1 for padding, which no token sees."""
    next_position: Int[Tensor, "batch"]

    def last(self, tokens: int) -> "Cache":
        """Only the last `tokens` real tokens of each row."""
        keep = self.positions.argsort(dim=1, stable=True)[:, max(0, self.positions.shape[1] - tokens) :]
        return Cache(
            tuple(layer.take(keep) for layer in self.layers), self.positions.gather(1, keep), self.next_position
        )

    def repeated(self, count: int) -> "Cache":
        """The cache of one document for `count` rows; unchanged where it already has them."""
        layers = tuple(_repeated(layer, count) for layer in self.layers)
        return Cache(layers, self.positions.expand(count, -1), self.next_position.expand(count))


def _repeated(layer: KVCache, count: int) -> KVCache:
    return KVCache(k=layer.k.expand(count, -1, -1, -1), v=layer.v.expand(count, -1, -1, -1))


@dataclass(frozen=True)
class Stream:
    """A segment before a block, with all that this block and later ones need."""

    layer: int
    """The next block; after the last one, the number of blocks."""
    tokens: int
    """Rows of `resid` that are tokens; those of memory tokens follow."""
    resid: Float[Tensor, "batch row d_model"]
    bank_start: Float[Tensor, "batch slot slot_dim"] | None
    """The bank at the start of the segment."""
    bank: Float[Tensor, "batch slot slot_dim"] | None
    """The bank that the blocks so far have written."""
    caches: tuple[KVCache, ...]
    """Keys and values of earlier tokens and the segment's own in the blocks so far."""
    non_padding: Bool[Tensor, "batch token"]
    rows: TokenRows
    angles: Float[Tensor, "batch row half"]
    visible: Bool[Tensor, "batch one row key"]
    earlier: Cache | None
    """Tokens before this segment."""
    key_positions: Int[Tensor, "batch key"]
    """Positions of earlier tokens and the segment's own, as the cache will hold them."""
    write: bool

    def before(self, layer: int) -> KVCache | None:
        """Earlier keys and values in block `layer`."""
        return None if self.earlier is None else _repeated(self.earlier.layers[layer], len(self.resid))

    def repeated(self, count: int) -> "Stream":
        """`count` copies of one document's stream, which share all but `resid`. Raises ValueError for several
        documents."""
        if len(self.resid) != 1:
            raise ValueError(f"the stream of one document can be repeated, not that of {len(self.resid)}")
        return replace(self, resid=self.resid.expand(count, -1, -1))

    def alone(self, row: int) -> "Stream":
        """One row without its padding and without a bank, of a stream without memory tokens and earlier tokens."""
        rows, tokens = slice(row, row + 1), slice(int(self.non_padding[row].sum()))
        return replace(
            self,
            tokens=tokens.stop,
            resid=self.resid[rows, tokens],
            bank_start=None,
            bank=None,
            non_padding=self.non_padding[rows, tokens],
            rows=TokenRows(*(each[rows, tokens] for each in self.rows)),
            angles=self.angles[rows, tokens],
            visible=self.visible[rows, :, tokens, tokens],
            key_positions=self.key_positions[rows, tokens],
        )

    def folded(self) -> "Stream":
        """The copies of a `repeated` stream as tokens of one row that do not see each other, but share earlier keys.

        For streams that do not write, of models without memory tokens. The caches of earlier blocks are dropped.
        """
        count, tokens = self.resid.shape[:2]
        earlier = self.visible.shape[-1] - tokens
        device = self.resid.device
        same = torch.eye(count, dtype=torch.bool, device=device).kron(
            torch.ones(tokens, tokens, dtype=torch.bool, device=device)
        )
        visible = self.visible.repeat(1, 1, count, 1)
        visible = torch.cat([visible[..., :earlier], visible[..., earlier:].repeat(1, 1, 1, count) & same], dim=-1)
        positions = self.key_positions
        positions = torch.cat([positions[:, :earlier], positions[:, earlier:].repeat(1, count)], dim=1)
        return replace(
            self,
            tokens=count * tokens,
            resid=self.resid.flatten(0, 1)[None],
            non_padding=self.non_padding.repeat(1, count),
            rows=TokenRows(*(rows.repeat(1, count) for rows in self.rows)),
            angles=self.angles.repeat(1, count, 1),
            visible=visible,
            key_positions=positions,
            caches=(),
        )
