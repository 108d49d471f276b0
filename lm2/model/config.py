"""What a model is made of: sizes, kind of memory, and the laws its sizes must obey."""

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
    """Every token of the segment, as released: gates see the future."""
    PREFIX = "prefix"
    """Slot j averages over tokens 0..j: causal."""


class SegmentEnd(Enum):
    """Where a text is cut into segments."""

    LENGTH = "length"
    """After `segment_length` tokens."""
    SENTENCE = "sentence"
    """Behind the first sentence that ends in the second half of the length, and after the length at the latest."""


class BankStart(Enum):
    """What the bank holds before the first segment of a document."""

    IDENTITY = "identity"
    """The first `slots` rows of the identity matrix."""
    LEARNED = "learned"
    """A trained parameter."""


_NEWER = ("head_dim", "qkv_bias", "o_bias", "mlp_bias", "memory_sizes")


@dataclass(frozen=True, kw_only=True)
class LM2Config(Spec):
    """Sizes of a decoder and its memory; refuses sizes that cannot be built, with the numbers.

    Names follow TransformerLens where it has one (`d_model`, `n_heads`, `d_mlp`, ...).
    """

    memory: MemoryKind
    d_vocab: int
    d_model: int
    n_layers: int
    n_heads: int
    n_key_value_heads: int
    d_mlp: int
    segment_length: int
    """Tokens fed at once when a run does not say otherwise."""
    segment_end: SegmentEnd = SegmentEnd.LENGTH
    attention_window: int | None = None
    """Tokens that self-attention may reach: None, all earlier ones; `segment_length`, the own segment alone."""
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-5
    tied_embeddings: bool = False
    head_dim: int | None = None
    """Width of a head; None, d_model / n_heads."""
    qkv_bias: bool = False
    """Whether queries, keys and values have biases."""
    o_bias: bool = False
    """Whether the output of attention has one."""
    mlp_bias: bool = False
    """Whether the MLP's three matrices have them."""
    embedding_std: float = 0.3
    """Standard deviation of fresh embeddings; all other matrices start at 1/sqrt(fan-in)."""
    slots: int = 0
    slot_dim: int = 0
    memory_heads: int = 0
    memory_layers: tuple[int, ...] = ()
    """Blocks that have a memory module."""
    bank_start: BankStart = BankStart.IDENTITY
    forget_bias: float = 3.0
    """Starting value of the forget gate's bias: sigmoid(3) = 0.95 of an untouched slot survives a block."""
    read_top_k: int | None = None
    """Keep only this many slots of each read pattern, renormalised; None keeps all."""
    gate_pooling: GatePooling = GatePooling.SEGMENT
    """RELEASE only."""
    memory_sizes: Any = None
    """Sizes that only this kind of memory has, as a value of its design's `own_sizes` or as JSON."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("d_vocab", "d_model", "n_layers", "n_heads", "n_key_value_heads", "d_mlp", "segment_length"):
            within(name, getattr(self, name), 1, LARGEST)
        for name in ("slots", "slot_dim", "memory_heads"):
            within(name, getattr(self, name), 0, LARGEST)
        self._check_numbers()
        if self.head_dim is None:
            divides("d_model", self.d_model, "n_heads", self.n_heads)
        else:
            within("head_dim", self.head_dim, 1, LARGEST)
        divides("n_heads", self.n_heads, "n_key_value_heads", self.n_key_value_heads)
        if self.d_head % 2:
            said = f"d_model {self.d_model} / n_heads {self.n_heads}" if self.head_dim is None else "head_dim"
            raise ValueError(f"rotary positions need an even head size: {said} = {self.d_head}")
        if self.rope_scaling is not None:
            self.rope_scaling.check(self.rope_theta, self.d_head)
        if self.attention_window is not None and self.attention_window < self.segment_length:
            raise ValueError(
                f"attention_window {self.attention_window} is shorter than segment_length {self.segment_length}"
            )
        own = self.memory.design.own_sizes
        if own is not None:
            self.freeze(memory_sizes=parse_field("LM2Config.memory_sizes", own, self.memory_sizes))
        elif self.memory_sizes is not None:
            raise ValueError(
                f"{self.memory.design.title} has no memory_sizes of its own, not {shown(self.memory_sizes)}"
            )
        self.memory.design.check(self)

    def _check_numbers(self) -> None:
        if not 1 <= self.rope_theta <= 1e30:  # of more, float32 has no powers
            raise ValueError(f"rope_theta must be within 1..1e30, not {self.rope_theta}")
        if not 0 < self.rms_norm_eps < 1:
            raise ValueError(f"rms_norm_eps must be between 0 and 1, not {self.rms_norm_eps}")
        if self.embedding_std < 0:
            raise ValueError(f"embedding_std must not be negative, as {self.embedding_std} is")

    @property
    def d_head(self) -> int:
        return self.head_dim or self.d_model // self.n_heads

    @property
    def lookback(self) -> int | None:
        """Tokens before its own segment that a token may still attend to; None, all of them."""
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
        """As in `Spec`, without newer fields that are at their default: digests of other models stay what they were."""
        newer = {field.name: field.default for field in fields(self) if field.name in _NEWER}
        return {name: value for name, value in super().to_json().items() if name not in newer or value != newer[name]}

    @classmethod
    def from_json(cls, values: object) -> "LM2Config":
        """Raises ValueError naming the fields that are unknown or missing, or the one whose value cannot be."""
        if isinstance(values, Mapping):
            unknown = sorted(set(values) - {field.name for field in fields(cls)})
            missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in values]
            if unknown or missing:
                raise ValueError(f"model config has unknown fields {shown(unknown)} and lacks {missing}")
        return super().from_json(values)
