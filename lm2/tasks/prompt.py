"""A question after its context, as every experiment, sweep, probe and evaluation asks it, wherever it is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

from lm2.text.tokens import BREAK

Span = tuple[int, int]
"""Start and end character of a text: text[start:end]."""


class Label(NamedTuple):
    """Something that is true of a stretch of a text, such as where somebody is while it is read."""

    name: str
    value: str
    start: int
    end: int
    """Characters of the prompt's text."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One question asked alone after its context.

    The model's continuation is a blank and an answer; neither is part of `text`.
    """

    text: str
    """Context and question."""
    question_span: Span
    answers: tuple[str, ...]
    """Those that are accepted; the first is the one that is read after the prompt."""
    group: str
    """Prompts of one group share facts, and count as one where an interval is made."""
    statement_spans: tuple[Span, ...] = ()
    """Of what the context says, in order: a bAbI story's statements, else sentences."""
    support: tuple[int, ...] = ()
    """Indexes into `statements` of the facts that justify the answer; empty where they are not known."""
    rivals: tuple[str, ...] = ()
    """Wrong answers that it stands against; empty, the other answers of its set."""
    labels: tuple[Label, ...] = ()
    task: int | None = None
    """bAbI's task, of which its sentences are; None for sentences of other kinds."""

    @classmethod
    def after(
        cls,
        context: str,
        question: str,
        *,
        answers: tuple[str, ...],
        group: str,
        statement_spans: tuple[Span, ...] = (),
        support: tuple[int, ...] = (),
        rivals: tuple[str, ...] = (),
        task: int | None = None,
        joint: str = BREAK,
    ) -> Self:
        """A question after its context, parted by one character: by default a form feed, so that the question has a
        segment of its own. Without a context it stands alone."""
        start = len(context) + len(joint) if context else 0
        return cls(
            text=f"{context}{joint}{question}" if context else question,
            question_span=(start, start + len(question)),
            answers=answers,
            group=group,
            statement_spans=statement_spans,
            support=support,
            rivals=rivals,
            task=task,
        )

    def in_context(self, context: str, statement_spans: tuple[Span, ...]) -> Self:
        """The same question after another context, which has the same statements elsewhere. Labels, whose places are
        not known there, are left out."""
        return self.after(
            context,
            self.question,
            answers=self.answers,
            group=self.group,
            statement_spans=statement_spans,
            support=self.support,
            rivals=self.rivals,
            task=self.task,
        )

    @property
    def context(self) -> str:
        """What stands before the question, without the character that parts them."""
        return self.text[: max(0, self.question_span[0] - 1)]

    @property
    def answer(self) -> str:
        return self.answers[0]

    @property
    def question(self) -> str:
        return self.text[slice(*self.question_span)]

    @property
    def statements(self) -> tuple[str, ...]:
        return tuple(self.text[start:end] for start, end in self.statement_spans)
