"""Sites: the hook points of a model, with the axes of their activations."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from lm2.serialize import as_member

if TYPE_CHECKING:
    from lm2.model.config import LM2Config
    from lm2.model.memory import MemoryKind


class Axis(Enum):
    """What an axis of an activation runs over."""

    TOKEN = "token"
    KEY = "key"
    SLOT = "slot"
    HEAD = "head"
    KV_HEAD = "kv_head"
    D_MODEL = "d_model"
    D_HEAD = "d_head"
    D_MLP = "d_mlp"
    SLOT_DIM = "slot_dim"
    MEMORY_TOKEN = "memory_token"
    """Memory tokens after a segment's tokens."""
    ONE = "one"
    """An axis of length 1, such as TransformerLens' norm scales have."""
    RANK = "rank"
    """Largest first; made by the TopSlots reduction."""
    SLOT_AND_VALUE = "slot_and_value"
    """Two entries: a slot's number and its value."""


_T, _K, _S, _H, _G = Axis.TOKEN, Axis.KEY, Axis.SLOT, Axis.HEAD, Axis.KV_HEAD
_D, _E, _F, _M, _1 = Axis.D_MODEL, Axis.D_HEAD, Axis.D_MLP, Axis.SLOT_DIM, Axis.ONE


class AnySite(Enum):
    """A kind of activation: its hook name (with the block as `{layer}`) and its axes without the batch.

    A site fires once per segment, and in each block where its name has `{layer}`. `Site` has those shared by several
    kinds of memory; a kind with other sites lists them in its own file.
    """

    def __init__(self, template: str, axes: tuple[Axis, ...], writing: bool = False) -> None:
        self.template = template
        self.axes = axes
        self.writing = writing
        """Whether it is part of writing, which no token of the segment sees if blocks read the bank at its start."""

    @property
    def per_layer(self) -> bool:
        return "{layer}" in self.template

    @property
    def in_memory(self) -> bool:
        """Whether only blocks with a memory have it."""
        return ".mem." in self.template or self is Site.MEM_OUT

    def hook_name(self, layer: int | None = None) -> str:
        """The TransformerLens name, e.g. `blocks.3.mem.hook_gate_in`.

        Raises ValueError where a block is missing or not expected.
        """
        if self.per_layer != (layer is not None):
            raise ValueError(f"{self.name} {'needs a layer' if self.per_layer else 'has no layer'}: {self.template}")
        return self.template.format(layer=layer)

    def layers(self, config: LM2Config) -> tuple[int | None, ...]:
        """The blocks where it fires; (None,) for a site outside the blocks, () for one that the model lacks."""
        if not self.per_layer:
            return (None,)
        if not self.in_memory:
            return tuple(range(config.n_layers))
        return tuple(sorted(config.memory_layers)) if self in config.memory.design.sites else ()

    def sizes(self, config: LM2Config, start: int, tokens: int) -> dict[Axis, int]:
        """The length of each axis in a segment of `tokens` tokens that begins at token `start` of its document."""
        earlier = start if config.lookback is None else min(start, config.lookback)
        memory = config.memory.design.sizes(config)
        return {
            Axis.TOKEN: tokens,
            Axis.KEY: earlier + tokens,
            Axis.SLOT: config.slots,
            Axis.D_MODEL: config.d_model,
            Axis.D_MLP: config.d_mlp,
            Axis.KV_HEAD: config.n_key_value_heads,
            Axis.ONE: 1,
            Axis.HEAD: config.n_heads,
            Axis.D_HEAD: config.d_head,
        } | (memory if ".mem." in self.template else {})

    @classmethod
    def from_json(cls, name: object) -> AnySite:
        """The site of this name. Raises ValueError, listing the sites, for any other name."""
        if isinstance(name, str) and name not in Site.__members__:
            from lm2.model.memory import MemoryKind

            own = {site.name: site for kind in MemoryKind for site in kind.design.sites}
            if name in own:
                return own[name]
        return as_member("site", Site, name)


class Site(AnySite):
    """The sites of a decoder and those that several kinds of memory share."""

    EMBED = ("hook_embed", (_T, _D))
    RESID_PRE = ("blocks.{layer}.hook_resid_pre", (_T, _D))
    RESID_MID = ("blocks.{layer}.hook_resid_mid", (_T, _D))
    RESID_POST = ("blocks.{layer}.hook_resid_post", (_T, _D))
    ATTN_OUT = ("blocks.{layer}.hook_attn_out", (_T, _D))
    MEM_OUT = ("blocks.{layer}.hook_mem_out", (_T, _D))
    MLP_OUT = ("blocks.{layer}.hook_mlp_out", (_T, _D))
    LN1_SCALE = ("blocks.{layer}.ln1.hook_scale", (_T, _1))
    LN1_NORMALIZED = ("blocks.{layer}.ln1.hook_normalized", (_T, _D))
    LN2_SCALE = ("blocks.{layer}.ln2.hook_scale", (_T, _1))
    LN2_NORMALIZED = ("blocks.{layer}.ln2.hook_normalized", (_T, _D))
    LN_FINAL_SCALE = ("ln_final.hook_scale", (_T, _1))
    LN_FINAL_NORMALIZED = ("ln_final.hook_normalized", (_T, _D))
    ATTN_Q = ("blocks.{layer}.attn.hook_q", (_T, _H, _E))
    ATTN_K = ("blocks.{layer}.attn.hook_k", (_T, _G, _E))
    ATTN_V = ("blocks.{layer}.attn.hook_v", (_T, _G, _E))
    ATTN_ROT_Q = ("blocks.{layer}.attn.hook_rot_q", (_T, _H, _E))
    ATTN_ROT_K = ("blocks.{layer}.attn.hook_rot_k", (_T, _G, _E))
    ATTN_Z = ("blocks.{layer}.attn.hook_z", (_T, _H, _E))
    ATTN_SCORES = ("blocks.{layer}.attn.hook_attn_scores", (_H, _T, _K))
    ATTN_PATTERN = ("blocks.{layer}.attn.hook_pattern", (_H, _T, _K))
    MLP_PRE = ("blocks.{layer}.mlp.hook_pre", (_T, _F))
    MLP_PRE_LINEAR = ("blocks.{layer}.mlp.hook_pre_linear", (_T, _F))
    MLP_POST = ("blocks.{layer}.mlp.hook_post", (_T, _F))
    BANK_PRE = ("blocks.{layer}.mem.hook_bank_pre", (_S, _M), True)
    BANK_POST = ("blocks.{layer}.mem.hook_bank_post", (_S, _M), True)
    CANDIDATE = ("blocks.{layer}.mem.hook_candidate", (_S, _M), True)
    GATE_IN = ("blocks.{layer}.mem.hook_gate_in", (_S, _M), True)
    GATE_FORGET = ("blocks.{layer}.mem.hook_gate_forget", (_S, _M), True)
    READ_Q = ("blocks.{layer}.mem.hook_read_q", (_T, _H, _E))
    READ_K = ("blocks.{layer}.mem.hook_read_k", (_S, _H, _E))
    READ_V = ("blocks.{layer}.mem.hook_read_v", (_S, _H, _E))
    READ_SCORES = ("blocks.{layer}.mem.hook_read_scores", (_H, _T, _S))
    READ_PATTERN = ("blocks.{layer}.mem.hook_read_pattern", (_H, _T, _S))
    READ = ("blocks.{layer}.mem.hook_read", (_T, _D))
    GATE_OUT = ("blocks.{layer}.mem.hook_gate_out", (_T, _D))
    WRITE_SCORES = ("blocks.{layer}.mem.hook_write_scores", (_H, _S, _T), True)
    WRITE_PATTERN = ("blocks.{layer}.mem.hook_write_pattern", (_H, _S, _T), True)


def sites_of(kind: MemoryKind) -> tuple[AnySite, ...]:
    """The sites of a model with this kind of memory."""
    return (*(site for site in Site if not site.in_memory), *kind.design.sites)
