"""TokenMemory: the Recurrent Memory Transformer's memory tokens (Bulatov et al. 2022, arXiv 2207.06881).

The decoder itself is unchanged. Each segment is fed as [memory; segment; memory]: tokens read by attending to the
front copy, the back copy writes by attending to the tokens, and its final states are the next bank. Only the first
bank is learned. No gates.

Rows are stored as tokens, front copy, back copy: attention goes by position, not by row, so the order is ours to
choose, and with the tokens first every site's token axis begins with the tokens.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lm2.model.hooks import HookPoint


class TokenRows(NamedTuple):
    """Where the rows of a segment stand, and which of them are real."""

    positions: Int[Tensor, "batch row"]
    non_padding: Bool[Tensor, "batch row"]


def with_copies(rows: TokenRows, slots: int, before: Int[Tensor, "batch"], write: bool) -> TokenRows:
    """The rows of tokens, followed by those of the front copy and, to write, the back copy.

    The front copy stands at positions 0..slots-1, tokens behind it, and the back copy behind the last real token.
    `before`: tokens of each row that were fed earlier.
    """
    positions, non_padding = rows
    slot = torch.arange(slots, device=positions.device).expand(len(positions), -1)
    back = (slots + before + non_padding.sum(1))[:, None] + slot
    copies = [slot, back] if write else [slot]
    always = [torch.ones_like(copy, dtype=torch.bool) for copy in copies]
    return TokenRows(torch.cat([positions + slots, *copies], dim=1), torch.cat([non_padding, *always], dim=1))


class TokenMemory(nn.Module):
    """One block's view of the memory tokens: it computes nothing, and makes them sites.

    `write`: whether there is a back copy.
    """

    def __init__(self, slots: int, *, last: bool) -> None:
        """`last`: whether the block is the decoder's last, whose bank is the normed states behind it."""
        super().__init__()
        self.slots, self.last = slots, last
        self.hook_bank_pre, self.hook_bank_post = HookPoint(), HookPoint()
        self.hook_read_pattern, self.hook_write_pattern = HookPoint(), HookPoint()

    def begin(self, stream: Float[Tensor, "batch row d_model"], write: bool) -> Float[Tensor, "batch row d_model"]:
        """The stream as the block begins: its back copy is the bank that the block will write to."""
        return (
            stream
            if not write
            else torch.cat([stream[:, : -self.slots], self.hook_bank_pre(stream[:, -self.slots :])], dim=1)
        )

    def end(self, stream: Float[Tensor, "batch row d_model"], write: bool) -> Float[Tensor, "batch row d_model"]:
        """The stream as the block ends."""
        return (
            stream
            if self.last or not write
            else torch.cat([stream[:, : -self.slots], self.hook_bank_post(stream[:, -self.slots :])], dim=1)
        )

    def handed_on(self, final: Float[Tensor, "batch row d_model"]) -> Float[Tensor, "batch slot d_model"]:
        """The next bank: the normed states of the back copy. Of the last block alone."""
        return self.hook_bank_post(final[:, -self.slots :])

    def look(self, pattern: Float[Tensor, "batch head row key"], write: bool) -> Float[Tensor, "batch head row key"]:
        """The attention pattern with the tokens' reading and the back copy's writing passed through their hooks.

        Their rows do not sum to 1: tokens also attend to tokens, memory tokens to memory tokens.
        """
        slots, copies = self.slots, 2 if write else 1
        keys = pattern.shape[-1] - copies * slots
        tokens, front, *back = pattern.split([pattern.shape[2] - copies * slots, *[slots] * copies], dim=2)
        read = self.hook_read_pattern(tokens[..., keys : keys + slots])
        tokens = torch.cat([tokens[..., :keys], read, tokens[..., keys + slots :]], dim=-1)
        back = [torch.cat([self.hook_write_pattern(rows[..., :keys]), rows[..., keys:]], dim=-1) for rows in back]
        return torch.cat([tokens, front, *back], dim=2)
