"""Which neighbours of an axis are drawn as one cell where there is no room for all of them, and what that cell
shows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float, Int


class Pooling(Enum):
    """What a cell shows that stands for several values."""

    LARGEST = "largest"
    LEAST = "least"
    EXTREME = "most extreme"
    """The farthest from the middle of the colour scale."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """How an axis is drawn: every place belongs to one cell."""

    owner: Int[np.ndarray, "place"]
    """The cell that each place is drawn in. Cells are counted along the axis, by the first place of each."""
    joined: bool = False
    """Whether cells hold several segments."""

    @property
    def count(self) -> int:
        return int(self.owner.max(initial=-1)) + 1

    @property
    def whole(self) -> bool:
        """Whether every place has a cell of its own."""
        return self.count == len(self.owner)

    @property
    def order(self) -> Int[np.ndarray, "place"]:
        """The places, cell by cell."""
        return np.argsort(self.owner, kind="stable")

    @property
    def sizes(self) -> Int[np.ndarray, "cell"]:
        """How many places each cell stands for, and so how wide it is drawn."""
        return np.bincount(self.owner)

    @property
    def edges(self) -> Int[np.ndarray, "cell_and_end"]:
        """Where cells begin, and where the last one ends."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def labels(self, names: Sequence[str]) -> list[str]:
        """Of each cell: its place's name, or those of its first and last place."""
        if self.whole:
            return list(names)
        order, edges = self.order, self.edges
        ends = zip(order[edges[:-1]], order[edges[1:] - 1])
        return [names[first] if first == last else f"{names[first]} to {names[last]}" for first, last in ends]

    def dots(self, count: int) -> Int[np.ndarray, "dot"]:
        """The cell that each of `count` dots along the axis shows; every cell has one at least. Raises ValueError for
        fewer dots than cells."""
        if count < self.count:
            raise ValueError(f"{self.count} cells of unlike things have room for {count}")
        starts = np.ceil(self.edges[:-1] * count / len(self.owner) - 0.5).astype(int)  # the cell below a dot's middle
        at = np.arange(self.count)
        starts = np.maximum.accumulate(starts - at) + at
        starts = np.minimum(starts, count - self.count + at)
        return np.searchsorted(starts, np.arange(count), side="right") - 1


def cells(places: int, most: int, starts: Sequence[int] = (), kinds: Sequence[Hashable] = ()) -> Cells:
    """At most `most` cells of neighbours, about equally many places in each.

    Args:
        starts: places at which segments begin. A cell holds places of one segment; where there are more segments than
            cells, whole segments.
        kinds: what each place is of, where that is not the same for all: a cell holds places of one kind, whatever
            stands between them. There are more than `most` cells only where there are more kinds.
    """
    if places <= most:
        return Cells(owner=np.arange(places))
    known = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    kind_of = np.array([known[kind] for kind in kinds]) if kinds else np.zeros(places, int)
    segment_of = np.searchsorted(np.array(sorted(starts)), np.arange(places), side="right")
    members = np.bincount(kind_of)
    shares = max(0, most - len(members)) * members // places + 1
    owner, joined, first = np.empty(places, int), False, 0
    for kind, share in enumerate(shares):
        own = np.flatnonzero(kind_of == kind)
        split, whole_segments = _split(segment_of[own], int(share))
        owner[own] = first + split
        first += split[-1] + 1
        joined = joined or whole_segments
    _, begins, numbers = np.unique(owner, return_index=True, return_inverse=True)
    return Cells(owner=np.argsort(np.argsort(begins))[numbers], joined=joined)


def _split(segment_of: Int[np.ndarray, "place"], most: int) -> tuple[Int[np.ndarray, "place"], bool]:
    """The cell of each place, and whether cells hold whole segments because there are more of these than cells."""
    places = len(segment_of)
    begins = np.flatnonzero(np.diff(segment_of, prepend=segment_of[0] - 1))
    sizes = np.diff(begins, append=places)
    if len(begins) > most:
        return np.unique(begins * most // places, return_inverse=True)[1].repeat(sizes), True
    pieces = (most - len(begins)) * sizes // places + 1
    within = np.arange(places) - begins.repeat(sizes)
    return (np.cumsum(pieces) - pieces).repeat(sizes) + within * pieces.repeat(sizes) // sizes.repeat(sizes), False


def pooled(
    values: Float[np.ndarray, "row column"], down: Cells, along: Cells, pooling: Pooling, middle: float
) -> Float[np.ndarray, "pooled_row pooled_column"]:
    """What each cell shows. NaN is left out, and is what a cell without anything else holds. `middle`: of the colour
    scale."""
    if down.whole and along.whole:
        return values

    def reduced(reduce: np.ufunc) -> np.ndarray:
        rows = reduce.reduceat(values[down.order], down.edges[:-1], 0)
        return reduce.reduceat(rows[:, along.order], along.edges[:-1], 1)

    if pooling is not Pooling.EXTREME:
        return reduced(np.fmin if pooling is Pooling.LEAST else np.fmax)
    low, high = reduced(np.fmin), reduced(np.fmax)
    return np.where(high - middle >= middle - low, high, low)


def words(pooling: Pooling, down: tuple[Cells, str], along: tuple[Cells, str]) -> str:
    """ "least of up to 3 tokens", by the axes' cells and what their places are called; empty where nothing is
    pooled."""
    told, uneven = [], False
    for axis, noun in (down, along):
        if not axis.whole:
            told.append(
                f"{axis.sizes.max()} {noun}s"
                + (", whole segments together" if axis.joined and noun != "segment" else "")
            )
            uneven = uneven or axis.sizes.min() < axis.sizes.max()
    return f"{pooling.value} of {'up to ' if uneven else ''}{' by '.join(told)}" if told else ""
