"""Llama weights of others: Hugging Face folders and GGUF files, opened as models without memory.

    FOLDER      config.json, tokenizer.json, and model.safetensors or its shards with model.safetensors.index.json
    NAME.gguf   everything in one file, architecture "llama"; its matrices are unpacked

What our model does not compute is refused. Texts are encoded as they stand: no token is put in front of them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import gguf
import tokenizers
import torch
from jaxtyping import Float
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from torch import Tensor

from lm2.files import read_json
from lm2.model.config import LM2Config, MemoryKind, RopeScaling
from lm2.model.llama import rotary_frequencies
from lm2.model.lm2 import LM2
from lm2.model.weights import Shapes, check_weight
from lm2.serialize import as_int, number, truth
from lm2.shown import shown
from lm2.text.tokens import Tokenizer
from lm2.weights.gguf_file import read_gguf_file
from lm2.weights.released import LLAMA_3_ROPE
from lm2.weights.weight_files import read_safetensors, safetensors_shapes

LONGEST_SEGMENT = 2048
"""Segments are as long as the positions a model was trained on, but no longer than this; tokens see all earlier
ones."""

_NAMES = {
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
_HUGGING_FACE, _GGUF = 0, 1
_HEAD = "lm_head.weight"

_SIZES = {
    "d_vocab": "vocab_size", "d_model": "hidden_size", "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_mlp": "intermediate_size", "rms_norm_eps": "rms_norm_eps", "segment_length": "max_position_embeddings",
}  # fmt: skip
_GGUF_SIZES = {
    "d_model": "embedding_length", "n_layers": "block_count", "n_heads": "attention.head_count",
    "d_mlp": "feed_forward_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon", "segment_length": "context_length",
}  # fmt: skip
_ONLY = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "attention_bias": False,
    "mlp_bias": False,
    "sliding_window": None, "rope_interleaved": False, "partial_rotary_factor": 1.0, "quantization_config": None,
    "auto_map": None,
}  # fmt: skip
"""What a config.json may say, where it says anything at all, for our model to compute the same."""
_GGUF_ONLY = {
    "rope.scaling.type": "none", "expert_count": 0, "expert_used_count": 0, "attention.causal": True,
    "tensor_data_layout": "Meta AI original pth",
}  # fmt: skip
_GGUF_HEAD_SIZES = ("rope.dimension_count", "attention.key_length", "attention.value_length")

_LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Llama 3's tokenizer cuts a text before it merges bytes."""


@dataclass(frozen=True, kw_only=True)
class Llama:
    """What a folder or file holds, in our terms."""

    config: LM2Config
    weights: Mapping[str, Tensor]
    """By our names, in the dtype they are stored in; float32 where they were packed."""
    tokenizer: Tokenizer
    files: tuple[Path, ...]
    """The files of weights, in order of name."""
    card: str


def is_llama(folder: Path) -> bool:
    """Whether config.json there is that of a Hugging Face Llama."""
    try:
        values = read_json(folder / "config.json")
    except ValueError:
        return False
    return isinstance(values, dict) and (
        values.get("model_type") == "llama" or values.get("architectures") == ["LlamaForCausalLM"]
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
        # Whoever ties them by hand saves one tensor, and a configuration that does not say so.
        config = replace(config, tied_embeddings=config.tied_embeddings or _HEAD not in found)
        names = _fitting(
            {name: shape for name, shape in found.items() if not (config.tied_embeddings and name == _HEAD)},
            config,
            _HUGGING_FACE,
        )
        weights = {name: weight for file in files for name, weight in read_safetensors(file).items() if name in found}
        twin = weights.pop(_HEAD, None) if config.tied_embeddings else None
        if twin is not None and not _same(twin, weights[names["embed.weight"]]):
            raise ValueError(f"tie_word_embeddings is true, but {_HEAD} differs from model.embed_tokens.weight")
        for name, weight in weights.items():
            check_weight(name, weight)
    except ValueError as error:
        raise ValueError(f"the weights in {folder} do not fit {path}: {error}") from error
    stored = ", ".join(sorted({str(weight.dtype).removeprefix("torch.") for weight in weights.values()}))
    return Llama(
        config=config, tokenizer=tokenizer, files=files,
        weights={ours: weights[theirs] for ours, theirs in names.items()},
        card=f"# {folder.resolve().name}\n\nA Llama without memory, from a Hugging Face folder; weights stored in {stored}.\n",
    )  # fmt: skip


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
        names = _fitting({name: tuple(tensor.shape.tolist()[::-1]) for name, tensor in tensors.items()}, config, _GGUF)
        tokenizer = _gguf_tokenizer(known)
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
        config=config, weights=weights, tokenizer=tokenizer, files=(path,),
        card=f"# {known.get('general.name', path.stem)}\n\nA Llama without memory, from {path.name}; tensors stored {stored}.{licence}\n",
    )  # fmt: skip


def _config(values: dict[str, Any]) -> LM2Config:
    """Ours, from the values of a Hugging Face config.json."""
    if not isinstance(values, dict):
        raise ValueError(f"it must be a table, not {shown(values)}")
    _only(values, _ONLY)
    _present(values, _SIZES)
    newer, older = (values.get(name) or {} for name in ("rope_parameters", "rope_scaling"))
    if newer and older and newer != older:
        raise ValueError(
            f"rope_parameters {shown(newer)} and rope_scaling {shown(older)} are two names of one table, and differ"
        )
    rope = newer or older
    if not isinstance(rope, dict):
        raise ValueError(f"the rotary parameters must be a table, not {shown(rope)}")
    config = _sized(
        values, _SIZES, "num_key_value_heads",
        rope_theta=number("rope_theta", rope.get("rope_theta", values.get("rope_theta", 10_000.0))),
        tied=truth("tie_word_embeddings", values.get("tie_word_embeddings") or False),
    )  # fmt: skip
    if values.get("head_dim") not in (None, config.d_head):
        raise ValueError(
            f"head_dim {shown(values['head_dim'])} is not computed here, only hidden_size / num_attention_heads ="
            f" {config.d_head}"
        )
    return replace(config, rope_scaling=_rope_scaling(rope))


def _rope_scaling(rope: dict[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(f"rope type {shown(kind)} is not computed here, only 'default' and 'llama3'")
    needed = {field.name for field in fields(RopeScaling)} if kind == "llama3" else set()
    given = {name: value for name, value in rope.items() if name not in ("rope_type", "type", "rope_theta")}
    if set(given) != needed:
        raise ValueError(f"rope type {kind!r} takes numbers for {sorted(needed)}, not {shown(given)}")
    return RopeScaling.from_json(given) if given else None


def _gguf_config(known: dict[str, Any], *, tied: bool) -> LM2Config:
    """Ours, from the metadata of a GGUF file."""
    if known.get("general.architecture") != "llama":
        raise ValueError(
            f"it holds a model of architecture {shown(known.get('general.architecture'))}; expected 'llama'"
        )
    values = {name.removeprefix("llama."): value for name, value in known.items() if name.startswith("llama.")}
    _only(values, _GGUF_ONLY)
    _present(values, _GGUF_SIZES)
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
    config = _sized(
        values | {"tokens": len(_entry(known, "tokens", str))}, _GGUF_SIZES | {"d_vocab": "tokens"},
        "attention.head_count_kv",
        rope_theta=number("rope.freq_base", values.get("rope.freq_base", 10_000.0)), tied=tied,
    )  # fmt: skip
    _only(values, dict.fromkeys(_GGUF_HEAD_SIZES, config.d_head))
    return config


def _sized(
    values: Mapping[str, Any], names: Mapping[str, str], grouped: str, *, rope_theta: float, tied: bool
) -> LM2Config:
    """The configuration of sizes that stand in `values` under their `names`. `grouped`: that of how many heads have
    keys of their own."""
    sizes = {
        ours: (number if ours == "rms_norm_eps" else as_int)(f"{theirs}, here {ours}", values[theirs])
        for ours, theirs in {
            **names,
            **({"n_key_value_heads": grouped} if values.get(grouped) is not None else {}),
        }.items()
    }
    config = LM2Config(
        memory=MemoryKind.NONE,
        rope_theta=rope_theta,
        tied_embeddings=tied,
        **{"n_key_value_heads": sizes["n_heads"]} | sizes,
    )
    return replace(config, segment_length=min(config.segment_length, LONGEST_SEGMENT))


def _only(values: Mapping[str, Any], allowed: Mapping[str, Any]) -> None:
    for name, value in allowed.items():
        if values.get(name) not in (None, value):
            raise ValueError(f"{name} {shown(values[name])} is not computed here, only {value!r}")


def _present(values: Mapping[str, Any], names: Mapping[str, str]) -> None:
    if missing := sorted(name for name in names.values() if values.get(name) is None):
        raise ValueError(f"it lacks {missing}")


def _fitting(found: Mapping[str, tuple[int, ...]], config: LM2Config, naming: int) -> dict[str, str]:
    """Our names to theirs, all there and of the right shape. Raises ValueError for what is missing, unknown or of
    another shape."""
    shapes = LM2.shapes(config, len(found))
    names = {
        ours.format(layer): row[naming].format(layer)
        for ours, row in _NAMES.items()
        for layer in range(config.n_layers)
    }
    names = {ours: names[ours] for ours in shapes}
    missing, unknown = sorted(set(names.values()) - set(found)), sorted(set(found) - set(names.values()))
    if missing or unknown:
        raise ValueError(
            f"{len(missing)} of {len(names)} tensors are missing {shown(missing[:3])} and {len(unknown)} are unknown"
            f" {shown(unknown[:3])}"
        )
    for ours, theirs in names.items():
        if found[theirs] != shapes[ours]:
            raise ValueError(f"{theirs} must be of shape {shapes[ours]}, not {found[theirs]}")
    return names


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


def _half_split(rows: Float[Tensor, "row d_model"], d_head: int) -> Float[Tensor, "row d_model"]:
    """Query or key rows in the order of `rotate`: GGUF stores the two of a rotary pair side by side, head by head."""
    return rows.unflatten(0, (-1, d_head // 2, 2)).transpose(1, 2).reshape(rows.shape)


def _unpacked(tensor: gguf.ReaderTensor) -> Tensor:
    """Float32. Raises ValueError for a kind of number that is none of a weight's."""
    try:
        return torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
    except NotImplementedError as error:
        raise ValueError(f"{tensor.name} is stored in {tensor.tensor_type.name}, which is not unpacked here") from error


def _scaling(stretch: Tensor, config: LM2Config) -> RopeScaling:
    """Llama 3's scaling; GGUF stores what comes of it, by how much each rotary wave is stretched."""
    scaling = replace(LLAMA_3_ROPE, factor=float(stretch.max()))
    plain, slowed = (
        rotary_frequencies(config.d_head, config.rope_theta, each, torch.device("cpu")) for each in (None, scaling)
    )
    expected = plain / slowed
    if stretch.shape != expected.shape or not torch.allclose(stretch, expected, rtol=1e-4):
        raise ValueError(
            "rope_freqs.weight is another stretching of rotary waves than Llama 3's, which alone is computed here"
        )
    return scaling


def _entry(known: Mapping[str, Any], name: str, kind: type) -> list:
    found = known.get(f"tokenizer.ggml.{name}")
    if not isinstance(found, list):
        raise ValueError(f"its tokenizer lacks tokenizer.ggml.{name}")
    if not all(isinstance(value, kind) for value in found):
        raise ValueError(
            f"tokenizer.ggml.{name} must hold {'texts' if kind is str else 'whole numbers'} alone, not {shown(found)}"
        )
    return found


def _gguf_tokenizer(known: Mapping[str, Any]) -> Tokenizer:
    """A byte-level BPE of the metadata's tokens and merges; control and user-defined tokens are met whole in a text."""
    if known.get("tokenizer.ggml.model") != "gpt2":
        raise ValueError(
            f"its tokenizer is of model {shown(known.get('tokenizer.ggml.model'))}; expected 'gpt2', a byte-level BPE"
        )
    tokens, kinds = _entry(known, "tokens", str), _entry(known, "token_type", int)
    merges = [tuple(merge.split(" ")) for merge in _entry(known, "merges", str)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or len(kinds) != len(tokens):
        raise ValueError(
            f"its tokenizer has {len(tokens)} tokens, {len(vocabulary)} of them different, and {len(kinds)} types"
        )
    strange = [merge for merge in merges if len(merge) != 2 or not {*merge, "".join(merge)} <= vocabulary.keys()]
    if strange:
        raise ValueError(
            f"{len(strange)} merges of its tokenizer are not of two tokens into one, as {shown(' '.join(strange[0]))}"
        )
    whole_words, pre_tokenizer = _pre_tokenizer(known.get("tokenizer.ggml.pre"))
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole_words))
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoders.ByteLevel()
    for kind, add in (
        (gguf.TokenType.CONTROL, backend.add_special_tokens),
        (gguf.TokenType.USER_DEFINED, backend.add_tokens),
    ):
        add([AddedToken(token, normalized=False) for token, own in zip(tokens, kinds, strict=True) if own == kind])
    return Tokenizer(backend)


def _pre_tokenizer(name: str | None) -> tuple[bool, pre_tokenizers.PreTokenizer]:
    """(Whether a piece that is a token stays whole against the merges; how a text is cut into pieces)."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "gpt-2":
        return False, words
    if name == "smollm":
        return False, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    if name in ("llama-bpe", "llama3", "llama-v3"):
        cut = pre_tokenizers.Split(Regex(_LLAMA_3_SPLIT), behavior="isolated")
        return True, pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    raise ValueError(f"its tokenizer cuts texts by the rule {shown(name)}; known are 'gpt-2', 'smollm' and 'llama-bpe'")
