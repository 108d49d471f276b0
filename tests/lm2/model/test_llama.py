"""lm2.model.llama agrees with transformers' LlamaForCausalLM."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lm2.model.config import LM2Config
from lm2.model.llama import KVCache, RMSNorm, rotary_frequencies
from lm2.model.lm2 import LM2
from lm2.model.rope import Llama3Rope

SCALING = Llama3Rope(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
LAW = {"rtol": 0.0, "atol": 1e-5}


def twins(config: LM2Config) -> tuple[LM2, LlamaForCausalLM]:
    """The same random weights in our model and in Hugging Face's."""
    rope: dict = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope = {"rope_type": "llama3", "rope_theta": config.rope_theta, **vars(config.rope_scaling)}
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.d_vocab, hidden_size=config.d_model, intermediate_size=config.d_mlp,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads, num_key_value_heads=config.n_key_value_heads,
            rms_norm_eps=config.rms_norm_eps,
            tie_word_embeddings=config.tied_embeddings, rope_parameters=rope, max_position_embeddings=128,
            attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in theirs.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise / weight.shape[-1] ** 0.5 if weight.ndim > 1 else 1 + 0.3 * noise)
    found = dict(theirs.named_parameters())
    weights = {"embed.weight": found["model.embed_tokens.weight"], "ln_final.w": found["model.norm.weight"]}
    if not config.tied_embeddings:
        weights["unembed.weight"] = found["lm_head.weight"]
    for layer in range(config.n_layers):
        hf = f"model.layers.{layer}."
        weights |= {f"blocks.{layer}.attn.{part}.weight": found[f"{hf}self_attn.{part}_proj.weight"] for part in "qkvo"}
        for ours, name in (("gate", "gate"), ("up", "up"), ("out", "down")):
            weights[f"blocks.{layer}.mlp.{ours}.weight"] = found[f"{hf}mlp.{name}_proj.weight"]
        weights[f"blocks.{layer}.ln1.w"] = found[f"{hf}input_layernorm.weight"]
        weights[f"blocks.{layer}.ln2.w"] = found[f"{hf}post_attention_layernorm.weight"]
    ours = LM2(config)
    ours.load_weights(weights)
    return ours, theirs


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scaling", [None, SCALING])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@torch.inference_mode()
def test_logits_equal_hugging_face_llama(
    plain_config: LM2Config, ids, scaling: Llama3Rope | None, tied: bool, kv_heads: int
) -> None:
    config = replace(plain_config, rope_scaling=scaling, tied_embeddings=tied, n_key_value_heads=kv_heads, d_model=32)
    with torch.inference_mode(False):
        ours, theirs = twins(config)
    tokens = ids(2, 40)
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, **LAW)


@pytest.mark.parametrize("scaling", [None, SCALING])
@torch.no_grad()
def test_two_pieces_through_the_cache_equal_hugging_face_llama_with_its_own(
    plain_config: LM2Config, ids, scaling: Llama3Rope | None
) -> None:
    with torch.enable_grad():
        ours, theirs = twins(replace(plain_config, rope_scaling=scaling))
    tokens = ids(2, 30)
    first, second = ours.segment(tokens[:, :11]), theirs(tokens[:, :11], use_cache=True)
    torch.testing.assert_close(first.logits, second.logits, **LAW)
    after = ours.segment(tokens[:, 11:], cache=first.cache).logits
    torch.testing.assert_close(after, theirs(tokens[:, 11:], past_key_values=second.past_key_values).logits, **LAW)
    torch.testing.assert_close(after, ours(tokens)[:, 11:], **LAW)


def test_rms_norm_is_computed_in_float32_and_cast_back() -> None:
    norm = RMSNorm(64, 1e-5).to(torch.bfloat16)
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).mul(100).to(torch.bfloat16)
    exact = x.double() / (x.double().pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    out = norm(x)
    assert out.dtype is torch.bfloat16
    torch.testing.assert_close(out.double(), exact, rtol=1 / 128, atol=0)


def test_scaled_rotary_keeps_short_waves_and_slows_long_ones() -> None:
    scaling = Llama3Rope(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
    plain = rotary_frequencies(64, 500_000.0, None, torch.ones(1))
    scaled = rotary_frequencies(64, 500_000.0, scaling, torch.ones(1))
    waves = 2 * math.pi / plain
    torch.testing.assert_close(scaled[waves < 8192 / 4], plain[waves < 8192 / 4])
    torch.testing.assert_close(scaled[waves > 8192], plain[waves > 8192] / 32)
    assert (scaled.diff() < 0).all()


def test_a_cache_takes_columns_row_by_row() -> None:
    k = torch.arange(2 * 4 * 1 * 2.0).view(2, 4, 1, 2)
    taken = KVCache(k=k, v=-k).take(torch.tensor([[3, 1], [0, 2]]))
    assert torch.equal(taken.k, torch.stack([k[0, [3, 1]], k[1, [0, 2]]]))
    assert torch.equal(taken.v, -taken.k)
