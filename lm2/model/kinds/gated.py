"""GatedMemory: the paper's read, gates and write, with shapes that fit any segment, bank and width.

LM2 (arXiv 2502.06049) equations (1)-(6) type-check only when tokens = slots; the forms are kept here and
reading and writing each get their own attention. The gates hear the write's attention and the old bank.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from lm2.model.block import BlockMemory, MemoryStep
from lm2.model.config import LM2Config
from lm2.model.hooks import HookPoint
from lm2.model.llama import Attention, RMSNorm
from lm2.model.lm2 import LM2
from lm2.model.memory import OUTPUT, Fill, MemoryDesign, MemoryKind
from lm2.model.sites import Site


def split_heads(x: Float[Tensor, "batch row width"], heads: int) -> Float[Tensor, "batch row head d_head"]:
    return x.unflatten(-1, (heads, -1))


class GatedMemory(BlockMemory):
    """One block's door to the bank.

        read    P = softmax(Q K^T / sqrt(d_head)),  Q from tokens, K and V from the bank as the segment began
        out     mem_out = (sigmoid(R W_out + b_out) * R) W_O
        write   P' = softmax(Q' K'^T / sqrt(d_head)),  Q' from slots, K' and V' from tokens
                bank <- g_in * tanh(U W_C) + g_forget * bank

    Every block reads the same starting bank, so no logit depends on a later token; writes chain through the
    blocks and become readable in the next segment.
    """

    def __init__(self, config: LM2Config) -> None:
        super().__init__()
        d_model, slot_dim = config.d_model, config.slot_dim
        self.heads, self.top_k = config.memory_heads, config.read_top_k
        self.ln_token, self.ln_read, self.ln_write = (
            RMSNorm(width, config.rms_norm_eps, hooked=False) for width in (d_model, slot_dim, slot_dim)
        )
        self.read_q = nn.Linear(d_model, d_model, bias=False)
        self.read_k = nn.Linear(slot_dim, d_model, bias=False)
        self.read_v = nn.Linear(slot_dim, d_model, bias=False)
        self.out_gate = nn.Linear(d_model, d_model)
        self.o = nn.Linear(d_model, d_model, bias=False)
        self.write_q = nn.Linear(slot_dim, slot_dim, bias=False)
        self.write_k = nn.Linear(d_model, slot_dim, bias=False)
        self.write_v = nn.Linear(d_model, slot_dim, bias=False)
        self.candidate = nn.Linear(slot_dim, slot_dim, bias=False)
        self.in_gate = nn.Linear(slot_dim, slot_dim)
        self.in_gate_bank = nn.Linear(slot_dim, slot_dim, bias=False)
        self.forget_gate = nn.Linear(slot_dim, slot_dim)
        self.forget_gate_bank = nn.Linear(slot_dim, slot_dim, bias=False)
        for name in (
            "bank_pre",
            "bank_post",
            "candidate",
            "gate_in",
            "gate_forget",
            "gate_out",
            "read",
            "read_q",
            "read_k",
            "read_v",
            "read_scores",
            "read_pattern",
            "write_scores",
            "write_pattern",
        ):
            self.add_module(f"hook_{name}", HookPoint())

    @torch.no_grad()
    def begin_as(self, attention: Attention) -> None:
        """Fresh weights that put to use what self-attention has learnt already.

        Reading begins as a copy of attention's own projections, and what is written as a copy of a token: values and
        candidate pass it on as it is, and all heads of a slot attend to the same token, sharply, so that a slot is
        filled by one token and not by a mean of many, in which nobody could tell whose place is whose.

        Raises ValueError for sizes that cannot be copied.
        """
        shapes = {
            tuple(weight.shape)
            for weight in (attention.q.weight, attention.k.weight, self.read_k.weight, self.write_v.weight)
        }
        if len(shapes) != 1 or attention.n_heads != self.heads or attention.q.bias is not None:
            raise ValueError(
                "a memory can begin as attention where slot_dim is d_model, memory_heads, n_heads and"
                " n_key_value_heads are equal, and queries, keys and values have no biases"
            )
        for own, learnt in (
            (self.read_q, attention.q),
            (self.read_k, attention.k),
            (self.read_v, attention.v),
            (self.o, attention.o),
        ):
            own.weight.copy_(learnt.weight)
        for own in (self.write_v, self.candidate):
            own.weight.copy_(torch.eye(len(own.weight)))
        for own in (self.write_q, self.write_k):
            one_head = own.weight.unflatten(0, (self.heads, -1))[:1]
            own.weight.copy_(2 * one_head.expand(self.heads, -1, -1).flatten(0, 1))

    def forward(
        self,
        mid: Float[Tensor, "batch token d_model"],
        attn_out: Float[Tensor, "batch token d_model"],
        bank_start: Float[Tensor, "batch slot slot_dim"],
        bank: Float[Tensor, "batch slot slot_dim"],
        non_padding: Bool[Tensor, "batch token"],
        write: bool,
    ) -> MemoryStep:
        """`mid` is the stream plus self-attention's output; `non_padding` marks tokens that are not padding."""
        tokens = self.ln_token(mid)
        mem_out = self._read(tokens, bank_start)
        return MemoryStep(
            mem_out=mem_out, bank=self._write(tokens, self.hook_bank_pre(bank), non_padding) if write else bank
        )

    def _read(
        self, tokens: Float[Tensor, "batch token d_model"], bank_start: Float[Tensor, "batch slot slot_dim"]
    ) -> Float[Tensor, "batch token d_model"]:
        slots = self.ln_read(bank_start)
        q = self.hook_read_q(split_heads(self.read_q(tokens), self.heads))
        k = self.hook_read_k(split_heads(self.read_k(slots), self.heads))
        v = self.hook_read_v(split_heads(self.read_v(slots), self.heads))
        scores = self.hook_read_scores(torch.einsum("bthe,bshe->bhts", q, k) / math.sqrt(q.shape[-1]))
        pattern = scores.float().softmax(-1)
        if self.top_k is not None:
            kept = torch.zeros_like(pattern).scatter(-1, pattern.topk(self.top_k, -1).indices, 1.0)
            pattern = pattern * kept
            pattern = pattern / pattern.sum(-1, keepdim=True)
        pattern = self.hook_read_pattern(pattern.to(tokens.dtype))
        read = self.hook_read(torch.einsum("bhts,bshe->bthe", pattern, v).flatten(2))
        gate = self.hook_gate_out(self.out_gate(read).sigmoid())
        return self.o(gate * read)

    def _write(
        self,
        tokens: Float[Tensor, "batch token d_model"],
        bank: Float[Tensor, "batch slot slot_dim"],
        non_padding: Bool[Tensor, "batch token"],
    ) -> Float[Tensor, "batch slot slot_dim"]:
        slots = self.ln_write(bank)
        q = split_heads(self.write_q(slots), self.heads)
        k, v = split_heads(self.write_k(tokens), self.heads), split_heads(self.write_v(tokens), self.heads)
        scores = torch.einsum("bshe,bthe->bhst", q, k) / math.sqrt(q.shape[-1])
        scores = self.hook_write_scores(scores.masked_fill(~non_padding[:, None, None, :], float("-inf")))
        pattern = self.hook_write_pattern(scores.float().softmax(-1).to(tokens.dtype))
        update = torch.einsum("bhst,bthe->bshe", pattern, v).flatten(2)
        candidate = self.hook_candidate(self.candidate(update).tanh())
        gate_in = self.hook_gate_in((self.in_gate(update) + self.in_gate_bank(slots)).sigmoid())
        gate_forget = self.hook_gate_forget((self.forget_gate(update) + self.forget_gate_bank(slots)).sigmoid())
        return self.hook_bank_post(gate_in * candidate + gate_forget * bank)


class Gated(MemoryDesign):
    """LM2 as the paper's equations say: read by cross-attention; input, forget and output gates; causal."""

    title = "a gated memory"
    sites = tuple(site for site in Site if site.in_memory)
    terms_by_slot = True
    begins_as_attention = True

    def block(self, config: LM2Config, layer: int) -> GatedMemory:
        return GatedMemory(config)

    def unwritten(self, config: LM2Config, layer: int, tokens: Sequence[int], all_of_them: bool) -> Iterator[Fill]:
        yield Fill(Site.WRITE_SCORES, -math.inf, {3: tokens})
        if all_of_them:  # a softmax over nothing is no number; closed input gates and open forget gates keep the bank
            yield Fill(Site.WRITE_PATTERN, 0.0, {})
            yield Fill(Site.GATE_IN, 0.0, {})
            yield Fill(Site.GATE_FORGET, 1.0, {})

    def slot_states(
        self, model: LM2, layer: int, slots: Float[Tensor, "slot slot_dim"]
    ) -> Float[Tensor, "slot d_model"]:
        memory = model.blocks[layer].mem
        read = memory.read_v(memory.ln_read(slots))
        return model.ln_final(memory.o(memory.out_gate(read).sigmoid() * read))

    def slot_directions(
        self, model: LM2, layer: int, directions: Float[Tensor, "direction slot_dim"]
    ) -> tuple[Float[Tensor, "direction d_model"], str]:
        memory = model.blocks[layer].mem
        way = f"the read path of block {layer} (its norm's gain, W_V and W_O, without its output gate), {OUTPUT}"
        return model.ln_final.w * memory.o(memory.read_v(memory.ln_read.w * directions)), way

    def read_directions(
        self, model: LM2, layer: int, directions: Float[Tensor, "direction d_model"]
    ) -> tuple[Float[Tensor, "direction d_model"], str]:
        way = f"W_O of block {layer}, without its output gate, {OUTPUT}"
        return model.ln_final.w * model.blocks[layer].mem.o(directions), way

    def way_out(
        self, memory: BlockMemory, direction: Float[ndarray, "d_model"], gate: Float[ndarray, "d_model"] | None
    ) -> Float[ndarray, "d_model"]:
        return memory.o.weight.detach().float().cpu().numpy().T @ direction * gate


def grafted(
    config: LM2Config, *, slots: int, slot_dim: int, memory_heads: int, memory_layers: tuple[int, ...]
) -> LM2Config:
    """The configuration of a model without memory, with a gated one. Raises ValueError for sizes that cannot be
    built."""
    return replace(
        config,
        memory=MemoryKind.GATED,
        slots=slots,
        slot_dim=slot_dim,
        memory_heads=memory_heads,
        memory_layers=memory_layers,
    )


@torch.no_grad()
def silence(model: LM2) -> None:
    """What a gated memory reads adds nothing to the stream, until it is trained."""
    for layer in model.config.memory_layers:
        model.blocks[layer].mem.o.weight.zero_()


DESIGN = Gated()
