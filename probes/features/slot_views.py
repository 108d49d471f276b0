"""Views: features from the slots of a bank, which are one slot, their mean, what is read of them, or a sketch of all.

A bank is never flattened: in large models it has millions of entries.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.sites import Site
from lm2.shown import shown

MOST_SKETCHED = 65_536
"""Features of a sketch: more than the entries of any bank that was tested."""


class ViewRows(NamedTuple):
    """The tokens of a batch that are rows."""

    batch: Int[Tensor, "row"]
    position: Int[Tensor, "row"]
    """In the segment."""


@dataclass(frozen=True, kw_only=True)
class View(ABC):
    """How slots become features."""

    def hooks(self) -> tuple[str, ...]:
        """Hook points that it needs besides the slots."""
        return ()

    def width(self, config: LM2Config) -> int:
        return config.slot_dim

    @abstractmethod
    def features(
        self, slots: Float[Tensor, "batch slot slot_dim"], rows: ViewRows, *hooked: Tensor
    ) -> Float[Tensor, "row d"]: ...


@dataclass(frozen=True, kw_only=True)
class MeanSlot(View):
    def __str__(self) -> str:
        return "mean"

    def features(
        self, slots: Float[Tensor, "batch slot slot_dim"], rows: ViewRows, *hooked: Tensor
    ) -> Float[Tensor, "row d"]:
        return slots.mean(1)[rows.batch]


@dataclass(frozen=True, kw_only=True)
class OneSlot(View):
    slot: int

    def __str__(self) -> str:
        return f"slot{self.slot}"

    def features(
        self, slots: Float[Tensor, "batch slot slot_dim"], rows: ViewRows, *hooked: Tensor
    ) -> Float[Tensor, "row d"]:
        return slots[rows.batch, self.slot]


@dataclass(frozen=True, kw_only=True)
class ReadWeighted(View):
    """The sum of slots, weighted by how much a block reads of each in the row's segment.

    The weights are its read pattern, mean over heads and over the tokens up to the row's. They sum to 1, except with
    memory tokens, which are read by attention that also goes to other tokens.
    """

    layer: int

    def __str__(self) -> str:
        return f"read.{self.layer}"

    def hooks(self) -> tuple[str, ...]:
        return (Site.READ_PATTERN.hook_name(self.layer),)

    def features(
        self, slots: Float[Tensor, "batch slot slot_dim"], rows: ViewRows, *hooked: Tensor
    ) -> Float[Tensor, "row d"]:
        (pattern,) = hooked
        so_far = pattern.float().mean(1).cumsum(1)
        weights = so_far / torch.arange(1, so_far.shape[1] + 1, device=so_far.device)[:, None]
        return (weights @ slots)[rows.batch, rows.position]


@dataclass(frozen=True, kw_only=True)
class Sketch(View):
    """A random projection of all slots to `d` features, the same for every text and every model of one size.

    Feature j is the sum over slots and entries of a[slot, j] b[entry, j] slots[slot, entry] / sqrt(d), with random
    signs a and b (Sun et al., arXiv 2105.00105). Squared distances keep their mean, with a deviation of at most
    sqrt(8 / d) of it. Nothing is fitted: principal components would have to be fitted inside every fold, and take 16 MB
    each for a bank of 2,048 x 2,048.

    Few features lose much. On 1,000 banks of babi-lm2-qa1 (16 x 128), the held-out accuracy of a ridge probe of Mary's
    place was 1.00 from all 2,048 entries, 1.00 from 1,024 features, 0.98 from 256 and 0.79 from 64; with independent
    signs for every entry, 1.00, 0.98 and 0.82.
    """

    d: int

    def __post_init__(self) -> None:
        if not 1 <= self.d <= MOST_SKETCHED:
            raise ValueError(f"a sketch has 1 to {MOST_SKETCHED:,} features, not {shown(self.d)}")

    def __str__(self) -> str:
        return f"sketch{self.d}"

    def width(self, config: LM2Config) -> int:
        return self.d

    def features(
        self, slots: Float[Tensor, "batch slot slot_dim"], rows: ViewRows, *hooked: Tensor
    ) -> Float[Tensor, "row d"]:
        over_slots, over_entries = (_signs(axis, slots.shape[axis], self.d).to(slots.device) for axis in (1, 2))
        return (((slots @ over_entries) * over_slots).sum(1) / self.d**0.5)[rows.batch]


@lru_cache(maxsize=16)
def _signs(seed: int, rows: int, columns: int) -> Float[Tensor, "row column"]:
    return torch.randint(2, (rows, columns), generator=torch.Generator().manual_seed(seed)).float() * 2 - 1
