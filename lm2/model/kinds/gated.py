"""GatedMemory: the paper's read, gates and write, for any segment length, slots and widths.

The shapes of LM2's equations (1)-(6) (arXiv 2502.06049) fit only where tokens = slots. Here reading and writing each
have their own attention, and the gates depend on the write's attention and the old bank.
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
from lm2.model.llama import Attention, RMSNorm
from lm2.model.lm2 import LM2
from lm2.model.memory import OUTPUT, Fill, MemoryDesign, MemoryKind
from lm2.model.sites import Site


def split_heads(x: Float[Tensor, "batch row width"], heads: int) -> Float[Tensor, "batch row head d_head"]:
    return x.unflatten(-1, (heads, -1))


class GatedMemory(BlockMemory):
    """A block's memory.

        read    P = softmax(Q K^T / sqrt(d_head)),  Q from tokens, K and V from the bank as the segment began
        out     mem_out = (sigmoid(R W_out + b_out) * R) W_O
        write   P' = softmax(Q' K'^T / sqrt(d_head)),  Q' from slots, K' and V' from tokens
                bank <- g_in * tanh(U W_C) + g_forget * bank

    Every block reads the bank at the start of the segment, so no logit depends on a later token. Each block writes to
    the bank of the block before, and the next segment reads the result.
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

    @torch.no_grad()
    def begin_as(self, attention: Attention) -> None:
        """Initialise from trained self-attention.

        Reading starts with copies of its projections, where heads share keys and values with a copy for each. Writing
        starts by copying tokens: values and candidate are identities, and all heads of a slot attend to the same token,
        sharply, so that a slot holds one token and not a mean of many, which would lose what belongs together.

        Raises ValueError for sizes that cannot be copied.
        """
        square = {tuple(weight.shape) for weight in (attention.q.weight, self.read_k.weight, self.write_v.weight)}
        if len(square) != 1 or attention.n_heads != self.heads or attention.q.bias is not None:
            raise ValueError(
                "a memory can begin as attention where slot_dim and the width of all heads are d_model, memory_heads is"
                " n_heads, and queries, keys and values have no biases"
            )
        self.read_q.weight.copy_(attention.q.weight)
        for read, layer in ((self.read_k, attention.k), (self.read_v, attention.v)):
            heads = layer.weight.unflatten(0, (attention.n_kv, -1))
            read.weight.copy_(heads.repeat_interleave(attention.n_heads // attention.n_kv, dim=0).flatten(0, 1))
        self.o.weight.copy_(attention.o.weight)
        for layer in (self.write_v, self.candidate):
            nn.init.eye_(layer.weight)
        for layer in (self.write_q, self.write_k):
            first_head = layer.weight.unflatten(0, (self.heads, -1))[0]
            layer.weight.copy_(2 * first_head.repeat(self.heads, 1))

    def forward(
        self,
        mid: Float[Tensor, "batch token d_model"],
        attn_out: Float[Tensor, "batch token d_model"],
        bank_start: Float[Tensor, "batch slot slot_dim"],
        bank: Float[Tensor, "batch slot slot_dim"],
        non_padding: Bool[Tensor, "batch token"],
        write: bool,
    ) -> MemoryStep:
        tokens = self.ln_token(mid)
        mem_out = self._read(tokens, bank_start)
        if write:
            bank = self._write(tokens, self.hook_bank_pre(bank), non_padding)
        return MemoryStep(mem_out, bank)

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
            top = pattern.topk(self.top_k, -1)
            pattern = torch.zeros_like(pattern).scatter(-1, top.indices, top.values)
            pattern = pattern / pattern.sum(-1, keepdim=True)
        pattern = self.hook_read_pattern(pattern.to(tokens.dtype))
        read = self.hook_read(torch.einsum("bhts,bshe->bthe", pattern, v).flatten(2))
        gate = self.hook_gate_out(self.out_gate(read).sigmoid())
        return self.o(gate * read)

    def read_pattern(
        self, q: Float[Tensor, "batch token d_head"], bank: Float[Tensor, "batch slot slot_dim"], head: int
    ) -> Float[Tensor, "batch token slot"]:
        k = nn.functional.linear(self.ln_read(bank), self.read_k.weight.unflatten(0, (self.heads, -1))[head])
        scores = torch.einsum("bte,bse->bts", q, k) / math.sqrt(q.shape[-1])
        return scores.float().softmax(-1).to(q.dtype)

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
    """LM2 by the paper's equations: read by cross-attention; input, forget and output gates; causal."""

    title = "a gated memory"
    sites = tuple(site for site in Site if site.in_memory)
    read_weights = ("ln_read.w", "read_k.weight")
    terms_by_slot = True
    begins_as_attention = True
    starts_keeping = True

    def block(self, config: LM2Config, layer: int) -> GatedMemory:
        return GatedMemory(config)

    @torch.no_grad()
    def silence(self, model: LM2) -> None:
        for layer in model.config.memory_layers:
            model.blocks[layer].mem.o.weight.zero_()

    def without_writing(self, config: LM2Config, layer: int, tokens: Sequence[int], all_tokens: bool) -> Iterator[Fill]:
        yield Fill(Site.WRITE_SCORES, -math.inf, {3: tokens})
        if all_tokens:  # a softmax over nothing is NaN; closed input gates and open forget gates keep the bank
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
        path = f"the read path of block {layer} (its norm's gain, W_V and W_O, without its output gate), {OUTPUT}"
        return model.ln_final.w * memory.o(memory.read_v(memory.ln_read.w * directions)), path

    def read_directions(
        self, model: LM2, layer: int, directions: Float[Tensor, "direction d_model"]
    ) -> tuple[Float[Tensor, "direction d_model"], str]:
        path = f"W_O of block {layer}, without its output gate, {OUTPUT}"
        return model.ln_final.w * model.blocks[layer].mem.o(directions), path

    def pull_back(
        self, memory: BlockMemory, direction: Float[ndarray, "d_model"], gate: Float[ndarray, "d_model"] | None
    ) -> Float[ndarray, "d_model"]:
        return memory.o.weight.detach().float().cpu().numpy().T @ direction * gate


def grafted(
    config: LM2Config, *, slots: int, slot_dim: int, memory_heads: int, memory_layers: tuple[int, ...]
) -> LM2Config:
    """The configuration of a model with a gated memory added, which starts with keeping 0.99 of what it holds in each
    segment. Raises ValueError for sizes that cannot be built."""
    return replace(
        config,
        memory=MemoryKind.GATED,
        slots=slots,
        slot_dim=slot_dim,
        memory_heads=memory_heads,
        memory_layers=memory_layers,
        forget_bias=LM2Config.forget_bias,
        start_keeps=0.99,
    )


DESIGN = Gated()
