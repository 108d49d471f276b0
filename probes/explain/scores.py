"""Scores of slot descriptions on passages that they were not made from, beside three texts that know nothing of the
slot."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np

from lm2.intervals import Difference, Rate, difference, rate
from probes.explain.contexts import Item
from probes.explain.describe import AT_ONCE, Trial, judge
from probes.explain.llm import Chat


class Text(Enum):
    """What is judged as a description."""

    DESCRIPTION = "the description"
    OTHER_SLOT = "another slot's description"
    RANDOM = "a random passage"
    WORDS = "the plain list of keywords"


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """One text in one trial. All texts of a slot are judged on the same items, half of which should fit."""

    trial: Trial
    text: Text
    right: tuple[bool, ...]
    """For each item; wrong if the reply could not be read, or if there is no description."""
    unread: int
    """Items whose reply could not be read."""
    groups: tuple[str, ...]
    """The story of each item."""

    @property
    def rate(self) -> Rate:
        """Balanced accuracy, since both classes are equally large; clustered by story. Chance is a half."""
        return rate(self.right, self.groups)


def pooled(verdicts: Sequence[Verdicts]) -> Verdicts:
    """The verdicts on several slots as one. Raises ValueError for no verdicts."""
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


class _Question(NamedTuple):
    """A passage for the model to judge."""

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
    """Every text in both trials. `on_reply` is called after each `AT_ONCE` items that are judged.

    Raises as `Chat.ask` does.
    """
    detection = [_Question(item.context.text, item.drawn.active, item.context.group) for item in items]
    trials = {Trial.DETECTION: detection, Trial.FUZZING: _fuzzed(items, rng)}
    return tuple(
        _verdicts(chat, trial, kind, text, questions, on_reply)
        for trial, questions in trials.items()
        if questions
        for kind, text in texts.items()
    )


def _verdicts(
    chat: Chat, trial: Trial, kind: Text, text: str | None, questions: Sequence[_Question], on_reply: Callable[[], None]
) -> Verdicts:
    right: list[bool] = []
    unread = 0
    for start in range(0, len(questions), AT_ONCE):
        batch = questions[start : start + AT_ONCE]
        verdicts = None if text is None else judge(chat, trial, text, [question.passage for question in batch])
        if verdicts is None:
            right += [False] * len(batch)
            unread += len(batch)
        else:
            right += [verdict == question.truth for verdict, question in zip(verdicts, batch)]
        on_reply()
    groups = tuple(question.group for question in questions)
    return Verdicts(trial=trial, text=kind, right=tuple(right), unread=unread, groups=groups)


def _fuzzed(items: Sequence[Item], rng: np.random.Generator) -> list[_Question]:
    """The active passages: half with the tokens marked that have the largest values, half with as many others."""
    contexts = [item.context for item in items if item.drawn.active]
    # Passages with fewer other tokens than marked ones are left out.
    contexts = [context for context in contexts if 2 * context.marked.sum() <= len(context.values)]
    contexts = contexts[: len(contexts) // 2 * 2]
    questions = []
    for i, place in enumerate(rng.permutation(len(contexts))):
        context, truth = contexts[place], i % 2 == 0
        marked = context.marked
        if not truth:
            others = rng.choice(np.flatnonzero(~marked), marked.sum(), replace=False)
            marked = np.isin(np.arange(len(marked)), others)
        questions.append(_Question(context.with_marks(marked), truth, context.group))
    return [questions[i] for i in rng.permutation(len(questions))]
