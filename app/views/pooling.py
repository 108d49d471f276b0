"""How neighbours on an axis are pooled into cells where there is no room for all of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Float, Int


class Pooling(Enum):
    """The value that is drawn for a cell of several values."""

    LARGEST = "largest"
    LEAST = "least"
    EXTREME = "most extreme"
    """The farthest from the middle of the colour scale."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The cells of an axis; every place belongs to one."""

    owner: Int[np.ndarray, "place"]
    """The cell of each place. Cells are numbered in the order of their first places."""
    joined: bool = False
    """Whether cells hold several whole segments."""

    @property
    def count(self) -> int:
        return int(self.owner.max(initial=-1)) + 1

    @property
    def whole(self) -> bool:
        """Whether every place has a cell of its own."""
        return self.count == len(self.owner)

    @property
    def order(self) -> Int[np.ndarray, "place"]:
        """The places in the order of their cells."""
        return np.argsort(self.owner, kind="stable")

    @property
    def sizes(self) -> Int[np.ndarray, "cell"]:
        """Places in each cell, which is also its width."""
        return np.bincount(self.owner)

    @property
    def edges(self) -> Int[np.ndarray, "cell_and_end"]:
        """Where cells begin, and where the last ends."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def labels(self, names: Sequence[str]) -> list[str]:
        """A label for each cell: its place's name, or those of its first and last place."""
        if self.whole:
            return list(names)
        order, edges = self.order, self.edges
        ends = zip(order[edges[:-1]], order[edges[1:] - 1])
        return [names[first] if first == last else f"{names[first]} to {names[last]}" for first, last in ends]

    def dots(self, count: int) -> Int[np.ndarray, "dot"]:
        """The cell that each of `count` dots along the axis shows; every cell has a dot. Raises ValueError if there are
        fewer dots than cells."""
        if count < self.count:
            raise ValueError(f"{self.count} cells of unlike things have room for {count}")
        starts = np.ceil(self.edges[:-1] * count / len(self.owner) - 0.5).astype(int)  # the cell below a dot's middle
        cell = np.arange(self.count)
        starts = np.maximum.accumulate(starts - cell) + cell
        starts = np.minimum(starts, count - self.count + cell)
        return np.searchsorted(starts, np.arange(count), side="right") - 1


def cells(places: int, most: int, starts: Sequence[int] = (), kinds: Sequence[Hashable] = ()) -> Cells:
    """At most `most` cells of neighbours, about equally many places in each.

    Args:
        starts: places at which segments begin. A cell holds places of one segment, or whole segments if there are more
            segments than cells.
        kinds: the kind of each place, if there are several. A cell holds places of one kind, even if others lie
            between them; if there are more than `most` kinds, each has a cell.
    """
    if places <= most:
        return Cells(owner=np.arange(places))
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    kind_of = np.array([numbers[kind] for kind in kinds]) if kinds else np.zeros(places, int)
    segment_of = np.searchsorted(np.array(sorted(starts)), np.arange(places), side="right")
    sizes = np.bincount(kind_of)
    shares = max(0, most - len(sizes)) * sizes // places + 1
    owner, joined, first = np.empty(places, int), False, 0
    for kind, share in enumerate(shares):
        members = np.flatnonzero(kind_of == kind)
        cell_of, whole_segments = _split(segment_of[members], int(share))
        owner[members] = first + cell_of
        first += cell_of[-1] + 1
        joined = joined or whole_segments
    _, begins, cell = np.unique(owner, return_index=True, return_inverse=True)
    return Cells(owner=np.argsort(np.argsort(begins))[cell], joined=joined)


def _split(segment_of: Int[np.ndarray, "place"], most: int) -> tuple[Int[np.ndarray, "place"], bool]:
    """The cell of each place, and whether cells hold whole segments."""
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
    """The value of each cell, ignoring NaN; NaN for a cell with nothing else. `middle`: of the colour scale."""
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
    """What a cell shows, such as "least of up to 3 tokens"; empty if nothing is pooled. The axes have a noun each."""
    axes = [(cells, noun) for cells, noun in (down, along) if not cells.whole]
    if not axes:
        return ""
    uneven = any(cells.sizes.min() < cells.sizes.max() for cells, _ in axes)
    sizes = [
        f"{cells.sizes.max()} {noun}s{', whole segments together' if cells.joined and noun != 'segment' else ''}"
        for cells, noun in axes
    ]
    return f"{pooling.value} of {'up to ' if uneven else ''}{' by '.join(sizes)}"
