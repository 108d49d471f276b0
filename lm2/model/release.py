"""ReleaseMemory: the arithmetic of the released LM2 code, written from its formulas.

It differs from the paper's equations: no output gate (the updated bank itself is added to the stream), content
that passes a two-step MLP and two layer norms, gates that pool over the whole segment, and blocks that read
what the block before wrote. Row j of the bank belongs to token j: tokens = slots = widths is forced.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lm2.model.config import GatePooling, LM2Config
from lm2.model.gated import MemoryStep, split_heads
from lm2.model.hooks import HookPoint


class _LayerNorm(nn.LayerNorm):
    """NaN where the squares overflow float32, as in `RMSNorm`."""

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        squares = x.float().pow(2).sum(-1, keepdim=True)
        return super().forward(x).masked_fill(~squares.isfinite(), math.nan)


class ReleaseMemory(nn.Module):
    """One block's memory, with a = self-attention's output and M = the bank that the block before wrote.

        P  = softmax(Q K^T / sqrt(d_head)),  Q from a, K and V from M; token i sees slots j <= i
        R  = heads joined of P V
        Z  = LN1(M + R);  Z' = LN2(Z + relu(L relu(L Z)))           one Linear L, applied twice
        G  = W (mean over tokens of relu(w * a)) + W' tanh(M)       two halves: input and forget
        M' = sigmoid(G_in + b_in) * tanh(Z') + sigmoid(G_forget + b_forget) * M;  mem_out = M'

    Rows past the segment's real tokens keep the old bank, and padding is left out of the pooled mean, so that
    padding ids change nothing. The released code has no such mask: it only runs on full segments.
    """

    def __init__(self, config: LM2Config) -> None:
        super().__init__()
        size = config.slot_dim
        self.heads, self.pooling = config.memory_heads, config.gate_pooling
        self.query, self.key, self.value = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)
        self.ln_attended, self.ln_mlp = _LayerNorm(size), _LayerNorm(size)
        self.mlp = nn.Linear(size, size)
        self.pool_weight = nn.Parameter(torch.ones(size))
        self.gate_tokens, self.gate_bank = nn.Linear(size, 2 * size), nn.Linear(size, 2 * size)
        self.input_bias = nn.Parameter(torch.zeros(()))
        self.forget_bias = nn.Parameter(torch.ones(()))
        for name in ("bank_pre", "bank_post", "candidate", "gate_in", "gate_forget", "read", "read_q", "read_k",
            "read_v",
                     "read_scores", "read_pattern"):  # fmt: skip
            self.add_module(f"hook_{name}", HookPoint())

    def forward(
        self,
        mid: Float[Tensor, "batch token d_model"],
        attn_out: Float[Tensor, "batch token d_model"],
        bank_start: Float[Tensor, "batch slot slot_dim"],
        bank: Float[Tensor, "batch slot slot_dim"],
        non_padding: Bool[Tensor, "batch token"],
        write: bool,
    ) -> MemoryStep:
        """Uses `attn_out` and `bank`, and writes always, for what it adds to the stream is the bank it wrote.

        The other arguments belong to the interface that GatedMemory shares.

        Raises ValueError when the segment is not exactly as long as the bank.
        """
        if attn_out.shape[1] != bank.shape[1]:
            raise ValueError(
                f"the released arithmetic needs as many tokens as slots, not {attn_out.shape[1]} and {bank.shape[1]}"
            )
        bank = self.hook_bank_pre(bank)
        read = self._read(attn_out, bank)
        attended = self.ln_attended(bank + read)
        content = self.ln_mlp(attended + self.mlp(self.mlp(attended).relu()).relu())
        candidate = self.hook_candidate(content.tanh())
        gates = self.gate_tokens(self._pooled(attn_out, non_padding)) + self.gate_bank(bank.tanh())
        gate_in, gate_forget = gates.chunk(2, dim=-1)
        gate_in = self.hook_gate_in((gate_in + self.input_bias).sigmoid())
        gate_forget = self.hook_gate_forget((gate_forget + self.forget_bias).sigmoid())
        updated = torch.where(non_padding[..., None], gate_in * candidate + gate_forget * bank, bank)
        updated = self.hook_bank_post(updated)
        return MemoryStep(mem_out=updated, bank=updated)

    def _read(
        self, tokens: Float[Tensor, "batch token slot_dim"], bank: Float[Tensor, "batch slot slot_dim"]
    ) -> Float[Tensor, "batch token slot_dim"]:
        q = self.hook_read_q(split_heads(self.query(tokens), self.heads))
        k = self.hook_read_k(split_heads(self.key(bank), self.heads))
        v = self.hook_read_v(split_heads(self.value(bank), self.heads))
        hidden = torch.ones(tokens.shape[1], bank.shape[1], dtype=torch.bool, device=tokens.device).triu(1)
        scores = torch.einsum("bthe,bshe->bhts", q, k) / math.sqrt(q.shape[-1])
        scores = self.hook_read_scores(scores.masked_fill(hidden, float("-inf")))
        pattern = self.hook_read_pattern(scores.float().softmax(-1).to(tokens.dtype))
        return self.hook_read(torch.einsum("bhts,bshe->bthe", pattern, v).flatten(2))

    def _pooled(
        self, tokens: Float[Tensor, "batch token slot_dim"], non_padding: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch row slot_dim"]:
        """One row for all slots (SEGMENT), or one per slot over the tokens up to it (PREFIX)."""
        weight = non_padding[..., None].to(tokens.dtype)
        rows = (self.pool_weight * tokens).relu() * weight
        if self.pooling is GatePooling.SEGMENT:
            return rows.sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        return rows.cumsum(1) / weight.cumsum(1).clamp(min=1)
