"""Contexts: the passages in which a slot is read or written most, and others to score a description by."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from probes.explain.passages import LONGEST, Passage
from probes.explain.spec import Signal

_MARKED = 0.5
"""Tokens with so much of a passage's largest value are marked."""
_ACTIVE, _QUIET = 0.75, 0.5
"""A slot is active in a passage whose largest value is in its upper quarter, and quiet in the lower half; between them
is neither."""
_SAMPLE = 1024
_CELLS = 2**24
"""Passages that are drawn of a half: so many, and fewer where they would have more values than this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotContext:
    """A passage as one slot met it."""

    group: str
    segment: int
    start: int
    text: str
    spans: tuple[tuple[int, int], ...]
    values: Float[np.ndarray, "token"]

    @classmethod
    def of(cls, passage: Passage, signal: Signal, slot: int) -> "SlotContext":
        return cls(
            group=passage.group,
            segment=passage.segment,
            start=passage.start,
            text=passage.text,
            spans=passage.spans,
            values=passage.values[signal][:, slot].copy(),
        )

    @property
    def peak(self) -> float:
        return float(self.values.max())

    @property
    def marked(self) -> Bool[np.ndarray, "token"]:
        """The tokens with at least half of the largest value."""
        return self.values >= _MARKED * self.values.max()

    def with_marks(self, marked: Bool[np.ndarray, "token"] | None = None) -> str:
        """The text with the marked tokens <<so>>; neighbours share their marks. None, those with the largest values."""
        marked = self.marked if marked is None else marked
        places = np.flatnonzero(marked)
        runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
        text, end = "", 0
        for run in runs if len(places) else ():
            left, right = max(end, self.spans[run[0]][0]), self.spans[run[-1]][1]
            text += f"{self.text[end:left]}<<{self.text[left:right]}>>"
            end = right
        return text + self.text[end:]


class Tops:
    """The passages with the largest values of each slot, as they stream by: no text twice, and every story once before
    one comes again."""

    def __init__(self, signal: Signal, slots: int, count: int, each: int) -> None:
        self._signal, self._count, self._each = signal, count, each
        self._held: list[list[SlotContext]] = [[] for _ in range(slots)]

    def add(self, passages: Sequence[Passage]) -> None:
        """Those of one document."""
        passages = [passage for passage in passages if self._signal in passage.values]
        if not passages:
            return
        peaks = np.array([passage.values[self._signal].max(0) for passage in passages])
        best = np.argsort(-peaks, axis=0, kind="stable")[: self._each + self._count]
        for slot, held in enumerate(self._held):
            full = len({one.group for one in held}) == self._count
            least = min(one.peak for one in held) if full else -np.inf
            new = [SlotContext.of(passages[at], self._signal, slot) for at in best[:, slot] if peaks[at, slot] > least]
            self._held[slot] = self._kept([*held, *new]) if new else held

    def _kept(self, found: Sequence[SlotContext]) -> list[SlotContext]:
        ranked: list[tuple[int, SlotContext]] = []
        for one in sorted(found, key=lambda one: -one.peak):
            rank = sum(other.group == one.group for _, other in ranked)
            if rank < self._each and all(other.text != one.text for _, other in ranked):
                ranked.append((rank, one))
        return [one for _, one in sorted(ranked, key=lambda pair: pair[0])[: self._count]]

    def of(self, slot: int) -> tuple[SlotContext, ...]:
        """The largest first, every story's best before any second one."""
        return tuple(self._held[slot])


class Sample:
    """Passages drawn from all that stream by, each with the same chance (Vitter 1985)."""

    def __init__(self, slots: int, seed: int) -> None:
        self._most = max(64, min(_SAMPLE, _CELLS // (slots * LONGEST)))
        self._rng, self._met = np.random.default_rng(seed), 0
        self.passages: list[Passage] = []

    def add(self, passages: Sequence[Passage]) -> None:
        for passage in passages:
            self._met += 1
            if len(self.passages) < self._most:
                self.passages.append(passage)
            elif (at := self._rng.integers(self._met)) < self._most:
                self.passages[at] = passage


class Sampling(Enum):
    """How a passage came to score a description."""

    TOP = "the slot's largest values"
    QUANTILE = "spread over the upper quarter of its values"
    HARD = "the same stories, where another slot is most active"
    OTHER = "anywhere in the lower half of its values"

    @property
    def active(self) -> bool:
        return self in (Sampling.TOP, Sampling.QUANTILE)


@dataclass(frozen=True, kw_only=True)
class Item:
    """A passage that scores a description."""

    context: SlotContext
    drawn: Sampling


class Scoring:
    """One half's passages of one signal, from which items are drawn."""

    def __init__(self, signal: Signal, tops: Tops, sample: Sample) -> None:
        self._signal, self._tops = signal, tops
        self._passages = [passage for passage in sample.passages if signal in passage.values]
        self._peaks = np.array([passage.values[signal].max(0) for passage in self._passages])
        self._ranks = rankdata(self._peaks, axis=0) / len(self._passages) if self._passages else self._peaks

    def items(self, slot: int, count: int, *, without: Collection[str], rng: np.random.Generator) -> tuple[Item, ...]:
        """Up to `count` items of a slot in random order, as many active as quiet, no text twice and none of `without`.

        There are none where the slot's values do not vary.
        """
        if not self._passages:
            return ()
        peaks = self._peaks[:, slot]
        high, low = np.quantile(peaks, [_ACTIVE, _QUIET])
        if high <= low:
            return ()
        drawn = _Draw(set(without))
        half = count // 2
        drawn.take(Sampling.TOP, [one for one in self._tops.of(slot) if one.peak >= high], half // 2)
        upper = [at for at in np.argsort(-peaks, kind="stable") if peaks[at] >= high]
        drawn.take(Sampling.QUANTILE, self._contexts(_spread(upper), slot), half - len(drawn.items))
        active = len(drawn.items)
        lower = [at for at in rng.permutation(len(peaks)) if peaks[at] <= low]
        stories = {item.context.group for item in drawn.items}
        busy = np.delete(self._ranks, slot, axis=1).max(1, initial=0)
        hard = sorted((at for at in lower if self._passages[at].group in stories), key=lambda at: -busy[at])
        drawn.take(Sampling.HARD, self._contexts(hard, slot), active // 2)
        drawn.take(Sampling.OTHER, self._contexts(lower, slot), 2 * active - len(drawn.items))
        return drawn.balanced(rng)

    def _contexts(self, places: Sequence[int], slot: int) -> list[SlotContext]:
        return [SlotContext.of(self._passages[at], self._signal, slot) for at in places]


class _Draw:
    """Items as they are drawn."""

    def __init__(self, told: set[str]) -> None:
        self._told, self.items = told, []

    def take(self, drawn: Sampling, contexts: Sequence[SlotContext], count: int) -> None:
        """The first `count` whose text is new."""
        for context in contexts:
            if count > 0 and context.text not in self._told:
                self._told.add(context.text)
                self.items.append(Item(context=context, drawn=drawn))
                count -= 1

    def balanced(self, rng: np.random.Generator) -> tuple[Item, ...]:
        active, quiet = ([item for item in self.items if item.drawn.active is there] for there in (True, False))
        each = min(len(active), len(quiet))
        kept = [*active[:each], *quiet[:each]]
        return tuple(kept[at] for at in rng.permutation(len(kept)))


def _spread(ordered: Sequence[int]) -> list[int]:
    """All of them, in an order whose every beginning is spread evenly: places by their bits read backwards."""
    return [ordered[at] for at in sorted(range(len(ordered)), key=lambda at: f"{at:032b}"[::-1])]
