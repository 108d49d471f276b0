"""The configuration of a model: its sizes, its kind of memory, and checks that they fit together."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Any

from lm2.model.memory import MemoryKind, divides
from lm2.model.rope import LARGEST, DynamicRope, RopeScaling
from lm2.serialize import Spec, parse_field, within
from lm2.shown import shown


class GatePooling(Enum):
    """Which tokens the gates of a RELEASE model average over."""

    SEGMENT = "segment"
    """Every token of the segment, as in the released code: gates see the future."""
    PREFIX = "prefix"
    """Tokens 0..j for slot j: causal."""


class SegmentEnd(Enum):
    """Where a text is cut into segments."""

    LENGTH = "length"
    """After `segment_length` tokens."""
    SENTENCE = "sentence"
    """After the first sentence that ends in the second half of `segment_length`, or after `segment_length` tokens."""


class BankStart(Enum):
    """The bank before the first segment of a document."""

    IDENTITY = "identity"
    """The first `slots` rows of the identity matrix."""
    LEARNED = "learned"
    """A trained parameter."""


_NEWER = ("head_dim", "qkv_bias", "o_bias", "mlp_bias", "memory_sizes", "start_keeps")
"""Fields that the digests of earlier versions lack."""


@dataclass(frozen=True, kw_only=True)
class LM2Config(Spec):
    """Sizes of a decoder and its memory, named as in TransformerLens where it has them (`d_model`, `n_heads`, ...).

    Raises ValueError, with the numbers, for sizes that cannot be built.
    """

    memory: MemoryKind
    d_vocab: int
    d_model: int
    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_mlp: int
    segment_length: int
    """Tokens in a segment, unless a run says otherwise."""
    segment_end: SegmentEnd = SegmentEnd.LENGTH
    attention_window: int | None = None
    """How many tokens self-attention sees: None for all earlier ones, `segment_length` for the own segment alone."""
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-5
    tied_embeddings: bool = False
    head_dim: int | None = None
    """Width of a head; None for d_model / n_heads."""
    qkv_bias: bool = False
    """Whether queries, keys and values have biases."""
    o_bias: bool = False
    """Whether the output of attention has a bias."""
    mlp_bias: bool = False
    """Whether the three matrices of the MLP have biases."""
    embedding_std: float = 0.3
    """Standard deviation of fresh embeddings. That of other matrices is 1/sqrt(fan-in)."""
    slots: int = 0
    slot_dim: int = 0
    memory_heads: int = 0
    memory_layers: tuple[int, ...] = ()
    """Blocks with a memory."""
    bank_start: BankStart = BankStart.IDENTITY
    forget_bias: float = 3.0
    """Initial bias of each block's forget gate, where `start_keeps` is None: at 3, a slot that nothing writes keeps
    sigmoid(3) = 0.95 of itself in each block that writes."""
    read_top_k: int | None = None
    """Slots kept in each read pattern, which is then renormalised; None keeps all."""
    gate_pooling: GatePooling = GatePooling.SEGMENT
    """RELEASE only."""
    start_keeps: float | None = None
    """The share of itself that a slot that nothing writes keeps in a segment at the start of training, however many
    blocks write; None for `forget_bias` in each of them."""
    memory_sizes: Any = None
    """Sizes that only this kind of memory has: a value of its design's `own_sizes`, or its JSON form."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("d_vocab", "d_model", "n_layers", "n_heads", "n_key_value_heads", "d_mlp", "segment_length"):
            within(name, getattr(self, name), 1, LARGEST)
        for name in ("slots", "slot_dim", "memory_heads"):
            within(name, getattr(self, name), 0, LARGEST)
        if not 1 <= self.rope_theta <= 1e30:  # float32 cannot raise more to its powers
            raise ValueError(f"rope_theta must be within 1..1e30, not {self.rope_theta}")
        if not 0 < self.rms_norm_eps < 1:
            raise ValueError(f"rms_norm_eps must be between 0 and 1, not {self.rms_norm_eps}")
        if self.embedding_std < 0:
            raise ValueError(f"embedding_std must not be negative, as {self.embedding_std} is")
        if self.head_dim is None:
            divides("d_model", self.d_model, "n_heads", self.n_heads)
        else:
            within("head_dim", self.head_dim, 1, LARGEST)
        divides("n_heads", self.n_heads, "n_key_value_heads", self.n_key_value_heads)
        if self.d_head % 2:
            size = f"d_model {self.d_model} / n_heads {self.n_heads}" if self.head_dim is None else "head_dim"
            raise ValueError(f"rotary positions need an even head size: {size} = {self.d_head}")
        if self.rope_scaling is not None:
            self.rope_scaling.check(self.rope_theta, self.d_head)
        if self.attention_window is not None and self.attention_window < self.segment_length:
            raise ValueError(
                f"attention_window {self.attention_window} is shorter than segment_length {self.segment_length}"
            )
        design = self.memory.design
        if self.start_keeps is not None:
            if not design.starts_keeping:
                raise ValueError(f"only a gated memory can have start_keeps, not {design.title}")
            if not 0 < self.start_keeps < 1:
                raise ValueError(f"start_keeps must be between 0 and 1, not {self.start_keeps}")
            if self.forget_bias != type(self).forget_bias:
                raise ValueError(
                    f"start_keeps {self.start_keeps} decides the forget gates' bias, so forget_bias"
                    f" {self.forget_bias} must be left out"
                )
        if design.own_sizes is not None:
            self.freeze(memory_sizes=parse_field("LM2Config.memory_sizes", design.own_sizes, self.memory_sizes))
        elif self.memory_sizes is not None:
            raise ValueError(f"{design.title} has no memory_sizes of its own, not {shown(self.memory_sizes)}")
        design.check(self)

    @property
    def d_head(self) -> int:
        return self.head_dim or self.d_model // self.n_heads

    @property
    def initial_forget_bias(self) -> float:
        """The bias that each block's forget gate starts with. The bank passes through one gate in each block that
        writes, so what it keeps in a segment is the product of what they keep."""
        if self.start_keeps is None:
            return self.forget_bias
        in_a_block = math.log(self.start_keeps) / len(self.memory_layers)
        return in_a_block - math.log(-math.expm1(in_a_block))

    @property
    def lookback(self) -> int | None:
        """Tokens before its own segment that a token may still attend to; None for all."""
        return None if self.attention_window is None else self.attention_window - self.segment_length

    @property
    def causal(self) -> bool:
        """Whether no token of a segment depends on a later one, nor on how many there are."""
        return self.memory.design.causal and not isinstance(self.rope_scaling, DynamicRope)

    @property
    def learned_bank(self) -> bool:
        """Whether the bank at the start of a document is a trained parameter."""
        return self.bank_start is BankStart.LEARNED

    def to_json(self) -> dict[str, Any]:
        """As in `Spec`, but without newer fields at their default, so that digests stay those of earlier versions."""
        newer = {field.name: field.default for field in fields(self) if field.name in _NEWER}
        return {name: value for name, value in super().to_json().items() if name not in newer or value != newer[name]}

    @classmethod
    def from_json(cls, values: object) -> "LM2Config":
        """Raises ValueError naming unknown, missing or invalid fields."""
        if isinstance(values, Mapping):
            unknown = sorted(set(values) - {field.name for field in fields(cls)})
            missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in values]
            if unknown or missing:
                raise ValueError(f"model config has unknown fields {shown(unknown)} and lacks {missing}")
        return super().from_json(values)
