"""The memory tokens of the Recurrent Memory Transformer (RMT; Bulatov et al. 2022, arXiv 2207.06881).

The decoder itself is unchanged. Each segment is read as [memory; segment; memory]: tokens read by attending to the
front copy, the back copy writes by attending to the tokens, and its final states are the next bank. The first bank is
learned, and there are no gates.

Rows are stored as tokens, front copy, back copy. There is a back copy only where the segment writes.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lm2.model.block import BlockMemory
from lm2.model.config import BankStart, LM2Config
from lm2.model.lm2 import LM2
from lm2.model.memory import Fill, MemoryDesign
from lm2.model.sites import Site
from lm2.shown import shown


class TokenMemory(BlockMemory):
    """Hook points for memory tokens in one block; it computes nothing."""

    def __init__(self, slots: int, *, last: bool) -> None:
        """`last`: whether this is the last block, whose written bank is the normed states after it."""
        super().__init__()
        self.slots, self.last = slots, last

    def enter(self, stream: Float[Tensor, "batch row d_model"], write: bool) -> Float[Tensor, "batch row d_model"]:
        if write:
            stream = torch.cat([stream[:, : -self.slots], self.hook_bank_pre(stream[:, -self.slots :])], dim=1)
        return stream

    def leave(
        self, stream: Float[Tensor, "batch row d_model"], bank: Float[Tensor, "batch slot d_model"], write: bool
    ) -> tuple[Float[Tensor, "batch row d_model"], Float[Tensor, "batch slot d_model"]]:
        if write and not self.last:
            stream = torch.cat([stream[:, : -self.slots], self.hook_bank_post(stream[:, -self.slots :])], dim=1)
        return stream, bank

    def edit_pattern(
        self, pattern: Float[Tensor, "batch head row key"], write: bool
    ) -> Float[Tensor, "batch head row key"]:
        """Passes the parts of the pattern by which tokens read and the back copy writes through their hooks. Their rows
        do not sum to 1, as tokens and memory tokens also attend to their like."""
        slots, copies = self.slots, 2 if write else 1
        keys = pattern.shape[-1] - copies * slots
        tokens, front, *back = pattern.split([pattern.shape[2] - copies * slots, *[slots] * copies], dim=2)
        read = self.hook_read_pattern(tokens[..., keys : keys + slots])
        tokens = torch.cat([tokens[..., :keys], read, tokens[..., keys + slots :]], dim=-1)
        back = [torch.cat([self.hook_write_pattern(rows[..., :keys]), rows[..., keys:]], dim=-1) for rows in back]
        return torch.cat([tokens, front, *back], dim=2)


class MemoryTokens(MemoryDesign):
    """RMT: memory tokens before and after the segment, through a plain decoder."""

    title = "memory tokens"
    sites = (Site.BANK_PRE, Site.BANK_POST, Site.READ_PATTERN, Site.WRITE_PATTERN)
    folds = False
    bank_in_stream = True
    pattern_copies = 2  # `edit_pattern` splits and joins it

    no_gates = "memory tokens, which have no gates"
    head_edit = (
        "Memory tokens are read by the same attention as all tokens. A head's read is replaced at READ_PATTERN: how"
        " much of its attention goes to the memory tokens. Its attention to other tokens stays the same. There are no"
        " gates."
    )
    slot_path = "Each memory token's final state goes through the output head"
    rereading = "Tokens also attend to tokens, so a column does not sum to 1, and the rest counts as one more slot."

    def block(self, config: LM2Config, layer: int) -> TokenMemory:
        return TokenMemory(config.slots, last=layer == config.n_layers - 1)

    def check(self, config: LM2Config) -> None:
        """Memory tokens have the width and heads of other tokens, are in every block, and alone connect segments."""
        super().check(config)
        required = {
            "slot_dim": config.d_model,
            "memory_heads": config.n_heads,
            "bank_start": BankStart.LEARNED,
            "attention_window": config.segment_length,
            "read_top_k": None,
        }
        for name, value in required.items():
            if getattr(config, name) != value:
                raise ValueError(f"memory tokens need {name} = {value}, not {getattr(config, name)}")
        if config.memory_layers != tuple(range(min(config.n_layers, len(config.memory_layers) + 1))):
            raise ValueError(
                f"memory tokens need memory_layers = 0..{config.n_layers - 1}, every block in order, not"
                f" {shown(config.memory_layers)}"
            )

    def front_rows(self, config: LM2Config) -> int:
        return config.slots

    def back_rows(self, config: LM2Config) -> int:
        return config.slots

    def memory_rows(self, model: LM2, bank: Tensor, write: bool) -> tuple[Float[Tensor, "batch slot d_model"], ...]:
        return (bank, bank) if write else (bank,)

    def bank_std(self, config: LM2Config) -> float:
        return config.embedding_std

    def bank_out(self, model: LM2, final: Float[Tensor, "batch row d_model"], bank: Tensor) -> Tensor:
        return model.blocks[-1].mem.hook_bank_post(final[:, -model.config.slots :])

    def without_reading(self, config: LM2Config, layer: int, tokens: int, write: bool) -> Iterator[Fill]:
        back = config.slots if write else 0
        yield Fill(Site.ATTN_SCORES, -math.inf, {2: range(tokens), 3: range(-config.slots - back, -back)})

    def without_writing(self, config: LM2Config, layer: int, tokens: Sequence[int], all_tokens: bool) -> Iterator[Fill]:
        # There are no keys of earlier segments, so token i has key i.
        yield Fill(Site.ATTN_SCORES, -math.inf, {2: range(-config.slots, 0), 3: tokens})

    def slot_states(
        self, model: LM2, layer: int, slots: Float[Tensor, "slot d_model"]
    ) -> Float[Tensor, "slot d_model"]:
        return slots

    def slot_directions(
        self, model: LM2, layer: int, directions: Float[Tensor, "direction d_model"]
    ) -> tuple[Float[Tensor, "direction d_model"], str]:
        return directions, "the unembedding alone, for memory tokens are final states"


DESIGN = MemoryTokens()
