"""GGUF files of architectures "llama" and "qwen2", whose quantised matrices are unpacked to float32."""

from collections import Counter
from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import torch
from jaxtyping import Float
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.kinds.release import LLAMA_3_ROPE
from lm2.model.llama import rotary_frequencies
from lm2.model.rope import Llama3Rope
from lm2.model.weights import check_weight
from lm2.serialize import as_float
from lm2.shown import shown
from lm2.weights.folder import ModelFiles
from lm2.weights.gguf_file import read_gguf_file
from lm2.weights.gguf_tokenizer import gguf_tokenizer, list_of
from lm2.weights.llama_layout import GGUF, check_present, check_values, match_names, sized_config

_SIZES = {
    "d_model": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "d_mlp": "feed_forward_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "segment_length": "context_length",
}
_ONLY = {
    "rope.scaling.type": "none",
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.causal": True,
    "tensor_data_layout": "Meta AI original pth",
}
_HEAD_SIZES = ("rope.dimension_count", "attention.key_length", "attention.value_length")
_ARCHITECTURES = ("llama", "qwen2")
_BIASES = {"qkv_bias": "blk.0.attn_q.bias", "o_bias": "blk.0.attn_output.bias", "mlp_bias": "blk.0.ffn_up.bias"}
"""The tensor whose presence says that a model has such biases."""


def read_gguf(path: Path) -> ModelFiles:
    """Raises ValueError naming the file if it is broken, neither a Llama nor a Qwen2, or incomplete."""
    metadata, entries = read_gguf_file(path)
    try:
        tensors = {tensor.name: tensor for tensor in entries}
        stretch = tensors.pop("rope_freqs.weight", None)
        config = _config(metadata, tensors)
        if stretch is not None:
            config = replace(config, rope_scaling=_scaling(_unpacked(stretch), config))
        shapes = {name: tuple(tensor.shape.tolist()[::-1]) for name, tensor in tensors.items()}
        names = match_names(shapes, config, GGUF)
        tokenizer = gguf_tokenizer(metadata)
        weights = {ours: _unpacked(tensors[theirs]) for ours, theirs in names.items()}
        for ours, theirs in names.items():
            check_weight(theirs, weights[ours])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if metadata["general.architecture"] == "llama":
        for name in weights:
            if name.rpartition(".")[0].endswith((".attn.q", ".attn.k")):
                weights[name] = _half_split(weights[name], config.d_head)
    formats = Counter(tensor.tensor_type.name for tensor in tensors.values())
    stored = ", ".join(f"{count} in {kind}" for kind, count in formats.most_common())
    licence = f" Licence: {metadata['general.license']}." if "general.license" in metadata else ""
    return ModelFiles(
        config=config,
        weights=weights,
        tokenizer=tokenizer,
        paths=(path,),
        card=f"# {metadata.get('general.name', path.stem)}\n\nA Llama without memory, from {path.name}; tensors stored"
        f" {stored}.{licence}\n",
    )


def _config(metadata: dict[str, Any], tensors: Container[str]) -> LM2Config:
    architecture = metadata.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"general.architecture {shown(architecture)} is not computed here, only {_ARCHITECTURES}")
    prefix = f"{architecture}."
    values = {name.removeprefix(prefix): value for name, value in metadata.items() if name.startswith(prefix)}
    check_values(values, _ONLY)
    check_present(values, _SIZES)
    free = {*_SIZES.values(), *_ONLY, *_HEAD_SIZES, "attention.head_count_kv", "rope.freq_base", "vocab_size"}
    if unknown := sorted(set(values) - free):
        raise ValueError(f"{shown(unknown)} of its architecture are not computed here")
    config = sized_config(
        values | {"tokens": len(list_of(metadata, "tokens", str))},
        _SIZES | {"d_vocab": "tokens"},
        {"n_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length"},
        rope_theta=as_float("rope.freq_base", values.get("rope.freq_base", 10_000.0)),
        tied="output.weight" not in tensors,
    )
    check_values(values, dict.fromkeys(_HEAD_SIZES, config.d_head))
    return replace(config, **{field: name in tensors for field, name in _BIASES.items()})


def _half_split(rows: Float[Tensor, "row ..."], d_head: int) -> Float[Tensor, "row ..."]:
    """A Llama's query or key rows, or their biases, in the order of `rotate`: its GGUF files have the two rows of a
    rotary pair next to each other. Those of a Qwen2 have the order of `rotate`."""
    return rows.unflatten(0, (-1, d_head // 2, 2)).transpose(1, 2).reshape(rows.shape)


def _unpacked(tensor: gguf.ReaderTensor) -> Tensor:
    """Raises ValueError for an unknown format of numbers."""
    try:
        return torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
    except NotImplementedError as error:
        raise ValueError(f"{tensor.name} is stored in {tensor.tensor_type.name}, which is not unpacked here") from error


def _scaling(stretch: Tensor, config: LM2Config) -> Llama3Rope:
    """Llama 3's scaling, from the factor of each rotary wavelength, which GGUF stores."""
    scaling = replace(LLAMA_3_ROPE, factor=float(stretch.max()))
    plain, scaled = (
        rotary_frequencies(config.d_head, config.rope_theta, rope, torch.ones(1)) for rope in (None, scaling)
    )
    expected = plain / scaled
    if stretch.shape != expected.shape or not torch.allclose(stretch, expected, rtol=1e-4):
        raise ValueError(
            "rope_freqs.weight is another stretching of rotary waves than Llama 3's, which alone is computed here"
        )
    return scaling
