"""Bands of a store's maps as a browser draws them: all slots of neighbouring tokens, pooled, a byte for each cell."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

if TYPE_CHECKING:
    from lm2.stores.store import Store

COLUMNS = 256
"""Columns of a band; the last of a text may have fewer."""
LEVELS = 32
FOLDS = 16


class Pooled(Enum):
    """What a cell of a map shows of the tokens and slots that share it."""

    MAX = "max"
    MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class StoreMap:
    """How much the tokens read or write the slots, in one block of a store; or by how much more than in another."""

    store: Store
    minus: Store | None = None
    """The store whose map is subtracted, cell by cell after pooling; it has the same text and as many slots."""
    what: str
    """ "reads" or "writes"."""
    block: int
    head: int | None
    """None, the heads pooled as tokens and slots are."""
    how: Pooled

    @property
    def tokens(self) -> int:
        """How many tokens have been captured."""
        return min(store.tokens_whole for store in self._stores)

    @property
    def slots(self) -> int:
        return self.store.config.slots

    @property
    def high(self) -> float:
        """The end of the colour scale; of a difference, on either side of zero."""
        high = max(store.largest(self.what, block=self.block, head=self.head) for store in self._stores)
        return high if high > 0 else 1.0

    @property
    def identity(self) -> tuple[Hashable, ...]:
        """What decides its numbers."""
        runs = [(store.spec.digest, json.dumps(store.origin, sort_keys=True)) for store in self._stores]
        return (*runs, self.tokens, self.what, self.block, self.head, self.how)

    @property
    def _stores(self) -> tuple[Store, ...]:
        return (self.store,) if self.minus is None else (self.store, self.minus)

    def columns(self, level: int) -> int:
        """How many columns the map has at a level, where each pools 2**level tokens."""
        return -(-self.tokens // 2**level)

    def parts(self, level: int, fold: int, columns: slice) -> list[Float[np.ndarray, "row column"]]:
        """The cells of some columns in each of its stores; a row pools 2**fold slots."""
        return [self._of(store, level, fold, columns) for store in self._stores]

    def _of(self, store: Store, level: int, fold: int, columns: slice) -> Float[np.ndarray, "row column"]:
        cells = store.pooled(self.what, block=self.block, head=self.head, how=self.how.value, level=level, rows=columns)
        starts = np.arange(0, cells.shape[1], 2**fold)
        if self.how is Pooled.MAX:
            return np.fmax.reduceat(cells, starts, 1).T
        sizes = np.diff(starts, append=cells.shape[1])
        return (np.add.reduceat(cells, starts, 1) / sizes).T

    def band(self, level: int, fold: int, number: int) -> UInt8[np.ndarray, "row column"]:
        """The bytes of a band. Raises IndexError if the map has no such band."""
        last = self.columns(level)
        if not (0 <= level < LEVELS and 0 <= fold < FOLDS and 0 <= number * COLUMNS < last):
            raise IndexError(f"the map has no band {number} at level {level} and fold {fold}")
        columns = slice(number * COLUMNS, min((number + 1) * COLUMNS, last))
        return encoded(difference(self.parts(level, fold, columns)), self.high, signed=self.minus is not None)


def difference(parts: list[Float[np.ndarray, "row column"]]) -> Float[np.ndarray, "row column"]:
    """The first of one or two, less the second."""
    return np.subtract(*parts) if len(parts) == 2 else parts[0]


def encoded(values: Float[np.ndarray, "row column"], high: float, *, signed: bool) -> UInt8[np.ndarray, "row column"]:
    """A byte for each value: 1 to 255 by the square root of its share of `high`, around 128 if `signed`; 0 for NaN.

    The root keeps small values apart, so that a map of any colours can be drawn from the bytes.
    """
    share = np.clip(values / high, -1, 1)
    place = (1 + np.sign(share) * np.sqrt(np.abs(share))) / 2 if signed else np.sqrt(np.maximum(share, 0))
    return np.where(np.isnan(share), 0, 1 + np.rint(254 * np.nan_to_num(place))).astype(np.uint8)
