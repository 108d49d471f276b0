"""Scaling of rotary frequencies (angle per position of each pair) for texts longer than those first trained on."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from lm2.serialize import Plain, within
from lm2.shown import shown

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

LARGEST = 2**28
"""The largest size accepted: far beyond every model, while products of two sizes still fit in 64 bits."""


@dataclass(frozen=True, kw_only=True)
class RopeScaling(Plain, ABC):
    """A kind of scaling."""

    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        self._within("factor", self.factor, 1)
        original = getattr(self, "original_max_position_embeddings", None)
        if original is not None:
            within("rope_scaling.original_max_position_embeddings", original, 1, LARGEST)

    @staticmethod
    def _within(name: str, value: float, least: float) -> None:
        if not least <= value <= LARGEST:
            raise ValueError(f"rope_scaling.{name} must be within {least}..{LARGEST:,}, not {value}")

    @classmethod
    def from_json(cls, values: object) -> Self:
        """As in `Plain`; a value that names no kind is a `Llama3Rope`, as in files of earlier versions."""
        if not isinstance(values, Mapping):
            raise ValueError(f"RopeScaling is an object with fields, not {shown(values)}")
        return super().from_json({"kind": "Llama3Rope", **values} if cls is RopeScaling else values)

    @property
    def scale(self) -> float:
        """What rotated queries and keys are multiplied by."""
        return 1.0

    def check(self, theta: float, d_head: int) -> None:
        """Raise ValueError for a base or a head size that the formula does not allow."""

    @abstractmethod
    def frequencies(
        self, plain: "Float[Tensor, 'half']", theta: float, lengths: "Int[Tensor, 'batch']"
    ) -> "Float[Tensor, '... half']":
        """The scaled frequencies, for all rows of a batch or, as [batch, 1, half], for each.

        Args:
            plain: the frequencies without scaling, theta^(-2i/d_head).
            lengths: how many tokens of each document have been read, with those of this segment.
        """


@dataclass(frozen=True, kw_only=True)
class Llama3Rope(RopeScaling):
    """Llama 3's: frequencies of wavelengths above original/low are divided by `factor`, those of wavelengths below
    original/high are kept, and between the two they are interpolated linearly."""

    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.low_freq_factor < self.high_freq_factor <= LARGEST:
            raise ValueError(
                "rope_scaling needs 0 < low_freq_factor < high_freq_factor "
                f"<= {LARGEST:,}, not {self.low_freq_factor} and {self.high_freq_factor}"
            )

    def to_json(self) -> dict[str, Any]:
        """Without its kind, as in files of earlier versions."""
        return {name: value for name, value in super().to_json().items() if name != "kind"}

    def frequencies(self, plain: "Tensor", theta: float, lengths: "Tensor") -> "Tensor":
        turns = self.original_max_position_embeddings * plain / (2 * math.pi)
        keep = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return keep * plain + (1 - keep) * plain / self.factor


@dataclass(frozen=True, kw_only=True)
class LinearRope(RopeScaling):
    """Every frequency is divided by `factor`: position interpolation (Chen et al. 2023, arXiv 2306.15595)."""

    def frequencies(self, plain: "Tensor", theta: float, lengths: "Tensor") -> "Tensor":
        return plain / self.factor


@dataclass(frozen=True, kw_only=True)
class DynamicRope(RopeScaling):
    """NTK-aware scaling by the length read so far: theta grows once that passes the trained length (Peng et al. 2023,
    arXiv 2309.00071, section 3.3).

    theta' = theta * (factor * length / original - (factor - 1))^(d_head / (d_head - 2)). Each segment is rotated by the
    length at its end, and its keys stay as they are: beyond the trained length numbers depend on where a text is cut.
    """

    original_max_position_embeddings: int

    def check(self, theta: float, d_head: int) -> None:
        if d_head < 4:
            raise ValueError(f"dynamic rotary scaling needs heads of at least 4, not {d_head}")

    def frequencies(self, plain: "Tensor", theta: float, lengths: "Tensor") -> "Tensor":
        original = self.original_max_position_embeddings
        stretch = self.factor * lengths.clamp(min=original) / original - (self.factor - 1)
        steps = _indices(plain) / (len(plain) - 1)
        return plain * stretch.to(plain.dtype)[:, None, None] ** -steps


@dataclass(frozen=True, kw_only=True)
class YarnRope(RopeScaling):
    """YaRN (Peng et al. 2023, arXiv 2309.00071): pairs that turn more than `beta_fast` times within the trained length
    keep their frequency, those that turn less than `beta_slow` times are slowed by `factor`, and those between are
    mixed by their index."""

    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    """What queries and keys are multiplied by; None, what follows from `factor`, `mscale` and `mscale_all_dim`."""
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    """Whether the ends of the mix are rounded to whole indices."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_slow <= self.beta_fast <= LARGEST:
            raise ValueError(
                f"rope_scaling needs 0 < beta_slow <= beta_fast <= {LARGEST:,}, not {self.beta_slow} and"
                f" {self.beta_fast}"
            )
        for name in ("attention_factor", "mscale", "mscale_all_dim"):
            if getattr(self, name) is not None:
                self._within(name, getattr(self, name), 0)

    def check(self, theta: float, d_head: int) -> None:
        if theta <= 1:
            raise ValueError(f"yarn needs a rope_theta above 1, not {theta}")

    @property
    def scale(self) -> float:
        """The paper's square root of 1/t, 0.1 ln(factor) + 1."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._grown(self.mscale) / self._grown(self.mscale_all_dim)
        return self._grown(1.0)

    def _grown(self, by: float) -> float:
        return 0.1 * by * math.log(self.factor) + 1.0

    def frequencies(self, plain: "Tensor", theta: float, lengths: "Tensor") -> "Tensor":
        half = len(plain)
        first, last = (
            half * math.log(self.original_max_position_embeddings / (2 * math.pi * turns)) / math.log(theta)
            for turns in (self.beta_fast, self.beta_slow)
        )
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, 2 * half - 1)
        slowed = (_indices(plain) - first) / (last - first if last != first else 0.001)
        slowed = slowed.clamp(0, 1)
        return plain * (1 - slowed) + plain / self.factor * slowed


def _indices(plain: "Tensor") -> "Tensor":
    """The number of each pair, from 0."""
    return plain.new_ones(len(plain)).cumsum(0) - 1
