"""Every place where a model can be looked at: the list of its hook points, with their axes."""

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
    """Rows of memory tokens that stand behind a segment's tokens."""
    ONE = "one"
    """A single value kept as an axis, as TransformerLens keeps it for norm scales."""
    RANK = "rank"
    """Largest first; made by the TopSlots reduction."""
    SLOT_AND_VALUE = "slot_and_value"
    """Two entries: a slot's number, and the value there."""


_T, _K, _S, _H, _G = Axis.TOKEN, Axis.KEY, Axis.SLOT, Axis.HEAD, Axis.KV_HEAD
_D, _E, _F, _M, _1 = Axis.D_MODEL, Axis.D_HEAD, Axis.D_MLP, Axis.SLOT_DIM, Axis.ONE


class AnySite(Enum):
    """A kind of activation: its hook name (with the block as `{layer}`) and its axes, batch left out.

    A site fires once per segment, and once per block where the name has a block. `Site` lists those that several kinds
    of memory share; a memory with places of its own has a closed set of them in its own file.
    """

    def __init__(self, template: str, axes: tuple[Axis, ...], writing: bool = False) -> None:
        self.template = template
        self.axes = axes
        self.writing = writing
        """Whether it is of a segment's writing, which no token of the segment sees where blocks read the bank as the
        segment began."""

    @property
    def per_layer(self) -> bool:
        return "{layer}" in self.template

    @property
    def in_memory(self) -> bool:
        """Whether it exists only in blocks that have a memory."""
        return ".mem." in self.template or self is Site.MEM_OUT

    def hook_name(self, layer: int | None = None) -> str:
        """The TransformerLens name, e.g. `blocks.3.mem.hook_gate_in`.

        Raises ValueError when a block is missing for a site that has one, or given for one that has none.
        """
        if self.per_layer != (layer is not None):
            raise ValueError(f"{self.name} {'needs a layer' if self.per_layer else 'has no layer'}: {self.template}")
        return self.template.format(layer=layer)

    def layers(self, config: LM2Config) -> tuple[int | None, ...]:
        """The blocks in which this site fires; (None,) for a site outside the blocks; () where the model lacks it."""
        if not self.per_layer:
            return (None,)
        if not self.in_memory:
            return tuple(range(config.n_layers))
        return tuple(sorted(config.memory_layers)) if self in config.memory.design.sites else ()

    def sizes(self, config: LM2Config, start: int, tokens: int) -> dict[Axis, int]:
        """How long each axis is here, in a segment of `tokens` tokens whose first stands at place `start` of its
        document."""
        kept = start if config.lookback is None else min(start, config.lookback)
        memory = config.memory.design.sizes(config)
        return {
            Axis.TOKEN: tokens,
            Axis.KEY: kept + tokens,
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
        """The site of this name. Raises ValueError, with those that there are."""
        if isinstance(name, str) and name not in Site.__members__:
            from lm2.model.memory import MemoryKind

            own = {site.name: site for kind in MemoryKind for site in kind.design.sites}
            if name in own:
                return own[name]
        return as_member("site", Site, name)


class Site(AnySite):
    """The sites of a decoder, and those of memories that are not one kind's alone."""

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
    """The sites that a model with this kind of memory has: those of every decoder, and the memory's own."""
    return (*(site for site in Site if not site.in_memory), *kind.design.sites)
