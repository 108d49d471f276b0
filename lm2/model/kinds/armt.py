"""The memory of the Associative Recurrent Memory Transformer (ARMT; Rodkin et al. 2024, arXiv 2407.04841).

Each block has an associative matrix A and a normaliser z, which are passed from segment to segment. Every row of the
stream reads them at the start of the block. Memory tokens, which follow the segment's own, write to them at its end by
the delta rule.

The bank is [slot, slot_dim] = [features of a key, blocks * (d_model + 1)]: a slot is one feature of the keys, and its
row has a column of A and an entry of z for each block with a memory. It starts as zeros.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from lm2.model.block import BlockMemory
from lm2.model.config import LM2Config
from lm2.model.gates import Gate
from lm2.model.lm2 import LM2
from lm2.model.memory import OUTPUT, Fill, MemoryDesign, divides
from lm2.model.sites import AnySite, Axis, Site
from lm2.serialize import Spec, within

NU = 3
"""Shifts of the feature map."""
TINY = 1e-5
"""Added to denominators, so that an empty memory reads as 0."""


class AssociativeSite(AnySite):
    """What the memory tokens write."""

    WRITE_KEY = ("blocks.{layer}.mem.hook_write_key", (Axis.MEMORY_TOKEN, Axis.SLOT), True)
    WRITE_VALUE = ("blocks.{layer}.mem.hook_write_value", (Axis.MEMORY_TOKEN, Axis.D_MODEL), True)
    WRITE_GATE = ("blocks.{layer}.mem.hook_write_gate", (Axis.MEMORY_TOKEN, Axis.ONE), True)
    WRITE_DELTA = ("blocks.{layer}.mem.hook_write_delta", (Axis.MEMORY_TOKEN, Axis.D_MODEL), True)


@dataclass(frozen=True, kw_only=True)
class AssociativeSizes(Spec):
    """Sizes that only this kind of memory has."""

    memory_tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        within("memory_tokens", self.memory_tokens, 1, 2**16)


def features(key: Float[Tensor, "... d_key"]) -> Float[Tensor, "... slot"]:
    """DPFP (Schlag et al. 2021, arXiv 2102.11174): r * roll(r, j) for j = 1..NU, joined, with r = [relu(k), relu(-k)].

    No feature is negative, so z is not either, and what is read is a weighted mean of values.
    """
    r = torch.cat([key.relu(), (-key).relu()], dim=-1)
    return torch.cat([r * r.roll(shift, dims=-1) for shift in range(1, NU + 1)], dim=-1)


class AssociativeMemory(BlockMemory):
    """One block's A and z.

        read    q = W_Q x;  mem_out = A phi(q) / (z . phi(q)),  added to the stream before self-attention
        write   by all memory tokens m at once, at the end of the block:
                k = W_K m;  v = W_V m;  beta = sigmoid(W_beta m + b)
                delta = v - A phi(k) / (z . phi(k));  A <- A + beta * delta phi(k)^T
                gamma = 1 - (z . phi(k)) / |phi(k)|^2;  z <- z + gamma * phi(k)

    The value of a slot is its column of A divided by its entry of z, and what is read is a mean of these values,
    weighted by the slots' shares in z . phi(q). gamma is clamped to 0..1: memory tokens write at the same time, and
    without the clamp z would oscillate ever more where their keys are alike. Every block reads the bank at the start of
    the segment, so no logit depends on a later token.
    """

    def __init__(self, config: LM2Config, layer: int) -> None:
        super().__init__()
        layers, width = sorted(config.memory_layers), config.d_model + 1
        d_key = config.slots // (2 * NU)
        self.count, self.std = config.memory_sizes.memory_tokens, config.embedding_std
        self.columns = slice(layers.index(layer) * width, (layers.index(layer) + 1) * width)
        self.query = nn.Linear(config.d_model, d_key, bias=False)
        self.key = nn.Linear(config.d_model, d_key, bias=False)
        self.value = nn.Linear(config.d_model, config.d_model, bias=False)
        self.beta = nn.Linear(config.d_model, 1)
        if layer == layers[0]:
            self.tokens = nn.Parameter(torch.zeros(self.count, config.d_model))

    def initialise(self, generator: torch.Generator) -> None:
        self.value.weight.mul_(0.1)  # at first, reading adds little to the stream
        if hasattr(self, "tokens"):
            self.tokens.normal_(0.0, self.std, generator=generator)

    def split(
        self, bank: Float[Tensor, "batch slot slot_dim"]
    ) -> tuple[Float[Tensor, "batch slot d_model"], Float[Tensor, "batch slot"]]:
        """This block's A, transposed, and z."""
        columns = bank[..., self.columns]
        return columns[..., :-1], columns[..., -1]

    def before_attention(
        self, stream: Float[Tensor, "batch row d_model"], bank_start: Float[Tensor, "batch slot slot_dim"]
    ) -> Float[Tensor, "batch row d_model"]:
        values, z = self.split(bank_start)
        scores = self.hook_read_scores(features(self.query(stream))[:, None])
        weights = scores * z[:, None, None]
        pattern = self.hook_read_pattern(weights / (weights.sum(-1, keepdim=True) + TINY))
        values = self.hook_read_v((values / z.clamp(min=TINY)[..., None])[:, :, None])
        return self.hook_read(torch.einsum("bhts,bshd->bthd", pattern, values).flatten(2))

    def leave(
        self, stream: Float[Tensor, "batch row d_model"], bank: Float[Tensor, "batch slot slot_dim"], write: bool
    ) -> tuple[Float[Tensor, "batch row d_model"], Float[Tensor, "batch slot slot_dim"]]:
        if not write:
            return stream, bank
        bank, tokens = self.hook_bank_pre(bank.expand(len(stream), -1, -1)), stream[:, -self.count :]
        values, z = self.split(bank)
        key = self.hook_write_key(features(self.key(tokens)))
        value = self.hook_write_value(self.value(tokens))
        gate = self.hook_write_gate(self.beta(tokens).sigmoid())
        weight = torch.einsum("bms,bs->bm", key, z)[..., None]
        delta = self.hook_write_delta(value - torch.einsum("bms,bsd->bmd", key, values) / (weight + TINY))
        gamma = (1 - weight / (key.pow(2).sum(-1, keepdim=True) + TINY)).clamp(0, 1)
        added = torch.cat([torch.einsum("bms,bmd->bsd", key, gate * delta), (gamma * key).sum(1)[..., None]], dim=-1)
        before, after = bank[..., : self.columns.start], bank[..., self.columns.stop :]
        return stream, self.hook_bank_post(torch.cat([before, bank[..., self.columns] + added, after], dim=-1))


BETA = Gate(
    "input",
    AssociativeSite.WRITE_GATE,
    "share admitted",
    "beta, the share of a memory token's correction that is written (1 writes all)",
    rows="memory token",
    over="memory tokens",
)


class Associative(MemoryDesign):
    """ARMT: an associative matrix in each block, written by memory tokens after the segment."""

    title = "an associative memory"
    sites = (
        Site.MEM_OUT,
        Site.BANK_PRE,
        Site.BANK_POST,
        Site.READ_SCORES,
        Site.READ_PATTERN,
        Site.READ_V,
        Site.READ,
        *AssociativeSite,
    )
    own_sizes = AssociativeSizes
    terms_by_slot = True

    no_write_pattern = "an associative memory has no write attention: memory tokens write keys and values"
    head_edit = (
        "The one head's read is replaced at READ_V, the values of the slots. How much of each a token reads stays as it"
        " is."
    )
    slot_path = (
        "Each slot's value in the block goes through the final norm and the output head, as if a token read it alone"
    )
    rereading = (
        "A column sums to 1 only where the memory knows something of the token's query, and what is left counts as one"
        " more slot."
    )

    @property
    def gates(self) -> Mapping[str, Gate]:
        return {"in": BETA}

    def block(self, config: LM2Config, layer: int) -> AssociativeMemory:
        return AssociativeMemory(config, layer)

    def check(self, config: LM2Config) -> None:
        super().check(config)
        required = {
            "slot_dim": len(config.memory_layers) * (config.d_model + 1),
            "memory_heads": 1,
            "read_top_k": None,
            "attention_window": config.segment_length,
        }
        for name, value in required.items():
            if getattr(config, name) != value:
                raise ValueError(f"an associative memory needs {name} = {value}, not {getattr(config, name)}")
        divides("slots", config.slots, "features of one entry of a key", 2 * NU)
        if config.slots // (2 * NU) <= NU:
            raise ValueError(
                f"an associative memory needs slots of at least {2 * NU * (NU + 1)}, not {config.slots}: with keys of"
                f" {NU} entries or fewer some features are always 0"
            )

    def check_start(self, config: LM2Config) -> None:
        if config.learned_bank:
            raise ValueError("an associative memory begins empty: it has no learned bank_start")

    def sizes(self, config: LM2Config) -> dict[Axis, int]:
        return super().sizes(config) | {Axis.MEMORY_TOKEN: config.memory_sizes.memory_tokens}

    def back_rows(self, config: LM2Config) -> int:
        return config.memory_sizes.memory_tokens

    def memory_rows(self, model: LM2, bank: Tensor, write: bool) -> tuple[Float[Tensor, "batch memory_token d_model"]]:
        first = min(model.config.memory_layers)
        return (model.blocks[first].mem.tokens.expand(len(bank), -1, -1),)

    def first_bank(self, model: LM2) -> Float[Tensor, "slot slot_dim"]:
        return model.embed.weight.new_zeros(model.config.slots, model.config.slot_dim)

    def without_writing(self, config: LM2Config, layer: int, tokens: Sequence[int], all_tokens: bool) -> Iterator[Fill]:
        # There are no keys of earlier segments, so token i has key i.
        yield Fill(Site.ATTN_SCORES, -math.inf, {2: range(-self.back_rows(config), 0), 3: tokens})

    def slot_states(
        self, model: LM2, layer: int, slots: Float[Tensor, "slot slot_dim"]
    ) -> Float[Tensor, "slot d_model"]:
        return model.ln_final(model.blocks[layer].mem.split(slots)[0])  # the norm cancels the division by z

    def slot_directions(
        self, model: LM2, layer: int, directions: Float[Tensor, "direction slot_dim"]
    ) -> tuple[Float[Tensor, "direction d_model"], str]:
        return model.ln_final.w * model.blocks[layer].mem.split(directions)[0], f"block {layer}'s values, {OUTPUT}"

    def read_directions(
        self, model: LM2, layer: int, directions: Float[Tensor, "direction d_model"]
    ) -> tuple[Float[Tensor, "direction d_model"], str]:
        return model.ln_final.w * directions, OUTPUT

    def pull_back(
        self, memory: BlockMemory, direction: Float[ndarray, "d_model"], gate: Float[ndarray, "d_model"] | None
    ) -> Float[ndarray, "d_model"]:
        return direction


DESIGN = Associative()
