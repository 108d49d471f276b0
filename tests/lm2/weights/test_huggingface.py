"""Laws of lm2.weights.huggingface: a Llama of others computes here what it computes there, and whatever else is refused
in one sentence."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lm2.model.config import MemoryKind
from lm2.model.rope import Llama3Rope
from lm2.runs.generation import generate
from lm2.text.tokens import Tokenizer
from lm2.weights.checkpoint import Checkpoint, CheckpointError, load, save

LAW = {"rtol": 0.0, "atol": 1e-5}
LLAMA_3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 16}  # fmt: skip


def llama(tokenizer: Tokenizer, **changes: object) -> LlamaForCausalLM:
    """Toy weights in transformers; every size a multiple of 32, as GGUF's packed blocks need."""
    sizes = {
        "vocab_size": tokenizer.size, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "attn_implementation": "eager",
    }  # fmt: skip
    qwen2 = changes.pop("model_type", "llama") == "qwen2"
    config = (Qwen2Config if qwen2 else LlamaConfig)(**sizes | changes)
    model = (Qwen2ForCausalLM if qwen2 else LlamaForCausalLM)(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise / weight.shape[-1] ** 0.5 if weight.ndim > 1 else 1 + 0.3 * noise)
    return model


def saved(folder: Path, model: LlamaForCausalLM, tokenizer: Tokenizer, shard: str = "1GB") -> Path:
    model.save_pretrained(folder, max_shard_size=shard)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    return folder


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    return saved(tmp_path / "theirs", llama(tokenizer), tokenizer)


@pytest.fixture
def shards(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    return saved(tmp_path / "shards", llama(tokenizer), tokenizer, shard="60KB")


def refused(path: Path) -> str:
    """The one sentence with which loading fails."""
    with pytest.raises(CheckpointError) as caught:
        load(path, "cpu")
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    return message


def same(ours: Checkpoint, theirs: LlamaForCausalLM, tokens: torch.Tensor) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(ours.model(tokens), theirs(tokens).logits, **LAW)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rope", [None, LLAMA_3])
@pytest.mark.parametrize(("kv_heads", "shard"), [(1, "60KB"), (2, "1GB"), (4, "60KB")])
def test_a_folder_gives_the_logits_of_transformers(
    tokenizer: Tokenizer, ids, tmp_path: Path, tied: bool, rope: dict | None, kv_heads: int, shard: str
) -> None:
    theirs = llama(tokenizer, tie_word_embeddings=tied, rope_parameters=rope, num_key_value_heads=kv_heads)
    ours = load(saved(tmp_path / "one", theirs, tokenizer, shard), "cpu")
    assert (tmp_path / "one" / "model.safetensors").is_file() == (shard == "1GB")
    assert (ours.config.memory, ours.config.attention_window, ours.config.segment_length) == (
        MemoryKind.NONE,
        None,
        128,
    )
    assert (ours.model.unembed.weight is ours.model.embed.weight) == tied
    same(ours, theirs, ids(2, 40))


ROPES = [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    {"rope_type": "yarn", "factor": 8.0, "beta_fast": 16, "beta_slow": 2, "truncate": False, "attention_factor": 1.3,
     "original_max_position_embeddings": 16},
    {"rope_type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.4, "original_max_position_embeddings": 16},
    {"rope_type": "yarn", "factor": 4.0},
]  # fmt: skip


@pytest.mark.parametrize("rope", ROPES)
@torch.no_grad()
def test_stretched_rotary_positions_are_those_of_transformers_below_and_beyond_the_trained_length(
    tokenizer: Tokenizer, ids, tmp_path: Path, rope: dict
) -> None:
    """Each text a model of its own in transformers, which remembers the longest one; the second in two pieces."""
    path, rope = tmp_path / "one", {"rope_theta": 1e4} | rope
    longest = 32 if rope["rope_type"] == "dynamic" else 128
    saved(path, llama(tokenizer, rope_parameters=rope, max_position_embeddings=longest), tokenizer)
    ours, tokens = load(path, "cpu"), ids(2, 60)
    theirs = [LlamaForCausalLM.from_pretrained(path, attn_implementation="eager").eval() for _ in range(3)]
    same(ours, theirs[0], tokens[:, :20])
    same(ours, theirs[1], tokens)
    first, before = ours.model.segment(tokens[:, :41]), theirs[2](tokens[:, :41], use_cache=True)
    after = theirs[2](tokens[:, 41:], past_key_values=before.past_key_values).logits
    torch.testing.assert_close(ours.model.segment(tokens[:, 41:], cache=first.cache).logits, after, **LAW)


def test_what_is_written_beyond_the_trained_length_follows_from_the_text_so_far(
    tokenizer: Tokenizer, text: str, tmp_path: Path
) -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    theirs = llama(tokenizer, rope_parameters=rope, max_position_embeddings=16)
    ours = load(saved(tmp_path / "one", theirs, tokenizer), "cpu")
    made = generate(ours, text[:60], max_tokens=6, segment_length=128)
    ids = torch.tensor([[*made.prompt.ids, *made.ids]])
    assert len(made.prompt) > 8 and ids.shape[1] > 16
    for step in range(6):
        with torch.inference_mode():
            logits = ours.model(ids[:, : len(made.prompt) + step])[0, -1]
        np.testing.assert_allclose(made.logits[step], logits, rtol=0, atol=1e-5)


def test_rows_of_a_batch_are_stretched_each_by_its_own_length(tokenizer: Tokenizer, ids, tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    theirs = llama(tokenizer, rope_parameters=rope, max_position_embeddings=8)
    ours = load(saved(tmp_path / "one", theirs, tokenizer), "cpu").model
    tokens = ids(2, 20)
    there = torch.ones(2, 20, dtype=torch.bool)
    there[1, 12:] = False
    both = ours.segment(tokens, non_padding=there).logits
    for row, length in ((0, 20), (1, 12)):
        alone = ours(tokens[row : row + 1, :length])
        torch.testing.assert_close(both[row : row + 1, :length], alone, **LAW)


@pytest.mark.parametrize(
    "changes",
    [
        {"head_dim": 24},
        {"head_dim": 8, "attention_bias": True},
        {"attention_bias": True, "num_key_value_heads": 1},
        {"mlp_bias": True},
        {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA_3, "tie_word_embeddings": True},
        {"model_type": "qwen2"},
        {"model_type": "qwen2", "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": 64},
        {"model_type": "qwen2", "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6,
            "original_max_position_embeddings": 16}},
    ],
)  # fmt: skip
def test_heads_of_another_width_and_biases_give_the_logits_of_transformers(
    tokenizer: Tokenizer, ids, tmp_path: Path, changes: dict
) -> None:
    theirs = llama(tokenizer, **changes)
    ours = load(saved(tmp_path / "one", theirs, tokenizer), "cpu")
    same(ours, theirs, ids(2, 40))
    save(tmp_path / "copy", ours.model, ours.tokenizer, ours.card)
    back = load(tmp_path / "copy", "cpu")
    assert back.config == ours.config
    same(back, theirs, ids(2, 40))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_sliding_window": True}, "use_sliding_window True is not computed here, only False"),
        ({"architectures": ["Qwen2ForTokenClassification"]}, "architectures ['Qwen2ForTokenClassification']"),
        ({"layer_types": ["sliding_attention"] * 2}, "layer_types ['sliding_attention', 'sliding_attention']"),
    ],
)
def test_what_is_not_computed_of_a_qwen2_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, change: dict, said: str
) -> None:
    path = saved(tmp_path / "one", llama(tokenizer, model_type="qwen2"), tokenizer) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    message = refused(path.parent)
    assert str(path) in message and said in message


def test_its_tokenizer_its_card_and_our_copy_of_it(
    folder: Path, tokenizer: Tokenizer, text: str, tmp_path: Path
) -> None:
    ours = load(folder, "cpu")
    assert ours.tokenizer.encode(text) == tokenizer.encode(text)
    assert ours.card.startswith("# theirs\n") and "stored in float32" in ours.card
    assert len(generate(ours, "Mary moved", max_tokens=3).ids) == 3
    save(tmp_path / "copy", ours.model, ours.tokenizer, ours.card)
    back = load(tmp_path / "copy", "cpu")
    assert back.config == ours.config and all(
        torch.equal(w, ours.model.weights()[n]) for n, w in back.model.weights().items()
    )


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_to_the_dtype_asked_for(
    tokenizer: Tokenizer, ids, tmp_path: Path, stored: torch.dtype
) -> None:
    path = saved(tmp_path / "one", llama(tokenizer).to(stored), tokenizer)
    same(
        load(path, "cpu"),
        LlamaForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager"),
        ids(2, 20),
    )
    assert load(path, "cpu", "bfloat16").dtype == "bfloat16"
    with pytest.raises(CheckpointError, match="float16 is computed on a GPU alone: choose float32 or bfloat16"):
        load(path, "cpu", "float16")


def test_the_digest_is_that_of_all_files_of_weights_in_order(folder: Path, shards: Path) -> None:
    assert load(folder, "cpu").weights_digest == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    parts = sorted(shards.glob("*.safetensors"))
    assert len(parts) > 2
    assert (
        load(shards, "cpu").weights_digest == hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    )


def test_segments_are_as_long_as_the_positions_but_at_most_2048(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = saved(tmp_path / "one", llama(tokenizer, max_position_embeddings=131_072), tokenizer)
    assert load(path, "cpu").config.segment_length == 2048


def test_a_config_as_older_versions_wrote_it_means_the_same(tokenizer: Tokenizer, ids, tmp_path: Path) -> None:
    theirs = llama(tokenizer, rope_parameters=LLAMA_3, num_key_value_heads=4)
    path = saved(tmp_path / "one", theirs, tokenizer)
    values = json.loads((path / "config.json").read_text())
    rope = values.pop("rope_parameters")
    for name in ("num_key_value_heads", "head_dim", "tie_word_embeddings", "attention_bias", "mlp_bias"):
        del values[name]
    values |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (path / "config.json").write_text(json.dumps(values))
    weights = load_file(path / "model.safetensors")
    save_file(weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, path / "model.safetensors")
    same(load(path, "cpu"), theirs, ids(2, 40))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attention_bias": True}, "8 of 29 tensors are missing ['model.layers.0.self_attn.k_proj.bias'"),
        ({"attention_bias": "yes"}, "attention_bias must be true or false, not 'yes'"),
        ({"mlp_bias": True}, "6 of 27 tensors are missing ['model.layers.0.mlp.down_proj.bias'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not computed here, only 'silu'"),
        ({"head_dim": 32}, "model.layers.0.self_attn.q_proj.weight must be of shape (128, 64), not (64, 64)"),
        ({"head_dim": 15}, "rotary positions need an even head size: head_dim = 15"),
        ({"layer_types": ["sliding_attention"]}, "layer_types ['sliding_attention'] are not computed here"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not computed here, only 1.0"),
        ({"quantization_config": {"bits": 4}}, "quantization_config {'bits': 4}"),
        ({"sliding_window": 64}, "sliding_window 64"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "auto_map"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures ['LlamaForSequenceClassification']"),
        ({"model_type": "mistral"}, "model_type 'mistral'"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 4.0}}, "rope type 'longrope' is not computed here"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "rope type 'linear' takes numbers for"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "beta": 1}}, "takes numbers for ['factor']"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 64}},
            "original_max_position_embeddings 64 is not computed here, only 128"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1.0}}, "rope_theta above 1, not 1.0"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 0.5}}, "factor must be within 1..268,435,456, not 0.5"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
            "takes numbers for ['factor', 'high_freq_factor'"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": 3}, "must be a table, not 3"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "are two names of one table, and differ"),
        ({"hidden_size": None}, "it lacks ['hidden_size']"),
        ({"hidden_size": "64"}, "d_model must be a whole number, not '64'"),
        ({"num_key_value_heads": 3}, "n_heads 4 does not divide among n_key_value_heads 3"),
        ({"vocab_size": 7}, "model.embed_tokens.weight must be of shape (7, 64), not ("),
        ({"num_hidden_layers": 3}, "9 of 30 tensors are missing ['model.layers.2.input_layernorm.weight'"),
        ({"tie_word_embeddings": True}, "lm_head.weight differs from model.embed_tokens.weight"),
    ],
)  # fmt: skip
def test_what_our_model_does_not_compute_is_refused(folder: Path, change: dict, said: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    message = refused(folder)
    assert str(path) in message and said in message


def test_a_folder_of_another_model_is_none_of_ours(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    message = refused(folder)
    assert str(folder / "config.json") in message and "nor of a Hugging Face Llama" in message
    assert "model_type 'gpt2'" in message


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{folder / name} is missing" in refused(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused_with_their_size(folder: Path, shards: Path, share: float) -> None:
    for path in (folder / "model.safetensors", sorted(shards.glob("*.safetensors"))[1]):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert f"{path} is broken" in refused(path.parent)


def test_a_missing_shard_and_a_broken_index_are_named(shards: Path) -> None:
    index = shards / "model.safetensors.index.json"
    good = index.read_text()
    for bad in ("", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        index.write_text(bad)
        assert f"{index} is no index of weights" in refused(shards)
    index.write_text(good.replace("model-00001", "../model-00001"))
    assert "is not a file there" in refused(shards)
    index.write_text(good)
    gone = min(shards.glob("*.safetensors"))
    gone.unlink()
    assert str(gone) in refused(shards)


def test_weights_missing_unknown_or_of_another_kind_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    good = load_file(path)
    norm = "model.norm.weight"
    for bad, said in (
        (
            {name: value for name, value in good.items() if name != norm},
            f"1 of 21 tensors are missing ['{norm}'] and 0 are unknown",
        ),
        (
            good | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)},
            "1 are unknown ['model.layers.0.self_attn.q_proj.bias']",
        ),
        (good | {norm: torch.zeros(3)}, f"{norm} must be of shape (64,), not (3,)"),
        (
            good | {norm: torch.ones(64, dtype=torch.int8)},
            f"{norm} is torch.int8; expected float16, bfloat16 or float32",
        ),
    ):
        save_file(bad, path)
        message = refused(folder)
        assert str(folder) in message and said in message


@pytest.mark.parametrize("told", [False, None])
def test_embeddings_tied_by_hand_are_tied_though_the_configuration_does_not_say_so(
    tokenizer: Tokenizer, ids, tmp_path: Path, told: bool | None
) -> None:
    theirs = llama(tokenizer, tie_word_embeddings=True)
    path = saved(tmp_path / "one", theirs, tokenizer)
    values = json.loads((path / "config.json").read_text())
    values = {name: value for name, value in values.items() if name != "tie_word_embeddings"} | (
        {} if told is None else {"tie_word_embeddings": told}
    )
    (path / "config.json").write_text(json.dumps(values))
    weights = load_file(path / "model.safetensors")
    assert "lm_head.weight" not in weights
    for stored in (weights, weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}):
        save_file(stored, path / "model.safetensors")
        ours = load(path, "cpu")
        assert ours.model.unembed.weight is ours.model.embed.weight
        same(ours, theirs, ids(2, 20))


def test_a_tensor_in_two_shards_or_not_in_the_one_that_the_index_says_is_refused(shards: Path) -> None:
    first, second = sorted(shards.glob("*.safetensors"))[:2]
    own, name = load_file(first), min(load_file(second))
    save_file(own | {name: torch.zeros(1)}, first)
    assert f"holds {name!r}, which another of" in refused(shards)
    save_file({each: weight for each, weight in own.items() if each != min(own)}, first)
    assert f"{first} lacks ['{min(own)}'], which model.safetensors.index.json lists in it" in refused(shards)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings must be true or false, not 'false'"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps, here rms_norm_eps must be a finite number, not '1e-5'"),
        ({"num_hidden_layers": 10**6}, "1,000,000 blocks cannot be in 21 tensors"),
        ({"num_hidden_layers": True}, "num_hidden_layers, here n_layers must be a whole number, not True"),
        ({"intermediate_size": 10**30}, "intermediate_size, here d_mlp must be at most"),
        ({"rope_parameters": LLAMA_3 | {"factor": "8"}}, "factor must be a finite number, not '8'"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": "1e4"}},
            "rope_theta must be a finite number, not '1e4'",
        ),
        ({"rope_parameters": {"rope_type": ["llama3"]}}, "rope type ['llama3'] is not computed here"),
        ({"num_key_value_heads": [2]}, "num_key_value_heads, here n_key_value_heads must be a whole number, not [2]"),
    ],
)
def test_values_that_cannot_be_are_refused_with_the_file_and_the_field(folder: Path, change: dict, said: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    message = refused(folder)
    assert str(path) in message and said in message


def test_weights_that_are_not_finite_are_named_as_the_folder_names_them(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("inf")
    save_file(weights, path)
    message = refused(folder)
    assert (
        str(folder) in message
        and "model.layers.1.mlp.up_proj.weight holds 1 entries of 6,144 that are NaN or infinite" in message
    )


def test_a_tokenizer_that_is_none_or_too_large_is_refused(folder: Path, text: str) -> None:
    path = folder / "tokenizer.json"
    path.write_text("{}")
    assert str(path) in refused(folder)
    path.write_text(Tokenizer.train([text, text[::-1]], 2000).to_json())
    assert "tokens, more than the model's" in refused(folder)


def test_a_tokenizer_saved_with_truncation_still_takes_whole_texts(
    folder: Path, tokenizer: Tokenizer, text: str
) -> None:
    path = folder / "tokenizer.json"
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": cut}))
    assert load(folder, "cpu").tokenizer.encode(text) == tokenizer.encode(text)


# GGUF


def side_by_side(rows: np.ndarray, d_head: int) -> np.ndarray:
    """A Llama's query or key rows as GGUF stores them: row 2i of a head is our row i, row 2i + 1 our row
    i + d_head / 2."""
    order = [half * d_head // 2 + pair for pair in range(d_head // 2) for half in (0, 1)]
    return rows.reshape(-1, d_head, *rows.shape[1:])[:, order].reshape(rows.shape)


THEIR_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def packed(
    path: Path, model: LlamaForCausalLM, tokenizer: Tokenizer,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    change: Callable[[gguf.GGUFWriter], None] = lambda writer: None, pre: str = "gpt-2", model_name: str = "gpt2",
    arch: str | None = None,
) -> Path:  # fmt: skip
    """Write the toy as a GGUF file with its matrices in `kind`, and put what they unpack to into the toy itself."""
    config, learnt = model.config, json.loads(tokenizer.to_json())
    arch = arch or config.model_type
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name("Toy")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model(model_name)
    writer.add_tokenizer_pre(pre)
    vocabulary = sorted(learnt["model"]["vocab"], key=learnt["model"]["vocab"].get)
    special = {token["content"] for token in learnt["added_tokens"]}
    writer.add_token_list(vocabulary)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in vocabulary]
    )
    writer.add_token_merges([" ".join(merge) for merge in learnt["model"]["merges"]])
    change(writer)
    root = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    for name, weight in model.named_parameters():
        if name in root:
            stored = root[name]
        else:
            _, _, layer, *part, ending = name.split(".")
            stored = f"blk.{layer}.{THEIR_NAMES['.'.join(part)]}.{ending}"
        rows = weight.detach().numpy()
        own = gguf.GGMLQuantizationType.F32 if weight.ndim == 1 else kind
        turned = arch == "llama" and any(part in stored for part in ("attn_q.", "attn_k."))
        data = gguf.quants.quantize(side_by_side(rows, config.head_dim) if turned else rows, own)
        writer.add_tensor(stored, data, raw_dtype=own)
        with torch.no_grad():  # blocks lie within rows, so the rows' order does not matter to how they are packed
            weight.copy_(torch.tensor(gguf.quants.dequantize(gguf.quants.quantize(rows, own), own)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_1"])
def test_a_gguf_file_gives_the_logits_of_transformers(
    tokenizer: Tokenizer, ids, tmp_path: Path, kind: str, tied: bool
) -> None:
    theirs = llama(
        tokenizer, tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 20_000.0}
    )
    path = packed(tmp_path / "toy.gguf", theirs, tokenizer, gguf.GGMLQuantizationType[kind])
    ours = load(path, "cpu")
    assert (ours.config.memory, ours.config.tied_embeddings, ours.config.segment_length) == (MemoryKind.NONE, tied, 128)
    assert ours.weights_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert ours.card.startswith("# Toy\n") and f"in {kind}" in ours.card and "toy.gguf" in ours.card
    same(ours, theirs, ids(2, 40))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "qwen2"},
        {"model_type": "qwen2", "num_key_value_heads": 1},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
        {"head_dim": 24, "attention_bias": True},
    ],
)
def test_a_gguf_file_with_biases_is_opened_as_its_folder_is(
    tokenizer: Tokenizer, ids, tmp_path: Path, changes: dict, tied: bool
) -> None:
    def wide(writer: gguf.GGUFWriter) -> None:
        if "head_dim" in changes:
            writer.add_key_length(changes["head_dim"])
            writer.add_value_length(changes["head_dim"])

    theirs = llama(tokenizer, tie_word_embeddings=tied, **changes)
    ours = load(packed(tmp_path / "toy.gguf", theirs, tokenizer, change=wide), "cpu")
    same(ours, theirs, ids(2, 40))
    folders = load(saved(tmp_path / "theirs", theirs, tokenizer), "cpu").config
    assert replace(ours.config, rms_norm_eps=folders.rms_norm_eps) == folders, "GGUF has it in single precision"


def test_qwen2_cuts_every_digit_off_and_composes_letters(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ours = load(packed(tmp_path / "toy.gguf", llama(tokenizer, model_type="qwen2"), tokenizer, pre="qwen2"), "cpu")
    assert ours.tokenizer.encode("12").pieces == ("1", "2") and ours.tokenizer.bos is None
    assert ours.tokenizer.encode("Zoe\u0308").ids == ours.tokenizer.encode("Zo\u00eb").ids


def test_its_tokenizer_is_rebuilt_from_the_file(tokenizer: Tokenizer, text: str, tmp_path: Path) -> None:
    ours = load(packed(tmp_path / "toy.gguf", llama(tokenizer), tokenizer), "cpu").tokenizer
    for each in (text, "a<|end|>b", "Zoë 🙂\tdon't  12 3.5\n\n", "\f", ""):
        assert ours.encode(each) == tokenizer.encode(each)
        assert ours.decode(ours.encode(each).ids) == each.replace("\f", "")
    assert len(ours.encode("<|end|>")) == 1


@pytest.mark.parametrize(
    ("pre", "said", "added"),
    [("gpt-2", True, True), ("gpt-2", None, False), ("llama-bpe", None, True), ("llama-bpe", False, False)],
)
def test_its_texts_begin_as_the_file_says(
    tokenizer: Tokenizer, tmp_path: Path, pre: str, said: bool | None, added: bool
) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        writer.add_bos_token_id(5)
        if said is not None:
            writer.add_add_bos_token(said)

    ours = load(packed(tmp_path / "toy.gguf", llama(tokenizer), tokenizer, change=change, pre=pre), "cpu").tokenizer
    assert (ours.bos, ours.adds_bos, ours.encode("Mary").ids[0] == 5) == (5, added, added)


def test_smollm_cuts_digits_off_before_words(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ours = load(packed(tmp_path / "toy.gguf", llama(tokenizer), tokenizer, pre="smollm"), "cpu").tokenizer
    spaces = Tokenizer.train(["a  b"] * 3, 400)
    ours_spaces = load(packed(tmp_path / "b.gguf", llama(spaces), spaces, pre="smollm"), "cpu").tokenizer
    assert ours.encode("12").pieces == ("1", "2")
    assert ours_spaces.encode("a 12").pieces == ("a", " ", "1", "2")


def test_llama_3_scaling_is_recognised_from_its_stretched_waves(tokenizer: Tokenizer, ids, tmp_path: Path) -> None:
    rope = LLAMA_3 | {"original_max_position_embeddings": 8192, "factor": 32.0}
    theirs = llama(tokenizer, rope_parameters=rope)
    plain = 1 / 5e5 ** (torch.arange(0, 16, 2) / 16)
    stretch = (plain / theirs.model.rotary_emb.inv_freq).numpy()
    ours = load(
        packed(tmp_path / "toy.gguf", theirs, tokenizer, change=lambda w: w.add_tensor("rope_freqs.weight", stretch)),
        "cpu",
    )
    found = ours.config.rope_scaling
    assert found.factor == pytest.approx(32.0)
    assert replace(found, factor=32.0) == Llama3Rope(
        factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
    )
    same(ours, theirs, ids(2, 40))
    other = packed(
        tmp_path / "other.gguf", theirs, tokenizer, change=lambda w: w.add_tensor("rope_freqs.weight", stretch**0.5)
    )
    message = refused(other)
    assert str(other) in message and "another stretching" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"change": lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN)},
            "rope.scaling.type 'yarn' is not computed here"),
        ({"change": lambda w: w.add_expert_count(8)}, "expert_count 8"),
        ({"change": lambda w: w.add_sliding_window(64)},
            "['attention.sliding_window'] of its architecture are not computed here"),
        ({"change": lambda w: w.add_key_length(32)}, "blk.0.attn_q.weight must be of shape (128, 64), not (64, 64)"),
        ({"change": lambda w: w.add_tensor("blk.0.attn_q.bias", np.zeros(64, np.float32))},
            "5 of 27 tensors are missing ['blk.0.attn_k.bias'"),
        ({"change": lambda w: w.add_tensor("blk.1.attn_output.bias", np.zeros(64, np.float32))},
            "1 are unknown ['blk.1.attn_output.bias']"),
        ({"change": lambda w: w.add_rope_dimension_count(8)}, "rope.dimension_count 8 is not computed here, only 16"),
        ({"arch": "qwen3"}, "general.architecture 'qwen3' is not computed here, only ('llama', 'qwen2')"),
        ({"pre": "tekken"}, "cuts texts by the rule 'tekken'"),
        ({"model_name": "llama"}, "tokenizer.ggml.model is 'llama'; expected 'gpt2', a byte-level BPE"),
    ],
)  # fmt: skip
def test_a_gguf_file_of_what_is_not_computed_here_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, changes: dict, said: str
) -> None:
    path = packed(tmp_path / "toy.gguf", llama(tokenizer), tokenizer, **changes)
    message = refused(path)
    assert str(path) in message and said in message


@pytest.mark.parametrize("kind", ["I8", "I16", "I32", "I64", "F64", "Q8_1"])
def test_a_gguf_tensor_of_a_kind_that_is_not_unpacked_is_refused_by_its_name(
    tokenizer: Tokenizer, tmp_path: Path, kind: str
) -> None:
    path, name = packed(tmp_path / "toy.gguf", llama(tokenizer), tokenizer), "blk.0.attn_norm.weight"
    content = bytearray(path.read_bytes())
    place = content.index(name.encode()) + len(name) + 4 + 8  # the name, of how many axes, and the one axis' length
    content[place : place + 4] = gguf.GGMLQuantizationType[kind].to_bytes(4, "little")
    path.write_bytes(content)
    message = refused(path)
    assert str(path) in message and f"{name} is stored in {kind}, which is not unpacked here" in message


def test_a_truncated_or_foreign_gguf_file_is_refused_with_its_size(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = packed(tmp_path / "toy.gguf", llama(tokenizer), tokenizer, gguf.GGMLQuantizationType.Q8_0)
    whole = path.read_bytes()
    # It ends with at most 31 bytes of padding.
    for size in (0, 3, 4, 20, 100, 700, *range(2000, len(whole), len(whole) // 40), len(whole) - 32):
        path.write_bytes(whole[:size])
        assert str(path) in refused(path)
    for foreign in (b"no weights at all", b"\0" * 500, whole[:8] + b"\xff" * 500):
        path.write_bytes(foreign)
        assert f"{path} is broken or no GGUF file ({len(foreign):,} bytes)" in refused(path)


def _with_list(count: int, kind: int) -> bytes:
    """A GGUF file whose one entry of metadata claims a list of so many."""
    name = b"a.list"
    start = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    return (
        start
        + len(name).to_bytes(8, "little")
        + name
        + (9).to_bytes(4, "little")
        + kind.to_bytes(4, "little")
        + count.to_bytes(8, "little")
    )


@pytest.mark.parametrize("count", [2**21, 2**40, 2**63])
@pytest.mark.parametrize("kind", [0, 4, 8, 9])
def test_lists_longer_than_their_file_are_refused_at_once(tmp_path: Path, count: int, kind: int) -> None:
    path = tmp_path / "toy.gguf"
    path.write_bytes(_with_list(count, kind) + b"\0" * 64)
    assert f"{path} is broken or no GGUF file" in refused(path)


def test_more_tensors_or_entries_than_a_file_can_hold_are_refused_at_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = packed(tmp_path / "toy.gguf", llama(tokenizer), tokenizer)
    whole = path.read_bytes()
    for at in (8, 16):  # how many tensors, how many entries of metadata
        path.write_bytes(whole[:at] + (2**62).to_bytes(8, "little") + whole[at + 8 :])
        assert f"{path} is broken or no GGUF file" in refused(path)


# A real one


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a .gguf file."""
    path = Path(os.environ.get("LM2_SMOLLM2", ""))
    if path.suffix != ".gguf" or not path.is_file():
        pytest.skip("LM2_SMOLLM2 is not set to the .gguf file of SmolLM2-135M-Instruct")
    return path


@torch.inference_mode()
def test_smollm2_reads_and_computes_as_in_transformers(smollm2: Path) -> None:
    ours = load(smollm2, "cpu")
    words = AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    theirs = AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    texts = (
        "Mary moved to the garden. Where is Mary?",
        "Zoë 🙂 naïve café — 日本語 עברית\tdon't\r\n\n  two  spaces ",
        "In 1984, 3.14159 times 1,000,000 is x2y²; 0x1F½",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<|endoftext|><repo_name>",
    )
    for text in texts:
        encoded = ours.tokenizer.encode(text)
        assert list(encoded.ids) == words.encode(text, add_special_tokens=False)
        assert ours.tokenizer.decode(encoded.ids) == text
    assert ours.tokenizer.encode("<|im_start|>").ids == (1,) and ours.tokenizer.encode("  7").pieces == ("  ", "7")
    ids = torch.tensor([ours.tokenizer.encode(" ".join(texts)).ids])
    difference = (ours.model(ids) - theirs(ids).logits).abs().max().item()
    assert difference < 1e-3
    assert generate(ours, "The capital of France is", max_tokens=1).text == " Paris"
