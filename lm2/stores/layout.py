"""What a store holds: its arrays, how they are cut into shards, and the bytes that they take."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lm2.model.config import LM2Config
from lm2.model.sites import AnySite, Axis, Site
from lm2.runs.interventions import Edit
from lm2.runs.spec import RunSpec

if TYPE_CHECKING:
    from lm2.weights.checkpoint import Checkpoint

FILE = "store.json"
"""What was run. A folder with it is a store."""
FIRST_LEVEL = 3
"""Pyramids begin with rows of 2**3 tokens, unless a store says otherwise."""
LAST_FIRST_LEVEL = 8
"""The coarsest level that a pyramid can begin with."""
TOP = 10
"""The most likely tokens that are kept for each token, if the vocabulary has as many."""
_SHARD_BYTES = 16 * 1024**2
"""What a shard's worth of tokens may take in all arrays together, which is held in memory until it is written."""
_SEGMENTS_BYTES = 4 * 1024**2
"""The same for the rows of an array by segments."""
_CHUNK_BYTES = 256 * 1024
"""What is read at once."""
_SHARDS = (256, 2**13)
"""The least and the most tokens of a shard."""


class What(Enum):
    """The maps of a store: which slots tokens read, and which tokens slots are written from."""

    READS = "reads"
    WRITES = "writes"

    @property
    def site(self) -> Site:
        return Site.READ_PATTERN if self is What.READS else Site.WRITE_PATTERN


HOWS = ("max", "mean")
"""How rows of a map are pooled, in their order in a pyramid."""
STATISTICS = ("entropy", "top", "rows", "largest")
"""What is kept of a head in a segment: the sum of the entropies of its distributions in bits, and of their largest
shares, how many distributions there are, and the largest value."""
SUMMARIES = ("mean", "least", "most")
"""What is kept of a gate."""


class Rows(Enum):
    """What the first axis of an array runs over."""

    TOKENS = "tokens"
    SHARDS = "shards"
    """Of tokens: the rows of a pyramid that pool them are together."""
    SEGMENTS = "segments"


@dataclass(frozen=True, kw_only=True)
class ArrayPlan:
    """One array of a store. Its first axis grows while a run goes on."""

    name: str
    rows: Rows
    shape: tuple[int, ...]
    dtype: str
    """As numpy has it; "bfloat16" is kept as the upper half of a float32's bits."""
    shard: int
    """Rows that are written at once."""
    chunk: tuple[int, ...]
    """What is read at once; divides a shard."""

    @property
    def bytes(self) -> int:
        """On disk: whole chunks with a checksum each, and an index in each shard."""
        others = math.prod(-(-size // chunk) for size, chunk in zip(self.shape[1:], self.chunk[1:]))
        chunks = -(-self.shape[0] // self.chunk[0]) * others
        shards = -(-self.shape[0] // self.shard)
        index = 16 * (self.shard // self.chunk[0]) * others + 4
        return chunks * (math.prod(self.chunk) * _bytes_of(self.dtype) + 4) + shards * index


@dataclass(frozen=True)
class MapPlan:
    """A map of one block."""

    what: What
    layer: int
    heads: int
    recomputed: bool
    """Whether its rows are recomputed from queries and bank; otherwise the pattern itself is kept."""

    @property
    def name(self) -> str:
        """The group of its arrays."""
        return f"{self.what.value}/{self.layer}"


@dataclass(frozen=True, kw_only=True)
class StoreLayout:
    """The arrays of a store, which follow from the model, the spec, and the numbers of tokens and segments."""

    config: LM2Config
    spec: RunSpec
    dtype: str
    tokens: int
    segments: int
    first_level: int

    @classmethod
    def of(
        cls, checkpoint: "Checkpoint", spec: RunSpec, tokens: int, segments: int, first_level: int = FIRST_LEVEL
    ) -> "StoreLayout":
        """That of a run of this many tokens and segments."""
        return cls(
            config=checkpoint.config,
            spec=spec,
            dtype=checkpoint.dtype,
            tokens=tokens,
            segments=segments,
            first_level=first_level,
        )

    @cached_property
    def maps(self) -> tuple[MapPlan, ...]:
        design, sites = self.config.memory.design, self.config.memory.design.sites
        heads = design.sizes(self.config)[Axis.HEAD]
        edited = {change.site for change in self.spec.interventions if isinstance(change, Edit)}
        recomputed = (
            bool(design.read_weights)
            and self.config.read_top_k is None  # where two slots are alike, a rounding error would choose the other
            and not edited & {Site.READ_K, Site.READ_SCORES, Site.READ_PATTERN}
        )
        return tuple(
            MapPlan(what, layer, heads, what is What.READS and recomputed)
            for what in What
            if what.site in sites
            for layer in sorted(self.config.memory_layers)
        )

    @cached_property
    def shard(self) -> int:
        """Tokens of a shard: a power of two, and no more than the text needs."""
        a_token = sum(plan.bytes for plan in self._by_token(1)) + sum(self._pyramid_bytes(plan) for plan in self.maps)
        least = max(_SHARDS[0], 2**self.first_level)
        fitting = min(max(least, _SHARDS[1]), max(least, _power_below(_SHARD_BYTES / a_token)))
        return min(fitting, max(2**self.first_level, _power_from(self.tokens)))

    @property
    def shards(self) -> int:
        return math.ceil(self.tokens / self.shard)

    @property
    def bytes(self) -> int:
        """On disk, without the few files beside the arrays."""
        return sum(plan.bytes for plan in self.arrays.values())

    @property
    def levels(self) -> range:
        """The levels of a pyramid. The last one has a row for each shard."""
        return range(self.first_level, self.shard.bit_length())

    def level_rows(self, level: int) -> slice:
        """Where in a pyramid's shard the rows of a level are."""
        start = sum(self.shard >> finer for finer in range(self.first_level, level))
        return slice(start, start + (self.shard >> level))

    @cached_property
    def arrays(self) -> dict[str, ArrayPlan]:
        plans = [*self._by_token(self.shard), *self._pyramids(), *self._by_segment()]
        return {plan.name: plan for plan in plans}

    def _by_token(self, shard: int) -> Iterator[ArrayPlan]:
        """Arrays with a row for each token. With a shard of 1, those of a single token."""
        config = self.config
        rows = self.tokens if shard > 1 else 1
        top = min(TOP, config.d_vocab)

        def plan(name: str, shape: tuple[int, ...], dtype: str) -> ArrayPlan:
            whole = shape if len(shape) < 2 else (1, *shape[1:])
            chunk = min(shard, max(1, _power_below(_CHUNK_BYTES / (math.prod(whole) * _bytes_of(dtype)))))
            return ArrayPlan(
                name=name, rows=Rows.TOKENS, shape=(rows, *shape), dtype=dtype, shard=shard, chunk=(chunk, *whole)
            )

        yield plan("next/surprisal", (), "float32")
        yield plan("next/top", (top,), "int32")
        yield plan("next/log_probabilities", (top,), "float32")
        for of in self.maps:
            if of.recomputed:
                d_head = config.memory.design.sizes(config)[Axis.D_HEAD]
                yield plan(f"{of.name}/queries", (of.heads, d_head), self.dtype)
            else:
                yield plan(f"{of.name}/pattern", (of.heads, config.slots), self.dtype)
        for name, site, layer in self.gates:
            if site.axes[0] is Axis.TOKEN:
                yield plan(f"gates/{layer}/{name}/rows", (len(SUMMARIES),), "float32")

    def _pyramid_bytes(self, plan: MapPlan) -> int:
        """Bytes of a pyramid for each token, about."""
        return 2 * len(HOWS) * plan.heads * self.config.slots * _bytes_of(self.pooled_dtype(plan)) >> self.first_level

    def pooled_dtype(self, plan: MapPlan) -> str:
        """Weights of attention are well within float16; what an intervention has put in their place may not be."""
        edited = any(isinstance(change, Edit) and change.site is plan.what.site for change in self.spec.interventions)
        return "float32" if edited else "float16"

    def _pyramids(self) -> Iterator[ArrayPlan]:
        rows = 2 * self.shard >> self.first_level
        for plan in self.maps:
            dtype, slots = self.pooled_dtype(plan), self.config.slots
            chunk = min(rows, max(1, _power_below(_CHUNK_BYTES / (slots * _bytes_of(dtype)))))
            heads = plan.heads if chunk == rows and rows * slots * plan.heads * _bytes_of(dtype) <= _CHUNK_BYTES else 1
            yield ArrayPlan(
                name=f"{plan.name}/pyramid",
                rows=Rows.SHARDS,
                shape=(self.shards, len(HOWS), rows, plan.heads, slots),
                dtype=dtype,
                shard=1,
                chunk=(1, 1, chunk, heads, slots),
            )

    def _by_segment(self) -> Iterator[ArrayPlan]:
        config = self.config

        def plan(name: str, shape: tuple[int, ...], rows: int = self.segments, dtype: str = "float32") -> ArrayPlan:
            a_row = math.prod(shape) * _bytes_of(dtype)
            shard = min(max(1, _power_below(_SEGMENTS_BYTES / a_row)), _power_from(rows))
            chunk = min(shard, max(1, _power_below(_CHUNK_BYTES / a_row)))
            return ArrayPlan(
                name=name, rows=Rows.SEGMENTS, shape=(rows, *shape), dtype=dtype, shard=shard, chunk=(chunk, *shape)
            )

        if config.memory_layers:
            yield plan("bank", (config.slots, config.slot_dim), self.segments + 1, self.dtype)
        for of in self.maps:
            yield plan(f"{of.name}/heads", (of.heads, len(STATISTICS)))
            if of.what is What.READS:
                yield plan(f"{of.name}/mass", (of.heads, config.slots))
        for name, site, layer in self.gates:
            rows, features = (site.sizes(config, 0, 1)[axis] for axis in site.axes)
            if site.axes[0] is not Axis.TOKEN:
                yield plan(f"gates/{layer}/{name}/rows", (len(SUMMARIES), rows))
            yield plan(f"gates/{layer}/{name}/features", (len(SUMMARIES), features))

    @cached_property
    def gates(self) -> tuple[tuple[str, AnySite, int], ...]:
        """The gates of each block: name, site and block."""
        gates = self.config.memory.design.gates
        return tuple(
            (name, gate.site, layer) for name, gate in gates.items() for layer in sorted(self.config.memory_layers)
        )


def is_store(folder: Path) -> bool:
    """Whether a folder is a store, whole or not."""
    return (folder / FILE).is_file()


def _bytes_of(dtype: str) -> int:
    return {"float16": 2, "bfloat16": 2, "float32": 4, "int32": 4}[dtype]


def _power_below(number: float) -> int:
    """The largest power of two that is not above a number of at least 1; 1 for less."""
    return 1 << max(0, int(number).bit_length() - 1)


def _power_from(number: int) -> int:
    """The smallest power of two that is not below a number."""
    return 1 << max(0, number - 1).bit_length()
