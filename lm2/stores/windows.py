"""Windows of a store's maps: exact ones, kept or recomputed, and rows of a pyramid."""

from functools import cached_property, reduce
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from lm2.model.block import BlockMemory
from lm2.stores.arrays import Arrays
from lm2.stores.header import Header
from lm2.stores.layout import HOWS, MapPlan
from lm2.stores.recompute import read_memories, read_pattern

How = Literal["max", "mean"]
_BATCH_BYTES = 64 * 1024**2
"""Of patterns that are recomputed at once, unless a segment has more."""


class Windows:
    """Reads the maps of a store."""

    def __init__(self, path: Path, header: Header, arrays: Arrays, starts: np.ndarray) -> None:
        """`starts`: where segments start, and where the last one ends."""
        self._path, self._header, self._layout = path, header, header.layout
        self._arrays, self._starts = arrays, starts

    @cached_property
    def memories(self) -> dict[int, BlockMemory]:
        """What patterns are recomputed with, by block."""
        return read_memories(self._path, self._header)

    def exact(self, plan: MapPlan, head: int | None, tokens: slice, how: How) -> Float[np.ndarray, "token slot"]:
        """A window of the pattern itself, over all heads as `how` says where `head` is None."""
        if head is not None:
            return self._of_head(plan, head, tokens)
        patterns = (self._of_head(plan, head, tokens) for head in range(plan.heads))
        if how == "max":
            return reduce(np.maximum, patterns)
        return reduce(np.add, patterns) / np.float32(plan.heads)

    def _of_head(self, plan: MapPlan, head: int, tokens: slice) -> Float[np.ndarray, "token slot"]:
        if not plan.recomputed:
            return self._arrays.read(f"{plan.name}/pattern", tokens, head)
        starts = self._starts
        first, last = np.searchsorted(starts, [tokens.start, tokens.stop - 1], side="right") - 1
        parts = [np.zeros((0, self._layout.config.slots), np.float32)]
        while tokens.start < tokens.stop and first <= last:
            longest = int(np.diff(starts[first : last + 2]).max())
            count = max(1, min(last + 1 - first, _BATCH_BYTES // (4 * longest * self._layout.config.slots)))
            parts.append(self._recomputed(plan, head, slice(first, first + count)))
            first += count
        start = tokens.start - starts[np.searchsorted(starts, tokens.start, side="right") - 1]
        return np.concatenate(parts)[start : start + tokens.stop - tokens.start]

    def _recomputed(self, plan: MapPlan, head: int, segments: slice) -> Float[np.ndarray, "token slot"]:
        starts = self._starts[segments.start : segments.stop + 1]
        lengths = np.diff(starts)
        rows = self._arrays.read(f"{plan.name}/queries", slice(int(starts[0]), int(starts[-1])), head)
        real = np.arange(lengths.max()) < lengths[:, None]
        queries = np.zeros((*real.shape, rows.shape[-1]), rows.dtype)
        queries[real] = rows
        return read_pattern(
            self.memories[plan.layer], self._layout, queries, self._arrays.read("bank", segments), head
        )[real]

    def level(self, plan: MapPlan, head: int | None, how: How, level: int, rows: slice) -> np.ndarray:
        """Rows of a level that the pyramid has."""
        within = self._layout.level_rows(level)
        a_shard = within.stop - within.start
        shards = slice(rows.start // a_shard, -(-rows.stop // a_shard))
        heads = slice(None) if head is None else slice(head, head + 1)
        values = self._arrays.read(f"{plan.name}/pyramid", shards, HOWS.index(how), within, heads)
        values = values.reshape(-1, *values.shape[2:])[rows.start - shards.start * a_shard :][: rows.stop - rows.start]
        return values.max(1) if how == "max" else values.mean(1)


def pooled_rows(
    values: Float[np.ndarray, "row slot"], size: int, how: How, weights: np.ndarray | None = None
) -> Float[np.ndarray, "row slot"]:
    """Each `size` rows as one; the last may have fewer. `weights`: of the rows in a mean; None, all the same."""
    starts = np.arange(0, len(values), size)
    if how == "max":
        return np.maximum.reduceat(values, starts)
    weights = (np.ones(len(values)) if weights is None else weights).astype(np.float32)
    total = np.add.reduceat(values * weights[:, None], starts)
    return total / np.add.reduceat(weights, starts)[:, None]
