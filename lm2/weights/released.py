"""Weights of the released LM2 code, and a comparison with its recorded outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.finite import is_finite
from lm2.model.kinds.release import RELEASED_SIZE
from lm2.model.lm2 import LM2
from lm2.model.sites import Site
from lm2.model.weights import check_shapes, check_weight
from lm2.shown import shown
from lm2.weights.folder import ModelFiles, read_card, read_config, read_tokenizer
from lm2.weights.llama_layout import HUGGING_FACE, weight_names
from lm2.weights.weight_files import read_pickled, read_safetensors, reason

_MEMORY = {
    f"mem.{ours}.{kind}": f"{theirs}.{kind}"
    for ours, theirs in {
        "query": "query_proj",
        "key": "key_proj",
        "value": "value_proj",
        "mlp": "attention_mlp.0",
        "ln_attended": "attended_memory_layernorm",
        "ln_mlp": "attended_memory_layernorm2",
        "gate_tokens": "input_gate_projector.linear",
        "gate_bank": "memory_gate_projector.linear",
    }.items()
    for kind in ("weight", "bias")
} | {"mem.pool_weight": "input_gate_projector.w", "mem.input_bias": "input_bias", "mem.forget_bias": "forget_bias"}


def _table(n_layers: int) -> tuple[dict[str, str], dict[str, str]]:
    """Our names to theirs, and their second names of the same tensors to the first."""
    llama = {ours: theirs for ours, theirs in weight_names(HUGGING_FACE, n_layers).items() if not ours.endswith("bias")}
    names = {ours: theirs.replace(".self_attn.", ".mem_attn.self_attn.") for ours, theirs in llama.items()}
    twins = {llama[ours]: theirs for ours, theirs in names.items() if llama[ours] != theirs}
    twins[names.pop("unembed.weight")] = names["embed.weight"]
    for layer in range(n_layers):
        module = f"model.layers.{layer}.mem_attn.memory_module."
        names |= {f"blocks.{layer}.{ours}": module + theirs for ours, theirs in _MEMORY.items()}
        twins |= {f"{module}attention_mlp.1.{kind}": f"{module}attention_mlp.0.{kind}" for kind in ("weight", "bias")}
    return names, twins


def our_weights(theirs: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """The weights under our names.

    The stored `memory_bank` is left out: it is what was in memory when training stopped. Raises ValueError for missing
    and unexpected names, for shared tensors that differ, and as `check_weight` does.
    """
    if n_layers > len(theirs):  # a broken file may claim any number
        raise ValueError(f"{n_layers:,} blocks cannot be in {len(theirs):,} tensors")
    names, twins = _table(n_layers)
    expected = {*names.values(), *twins, "memory_bank"}
    missing, unexpected = sorted(expected - set(theirs)), sorted(set(theirs) - expected)
    if missing or unexpected:
        raise ValueError(
            f"expected the {len(expected)} names of a released LM2 with {n_layers} blocks; "
            f"{len(missing)} are missing {shown(missing[:3])} and {len(unexpected)} are unknown {shown(unexpected[:3])}"
        )
    for name in names.values():
        check_weight(name, theirs[name])
    differing = [twin for twin, first in twins.items() if not torch.equal(theirs[twin], theirs[first])]
    if differing:
        raise ValueError(
            f"{differing[0]} and {twins[differing[0]]} are one tensor in the released code, but differ in this file"
        )
    return {ours: theirs[name] for ours, name in names.items()}


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Largest absolute differences between our RELEASE model and recorded outputs of the released code."""

    segments: int
    logits: float
    gates: float
    bank: float

    @property
    def worst(self) -> float:
        return max(self.logits, self.gates, self.bank)


def parity(path: Path) -> Parity:
    """Run our model on the recorded segments, with the bank carried from one to the next.

    The file has weights/NAME, segmentK/input_ids, segmentK/logits, segmentK/bank_after,
    segmentK/layerL/{input_gate,forget_gate}, and the sizes as metadata. Raises ValueError for any other file.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            sizes = file.metadata() or {}
        recorded = read_safetensors(path)
        if not (0 < int(sizes["layers"]) <= len(recorded) and int(sizes["segments"]) > 0):
            raise ValueError(
                f"it says {sizes['layers']} blocks and {sizes['segments']} segments, and holds {len(recorded):,}"
                " tensors"
            )
        config = _config_of(sizes)
        weights = our_weights(
            {n.removeprefix("weights/"): v for n, v in recorded.items() if n.startswith("weights/")}, config.n_layers
        )
        model = LM2.empty(config, torch.device("cpu"), torch.float32)
        model.load_weights(weights)
        return _compare(model, recorded, int(sizes["segments"]))
    except (OSError, LookupError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} does not hold recorded outputs of the released LM2 code: {reason(error)}") from error


def _config_of(sizes: Mapping[str, str]) -> LM2Config:
    width, layers = int(sizes["hidden_size"]), int(sizes["layers"])
    return replace(
        RELEASED_SIZE,
        rope_scaling=None,
        d_vocab=int(sizes["vocab"]),
        d_model=width,
        n_layers=layers,
        n_heads=int(sizes["heads"]),
        n_key_value_heads=int(sizes["kv_heads"]),
        d_mlp=int(sizes["ffn"]),
        segment_length=width,
        attention_window=width,
        rope_theta=float(sizes["rope_theta"]),
        rms_norm_eps=float(sizes["rms_norm_eps"]),
        slots=int(sizes["slots"]),
        slot_dim=width,
        memory_heads=int(sizes["memory_heads"]),
        memory_layers=tuple(range(layers)),
    )


@torch.inference_mode()
def _compare(model: LM2, recorded: Mapping[str, Tensor], segments: int) -> Parity:
    worst = {"logits": 0.0, "gates": 0.0, "bank": 0.0}

    def compare(kind: str, ours: Tensor, name: str) -> None:
        if not is_finite(recorded[name]):  # max() would ignore it
            raise ValueError(f"{name} holds NaN or infinity")
        worst[kind] = max(worst[kind], float((ours - recorded[name]).abs().max()))

    bank = None
    for segment in (f"segment{i}" for i in range(segments)):
        logits, cache = model.run_with_cache(recorded[f"{segment}/input_ids"], bank)
        compare("logits", logits, f"{segment}/logits")
        for layer in range(model.config.n_layers):
            compare("gates", cache[Site.GATE_IN.hook_name(layer)], f"{segment}/layer{layer}/input_gate")
            compare("gates", cache[Site.GATE_FORGET.hook_name(layer)], f"{segment}/layer{layer}/forget_gate")
        bank = cache[Site.BANK_POST.hook_name(model.config.n_layers - 1)]
        compare("bank", bank, f"{segment}/bank_after")
    return Parity(segments=segments, **worst)


def read_released(path: Path) -> ModelFiles:
    """The content of a .pt file of the released code. Raises ValueError with the path for any other file."""
    content = read_pickled(path)
    for key in ("model", "model_state_dict", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise ValueError(f"{path} holds no table of weights; expected the released code's state_dict")
    config, size = _released_config(path, content.get("model.embed_tokens.weight")), path.stat().st_size
    for name, value in content.items():
        if value.numel() * value.element_size() > size:  # a stride of 0 can make a huge tensor of one number
            raise ValueError(
                f"{path} has {size:,} bytes, and {name[:80]} of shape {tuple(value.shape)} would take more"
            )
    try:
        weights = our_weights(content, config.n_layers)
        check_shapes(LM2.shapes(config, len(weights)), {name: tuple(weight.shape) for name, weight in weights.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    tokenizer = read_tokenizer(path.parent / "tokenizer.json", config)
    return ModelFiles(config=config, weights=weights, tokenizer=tokenizer, paths=(path,), card=read_card(path.parent))


def _released_config(path: Path, embedding: Tensor | None) -> LM2Config:
    beside = path.parent / "config.json"
    if beside.is_file():
        config = read_config(beside)
        if config.memory is not RELEASED_SIZE.memory:
            raise ValueError(
                f"{beside} says memory {config.memory.value!r}; a .pt file of the released code is 'release'"
            )
        return config
    if embedding is None or tuple(embedding.shape) != (RELEASED_SIZE.d_vocab, RELEASED_SIZE.d_model):
        what = "no model.embed_tokens.weight" if embedding is None else f"an embedding of {tuple(embedding.shape)}"
        raise ValueError(f"{path} has {what}; a model not of the released size needs config.json beside it")
    return RELEASED_SIZE
