"""Slot explanations: what reads and writes each slot over many texts, and what a language model makes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
"""Keywords with a q up to this are told in summaries."""

OnStep = Callable[[int, int], None]
"""Hears of steps done, and of all that there are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotExplanation:
    """What one slot is read or written by."""

    signal: Signal
    slot: int
    share: float
    """Of all slots' reading or writing, on the stories shown."""
    contexts: tuple[SlotContext, ...]
    """The largest values first; from the stories shown."""
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
    """What a language model says of one slot, and what that is worth."""

    signal: Signal
    slot: int
    description: str | None
    """None where its reply could not be read."""
    texts: dict[Text, str | None]
    """What was judged."""
    verdicts: tuple[Verdicts, ...]

    def of(self, trial: Trial, text: Text) -> Verdicts | None:
        """None where there was no passage to judge."""
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
    slots: tuple[SlotExplanation, ...]
    """By signal, then by slot."""
    random: tuple[str, ...]
    """Passages drawn from the stories shown."""

    def of(self, signal: Signal, slot: int) -> SlotExplanation:
        """Raises KeyError for a signal or slot that was not looked at."""
        if (signal, slot) not in self._by_place:
            raise KeyError(f"there is no explanation of what {signal.value}s slot {slot}")
        return self._by_place[signal, slot]

    @cached_property
    def _by_place(self) -> dict[tuple[Signal, int], SlotExplanation]:
        return {(slot.signal, slot.slot): slot for slot in self.slots}


def explain(checkpoint: Checkpoint, spec: ExplainSpec, on_document: OnStep = lambda done, total: None) -> Explanations:
    """Read the spec's texts and keep of each slot what reads and writes it most. No language model is asked; see
    `describe_slots`.

    Raises ValueError for texts of which nothing can be told, and as `corpus` and `passages` do.
    """
    texts = corpus(spec, checkpoint.tokenizer)
    total, done = len(texts.shown) + len(texts.scored), 0

    def count() -> None:
        nonlocal done
        done += 1
        on_document(done, total)

    shown = _Half(checkpoint, spec, texts.shown, most=spec.contexts, each=spec.each, seed=spec.seed, count=count)
    # Of what scores, more of the best than is needed: what was shown word for word is left out.
    most = spec.items + spec.contexts
    scored = _Half(checkpoint, spec, texts.scored, most=most, each=spec.items, seed=spec.seed + 1, count=count)
    found = tuple(
        slot_explanation for signal in spec.signals for slot_explanation in _explained(signal, spec, shown, scored)
    )
    return Explanations(
        spec=spec,
        checkpoint_digest=checkpoint.digest,
        corpus_digest=texts.digest,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        shown=len(texts.shown),
        scored=len(texts.scored),
        slots=found,
        random=tuple(passage.text for passage in shown.sample.passages),
    )


class _Half:
    """What is kept of one half of the texts while they stream by."""

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
        for found in passages(checkpoint, entries, spec, on_document=count):
            self.sample.add(found)
            for signal in spec.signals:
                self.tops[signal].add(found)
                self.masses[signal].add(found)


def _explained(signal: Signal, spec: ExplainSpec, shown: _Half, scored: _Half) -> list[SlotExplanation]:
    masses, tops = shown.masses[signal], shown.tops[signal]
    if not masses.words or not scored.masses[signal].words:
        raise ValueError(
            f"nothing {signal.value}s a slot in half of these texts: each is a single segment, in which nothing is read"
            " that was written. Longer texts, or shorter segments, have more"
        )
    scoring = Scoring(signal, scored.tops[signal], scored.sample)
    found = []
    for slot, (share, words) in enumerate(zip(masses.share, keywords(masses, scored.masses[signal], spec.keywords))):
        contexts = tops.of(slot)
        items = scoring.items(
            slot, spec.items, without={context.text for context in contexts}, rng=_rng(spec, signal, slot)
        )
        found.append(
            SlotExplanation(
                signal=signal, slot=slot, share=float(share), contexts=contexts, keywords=words, items=items
            )
        )
    return found


def _rng(spec: ExplainSpec, signal: Signal, slot: int) -> np.random.Generator:
    return np.random.default_rng([spec.seed, list(Signal).index(signal), slot])


def describe_slots(
    found: Explanations, chat: Chat, on_reply: OnStep = lambda done, total: None
) -> tuple[Described, ...]:
    """Let a language model describe the slots of `found.spec` from the contexts shown, and judge the items by that and
    three other texts.

    Every reply is kept by `chat`, so that a run that was stopped goes on. Raises ValueError with fewer than 2 slots,
    and as `Chat.ask` does.
    """
    spec = found.spec
    wanted = [
        slot for slot in found.slots if slot.signal in spec.signals and (spec.slots is None or slot.slot in spec.slots)
    ]
    if len({slot.slot for slot in found.slots}) < 2:
        raise ValueError("a description is judged beside another slot's: at least 2 slots are needed")
    judged = sum(-(-len(one.items) // AT_ONCE) + -(-(len(one.items) // 2) // AT_ONCE) for one in wanted)
    total, done = 2 * len(wanted) + len(Text) * judged, 0

    def count() -> None:
        nonlocal done
        done += 1
        on_reply(done, total)

    return tuple(_described(found, one, chat, count) for one in wanted)


def _described(found: Explanations, one: SlotExplanation, chat: Chat, count: Callable[[], None]) -> Described:
    rng = _rng(found.spec, one.signal, one.slot)
    others = [other for other in found.slots if other.signal is one.signal and other.slot != one.slot]
    other = others[rng.integers(len(others))]
    said = []
    for slot in (one, other):
        said.append(describe(chat, slot.signal, slot.contexts))
        count()
    texts = {
        Text.DESCRIPTION: said[0],
        Text.OTHER_SLOT: said[1],
        Text.RANDOM: found.random[rng.integers(len(found.random))],
        Text.WORDS: one.words,
    }
    return Described(
        signal=one.signal,
        slot=one.slot,
        description=said[0],
        texts=texts,
        verdicts=score(chat, texts, one.items, rng=rng, on_reply=count),
    )
