"""Llama weights of others: Hugging Face folders, opened as models without memory.

    FOLDER      config.json, tokenizer.json, and model.safetensors or its shards with model.safetensors.index.json;
                tokenizer_config.json, where there is one, says whether texts begin with a token of their own

Models of type llama and qwen2 are computed; what our model does not compute is refused.
"""

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
from lm2.serialize import as_bool, as_float
from lm2.shown import shown
from lm2.text.tokens import Tokenizer
from lm2.weights.llama_layout import HUGGING_FACE, Llama, fitting, only, present, sized_config
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
"""What a config.json may say, where it says anything at all, for our model to compute the same."""
_TYPES = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False},
}
"""The same by type of model; Qwen2 does not read its sliding_window where use_sliding_window is false."""
_ROPES = {"linear": LinearRope, "dynamic": DynamicRope, "yarn": YarnRope, "llama3": Llama3Rope}


def is_llama(folder: Path) -> bool:
    """Whether config.json there is that of a Hugging Face Llama, or of a Qwen2, which is a Llama with biases."""
    try:
        values = read_json(folder / "config.json")
    except ValueError:
        return False
    return isinstance(values, dict) and _type(values) is not None


def _type(values: dict[str, Any]) -> str | None:
    """The type of model that a config.json names; None where it is not computed here."""
    return next(
        (
            name
            for name, only in _TYPES.items()
            if values.get("model_type") == name or values.get("architectures") == only["architectures"]
        ),
        None,
    )


def read_folder(folder: Path) -> Llama:
    """A folder for which `is_llama` holds. Raises ValueError naming the file that is missing, broken, or not what was
    expected."""
    path = folder / "config.json"
    try:
        config = _config(read_json(path))
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    tokenizer = _tokenizer(folder / "tokenizer.json")
    files = _files(folder)
    found = _all_shapes(files)
    try:
        # Whoever ties them by hand saves one tensor or two equal ones, and a configuration that does not say so.
        config = replace(config, tied_embeddings=config.tied_embeddings or _HEAD not in found)
        names = fitting(
            {name: shape for name, shape in found.items() if not (config.tied_embeddings and name == _HEAD)},
            config,
            HUGGING_FACE,
        )
        weights = {name: weight for file in files for name, weight in read_safetensors(file).items() if name in found}
        if _HEAD in weights and _same(weights[_HEAD], weights[names["embed.weight"]]):
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
    return Llama(
        config=config,
        tokenizer=tokenizer,
        files=files,
        weights={ours: weights[theirs] for ours, theirs in names.items()},
        card=f"# {folder.resolve().name}\n\nA Llama without memory, from a Hugging Face folder; weights stored in"
        f" {stored}.\n",
    )


def _config(values: dict[str, Any]) -> LM2Config:
    """Ours, from the values of a Hugging Face config.json."""
    if not isinstance(values, dict):
        raise ValueError(f"it must be a table, not {shown(values)}")
    kind = _type(values)
    assert kind is not None, "only what `is_llama` knows is read"
    only(values, _ONLY | _TYPES[kind])
    layers = values.get("layer_types") or []
    if not isinstance(layers, list) or any(layer != "full_attention" for layer in layers):
        raise ValueError(f"layer_types {shown(layers)} are not computed here, only 'full_attention'")
    present(values, _SIZES)
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
    only(rope, {"partial_rotary_factor": 1.0})
    left_out = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
    given = {name: value for name, value in rope.items() if name not in left_out and value is not None}
    if kind == "dynamic":  # the length that transformers counts from, whatever else is said
        given = {"original_max_position_embeddings": values["max_position_embeddings"]} | given
        only(given, {"original_max_position_embeddings": values["max_position_embeddings"]})
    elif kind in ("llama3", "yarn"):
        original = values.get("original_max_position_embeddings")
        given = {"original_max_position_embeddings": values["max_position_embeddings"]} | given
        given |= {} if original is None else {"original_max_position_embeddings": original}
    known = fields(_ROPES[kind]) if kind in _ROPES else ()
    needed = {field.name for field in known if field.default is MISSING}
    if not needed <= set(given) <= {field.name for field in known}:
        raise ValueError(f"rope type {kind!r} takes numbers for {sorted(needed)}, not {shown(given)}")
    return _ROPES[kind].from_json(given) if known else None


def _files(folder: Path) -> tuple[Path, ...]:
    """The files of weights: one, or all that the index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return (whole,)
    if not index.is_file():
        raise ValueError(f"{whole} is missing, and so is {index.name}; pickled weights are not opened")
    try:
        listed = read_json(index)["weight_map"]
        files = tuple(folder / name for name in sorted(set(listed.values())))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights: expected a table under 'weight_map'") from error
    for file in files:
        if file.parent != folder or not file.is_file():
            raise ValueError(f"{file} is not a file there; {index.name} lists it among {len(files)} files of weights")
        held = safetensors_shapes(file)
        if lost := sorted(name for name, place in listed.items() if place == file.name and name not in held):
            raise ValueError(f"{file} lacks {shown(lost)}, which {index.name} lists in it")
    return files


def _all_shapes(files: Sequence[Path]) -> Shapes:
    """The shapes of all files together; what can be worked out from the configuration left out."""
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        shapes = safetensors_shapes(file)
        if twice := sorted(set(shapes) & set(found)):
            raise ValueError(f"{file} holds {twice[0]!r}, which another of {len(files)} files of weights holds, too")
        found |= shapes
    return {name: shape for name, shape in found.items() if not name.endswith(".rotary_emb.inv_freq")}


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same bit by bit."""
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(one.view(torch.uint8), other.view(torch.uint8))
    )


def _tokenizer(path: Path) -> Tokenizer:
    """The folder's tokenizer without the padding and truncation that it may have been saved with: segments are our own
    matter."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; expected a tokenizer in Hugging Face's JSON format")
    backend = tokenizers.Tokenizer.from_str(Tokenizer.load(path).to_json())
    backend.no_padding()
    backend.no_truncation()
    return Tokenizer(backend)
