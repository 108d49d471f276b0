"""Arrays that grow: rows are held until a shard is whole, and then written at once."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import zarr
from torch import Tensor

from lm2.stores.arrays import Arrays, encode
from lm2.stores.layout import ArrayPlan

Value = TypeVar("Value", np.ndarray, Tensor)


class GrowingArray:
    """One array of a store, to which rows are added."""

    def __init__(
        self, array: zarr.Array, plan: ArrayPlan, before: Arrays, on_disk: int, next_row: int | None = None
    ) -> None:
        """`on_disk`: rows that are there already, in `before`. Those from `next_row` on (None: none) will be added once
        more, and are then passed over. Raises DamagedError where the last ones have changed."""
        self._array, self._plan = array, plan
        self._start = on_disk - on_disk % plan.shard
        self._held = on_disk - self._start
        rows = before.read(plan.name, slice(self._start, on_disk)) if self._held else None
        self._parts = [] if rows is None else [encode(rows, plan.dtype)]
        self._passed_over = 0 if next_row is None else on_disk - next_row

    def append(self, rows: np.ndarray) -> None:
        """Raises OSError where they cannot be written."""
        if self._passed_over:
            passed_over = min(self._passed_over, len(rows))
            self._passed_over -= passed_over
            rows = rows[passed_over:]
        self._parts.append(encode(rows, self._plan.dtype))
        self._held += len(rows)
        if self._held >= self._plan.shard:
            self._write_whole()

    def _write_whole(self) -> None:
        held = self._joined()
        whole = len(held) - len(held) % self._plan.shard
        for start in range(0, whole, self._plan.shard):
            self._put(held[start : start + self._plan.shard])
            self._start += self._plan.shard
        self._parts, self._held = [held[whole:].copy()], len(held) - whole

    def sync(self) -> None:
        """Write the rows of the shard that is not whole. They are kept, and written with it once more."""
        if self._held:
            held = self._joined()
            self._parts = [held]
            self._put(held)

    def _joined(self) -> np.ndarray:
        return np.concatenate(self._parts)

    def _put(self, rows: np.ndarray) -> None:
        end = min(self._start + self._plan.shard, self._plan.shape[0])
        missing = np.zeros((end - self._start - len(rows), *rows.shape[1:]), rows.dtype)  # a shard is never read first
        self._array[self._start : end] = np.concatenate([rows, missing]) if len(missing) else rows


class Gathering(Generic[Value]):
    """Values of segments that are worked on together once they are many bytes."""

    def __init__(self, work: Callable[[list[Value]], None], most: int = 1024**2) -> None:
        self._work, self._most = work, most
        self._values: list[Value] = []
        self._bytes = 0

    def add(self, value: Value) -> None:
        self._values.append(value)
        self._bytes += value.nbytes
        if self._bytes >= self._most:
            self.flush()

    def flush(self) -> None:
        if self._values:
            values, self._values, self._bytes = self._values, [], 0
            self._work(values)
