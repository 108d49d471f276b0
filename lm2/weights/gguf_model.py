"""GGUF files of architecture "llama": everything in one file, whose matrices are unpacked."""

from collections import Counter
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
from lm2.weights.gguf_file import read_gguf_file
from lm2.weights.gguf_tokenizer import entry, gguf_tokenizer
from lm2.weights.llama_layout import GGUF, Llama, fitting, only, present, sized_config

_GGUF_SIZES = {
    "d_model": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "d_mlp": "feed_forward_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "segment_length": "context_length",
}


_GGUF_ONLY = {
    "rope.scaling.type": "none",
    "expert_count": 0,
    "expert_used_count": 0,
    "attention.causal": True,
    "tensor_data_layout": "Meta AI original pth",
}


_GGUF_HEAD_SIZES = ("rope.dimension_count", "attention.key_length", "attention.value_length")


def read_gguf(path: Path) -> Llama:
    """Raises ValueError naming the file when it is broken, holds something else than a Llama, or lacks a part of
    one."""
    known, held = read_gguf_file(path)
    try:
        tensors = {tensor.name: tensor for tensor in held}
        stretch = tensors.pop("rope_freqs.weight", None)
        config = _gguf_config(known, tied="output.weight" not in tensors)
        if stretch is not None:
            config = replace(config, rope_scaling=_scaling(_unpacked(stretch), config))
        names = fitting({name: tuple(tensor.shape.tolist()[::-1]) for name, tensor in tensors.items()}, config, GGUF)
        tokenizer = gguf_tokenizer(known)
        weights = {ours: _unpacked(tensors[theirs]) for ours, theirs in names.items()}
        for ours, theirs in names.items():
            check_weight(theirs, weights[ours])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for name in weights:
        if name.endswith((".attn.q.weight", ".attn.k.weight")):
            weights[name] = _half_split(weights[name], config.d_head)
    packed = Counter(tensor.tensor_type.name for tensor in tensors.values())
    stored = ", ".join(f"{count} in {kind}" for kind, count in packed.most_common())
    licence = f" Licence: {known['general.license']}." if "general.license" in known else ""
    return Llama(
        config=config,
        weights=weights,
        tokenizer=tokenizer,
        files=(path,),
        card=f"# {known.get('general.name', path.stem)}\n\nA Llama without memory, from {path.name}; tensors stored"
        f" {stored}.{licence}\n",
    )


def _gguf_config(known: dict[str, Any], *, tied: bool) -> LM2Config:
    """Ours, from the metadata of a GGUF file."""
    if known.get("general.architecture") != "llama":
        raise ValueError(
            f"it holds a model of architecture {shown(known.get('general.architecture'))}; expected 'llama'"
        )
    values = {name.removeprefix("llama."): value for name, value in known.items() if name.startswith("llama.")}
    only(values, _GGUF_ONLY)
    present(values, _GGUF_SIZES)
    free = {
        *_GGUF_SIZES.values(),
        *_GGUF_ONLY,
        *_GGUF_HEAD_SIZES,
        "attention.head_count_kv",
        "rope.freq_base",
        "vocab_size",
    }
    if unknown := sorted(set(values) - free):
        raise ValueError(f"{shown(unknown)} of its architecture are not computed here")
    config = sized_config(
        values | {"tokens": len(entry(known, "tokens", str))},
        _GGUF_SIZES | {"d_vocab": "tokens"},
        {"n_key_value_heads": "attention.head_count_kv"},
        rope_theta=as_float("rope.freq_base", values.get("rope.freq_base", 10_000.0)),
        tied=tied,
    )
    only(values, dict.fromkeys(_GGUF_HEAD_SIZES, config.d_head))
    return config


def _half_split(rows: Float[Tensor, "row d_model"], d_head: int) -> Float[Tensor, "row d_model"]:
    """Query or key rows in the order of `rotate`: GGUF stores the two of a rotary pair side by side, head by head."""
    return rows.unflatten(0, (-1, d_head // 2, 2)).transpose(1, 2).reshape(rows.shape)


def _unpacked(tensor: gguf.ReaderTensor) -> Tensor:
    """Float32. Raises ValueError for a kind of number that is none of a weight's."""
    try:
        return torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
    except NotImplementedError as error:
        raise ValueError(f"{tensor.name} is stored in {tensor.tensor_type.name}, which is not unpacked here") from error


def _scaling(stretch: Tensor, config: LM2Config) -> Llama3Rope:
    """Llama 3's scaling; GGUF stores what comes of it, by how much each rotary wave is stretched."""
    scaling = replace(LLAMA_3_ROPE, factor=float(stretch.max()))
    plain, slowed = (
        rotary_frequencies(config.d_head, config.rope_theta, each, torch.ones(1)) for each in (None, scaling)
    )
    expected = plain / slowed
    if stretch.shape != expected.shape or not torch.allclose(stretch, expected, rtol=1e-4):
        raise ValueError(
            "rope_freqs.weight is another stretching of rotary waves than Llama 3's, which alone is computed here"
        )
    return scaling
