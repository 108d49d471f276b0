"""Reading a store: any window of its maps, at any level of detail, without its checkpoint."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lm2.model.config import LM2Config
from lm2.runs.spec import RunSpec
from lm2.serialize import as_member
from lm2.stores import header, state
from lm2.stores.arrays import Arrays
from lm2.stores.header import Header
from lm2.stores.heads import HeadRow, has_ages, head_row, slot_ages
from lm2.stores.layout import HOWS, STATISTICS, SUMMARIES, MapPlan, Rows, StoreLayout, What
from lm2.stores.windows import How, Windows, pooled_rows
from lm2.text.segments import Segment
from lm2.text.sequence import TokenSequence


@dataclass(frozen=True)
class Summary:
    """Mean, least and largest value of a gate, with a row for each segment or token."""

    mean: np.ndarray
    least: np.ndarray
    most: np.ndarray


@dataclass(frozen=True)
class GateSummary:
    """What is kept of a gate in a block."""

    rows: Summary
    """Over features: [segment, slot]; of a gate of tokens, [token]."""
    features: Summary
    """Over slots, or tokens: [segment, feature]."""


def open_store(path: str | Path) -> "Store":
    """A store as far as it is written now. Raises ValueError for a folder that is no store, DamagedError where its
    files have changed."""
    return Store(Path(path))


class Store:
    """A run on disk. Nothing is read before it is asked for; reading raises DamagedError where bytes have changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header = Header.read(path)
        self._of = self._header.to_json()
        self._state = state.read(path, self._of)
        self._arrays = Arrays(path, self._layout)
        self._read_statistics: dict[MapPlan, np.ndarray] = {}

    @property
    def spec(self) -> RunSpec:
        return self._header.spec

    @property
    def origin(self) -> dict[str, Any]:
        """Digests of checkpoint and weights, device, number format, versions, processor and threads."""
        return self._header.origin

    @property
    def config(self) -> LM2Config:
        return self._layout.config

    @property
    def _layout(self) -> StoreLayout:
        return self._header.layout

    @property
    def tokens(self) -> TokenSequence:
        """Of the whole text."""
        return self._text[0]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Of the whole text."""
        return self._text[1]

    @cached_property
    def _text(self) -> tuple[TokenSequence, tuple[Segment, ...]]:
        return header.read_text(self.path, self._of)

    @property
    def whole(self) -> int:
        """How many segments were on disk when the store was opened, counted from the first."""
        return self._state.segments

    @property
    def tokens_whole(self) -> int:
        """How many tokens these segments have."""
        return self.segments[self.whole - 1].end if self.whole else 0

    @property
    def first_level(self) -> int:
        return self._layout.first_level

    @property
    def surprisal(self) -> Float[np.ndarray, "token"]:
        """Bits of each token given the ones before it; NaN for the first."""
        following = self._arrays.read("next/surprisal", slice(0, max(0, self.tokens_whole - 1)))
        return np.concatenate([[np.float32(np.nan)] * bool(self.whole), following])

    def top(self, tokens: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """The most likely next tokens after each token, and their log-probabilities in nats: [token, rank]."""
        window = self._tokens(tokens)
        return self._arrays.read("next/top", window), self._arrays.read("next/log_probabilities", window)

    def bank(self, segment: int) -> Float[np.ndarray, "slot slot_dim"]:
        """The bank at the start of a segment; of `whole`, where all segments are, the one after the last."""
        if not self.config.memory_layers:
            raise ValueError(f"there is no bank: {self.config.memory.design.title} has no memory")
        if not 0 <= segment <= self.whole - (self.whole < len(self.segments)):
            raise ValueError(
                f"there is no bank of segment {segment}: {self.whole:,} of {len(self.segments):,} segments are whole"
            )
        return self._arrays.read("bank", slice(segment, segment + 1))[0]

    def reads(
        self, *, block: int, head: int | None = None, tokens: slice = slice(None), slots: slice = slice(None)
    ) -> Float[np.ndarray, "token slot"]:
        """Which slots tokens read: the read pattern of one head, or the mean over heads."""
        return self._windows.exact(self._map(What.READS, block, head), head, self._tokens(tokens), "mean")[:, slots]

    def writes(
        self, *, block: int, head: int | None = None, tokens: slice = slice(None), slots: slice = slice(None)
    ) -> Float[np.ndarray, "token slot"]:
        """Which tokens slots are written from: a row is how much of a token each slot takes in its segment."""
        return self._windows.exact(self._map(What.WRITES, block, head), head, self._tokens(tokens), "mean")[:, slots]

    def pooled(
        self, what: What | str, *, block: int, head: int | None = None, how: How, level: int, rows: slice = slice(None)
    ) -> Float[np.ndarray, "row slot"]:
        """A map with 2**level tokens in each row: row r pools tokens r * 2**level and on, of the whole text.

        `head`: None for the mean over heads of means, and the largest of largest values.
        """
        if how not in HOWS or level < 0:
            raise ValueError(f"a map is pooled by {' or '.join(HOWS)} at level 0 or more, not by {how!r} at {level}")
        what = _as_what(what)
        plan = self._map(what, block, head)
        size = 2**level
        start, stop, _ = rows.indices(-(-self.tokens_whole // size))
        if stop <= start:
            return np.zeros((0, self.config.slots), np.float32)
        levels = self._layout.levels
        if level < levels.start:
            tokens = slice(start * size, min(stop * size, self.tokens_whole))
            return pooled_rows(self._windows.exact(plan, head, tokens, how), size, how)
        if level in levels:
            return self._windows.level(plan, head, how, level, slice(start, stop))
        coarsest = levels[-1]
        size = 2 ** (level - coarsest)
        window = slice(start * size, min(stop * size, -(-self.tokens_whole // 2**coarsest)))
        tokens = self._state.tokens - 2**coarsest * np.arange(window.start, window.stop)
        return pooled_rows(
            self._windows.level(plan, head, how, coarsest, window), size, how, np.minimum(tokens, 2**coarsest)
        )

    def largest(self, what: What | str, *, block: int, head: int | None = None) -> float:
        """The largest value of a map so far, over all heads where `head` is None; 0 before there is one."""
        plan = self._map(_as_what(what), block, head)
        largest = self._statistics(plan)[:, slice(None) if head is None else head, STATISTICS.index("largest")]
        return float(largest.max(initial=0))

    def heads(self, what: What | str) -> tuple[HeadRow, ...]:
        """How each head of each block reads or writes, in the segments that are whole."""
        what = _as_what(what)
        plans = self._plans(what)
        ages = self.ages if what is What.READS else None
        whole = slice(0, self.whole)
        lengths = np.diff(self._starts)[whole]
        rows = []
        for plan in plans:
            statistics = self._statistics(plan)
            mass = self._arrays.read(f"{plan.name}/mass", whole) if what is What.READS else None
            for head in range(plan.heads):
                of_head = None if mass is None else mass[:, head]
                rows.append(head_row(plan.layer, head, statistics[:, head], of_head, lengths, ages))
        return tuple(rows)

    def _statistics(self, plan: MapPlan) -> Float[np.ndarray, "segment head statistic"]:
        """Read once: every band of a map is scaled by them."""
        if plan not in self._read_statistics:
            self._read_statistics[plan] = self._arrays.read(f"{plan.name}/heads", slice(0, self.whole))
        return self._read_statistics[plan]

    @cached_property
    def ages(self) -> Float[np.ndarray, "segment slot"] | None:
        """How many segments ago what a slot holds at the start of each segment was written, in the mean; None where
        gates do not say it."""
        if not has_ages(self.config, self.spec.interventions):
            return None
        blocks = sorted(self.config.memory_layers)
        return slot_ages(
            *({block: self.gates(gate, block=block).rows.mean for block in blocks} for gate in ("in", "forget"))
        )

    def mass(self, *, block: int, head: int | None = None) -> Float[np.ndarray, "segment slot"]:
        """How much the tokens of each segment read of each slot, in the mean."""
        name = f"{self._map(What.READS, block, head).name}/mass"
        mass = self._arrays.read(name, slice(0, self.whole))
        return mass.mean(1) if head is None else mass[:, head]

    def gates(self, gate: str, *, block: int) -> GateSummary:
        """A gate of a block by the name that links and figures use: "in", "forget" or "out"."""
        if not any((gate, block) == (name, layer) for name, _, layer in self._layout.gates):
            known = ", ".join(f"{name} of block {layer}" for name, _, layer in self._layout.gates)
            raise ValueError(f"there is no gate {gate!r} of block {block}; the store has {known or 'no gates'}")

        def summary(part: str) -> Summary:
            name = f"gates/{block}/{gate}/{part}"
            by_token = self._layout.arrays[name].rows is Rows.TOKENS
            values = self._arrays.read(name, slice(0, self.tokens_whole if by_token else self.whole))
            return Summary(*(values[:, number] for number in range(len(SUMMARIES))))

        return GateSummary(rows=summary("rows"), features=summary("features"))

    def check(self) -> None:
        """Read every byte of the whole segments. Raises DamagedError where one has changed."""
        extent = {Rows.TOKENS: self.tokens_whole, Rows.SEGMENTS: self.whole}
        extent[Rows.SHARDS] = self._state.tokens // self._layout.shard
        for name, plan in self._layout.arrays.items():
            for start in range(0, extent[plan.rows], plan.shard):
                self._arrays.read(name, slice(start, min(start + plan.shard, extent[plan.rows])))
        assert self._windows.memories is not None

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where segments start, and where the last one ends."""
        return np.array([*(segment.start for segment in self.segments), len(self.tokens)])

    @cached_property
    def _windows(self) -> Windows:
        return Windows(self.path, self._header, self._arrays, self._starts)

    def _tokens(self, tokens: slice) -> slice:
        start, stop, step = tokens.indices(self.tokens_whole)
        if step != 1:
            raise ValueError(f"a window of tokens has no steps, and not {step}")
        return slice(start, max(start, stop))

    def _map(self, what: What, block: int, head: int | None) -> MapPlan:
        """Raises ValueError, with what there is, for a map or a head that the model lacks."""
        plans = {plan.layer: plan for plan in self._plans(what)}
        if block not in plans:
            raise ValueError(f"block {block} has no memory; blocks {', '.join(map(str, plans))} have one")
        if head is not None and not 0 <= head < plans[block].heads:
            raise ValueError(f"there is no head {head}; block {block} has heads 0..{plans[block].heads - 1}")
        return plans[block]

    def _plans(self, what: What) -> list[MapPlan]:
        """The map of each block. Raises ValueError where there is none."""
        plans = [plan for plan in self._layout.maps if plan.what is what]
        if not plans:
            design = self.config.memory.design
            why = design.no_write_pattern if self.config.memory_layers else f"{design.title} has no memory"
            raise ValueError(f"there are no {what.value}: {why}")
        return plans


def _as_what(what: What | str) -> What:
    return what if isinstance(what, What) else as_member("map", What, what)
