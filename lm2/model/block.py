"""A decoder block, and what its memory may do to the stream."""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lm2.model.config import LM2Config
from lm2.model.hooks import HookPoint
from lm2.model.llama import MLP, Attention, KVCache, RMSNorm


class MemoryStep(NamedTuple):
    """What a block's memory did in one segment."""

    mem_out: Float[Tensor, "batch token d_model"]
    """Added to the residual stream."""
    bank: Float[Tensor, "batch slot slot_dim"]
    """The bank for the next block; unchanged where nothing was to be written."""


class BlockMemory(nn.Module):
    """A block's memory. Each method may change the stream at one place; those of this class change nothing.

    The block adds a hook point for each of the kind's sites.
    """

    if TYPE_CHECKING:  # for the hook points and layers of each kind

        def __getattr__(self, name: str) -> Any: ...

    def enter(self, stream: Float[Tensor, "batch row d_model"], write: bool) -> Float[Tensor, "batch row d_model"]:
        """The stream at the start of the block."""
        return stream

    def before_attention(
        self, stream: Float[Tensor, "batch row d_model"], bank_start: Float[Tensor, "batch slot slot_dim"]
    ) -> Float[Tensor, "batch row d_model"] | None:
        """What is added to the stream before self-attention; None for nothing."""
        return None

    def edit_pattern(
        self, pattern: Float[Tensor, "batch head row key"], write: bool
    ) -> Float[Tensor, "batch head row key"]:
        """The attention pattern that self-attention uses."""
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
        """What is read and written after self-attention; None for nothing.

        `mid` is the stream with self-attention's output, `bank_start` the bank at the start of the segment, and `bank`
        the bank that the block before has written.
        """
        return None

    def read_pattern(
        self, q: Float[Tensor, "batch token d_head"], bank: Float[Tensor, "batch slot slot_dim"], head: int
    ) -> Float[Tensor, "batch token slot"]:
        """One head's read pattern, from its READ_Q and the bank at the start of each segment, where the design has
        `read_weights` and the model no `read_top_k`."""
        raise NotImplementedError

    def leave(
        self, stream: Float[Tensor, "batch row d_model"], bank: Float[Tensor, "batch slot slot_dim"], write: bool
    ) -> tuple[Float[Tensor, "batch row d_model"], Float[Tensor, "batch slot slot_dim"]]:
        """The stream and the bank at the end of the block."""
        return stream, bank

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights that are not matrices of linear layers."""


class Block(nn.Module):
    """One decoder block.

    h ──┬─ ln1 ─ attn ─ a ─┬───────────── + ── resid_mid ──┬─ ln2 ─ mlp ─ + ── resid_post
        └──────────────────┤              │                └──────────────┘
    bank_start ─ read ─ gate_out ─ mem_out┘
    bank ── write (gate_in, gate_forget) ──────────────────────────────────── bank
    """

    hook_mem_out: HookPoint
    hook_out_is_single_residual_stream = True  # for TransformerLens' logit_lens

    def __init__(self, config: LM2Config, layer: int) -> None:
        super().__init__()
        design, has_memory = config.memory.design, layer in config.memory_layers
        self.ln1 = RMSNorm(config.d_model, config.rms_norm_eps)
        self.attn = Attention(config)
        self.mem = design.block(config, layer) if has_memory else BlockMemory()
        self.ln2 = RMSNorm(config.d_model, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.hook_resid_pre, self.hook_attn_out, self.hook_resid_mid = HookPoint(), HookPoint(), HookPoint()
        self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint()
        for site in design.sites if has_memory else ():
            owner, _, hook = site.template.removeprefix("blocks.{layer}.").rpartition(".")
            self.get_submodule(owner).add_module(hook, HookPoint())

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
        edit_pattern = partial(self.mem.edit_pattern, write=write)
        attn_out, new_cache = self.attn(self.ln1(resid), angles, visible, cache, edit_pattern)
        attn_out = self.hook_attn_out(attn_out)
        mid = resid + attn_out
        step = self.mem(mid, attn_out, bank_start, bank, non_padding, write)
        if step is not None:
            mid, bank = mid + self.hook_mem_out(step.mem_out), step.bank
        mid = self.hook_resid_mid(mid)
        post = mid + self.hook_mlp_out(self.mlp(self.ln2(mid)))
        if bank is not None:
            post, bank = self.mem.leave(post, bank, write)
        return self.hook_resid_post(post), new_cache, bank
