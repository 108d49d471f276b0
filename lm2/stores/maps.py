"""What is kept of a map: its pyramid, and statistics of each head in each segment."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from lm2.stores.growing import Gathering, GrowingArray
from lm2.stores.layout import HOWS, MapPlan, StoreLayout, What

_TINY = np.finfo(np.float32).tiny


class MapWriter:
    """Takes the pattern of each segment, and adds to the arrays of its map."""

    def __init__(
        self, layout: StoreLayout, plan: MapPlan, column: Callable[[str], GrowingArray], token: int, on_disk: int
    ) -> None:
        """`token`: where the next segment starts; `on_disk`: tokens whose pyramid is written already."""
        self._layout, self._what = layout, plan.what
        self._pattern = None if plan.recomputed else column(f"{plan.name}/pattern")
        self._heads = column(f"{plan.name}/heads")
        self._mass = column(f"{plan.name}/mass") if plan.what is What.READS else None
        self._pyramid = column(f"{plan.name}/pyramid")
        self._dtype = layout.pooled_dtype(plan)
        self._patterns = Gathering(self._digest)
        self._passed_over = on_disk - token
        self._rest = np.empty((0, plan.heads, layout.config.slots), np.float32)
        """Tokens that do not make a row of the first level yet."""
        self._rows: list[Float[np.ndarray, "row how head slot"]] = []
        """Rows of the first level that do not make a shard yet: largest values, and sums."""

    def add(self, pattern: np.ndarray) -> None:
        """One segment's: [head, token, slot] of reads, [head, slot, token] of writes."""
        by_token = (1, 0, 2) if self._what is What.READS else (2, 0, 1)
        self._patterns.add(pattern.transpose(by_token))

    def flush(self) -> None:
        self._patterns.flush()

    def close(self) -> None:
        """Write the last rows, which may have fewer tokens."""
        self.flush()
        if len(self._rest):
            self._rows.append(np.stack([self._rest.max(0), self._rest.sum(0)])[None])
        if self._rows:
            rows = np.concatenate(self._rows)
            self._pyramid.append(self._levels(rows, len(self._rest)))

    def _digest(self, segments: list[np.ndarray]) -> None:
        lengths = np.array([len(segment) for segment in segments])
        pattern: Float[np.ndarray, "token head slot"] = np.concatenate(segments)
        starts = np.cumsum(lengths) - lengths
        self._heads.append(_statistics(self._what, pattern, starts))
        if self._mass is not None:
            self._mass.append(np.add.reduceat(pattern, starts) / lengths[:, None, None].astype(np.float32))
        if self._pattern is not None:
            self._pattern.append(pattern)
        passed_over = min(self._passed_over, len(pattern))
        self._passed_over -= passed_over
        self._pool(pattern[passed_over:])

    def _pool(self, pattern: Float[np.ndarray, "token head slot"]) -> None:
        size = 2**self._layout.first_level
        pattern = np.concatenate([self._rest, pattern]) if len(self._rest) else pattern
        whole = len(pattern) - len(pattern) % size
        self._rest = pattern[whole:].copy()
        blocks = pattern[:whole].reshape(-1, size, *pattern.shape[1:])
        if len(blocks):
            self._rows.append(np.stack([blocks.max(1), blocks.sum(1)], 1))
            self._add_whole_shards()

    def _add_whole_shards(self) -> None:
        a_shard = self._layout.shard >> self._layout.first_level
        if sum(map(len, self._rows)) < a_shard:
            return
        rows = np.concatenate(self._rows)
        whole = len(rows) - len(rows) % a_shard
        for start in range(0, whole, a_shard):
            self._pyramid.append(self._levels(rows[start : start + a_shard]))
        self._rows = [rows[whole:].copy()] if whole < len(rows) else []

    def _levels(
        self, rows: Float[np.ndarray, "row how head slot"], in_last: int = 0
    ) -> Float[np.ndarray, "one how row head slot"]:
        """A shard of the pyramid, from its rows of the first level. Rows without tokens are 0.

        `in_last`: how many tokens the last row has; 0, as many as the others.
        """
        layout = self._layout
        tokens = np.full(len(rows), 2**layout.first_level, np.float32)
        tokens[-1] = in_last or tokens[-1]
        shard = np.zeros((1, len(HOWS), 2 * layout.shard >> layout.first_level, *rows.shape[2:]), self._dtype)
        for level in layout.levels:
            at = slice(layout.level_rows(level).start, layout.level_rows(level).start + len(rows))
            shard[0, 0, at] = rows[:, 0]
            shard[0, 1, at] = rows[:, 1] / tokens[:, None, None]
            pairs = np.arange(0, len(rows), 2)
            rows = np.stack([np.maximum.reduceat(rows[:, 0], pairs), np.add.reduceat(rows[:, 1], pairs)], 1)
            tokens = np.add.reduceat(tokens, pairs)
        return shard


def _statistics(
    what: What, pattern: Float[np.ndarray, "token head slot"], starts: np.ndarray
) -> Float[np.ndarray, "segment head statistic"]:
    """Each head's statistics in segments that begin at `starts`.

    A distribution is what a token reads, over slots, or what a slot is written from, over the tokens of a segment; what
    does not sum to 1, because there is something else to attend to, is taken in relation to its sum.
    """
    weighted = pattern * np.log2(np.maximum(pattern, _TINY))
    if what is What.READS:
        total, weighted, top = pattern.sum(-1), weighted.sum(-1), pattern.max(-1)
    else:
        total, weighted = np.add.reduceat(pattern, starts), np.add.reduceat(weighted, starts)
        top = np.maximum.reduceat(pattern, starts)
    exists = total > 0
    share = np.where(exists, total, 1)
    sums = [np.where(exists, np.log2(share) - weighted / share, 0), np.where(exists, top / share, 0), exists]
    if what is What.READS:
        by_segment = [np.add.reduceat(value, starts, dtype=np.float32) for value in sums]
        by_segment.append(np.maximum.reduceat(top, starts))
    else:
        by_segment = [*(value.sum(-1, dtype=np.float32) for value in sums), top.max(-1)]
    return np.stack(by_segment, -1).astype(np.float32)
