"""Hugging Face folders of type llama and qwen2, opened as models without memory.

A folder has config.json, tokenizer.json, and model.safetensors or its shards with model.safetensors.index.json. What
our model does not compute is refused. No token is put in front of a text.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
from torch import Tensor

from lm2.files import read_json
from lm2.model.config import LM2Config
from lm2.model.rope import DynamicRope, LinearRope, Llama3Rope, RopeScaling, YarnRope
from lm2.model.weights import Shapes, check_weight
from lm2.serialize import as_bool, as_float, as_text
from lm2.shown import shown
from lm2.text.tokens import Tokenizer
from lm2.weights.folder import ModelFiles
from lm2.weights.llama_layout import HUGGING_FACE, check_present, check_values, match_names, sized_config
from lm2.weights.weight_files import read_safetensors, safetensors_shapes

_HEAD = "lm_head.weight"

_SIZES = {
    "d_vocab": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_mlp": "intermediate_size",
    "rms_norm_eps": "rms_norm_eps",
    "segment_length": "max_position_embeddings",
}
_ONLY = {
    "hidden_act": "silu",
    "rope_interleaved": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "auto_map": None,
}
"""The only values in config.json with which our model computes the same."""
_TYPES = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False},
}
"""The same by type of model. Qwen2 ignores sliding_window where use_sliding_window is false."""
_ROPES = {"linear": LinearRope, "dynamic": DynamicRope, "yarn": YarnRope, "llama3": Llama3Rope}


def is_llama(folder: Path) -> bool:
    """Whether the folder has the config.json of a Hugging Face Llama or Qwen2, which is a Llama with biases."""
    try:
        values = read_json(folder / "config.json")
    except ValueError:
        return False
    return isinstance(values, dict) and _type(values) is not None


def _type(values: dict[str, Any]) -> str | None:
    """The type of model that a config.json names; None for others than ours."""
    for name, allowed in _TYPES.items():
        if values.get("model_type") == name or values.get("architectures") == allowed["architectures"]:
            return name
    return None


def read_folder(folder: Path) -> ModelFiles:
    """For folders where `is_llama` is true. Raises ValueError naming the file that is missing, broken or unexpected."""
    path = folder / "config.json"
    try:
        config = _config(read_json(path))
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    tokenizer = _tokenizer(folder / "tokenizer.json")
    paths = _weight_files(folder)
    shapes = _all_shapes(paths)
    try:
        # Embeddings tied by hand are saved once, or twice and equal, with a configuration that does not say so.
        config = replace(config, tied_embeddings=config.tied_embeddings or _HEAD not in shapes)
        expected = {name: shape for name, shape in shapes.items() if not (config.tied_embeddings and name == _HEAD)}
        names = match_names(expected, config, HUGGING_FACE)
        weights = {name: weight for path in paths for name, weight in read_safetensors(path).items() if name in shapes}
        if _HEAD in weights and _same_bits(weights[_HEAD], weights[names["embed.weight"]]):
            config = replace(config, tied_embeddings=True)
            del weights[_HEAD]
            names.pop("unembed.weight", None)
        elif _HEAD in weights and config.tied_embeddings:
            raise ValueError(f"tie_word_embeddings is true, but {_HEAD} differs from model.embed_tokens.weight")
        for name, weight in weights.items():
            check_weight(name, weight)
    except ValueError as error:
        raise ValueError(f"the weights in {folder} do not fit {path}: {error}") from error
    stored = ", ".join(sorted({str(weight.dtype).removeprefix("torch.") for weight in weights.values()}))
    return ModelFiles(
        config=config,
        tokenizer=tokenizer,
        paths=paths,
        weights={ours: weights[theirs] for ours, theirs in names.items()},
        card=f"# {folder.resolve().name}\n\nA Llama without memory, from a Hugging Face folder; weights stored in"
        f" {stored}.\n",
    )


def _config(values: dict[str, Any]) -> LM2Config:
    if not isinstance(values, dict):
        raise ValueError(f"it must be a table, not {shown(values)}")
    kind = _type(values)
    assert kind is not None, "`is_llama` was true"
    check_values(values, _ONLY | _TYPES[kind])
    layers = values.get("layer_types") or []
    if not isinstance(layers, list) or any(layer != "full_attention" for layer in layers):
        raise ValueError(f"layer_types {shown(layers)} are not computed here, only 'full_attention'")
    check_present(values, _SIZES)
    newer, older = (values.get(name) or {} for name in ("rope_parameters", "rope_scaling"))
    if newer and older and newer != older:
        raise ValueError(
            f"rope_parameters {shown(newer)} and rope_scaling {shown(older)} are two names of one table, and differ"
        )
    rope = newer or older
    if not isinstance(rope, dict):
        raise ValueError(f"the rotary parameters must be a table, not {shown(rope)}")
    config = sized_config(
        values,
        _SIZES,
        {"n_key_value_heads": "num_key_value_heads", "head_dim": "head_dim"},
        rope_theta=as_float("rope_theta", rope.get("rope_theta", values.get("rope_theta", 10_000.0))),
        tied=as_bool("tie_word_embeddings", values.get("tie_word_embeddings") or False),
    )
    attention, mlp = (as_bool(name, values.get(name) or False) for name in ("attention_bias", "mlp_bias"))
    return replace(
        config,
        rope_scaling=_rope_scaling(rope, values),
        qkv_bias=kind == "qwen2" or attention,
        o_bias=kind == "llama" and attention,
        mlp_bias=kind == "llama" and mlp,
    )


def _rope_scaling(rope: dict[str, Any], values: dict[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", *_ROPES):
        raise ValueError(f"rope type {shown(kind)} is not computed here, only {sorted(['default', *_ROPES])}")
    check_values(rope, {"partial_rotary_factor": 1.0})
    excluded = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
    sizes = {name: value for name, value in rope.items() if name not in excluded and value is not None}
    default = {"original_max_position_embeddings": values["max_position_embeddings"]}
    if kind == "dynamic":  # transformers always counts from max_position_embeddings
        sizes = default | sizes
        check_values(sizes, default)
    elif kind in ("llama3", "yarn"):
        original = values.get("original_max_position_embeddings")
        sizes = default | sizes | ({} if original is None else {"original_max_position_embeddings": original})
    known = fields(_ROPES[kind]) if kind in _ROPES else ()
    required = {field.name for field in known if field.default is MISSING}
    if not required <= set(sizes) <= {field.name for field in known}:
        raise ValueError(f"rope type {kind!r} takes numbers for {sorted(required)}, not {shown(sizes)}")
    return _ROPES[kind].from_json(sizes) if known else None


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """The file of weights, or all that the index lists."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return (single,)
    if not index.is_file():
        raise ValueError(f"{single} is missing, and so is {index.name}; pickled weights are not opened")
    try:
        listed = read_json(index)["weight_map"]
        paths = tuple(folder / name for name in sorted(set(listed.values())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights: expected a table under 'weight_map'") from error
    for path in paths:
        if path.parent != folder or not path.is_file():
            raise ValueError(f"{path} is not a file there; {index.name} lists it among {len(paths)} files of weights")
        shapes = safetensors_shapes(path)
        if missing := sorted(name for name, file in listed.items() if file == path.name and name not in shapes):
            raise ValueError(f"{path} lacks {shown(missing)}, which {index.name} lists in it")
    return paths


def _all_shapes(paths: Sequence[Path]) -> Shapes:
    """The shapes of the tensors in all files, without rotary frequencies, which follow from the configuration."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        more = safetensors_shapes(path)
        if twice := sorted(set(shapes) & set(more)):
            raise ValueError(f"{path} holds {twice[0]!r}, which another of {len(paths)} files of weights holds, too")
        shapes |= more
    return {name: shape for name, shape in shapes.items() if not name.endswith(".rotary_emb.inv_freq")}


def _same_bits(first: Tensor, second: Tensor) -> bool:
    return (
        first.dtype == second.dtype
        and first.shape == second.shape
        and torch.equal(first.view(torch.uint8), second.view(torch.uint8))
    )


def _tokenizer(path: Path) -> Tokenizer:
    """The folder's tokenizer without the padding and truncation that it may have been saved with."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; expected a tokenizer in Hugging Face's JSON format")
    backend = tokenizers.Tokenizer.from_str(Tokenizer.load(path).to_json())
    backend.no_padding()
    backend.no_truncation()
    config = path.parent / "tokenizer_config.json"
    values = read_json(config) if config.is_file() else {}
    try:
        if not isinstance(values, dict):
            raise ValueError(f"it must be a table, not {shown(values)}")
        name, added = _bos(values, json.loads(backend.to_str())["post_processor"])
        if name is None or (not added and backend.token_to_id(name) is None):
            return Tokenizer(backend)
        return Tokenizer(backend).with_bos(name, added=added)
    except ValueError as error:
        raise ValueError(f"{config if config.is_file() else path}: {error}") from error


def _bos(values: dict[str, Any], post_processor: dict[str, Any] | None) -> tuple[str | None, bool]:
    """The begin-of-text token and whether texts begin with it.

    They do where the tokenizer's post-processor puts one in front, as in transformers 5, and where it puts none but
    tokenizer_config.json says add_bos_token, as in transformers 4.
    """
    named = values.get("bos_token")
    named = named.get("content") if isinstance(named, dict) else named
    name = None if named is None else as_text("bos_token", named)
    said = as_bool("add_bos_token", values.get("add_bos_token") or False) and name is not None
    front = _in_front(post_processor)
    if len(front) > 1:
        raise ValueError(f"its tokenizer puts {len(front)} tokens in front of a text, {shown(front)}; at most one is")
    return (front[0], True) if front else (name, said)


def _in_front(post_processor: dict[str, Any] | None) -> list[str]:
    """The tokens that a post-processor puts in front of a text."""
    if post_processor is None:
        return []
    if post_processor["type"] == "Sequence":
        return [token for part in post_processor["processors"] for token in _in_front(part)]
    if post_processor["type"] == "TemplateProcessing":
        front = itertools.takewhile(lambda piece: "SpecialToken" in piece, post_processor["single"])
        special = (post_processor["special_tokens"][piece["SpecialToken"]["id"]] for piece in front)
        return [token for each in special for token in each["tokens"]]
    return [post_processor["cls"][0]] if "cls" in post_processor else []
