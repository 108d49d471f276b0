"""What a description of a slot is worth: judged on passages that it was not made from, beside three texts that know
nothing of the slot."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from lm2.intervals import Difference, Rate, difference, rate
from probes.explain.contexts import Item
from probes.explain.describe import AT_ONCE, Trial, judge
from probes.explain.llm import Chat


class Text(Enum):
    """What stands in a description's place."""

    DESCRIPTION = "the description"
    OTHER_SLOT = "another slot's description"
    RANDOM = "a random passage"
    WORDS = "the plain list of keywords"


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """How one text fared in one trial. All texts of a slot are judged on the same items, half of which are right to be
    told apart by 1."""

    trial: Trial
    text: Text
    right: tuple[bool, ...]
    """For each item; a reply that could not be read, and a description that there is none of, counts as wrong."""
    unread: int
    """Items whose reply could not be read."""
    groups: tuple[str, ...]
    """The story of each item."""

    @property
    def rate(self) -> Rate:
        """Balanced accuracy, since both classes are as large; clustered by story. Chance is a half."""
        return rate(self.right, self.groups)


def pooled(verdicts: Sequence[Verdicts]) -> Verdicts:
    """One text in one trial over several slots. Raises ValueError where there are none."""
    if not verdicts:
        raise ValueError("there are no verdicts to pool")
    return Verdicts(
        trial=verdicts[0].trial,
        text=verdicts[0].text,
        unread=sum(verdict.unread for verdict in verdicts),
        right=tuple(hit for verdict in verdicts for hit in verdict.right),
        groups=tuple(group for verdict in verdicts for group in verdict.groups),
    )


def ahead(description: Verdicts, other: Verdicts, *, seed: int = 0) -> Difference:
    """How much more often the description is right than another text, item by item."""
    return difference(description.right, other.right, description.groups, seed=seed)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A passage as it is put to the model."""

    passage: str
    truth: bool
    group: str


def score(
    chat: Chat,
    texts: Mapping[Text, str | None],
    items: Sequence[Item],
    *,
    rng: np.random.Generator,
    on_reply: Callable[[], None] = lambda: None,
) -> tuple[Verdicts, ...]:
    """Every text in both trials. `on_reply` hears of each `AT_ONCE` items that have been judged.

    Raises as `Chat.ask` does.
    """
    asked = {
        Trial.DETECTION: [
            _Asked(passage=one.context.text, truth=one.drawn.active, group=one.context.group) for one in items
        ],
        Trial.FUZZING: _fuzzed(items, rng),
    }
    trials = [trial for trial in Trial if asked[trial]]
    return tuple(
        _verdicts(chat, trial, kind, text, asked[trial], on_reply) for trial in trials for kind, text in texts.items()
    )


def _verdicts(
    chat: Chat, trial: Trial, kind: Text, text: str | None, asked: Sequence[_Asked], on_reply: Callable[[], None]
) -> Verdicts:
    right: list[bool] = []
    unread = 0
    for start in range(0, len(asked), AT_ONCE):
        few = asked[start : start + AT_ONCE]
        said = None if text is None else judge(chat, trial, text, [one.passage for one in few])
        right += [False] * len(few) if said is None else [verdict == one.truth for verdict, one in zip(said, few)]
        unread += len(few) if said is None else 0
        on_reply()
    return Verdicts(trial=trial, text=kind, right=tuple(right), unread=unread, groups=tuple(one.group for one in asked))


def _fuzzed(items: Sequence[Item], rng: np.random.Generator) -> list[_Asked]:
    """The active passages, half of them with the tokens marked that have the largest values, half with as many of the
    others."""
    contexts = [one.context for one in items if one.drawn.active]
    # Else there are not as many others.
    contexts = [context for context in contexts if 2 * context.marked.sum() <= len(context.values)]
    contexts = contexts[: len(contexts) // 2 * 2]
    asked = []
    for at, place in enumerate(rng.permutation(len(contexts))):
        one, truth = contexts[place], at % 2 == 0
        marked = one.marked
        if not truth:
            others = rng.choice(np.flatnonzero(~marked), marked.sum(), replace=False)
            marked = np.isin(np.arange(len(marked)), others)
        asked.append(_Asked(passage=one.with_marks(marked), truth=truth, group=one.group))
    return [asked[at] for at in rng.permutation(len(asked))]
