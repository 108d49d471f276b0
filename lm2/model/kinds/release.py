"""ReleaseMemory: the arithmetic of the released LM2 code, written from its formulas.

It differs from the paper's equations: there is no output gate (the updated bank itself is added to the stream), the
candidate passes through a two-step MLP and two layer norms, gates pool over the whole segment, and a block reads what
the block before wrote. Row j of the bank belongs to token j, so tokens = slots = widths.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lm2.model.block import BlockMemory, MemoryStep
from lm2.model.config import GatePooling, LM2Config, SegmentEnd
from lm2.model.kinds.gated import split_heads
from lm2.model.lm2 import LM2
from lm2.model.memory import OUTPUT, MemoryDesign, MemoryKind
from lm2.model.rope import Llama3Rope
from lm2.model.sites import Site


class _LayerNorm(nn.LayerNorm):
    """NaN where the squares overflow float32, as in `RMSNorm`."""

    def forward(self, input: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        squares = input.float().pow(2).sum(-1, keepdim=True)
        return super().forward(input).masked_fill(~squares.isfinite(), math.nan)


class ReleaseMemory(BlockMemory):
    """A block's memory, with a = self-attention's output and M = the bank that the block before wrote.

        P  = softmax(Q K^T / sqrt(d_head)),  Q from a, K and V from M; token i sees slots j <= i
        R  = P V, heads joined
        Z  = LN1(M + R);  Z' = LN2(Z + relu(L relu(L Z)))           one Linear L, applied twice
        G  = W (mean over tokens of relu(w * a)) + W' tanh(M)       two halves: input and forget
        M' = sigmoid(G_in + b_in) * tanh(Z') + sigmoid(G_forget + b_forget) * M;  mem_out = M'

    Rows of padding keep the old bank and are left out of the mean, so padding changes nothing. The released code has no
    such mask, as it only runs on full segments.
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

    def forward(
        self,
        mid: Float[Tensor, "batch token d_model"],
        attn_out: Float[Tensor, "batch token d_model"],
        bank_start: Float[Tensor, "batch slot slot_dim"],
        bank: Float[Tensor, "batch slot slot_dim"],
        non_padding: Bool[Tensor, "batch token"],
        write: bool,
    ) -> MemoryStep:
        """Always writes, as it adds the written bank to the stream.

        Raises ValueError where the segment is not exactly as long as the bank.
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
        """A mean over all tokens (SEGMENT), or one for each slot over the tokens up to it (PREFIX)."""
        weight = non_padding[..., None].to(tokens.dtype)
        rows = (self.pool_weight * tokens).relu() * weight
        if self.pooling is GatePooling.SEGMENT:
            return rows.sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        return rows.cumsum(1) / weight.cumsum(1).clamp(min=1)


class Release(MemoryDesign):
    """The arithmetic of the released LM2 code, number for number."""

    title = "the released arithmetic"
    sites = tuple(
        site for site in Site if site.in_memory and site not in (Site.GATE_OUT, Site.WRITE_SCORES, Site.WRITE_PATTERN)
    )
    causal = False  # even with PREFIX pooling a segment is only read as a whole
    decodes_with_cache = False
    batches = False
    folds = False
    reads_own_writes = True
    slots_are_tokens = True

    write_block_refused = (
        "in the released arithmetic a token reads what it writes, so its writing alone cannot be blocked"
    )
    no_write_pattern = (
        "the released arithmetic has no write attention, row j of its bank belongs to token j of the segment"
    )
    rereading = (
        "In the released arithmetic a block reads what the block before it has just written, so after the first block a"
        " reading also contains what the probe itself writes."
    )

    def block(self, config: LM2Config, layer: int) -> ReleaseMemory:
        return ReleaseMemory(config)

    def check(self, config: LM2Config) -> None:
        super().check(config)
        if config.segment_end is not SegmentEnd.LENGTH:
            raise ValueError(
                "the released arithmetic runs on full segments: segment_end must be 'length', not"
                f" {config.segment_end.value!r}"
            )
        if not config.d_model == config.slots == config.slot_dim == config.segment_length:
            raise ValueError(
                "the released arithmetic needs segment_length = slots = slot_dim = d_model, not "
                f"{config.segment_length}, {config.slots}, {config.slot_dim}, {config.d_model}"
            )

    def full_length(self, config: LM2Config) -> int:
        return config.slots

    def slot_states(
        self, model: LM2, layer: int, slots: Float[Tensor, "slot slot_dim"]
    ) -> Float[Tensor, "slot d_model"]:
        return model.ln_final(slots)  # the slot itself is added to the stream

    def slot_directions(
        self, model: LM2, layer: int, directions: Float[Tensor, "direction slot_dim"]
    ) -> tuple[Float[Tensor, "direction d_model"], str]:
        return model.ln_final.w * directions, OUTPUT

    def gates_warning(self, config: LM2Config) -> str | None:
        if config.gate_pooling is not GatePooling.SEGMENT:
            return None
        return (
            "The gates of this model pool over the whole segment, so they see the future: every gate value and every"
            " logit also depends on later tokens of its segment. There is one value per segment, not per token. The"
            " released arithmetic has no output gate."
        )


DESIGN = Release()

LLAMA_3_ROPE = Llama3Rope(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
"""Rotary scaling of Llama-3.2-1B, on which the released model is based."""

RELEASED_SIZE = LM2Config(
    memory=MemoryKind.RELEASE,
    d_vocab=128_256,
    d_model=2048,
    n_layers=16,
    n_heads=32,
    n_key_value_heads=8,
    d_mlp=8192,
    segment_length=2048,
    attention_window=2048,
    rope_theta=500_000.0,
    rope_scaling=LLAMA_3_ROPE,
    tied_embeddings=True,
    slots=2048,
    slot_dim=2048,
    memory_heads=8,
    memory_layers=tuple(range(16)),
)
