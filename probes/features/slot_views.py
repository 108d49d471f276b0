"""How the slots of a bank become the features of a row: one slot, their mean, what is read of them, or a sketch of all.

A bank is never flattened: it has millions of entries in large models.
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
"""Features of a sketch: more would be more than the banks have that were sketched."""


class ViewRows(NamedTuple):
    """Which tokens of a batch are rows."""

    batch: Int[Tensor, "row"]
    position: Int[Tensor, "row"]
    """In the segment."""


@dataclass(frozen=True, kw_only=True)
class View(ABC):
    """How slots become features."""

    def reads(self) -> tuple[str, ...]:
        """Hooks that it looks at beside the slots."""
        return ()

    @abstractmethod
    def width(self, config: LM2Config) -> int: ...

    @abstractmethod
    def rows(
        self, slots: Float[Tensor, "batch slot slot_dim"], at: ViewRows, *read: Tensor
    ) -> Float[Tensor, "row d"]: ...


@dataclass(frozen=True, kw_only=True)
class MeanSlot(View):
    def __str__(self) -> str:
        return "mean"

    def width(self, config: LM2Config) -> int:
        return config.slot_dim

    def rows(self, slots: Float[Tensor, "batch slot slot_dim"], at: ViewRows, *read: Tensor) -> Float[Tensor, "row d"]:
        return slots.mean(1)[at.batch]


@dataclass(frozen=True, kw_only=True)
class OneSlot(View):
    slot: int

    def __str__(self) -> str:
        return f"slot{self.slot}"

    def width(self, config: LM2Config) -> int:
        return config.slot_dim

    def rows(self, slots: Float[Tensor, "batch slot slot_dim"], at: ViewRows, *read: Tensor) -> Float[Tensor, "row d"]:
        return slots[at.batch, self.slot]


@dataclass(frozen=True, kw_only=True)
class ReadWeighted(View):
    """The sum of slots, each weighted by how much a block reads of it in the row's segment.

    The weights are its read pattern, mean over heads and over the tokens up to the row's. They sum to 1, but for memory
    tokens: who reads these attends to tokens, too.
    """

    layer: int

    def __str__(self) -> str:
        return f"read.{self.layer}"

    def reads(self) -> tuple[str, ...]:
        return (Site.READ_PATTERN.hook_name(self.layer),)

    def width(self, config: LM2Config) -> int:
        return config.slot_dim

    def rows(self, slots: Float[Tensor, "batch slot slot_dim"], at: ViewRows, *read: Tensor) -> Float[Tensor, "row d"]:
        (pattern,) = read
        so_far = pattern.float().mean(1).cumsum(1)
        weights = so_far / torch.arange(1, so_far.shape[1] + 1, device=so_far.device)[:, None]
        return (weights @ slots)[at.batch, at.position]


@dataclass(frozen=True, kw_only=True)
class Sketch(View):
    """A random projection of all slots to `d` features, the same for every text and every model of one size.

    Feature j is the sum over slots and entries of a[slot, j] b[entry, j] slots[slot, entry] / sqrt(d), with random
    signs a and b (Sun et al., arXiv 2105.00105). Squared distances keep their mean, and vary around it by at most
    sqrt(8 / d) of themselves. Nothing is fitted: principal components would be of test groups too, and of 16 MB each
    for a bank of 2,048 x 2,048.

    Few features lose much. On 1,000 banks of babi-lm2-qa1 (16 x 128) a ridge probe told where Mary is, held out by
    story, at 1.00 from all 2,048 entries, 1.00 from 1,024 features, 0.98 from 256 and 0.79 from 64; 1.00, 0.98 and 0.82
    from as many features of a projection with independent signs.
    """

    d: int

    def __post_init__(self) -> None:
        if not 1 <= self.d <= MOST_SKETCHED:
            raise ValueError(f"a sketch has 1 to {MOST_SKETCHED:,} features, not {shown(self.d)}")

    def __str__(self) -> str:
        return f"sketch{self.d}"

    def width(self, config: LM2Config) -> int:
        return self.d

    def rows(self, slots: Float[Tensor, "batch slot slot_dim"], at: ViewRows, *read: Tensor) -> Float[Tensor, "row d"]:
        over_slots, over_entries = (_signs(axis, slots.shape[axis], self.d).to(slots.device) for axis in (1, 2))
        return (((slots @ over_entries) * over_slots).sum(1) / self.d**0.5)[at.batch]


@lru_cache(maxsize=16)
def _signs(seed: int, rows: int, columns: int) -> Float[Tensor, "row column"]:
    return torch.randint(2, (rows, columns), generator=torch.Generator().manual_seed(seed)).float() * 2 - 1
