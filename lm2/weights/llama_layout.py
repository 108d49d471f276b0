"""Configurations and weight names of Llamas in other formats."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lm2.model.config import LM2Config
from lm2.model.kinds.plain import NO_MEMORY
from lm2.model.lm2 import LM2
from lm2.model.weights import Shapes
from lm2.serialize import as_float, as_int
from lm2.shown import shown

LONGEST_SEGMENT = 2048
"""Segments are as long as the positions that a model was trained on, but not longer than this."""

NAMES = {
    "embed.weight": ("model.embed_tokens.weight", "token_embd.weight"),
    "ln_final.w": ("model.norm.weight", "output_norm.weight"),
    "unembed.weight": ("lm_head.weight", "output.weight"),
    "blocks.{}.ln1.w": ("model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"),
    "blocks.{}.attn.q.weight": ("model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight"),
    "blocks.{}.attn.k.weight": ("model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight"),
    "blocks.{}.attn.v.weight": ("model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight"),
    "blocks.{}.attn.o.weight": ("model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight"),
    "blocks.{}.ln2.w": ("model.layers.{}.post_attention_layernorm.weight", "blk.{}.ffn_norm.weight"),
    "blocks.{}.mlp.gate.weight": ("model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight"),
    "blocks.{}.mlp.up.weight": ("model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight"),
    "blocks.{}.mlp.out.weight": ("model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight"),
}
"""Our name of each weight, Hugging Face's and GGUF's."""
NAMES |= {
    ours.replace("weight", "bias"): tuple(theirs.replace(".weight", ".bias") for theirs in names)
    for ours, names in NAMES.items()
    if ".attn." in ours or ".mlp." in ours
}
HUGGING_FACE, GGUF = 0, 1
"""The columns of `NAMES`."""


def weight_names(column: int, n_layers: int) -> dict[str, str]:
    """Our names of a Llama's weights and biases to those of another format."""
    return {
        ours.format(layer): names[column].format(layer) for ours, names in NAMES.items() for layer in range(n_layers)
    }


def sized_config(
    values: Mapping[str, Any], names: Mapping[str, str], optional: Mapping[str, str], *, rope_theta: float, tied: bool
) -> LM2Config:
    """A configuration from `values`, where our sizes have these `names`. Those of `optional` may be missing."""
    names = {**names, **{ours: theirs for ours, theirs in optional.items() if values.get(theirs) is not None}}
    sizes: dict[str, Any] = {
        ours: (as_float if ours == "rms_norm_eps" else as_int)(f"{theirs}, here {ours}", values[theirs])
        for ours, theirs in names.items()
    }
    config = LM2Config(
        memory=NO_MEMORY, rope_theta=rope_theta, tied_embeddings=tied, **{"n_key_value_heads": sizes["n_heads"]} | sizes
    )
    usual = config.head_dim is not None and config.head_dim * config.n_heads == config.d_model
    length = min(config.segment_length, LONGEST_SEGMENT)
    return replace(config, segment_length=length, head_dim=None if usual else config.head_dim)


def check_values(values: Mapping[str, Any], allowed: Mapping[str, Any]) -> None:
    """Raise ValueError for a value that differs from the only one allowed; a value may be missing."""
    for name, value in allowed.items():
        if values.get(name) not in (None, value):
            raise ValueError(f"{name} {shown(values[name])} is not computed here, only {value!r}")


def check_present(values: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Raise ValueError where one of these names has no value."""
    if missing := sorted(name for name in names.values() if values.get(name) is None):
        raise ValueError(f"it lacks {missing}")


def match_names(stored: Shapes, config: LM2Config, column: int) -> dict[str, str]:
    """Our names to those in a file with these shapes. Raises ValueError for tensors that are missing, unknown or of
    another shape."""
    shapes, names = LM2.shapes(config, len(stored)), weight_names(column, config.n_layers)
    names = {ours: names[ours] for ours in shapes}
    missing, unknown = sorted(set(names.values()) - set(stored)), sorted(set(stored) - set(names.values()))
    if missing or unknown:
        raise ValueError(
            f"{len(missing)} of {len(names)} tensors are missing {shown(missing[:3])} and {len(unknown)} are unknown"
            f" {shown(unknown[:3])}"
        )
    for ours, theirs in names.items():
        if stored[theirs] != shapes[ours]:
            raise ValueError(f"{theirs} must be of shape {shapes[ours]}, not {stored[theirs]}")
    return names
