"""Slot explanations: what reads and writes each slot over many texts, and a language model's description of it."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lm2.weights.checkpoint import Checkpoint
from probes.explain.contexts import Item, Sample, Scoring, SlotContext, Tops
from probes.explain.corpus import Entry, corpus
from probes.explain.describe import AT_ONCE, Trial, describe
from probes.explain.keywords import Keyword, Masses, keywords
from probes.explain.llm import Chat
from probes.explain.passages import passages
from probes.explain.scores import Text, Verdicts, score
from probes.explain.spec import ExplainSpec, Signal

SIGNIFICANT = 0.05
"""Keywords with a q up to this are in summaries."""

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotExplanation:
    """What one slot is read or written by."""

    signal: Signal
    slot: int
    share: float
    """Of all slots' reading or writing, on the stories shown."""
    contexts: tuple[SlotContext, ...]
    """From the stories shown, the largest values first."""
    keywords: tuple[Keyword, ...]
    """The surest first."""
    items: tuple[Item, ...]
    """From the other stories, to score a description by."""

    @property
    def significant(self) -> tuple[Keyword, ...]:
        return tuple(keyword for keyword in self.keywords if keyword.q <= SIGNIFICANT)

    @property
    def words(self) -> str:
        """The plain list of keywords."""
        return ", ".join(keyword.word for keyword in self.keywords)


@dataclass(frozen=True, kw_only=True)
class Described:
    """A language model's description of one slot, with its scores."""

    signal: Signal
    slot: int
    description: str | None
    """None if the reply could not be read."""
    texts: dict[Text, str | None]
    """What was judged."""
    verdicts: tuple[Verdicts, ...]

    def of(self, trial: Trial, text: Text) -> Verdicts | None:
        """None if there was no passage to judge."""
        return next((verdict for verdict in self.verdicts if (verdict.trial, verdict.text) == (trial, text)), None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanations:
    """All slots of a checkpoint."""

    spec: ExplainSpec
    checkpoint_digest: str
    corpus_digest: str
    device: str
    dtype: str
    shown: int
    scored: int
    """Documents in the two halves."""
    skipped: tuple[str, ...]
    """Documents that the tokenizer cannot take, and why."""
    slots: tuple[SlotExplanation, ...]
    """By signal, then by slot."""
    random: tuple[str, ...]
    """Passages drawn from the stories shown."""

    def of(self, signal: Signal, slot: int) -> SlotExplanation:
        """Raises KeyError for a signal or slot that has no explanation."""
        if (signal, slot) not in self._by_place:
            raise KeyError(f"there is no explanation of what {signal.value}s slot {slot}")
        return self._by_place[signal, slot]

    @cached_property
    def _by_place(self) -> dict[tuple[Signal, int], SlotExplanation]:
        return {(slot.signal, slot.slot): slot for slot in self.slots}


def explain(checkpoint: Checkpoint, spec: ExplainSpec, on_document: OnStep = lambda done, total: None) -> Explanations:
    """Read the spec's texts and find what reads and writes each slot most. `describe_slots` asks a language model.

    The explanations' spec has the digests of the documents' files.

    Raises ValueError for texts whose documents are single segments, and as `corpus` and `passages` do.
    """
    if spec.file is None:
        spec = replace(spec, documents=spec.documents.pinned())
    texts = corpus(spec, checkpoint)
    steps, total = itertools.count(1), len(texts.shown) + len(texts.scored)

    def count() -> None:
        on_document(next(steps), total)

    shown = _Half(checkpoint, spec, texts.shown, most=spec.contexts, each=spec.each, seed=spec.seed, count=count)
    # More of the best than will be scored, because texts that were shown are left out.
    most = spec.items + spec.contexts
    scored = _Half(checkpoint, spec, texts.scored, most=most, each=spec.items, seed=spec.seed + 1, count=count)
    return Explanations(
        spec=spec,
        checkpoint_digest=checkpoint.digest,
        corpus_digest=texts.digest,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        shown=len(texts.shown),
        scored=len(texts.scored),
        skipped=texts.skipped,
        slots=tuple(slot for signal in spec.signals for slot in _explained(signal, spec, shown, scored)),
        random=tuple(passage.text for passage in shown.sample.passages),
    )


class _Half:
    """What one half of the texts comes to."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        spec: ExplainSpec,
        entries: Sequence[Entry],
        *,
        most: int,
        each: int,
        seed: int,
        count: Callable[[], None],
    ) -> None:
        slots = checkpoint.config.slots
        self.tops = {signal: Tops(signal, slots, most, each) for signal in spec.signals}
        self.masses = {signal: Masses(signal, slots) for signal in spec.signals}
        self.sample = Sample(slots, seed)
        for document in passages(checkpoint, entries, spec, on_document=count):
            for collector in (self.sample, *self.tops.values(), *self.masses.values()):
                collector.add(document)


def _explained(signal: Signal, spec: ExplainSpec, shown: _Half, scored: _Half) -> list[SlotExplanation]:
    masses, again = shown.masses[signal], scored.masses[signal]
    if not masses.words or not again.words:
        raise ValueError(
            f"nothing {signal.value}s a slot in half of these texts: each is a single segment, in which nothing is read"
            " that was written. Longer texts, or shorter segments, have more"
        )
    scoring = Scoring(signal, scored.tops[signal], scored.sample)
    explanations = []
    for slot, (share, words) in enumerate(zip(masses.share, keywords(masses, again, spec.keywords))):
        contexts, rng = shown.tops[signal].of(slot), _rng(spec, signal, slot)
        items = scoring.items(slot, spec.items, without={context.text for context in contexts}, rng=rng)
        explanations.append(
            SlotExplanation(
                signal=signal, slot=slot, share=float(share), contexts=contexts, keywords=words, items=items
            )
        )
    return explanations


def _rng(spec: ExplainSpec, signal: Signal, slot: int) -> np.random.Generator:
    return np.random.default_rng([spec.seed, list(Signal).index(signal), slot])


def describe_slots(
    explanations: Explanations, chat: Chat, on_reply: OnStep = lambda done, total: None
) -> tuple[Described, ...]:
    """Let a language model describe the slots that the spec names from their contexts, and judge the items by each
    description and by three other texts.

    `chat` keeps every reply, so a stopped run continues. Raises ValueError with fewer than 2 slots, and as `Chat.ask`
    does.
    """
    spec = explanations.spec
    chosen = [
        slot
        for slot in explanations.slots
        if slot.signal in spec.signals and (spec.slots is None or slot.slot in spec.slots)
    ]
    if len({slot.slot for slot in explanations.slots}) < 2:
        raise ValueError("a description is judged beside another slot's: at least 2 slots are needed")
    judged = sum(-(-len(slot.items) // AT_ONCE) + -(-(len(slot.items) // 2) // AT_ONCE) for slot in chosen)
    steps, total = itertools.count(1), 2 * len(chosen) + len(Text) * judged

    def count() -> None:
        on_reply(next(steps), total)

    return tuple(_described(explanations, slot, chat, count) for slot in chosen)


def _described(explanations: Explanations, slot: SlotExplanation, chat: Chat, count: Callable[[], None]) -> Described:
    rng = _rng(explanations.spec, slot.signal, slot.slot)
    others = [other for other in explanations.slots if other.signal is slot.signal and other.slot != slot.slot]
    own, other = [], others[rng.integers(len(others))]
    for described in (slot, other):
        own.append(describe(chat, described.signal, described.contexts))
        count()
    texts = {
        Text.DESCRIPTION: own[0],
        Text.OTHER_SLOT: own[1],
        Text.RANDOM: explanations.random[rng.integers(len(explanations.random))],
        Text.WORDS: slot.words,
    }
    return Described(
        signal=slot.signal,
        slot=slot.slot,
        description=own[0],
        texts=texts,
        verdicts=score(chat, texts, slot.items, rng=rng, on_reply=count),
    )
