"""The parts of a Llama decoder: RMSNorm, rotary positions, attention with its cache, MLP.

They agree with transformers' LlamaForCausalLM to 1e-5.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lm2.model.config import LM2Config
from lm2.model.hooks import HookPoint
from lm2.model.rope import RopeScaling


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * w (Zhang and Sennrich 2019, arXiv 1910.07467), with the norm in float32.

    NaN where the squares overflow float32, as dividing by infinity would give 0 for the largest entries.
    """

    def __init__(self, width: int, eps: float, *, hooked: bool = True) -> None:
        """`hooked`: whether its scale and its result have hook points."""
        super().__init__()
        self.w = nn.Parameter(torch.ones(width))
        self.eps = eps
        self.hook_scale = HookPoint() if hooked else nn.Identity()
        self.hook_normalized = HookPoint() if hooked else nn.Identity()

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        wide = x.float()
        scale = self.hook_scale((wide.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        scale = scale.nan_to_num(nan=math.nan, posinf=math.nan, neginf=math.nan)
        return self.hook_normalized((wide / scale).to(x.dtype)) * self.w


@dataclass(frozen=True)
class KVCache:
    """Rotated keys and values of earlier tokens in one block."""

    k: Float[Tensor, "batch token kv_head d_head"]
    v: Float[Tensor, "batch token kv_head d_head"]

    def take(self, columns: Int[Tensor, "batch key"]) -> "KVCache":
        """Only these keys of each row."""
        index = columns[..., None, None].expand(-1, -1, *self.k.shape[2:])
        return KVCache(k=self.k.gather(1, index), v=self.v.gather(1, index))

    def first(self, count: int) -> "KVCache":
        """Only the first `count` keys."""
        return self if count == self.k.shape[1] else KVCache(k=self.k[:, :count], v=self.v[:, :count])


def rotary_frequencies(
    d_head: int, theta: float, scaling: RopeScaling | None, lengths: Int[Tensor, "batch"]
) -> Float[Tensor, "... half"]:
    """Angle per position of each rotary pair (Su et al. 2021, arXiv 2104.09864), with `scaling` if any.

    `lengths`: how many tokens of each document have been read; the result is on its device.
    """
    inverse = 1.0 / theta ** (torch.arange(0, d_head, 2, dtype=torch.float32, device=lengths.device) / d_head)
    return inverse if scaling is None else scaling.frequencies(inverse, theta, lengths)


def rotate(
    x: Float[Tensor, "batch token head d_head"], angles: Float[Tensor, "batch token half"], scale: float = 1.0
) -> Float[Tensor, "batch token head d_head"]:
    """Rotate each pair (i, i + d_head/2) by its angle and multiply it by `scale`, in the half-split order of Hugging
    Face's Llama."""
    cos, sin = ((scale * value)[:, :, None].to(x.dtype) for value in (angles.cos(), angles.sin()))
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)


def bias_of(layer: nn.Linear) -> Float[Tensor, "width"]:
    """A layer's bias; zeros where it has none."""
    return torch.zeros_like(layer.weight[:, 0]) if layer.bias is None else layer.bias


class Attention(nn.Module):
    """Causal grouped-query self-attention over cached and new tokens."""

    def __init__(self, config: LM2Config) -> None:
        super().__init__()
        self.n_heads, self.n_kv, self.d_head = config.n_heads, config.n_key_value_heads, config.d_head
        self.rope_scale = 1.0 if config.rope_scaling is None else config.rope_scaling.scale
        self.q = nn.Linear(config.d_model, self.n_heads * self.d_head, bias=config.qkv_bias)
        self.k = nn.Linear(config.d_model, self.n_kv * self.d_head, bias=config.qkv_bias)
        self.v = nn.Linear(config.d_model, self.n_kv * self.d_head, bias=config.qkv_bias)
        self.o = nn.Linear(self.n_heads * self.d_head, config.d_model, bias=config.o_bias)
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_rot_q, self.hook_rot_k = HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern, self.hook_z = HookPoint(), HookPoint(), HookPoint()

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        return self.o.weight.T.reshape(self.n_heads, self.d_head, -1)

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:
        return bias_of(self.q).view(self.n_heads, self.d_head)

    @property
    def b_K(self) -> Float[Tensor, "kv_head d_head"]:
        return bias_of(self.k).view(self.n_kv, self.d_head)

    @property
    def b_V(self) -> Float[Tensor, "kv_head d_head"]:
        return bias_of(self.v).view(self.n_kv, self.d_head)

    @property
    def b_O(self) -> Float[Tensor, "d_model"]:
        return bias_of(self.o)

    def forward(
        self,
        x: Float[Tensor, "batch token d_model"],
        angles: Float[Tensor, "batch token half"],
        visible: Bool[Tensor, "batch one token key"],
        cache: KVCache | None,
        edit_pattern: Callable[[Tensor], Tensor],
    ) -> tuple[Float[Tensor, "batch token d_model"], KVCache]:
        """Also returns the cache with the new tokens appended. `edit_pattern` gives the pattern that is used."""
        batch, tokens, _ = x.shape
        q = self.hook_q(self.q(x).view(batch, tokens, self.n_heads, self.d_head))
        k = self.hook_k(self.k(x).view(batch, tokens, self.n_kv, self.d_head))
        q = self.hook_rot_q(rotate(q, angles, self.rope_scale))
        k = self.hook_rot_k(rotate(k, angles, self.rope_scale))
        v = self.hook_v(self.v(x).view(batch, tokens, self.n_kv, self.d_head))
        if cache is not None:
            k, v = torch.cat([cache.k, k], dim=1), torch.cat([cache.v, v], dim=1)
        group = self.n_heads // self.n_kv
        scores = torch.einsum("bthe,bkhe->bhtk", q, k.repeat_interleave(group, dim=2)) / math.sqrt(self.d_head)
        scores = self.hook_attn_scores(scores.masked_fill(~visible, float("-inf")))
        pattern = edit_pattern(self.hook_pattern(scores.float().softmax(-1).to(x.dtype)))
        z = self.hook_z(torch.einsum("bhtk,bkhe->bthe", pattern, v.repeat_interleave(group, dim=2)))
        return self.o(z.flatten(2)), KVCache(k=k, v=v)


class MLP(nn.Module):
    """SwiGLU: W_out (silu(W_gate x) * W_in x) (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: LM2Config) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_mlp, bias=config.mlp_bias)
        self.up = nn.Linear(config.d_model, config.d_mlp, bias=config.mlp_bias)
        self.out = nn.Linear(config.d_mlp, config.d_model, bias=config.mlp_bias)
        self.hook_pre, self.hook_pre_linear, self.hook_post = HookPoint(), HookPoint(), HookPoint()

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        return self.out.weight.T

    @property
    def b_gate(self) -> Float[Tensor, "d_mlp"]:
        return bias_of(self.gate)

    @property
    def b_in(self) -> Float[Tensor, "d_mlp"]:
        return bias_of(self.up)

    @property
    def b_out(self) -> Float[Tensor, "d_model"]:
        return bias_of(self.out)

    def forward(self, x: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        post = nn.functional.silu(self.hook_pre(self.gate(x))) * self.hook_pre_linear(self.up(x))
        return self.out(self.hook_post(post))
