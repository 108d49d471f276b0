"""The passages in which a slot is read or written most, and others to score a description by."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from probes.explain.passages import LONGEST, Passage
from probes.explain.spec import Signal

_MARKED = 0.5
"""Tokens with at least this share of a passage's largest value are marked."""
_ACTIVE, _QUIET = 0.75, 0.5
"""Quantiles of a slot's peaks: in passages from the first one up it is active, up to the second one it is quiet."""
_SAMPLE = 1024
_CELLS = 2**24
"""A sample has at most `_SAMPLE` passages, and fewer where these would have more values than `_CELLS`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotContext:
    """A passage with one slot's values."""

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
        """The text with the marked tokens in <<>>, neighbours together; None marks those of `marked`."""
        places = np.flatnonzero(self.marked if marked is None else marked)
        text, end = "", 0
        for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else ():
            left, right = max(end, self.spans[run[0]][0]), self.spans[run[-1]][1]
            text += f"{self.text[end:left]}<<{self.text[left:right]}>>"
            end = right
        return text + self.text[end:]


class Tops:
    """The passages with each slot's largest values among all that were added: no text twice, and every story once
    before one comes again."""

    def __init__(self, signal: Signal, slots: int, count: int, each: int) -> None:
        """Keeps `count` passages of each slot, at most `each` of them from one story."""
        self._signal, self._count, self._each = signal, count, each
        self._tops: list[list[SlotContext]] = [[] for _ in range(slots)]

    def add(self, passages: Sequence[Passage]) -> None:
        """Consider the passages of one document."""
        passages = [passage for passage in passages if self._signal in passage.values]
        if not passages:
            return
        peaks = np.array([passage.values[self._signal].max(0) for passage in passages])
        best = np.argsort(-peaks, axis=0, kind="stable")[: self._each + self._count]
        for slot, top in enumerate(self._tops):
            full = len({context.group for context in top}) == self._count
            least = min(context.peak for context in top) if full else -np.inf
            new = [SlotContext.of(passages[i], self._signal, slot) for i in best[:, slot] if peaks[i, slot] > least]
            if new:
                self._tops[slot] = self._best([*top, *new])

    def _best(self, contexts: Sequence[SlotContext]) -> list[SlotContext]:
        ranked: list[tuple[int, SlotContext]] = []
        for context in sorted(contexts, key=lambda context: -context.peak):
            rank = sum(other.group == context.group for _, other in ranked)
            if rank < self._each and all(other.text != context.text for _, other in ranked):
                ranked.append((rank, context))
        return [context for _, context in sorted(ranked, key=lambda pair: pair[0])[: self._count]]

    def of(self, slot: int) -> tuple[SlotContext, ...]:
        """The largest first, every story's best before any second one."""
        return tuple(self._tops[slot])


class Sample:
    """Passages drawn from all that were added, each with the same chance (Vitter 1985)."""

    def __init__(self, slots: int, seed: int) -> None:
        self._size = max(64, min(_SAMPLE, _CELLS // (slots * LONGEST)))
        self._rng, self._seen = np.random.default_rng(seed), 0
        self.passages: list[Passage] = []

    def add(self, passages: Sequence[Passage]) -> None:
        for passage in passages:
            self._seen += 1
            if len(self.passages) < self._size:
                self.passages.append(passage)
            elif (index := self._rng.integers(self._seen)) < self._size:
                self.passages[index] = passage


class Sampling(Enum):
    """How a passage was chosen to score a description."""

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
    """The passages of one half of the texts, with one signal's values, from which items are drawn."""

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
        seen: set[str] = set(without)
        items: list[Item] = []

        def take(drawn: Sampling, contexts: Iterable[SlotContext], count: int) -> None:
            """Add the first `count` contexts whose text is new."""
            for context in contexts:
                if count <= 0:
                    return
                if context.text not in seen:
                    seen.add(context.text)
                    items.append(Item(context=context, drawn=drawn))
                    count -= 1

        half = count // 2
        take(Sampling.TOP, (context for context in self._tops.of(slot) if context.peak >= high), half // 2)
        upper = [i for i in np.argsort(-peaks, kind="stable") if peaks[i] >= high]
        take(Sampling.QUANTILE, self._contexts(_spread(upper), slot), half - len(items))
        active = len(items)
        lower = [i for i in rng.permutation(len(peaks)) if peaks[i] <= low]
        stories = {item.context.group for item in items}
        busy = np.delete(self._ranks, slot, axis=1).max(1, initial=0)
        hard = sorted((i for i in lower if self._passages[i].group in stories), key=lambda i: -busy[i])
        take(Sampling.HARD, self._contexts(hard, slot), active // 2)
        take(Sampling.OTHER, self._contexts(lower, slot), 2 * active - len(items))
        each = min(active, len(items) - active)
        balanced = items[:each] + items[active : active + each]
        return tuple(balanced[i] for i in rng.permutation(len(balanced)))

    def _contexts(self, indexes: Iterable[int], slot: int) -> Iterator[SlotContext]:
        return (SlotContext.of(self._passages[i], self._signal, slot) for i in indexes)


def _spread(ordered: Sequence[int]) -> list[int]:
    """All of them, in an order whose every beginning is spread evenly: by index, its bits read backwards."""
    return [ordered[i] for i in sorted(range(len(ordered)), key=lambda i: f"{i:032b}"[::-1])]
