"""bAbI stories: asking their questions, splitting and stretching them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lm2.tasks.prompt import Prompt
from lm2.text.tokens import BREAK


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One fact of a story."""

    line: int
    """Line ID within the story, from 1, shared with the questions."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of a story."""

    line: int
    text: str
    """Without the blank that some official files put before the TAB."""
    answer: str
    """One word, or several joined by commas (tasks 8 and 19)."""
    support: tuple[int, ...]
    """Line IDs of the statements that justify the answer, in the file's order; empty when not given."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """Statements and questions in order."""

    id: str
    """File stem, ":", index of the story in its file from 0; "+N" follows when N statements were added."""
    task: int | None
    """The N of a file named qaN_..., None for other names."""
    lines: tuple[Statement | Question, ...]

    @property
    def statements(self) -> tuple[Statement, ...]:
        """All facts, in order."""
        return tuple(line for line in self.lines if isinstance(line, Statement))

    @property
    def questions(self) -> tuple[Question, ...]:
        """All questions, in order."""
        return tuple(line for line in self.lines if isinstance(line, Question))

    def before(self, question: Question) -> tuple[Statement, ...]:
        """The statements above `question`; ValueError when the question is not of this story."""
        if question not in self.lines:
            raise ValueError(f"story {self.id} has no question {question.text!r} at line {question.line}")
        return tuple(s for s in self.statements if s.line < question.line)


def ask(story: Story, question: Question, *, own_segment: bool = True) -> Prompt:
    """The prompt that asks `question`; with `own_segment` a form feed parts it from the facts, else a blank.

    With no statements above it, the text is the question alone.
    """
    statements = story.before(question)
    spans, start = [], 0
    for statement in statements:
        spans.append((start, start + len(statement.text)))
        start += len(statement.text) + 1
    index_of = {s.line: index for index, s in enumerate(statements)}
    return Prompt.after(
        " ".join(s.text for s in statements),
        question.text,
        joint=BREAK if own_segment else " ",
        answers=(question.answer,),
        group=story.id,
        statement_spans=tuple(spans),
        support=tuple(index_of[line] for line in question.support),
        task=story.task,
    )


def prompts(stories: Sequence[Story]) -> Iterator[Prompt]:
    """Every question of every story, in order, each as its own prompt."""
    for story in stories:
        for question in story.questions:
            yield ask(story, question)


def split(stories: Sequence[Story], *, validation: float = 0.1) -> tuple[tuple[Story, ...], tuple[Story, ...]]:
    """(training, validation): the last `validation` share of the stories OF EACH FILE is validation.

    By whole stories, so that no story is in both. A file of two or more stories gives at least one to
    each side; of a single story, it to training. The file is the story id up to the last colon.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation is {validation}; expected a share above 0 and below 1")
    by_file: dict[str, list[Story]] = {}
    for story in stories:
        by_file.setdefault(story.id.rpartition(":")[0], []).append(story)
    train: list[Story] = []
    held: list[Story] = []
    for group in by_file.values():
        count = min(max(round(len(group) * validation), 1), len(group) - 1)
        train += group[: len(group) - count]
        held += group[len(group) - count :]
    return tuple(train), tuple(held)


def stretch(story: Story, question: Question, filler: Sequence[str], *, statements: int) -> Story:
    """A story of the statements above `question`, `statements` filler texts in order, and the question.

    Filler that holds a capitalised word of the question other than its first is skipped, so answer and
    support stay right. Earlier questions are dropped, lines renumbered from 1. Task 1 only: elsewhere
    filler about other people can change the answer. ValueError for other tasks or too little filler.
    """
    if story.task != 1:
        raise ValueError(f"story {story.id} is of task {story.task}; only stories of task 1 can be stretched")
    if statements < 0:
        raise ValueError(f"statements is {statements}; expected 0 or more")
    names = set(re.findall(r"\b[A-Z]\w*", question.text.partition(" ")[2]))
    if not names:
        raise ValueError(f"question {question.text!r} of story {story.id} names no one; expected a name")
    usable = [text for text in filler if names.isdisjoint(re.findall(r"\w+", text))]
    if len(usable) < statements:
        raise ValueError(
            f"{len(usable)} of {len(filler)} filler statements leave out {', '.join(sorted(names))};"
            f" expected at least {statements}"
        )
    above = story.before(question)
    texts = [s.text for s in above] + usable[:statements]
    new_line = {s.line: index for index, s in enumerate(above, start=1)}
    asked = Question(
        line=len(texts) + 1,
        text=question.text,
        answer=question.answer,
        support=tuple(new_line[line] for line in question.support),
    )
    facts = tuple(Statement(line=index, text=text) for index, text in enumerate(texts, start=1))
    return Story(id=f"{story.id}+{statements}", task=story.task, lines=(*facts, asked))


def stretch_all(stories: Sequence[Story], *, statements: int) -> tuple[Story, ...]:
    """Every question of `stories` as a stretched story of its own, filled with the statements of the stories that
    follow it.

    Questions that share an id's first part ("file:story") come from one story. ValueError as in `stretch`.
    """
    texts = [[statement.text for statement in story.statements] for story in stories]
    around = [[text for other in (*texts[at + 1 :], *texts[:at]) for text in other] for at in range(len(stories))]
    return tuple(
        stretch(story, question, filler, statements=statements)
        for story, filler in zip(stories, around)
        for question in story.questions
    )
