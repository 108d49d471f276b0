"""One decoder block, and the places at which a memory may touch the stream that passes it."""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lm2.model.config import LM2Config
from lm2.model.hooks import HookPoint
from lm2.model.llama import MLP, Attention, KVCache, RMSNorm
from lm2.model.sites import Site


class MemoryStep(NamedTuple):
    """What one block's memory did to one segment."""

    mem_out: Float[Tensor, "batch token d_model"]
    """Exactly what is added to the residual stream."""
    bank: Float[Tensor, "batch slot slot_dim"]
    """The bank handed to the next block's write; as it came where nothing was to be written."""


class BlockMemory(nn.Module):
    """One block's memory. Each method is a place where it may do something to the stream; here it does nothing."""

    if TYPE_CHECKING:  # a kind's hook points and layers are its own

        def __getattr__(self, name: str) -> Any: ...

    def enter(self, stream: Float[Tensor, "batch row d_model"], write: bool) -> Float[Tensor, "batch row d_model"]:
        """The stream as the block begins."""
        return stream

    def before_attention(
        self, stream: Float[Tensor, "batch row d_model"], bank_start: Float[Tensor, "batch slot slot_dim"]
    ) -> Float[Tensor, "batch row d_model"] | None:
        """What is read before self-attention and added to the stream; None, nothing is."""
        return None

    def look(self, pattern: Float[Tensor, "batch head row key"], write: bool) -> Float[Tensor, "batch head row key"]:
        """The attention pattern as it is used."""
        return pattern

    def forward(
        self,
        mid: Float[Tensor, "batch row d_model"],
        attn_out: Float[Tensor, "batch row d_model"],
        bank_start: Float[Tensor, "batch slot slot_dim"],
        bank: Float[Tensor, "batch slot slot_dim"],
        non_padding: Bool[Tensor, "batch token"],
        write: bool,
    ) -> MemoryStep | None:
        """What is read and written behind self-attention; None, nothing is.

        Args:
            mid: the stream plus self-attention's output.
            bank_start: the bank as the segment began.
            bank: the bank as the blocks so far have written it.
            non_padding: which tokens are no padding.
        """
        return None

    def leave(
        self, stream: Float[Tensor, "batch row d_model"], bank: Float[Tensor, "batch slot slot_dim"], write: bool
    ) -> tuple[Float[Tensor, "batch row d_model"], Float[Tensor, "batch slot slot_dim"]]:
        """The stream and the bank as the block ends."""
        return stream, bank

    def initialise(self, generator: torch.Generator) -> None:
        """Draw what is no matrix of a linear layer."""


class Block(nn.Module):
    """One decoder block.

    h ──┬─ ln1 ─ attn ─ a ─┬───────────── + ── resid_mid ──┬─ ln2 ─ mlp ─ + ── resid_post
        └──────────────────┤              │                └──────────────┘
    bank_start ─ read ─ gate_out ─ mem_out┘
    bank ── write (gate_in, gate_forget) ──────────────────────────────────── bank
    """

    hook_out_is_single_residual_stream = True  # TransformerLens' logit_lens asks

    def __init__(self, config: LM2Config, layer: int) -> None:
        super().__init__()
        design, remembers = config.memory.design, layer in config.memory_layers
        self.ln1 = RMSNorm(config.d_model, config.rms_norm_eps)
        self.attn = Attention(config)
        self.mem = design.block(config, layer) if remembers else BlockMemory()
        self.ln2 = RMSNorm(config.d_model, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.hook_resid_pre, self.hook_attn_out, self.hook_resid_mid = HookPoint(), HookPoint(), HookPoint()
        self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint()
        if remembers and Site.MEM_OUT in design.sites:
            self.hook_mem_out = HookPoint()

    def forward(
        self,
        resid: Float[Tensor, "batch row d_model"],
        angles: Float[Tensor, "batch row half"],
        visible: Bool[Tensor, "batch one row key"],
        cache: KVCache | None,
        bank_start: Float[Tensor, "batch slot slot_dim"] | None,
        bank: Float[Tensor, "batch slot slot_dim"] | None,
        non_padding: Bool[Tensor, "batch token"],
        write: bool,
    ) -> tuple[Float[Tensor, "batch row d_model"], KVCache, Float[Tensor, "batch slot slot_dim"] | None]:
        resid = self.hook_resid_pre(self.mem.enter(resid, write))
        mem_out = None if bank_start is None else self.mem.before_attention(resid, bank_start)
        resid = resid if mem_out is None else resid + self.hook_mem_out(mem_out)
        attn_out, kept = self.attn(self.ln1(resid), angles, visible, cache, partial(self.mem.look, write=write))
        attn_out = self.hook_attn_out(attn_out)
        mid = resid + attn_out
        step = self.mem(mid, attn_out, bank_start, bank, non_padding, write)
        if step is not None:
            mid, bank = mid + self.hook_mem_out(step.mem_out), step.bank
        mid = self.hook_resid_mid(mid)
        post = mid + self.hook_mlp_out(self.mlp(self.ln2(mid)))
        if bank is not None:
            post, bank = self.mem.leave(post, bank, write)
        return self.hook_resid_post(post), kept, bank
