"""LoRA (Hu et al. 2021, arXiv 2106.09685): a matrix stays as it is, and learns a product of two narrow ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lm2.model.config import LM2Config
from lm2.model.lm2 import LM2
from lm2.serialize import Spec, distinct, within
from lm2.shown import shown

MATRICES = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.out")
_IN, _OUT = "lora_in", "lora_out"


@dataclass(frozen=True, kw_only=True)
class LoRA(Spec):
    """Which matrices of which blocks learn by LoRA."""

    rank: int
    layers: tuple[int, ...]
    """Blocks, from 0."""
    matrices: tuple[str, ...] = MATRICES
    """Of each of these blocks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("rank", self.rank, 1, 2**16)
        distinct("layers", self.layers)
        if not self.layers or not self.matrices or len(set(self.matrices) & set(MATRICES)) < len(self.matrices):
            raise ValueError(
                f"lora needs blocks, and matrices of {', '.join(MATRICES)}, not {shown(self.layers)} and"
                f" {shown(self.matrices)}"
            )

    def check(self, config: LM2Config) -> None:
        """Raises ValueError for blocks that the model does not have."""
        if not set(self.layers) <= set(range(config.n_layers)):
            raise ValueError(f"lora has the blocks {shown(self.layers)}, and the model has 0 to {config.n_layers - 1}")


class _Adapted(nn.Linear):
    """A linear layer with its LoRA. It adds nothing until it is trained."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        with torch.device("meta"):
            super().__init__(layer.in_features, layer.out_features, bias=False)
        self.weight, self.bias = layer.weight, layer.bias
        like = layer.weight
        self.lora_in = nn.Parameter(like.new_zeros(rank, layer.in_features))
        self.lora_out = nn.Parameter(like.new_zeros(layer.out_features, rank))

    def forward(self, input: Float[Tensor, "... width"]) -> Float[Tensor, "... out"]:
        narrow = nn.functional.linear(input, self.lora_in)
        return super().forward(input) + nn.functional.linear(narrow, self.lora_out)


@torch.no_grad()
def add_lora(model: LM2, lora: LoRA, generator: torch.Generator | None = None) -> None:
    """Give matrices of a model their LoRA, whose inner matrices are drawn from `generator`; None leaves them 0."""
    for layer in lora.layers:
        for matrix in lora.matrices:
            owner, _, name = matrix.partition(".")
            part = model.blocks[layer].get_submodule(owner)
            adapted = _Adapted(getattr(part, name), lora.rank)
            if generator is not None:
                adapted.lora_in.normal_(0.0, 1 / math.sqrt(adapted.in_features), generator=generator)
            setattr(part, name, adapted)


def is_lora(name: str) -> bool:
    """Whether a weight is one of a LoRA's."""
    return name.endswith((f".{_IN}", f".{_OUT}"))


def merged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without LoRA that compute the same: each product added to its matrix, in float32."""
    plain = {name: weight for name, weight in weights.items() if not is_lora(name)}
    for name, inner in weights.items():
        if name.endswith(f".{_IN}"):
            matrix, outer = name.replace(_IN, "weight"), weights[name.replace(_IN, _OUT)]
            plain[matrix] = plain[matrix].float() + outer.float() @ inner.float()
    return plain
