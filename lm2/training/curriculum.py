"""Training documents, in the order in which a model can learn from them.

1. REPEAT: random tokens, twice over; attention learns to find what followed the same token before.
2. OPEN: a few statements and a question about them in one segment; attention learns to answer.
3. MEMORY: statements over many segments, later among sentences of books, and questions about all of them.

QUESTIONS are those of a question set instead, for a model of any tokenizer.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from typing import Any

from lm2.model.config import SegmentEnd
from lm2.serialize import Spec
from lm2.shown import shown
from lm2.tasks import world as rules
from lm2.tasks.babi import Question, Story
from lm2.tasks.simulator import possible_questions, simulate
from lm2.text.segments import is_full
from lm2.text.tokens import Tokenizer

TASKS = tuple(range(1, 11))

_EASIER = {
    1: (6,),
    2: (1, 6, 7, 8),
    3: (1, 2, 6, 7, 8),
    5: (1, 2, 7, 8),
    6: (1, 2, 7, 8),
    7: (1, 2, 6, 8),
    8: (1, 2, 6, 7),
    9: (1,),
    10: (1,),
}
"""Tasks whose questions can be asked about stories of a task, too; each is a step towards it."""


class Phase(Enum):
    REPEAT = "repeat"
    OPEN = "open"
    MEMORY = "memory"
    QUESTIONS = "questions"


@dataclass(frozen=True, kw_only=True)
class Stage(Spec):
    """A part of training. A pair is a number that grows linearly from the first step to the last."""

    steps: int
    phase: Phase
    tasks: tuple[int, ...] = (1,)
    statements: tuple[int, int] = (2, 2)
    """Most statements of a document; half of the documents have fewer."""
    prose: tuple[int, int] = (0, 0)
    """Most tokens of book text among the statements; half of the documents have fewer."""
    places: int = 4
    """Most places in a document at which questions are asked; each but the last ends a segment early."""
    lengths: tuple[int, ...] = (16,)
    """Segment lengths in tokens; each batch draws one."""
    language_weight: float = 0.0
    """Weight of the next-token loss; at 0 answers alone count."""
    questions: str | None = None
    """The question set of a QUESTIONS stage, by its name. Its texts are cut at the model's own `segment_length`."""
    count: int | None = None
    """Questions, from the first on; None, all of a file's, and of a built-in set 64."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.phase is Phase.QUESTIONS) != (self.questions is not None) or (self.count and not self.questions):
            raise ValueError(
                "a stage has questions, and their count, if its phase is questions, and no other has: not"
                f" {shown(self.questions)} and {shown(self.count)} in phase {self.phase.value}"
            )
        if (
            self.steps < 1
            or not self.tasks
            or not set(self.tasks) <= set(TASKS)
            or min(self.statements) < 2
            or min(self.prose) < 0
        ):
            raise ValueError(
                "a stage needs at least 1 step, tasks of 1..10 and 2 statements, not "
                f"{self.steps} steps, tasks {shown(self.tasks)}, statements {self.statements}, prose {self.prose}"
            )
        if not self.lengths or min(self.lengths) < 4 or self.places < 1:
            raise ValueError(
                f"a stage needs segment lengths of at least 4 tokens and a place to ask, not {shown(self.lengths)} and"
                f" {self.places}"
            )

    def to_json(self) -> dict[str, Any]:
        """As in `Spec`, but without a question set where there is none, so that digests stay those of earlier
        versions."""
        newer = ("questions", "count")
        return {name: value for name, value in super().to_json().items() if name not in newer or value is not None}


@dataclass(frozen=True, kw_only=True)
class TrainingQuestion:
    """A question, asked of the bank after the first `after` segments of its document."""

    after: int
    ids: tuple[int, ...]
    """Its segment, to the end of the answer with its full stop."""
    answer: int
    """How many of the last ids are to be predicted."""
    label: str
    """Its kind, e.g. "qa1"."""


@dataclass(frozen=True, kw_only=True)
class TrainingDocument:
    segments: tuple[tuple[int, ...], ...]
    questions: tuple[TrainingQuestion, ...]


class Lessons:
    """Draws documents from stories of bAbI tasks 1-10, the simulator and books, by the given generator alone."""

    def __init__(self, stories: Sequence[Story], books: Sequence[str], tokenizer: Tokenizer, end: SegmentEnd) -> None:
        self._tokenizer, self._end = tokenizer, end
        self._front = (tokenizer.bos,) if tokenizer.adds_bos and tokenizer.bos is not None else ()
        """What documents begin with."""
        self._stories = {task: [story for story in stories if story.task == task] for task in TASKS}
        self._encode = lru_cache(maxsize=100_000)(lambda text: tokenizer.encode(text, bos=False).ids)
        self._encode_after = lru_cache(maxsize=100_000)(lambda text: tokenizer.encode_after(text).ids)
        statements = (statement for story in stories[:2000] for statement in story.statements)
        self._words = sorted({token for statement in statements for token in self._encode_after(f" {statement.text}")})
        self._books = [tokenizer.encode(" ".join(book.split()), bos=False).ids for book in books]
        self._closes = [is_full(2, 3, SegmentEnd.SENTENCE, tokenizer.piece(token)) for token in range(tokenizer.size)]
        """For each token, whether it ends a sentence."""

    def repeat(self, rng: random.Random) -> TrainingDocument:
        """Different tokens of the stories in random order, twice over, after a few others.

        Lengths vary, so that attention learns to look back by content, not by a fixed number of tokens. The first token
        of the second half is given; the rest of it is to be predicted.
        """
        half, before = rng.randrange(3, 9), rng.randrange(5)
        words = rng.sample(self._words, half)
        ids = (*self._front, *rng.choices(self._words, k=before), *words, *words)
        question = TrainingQuestion(after=0, ids=ids, answer=half - 1, label="copy")
        return TrainingDocument(segments=(), questions=(question,))

    def open(self, rng: random.Random, task: int, most: int) -> TrainingDocument:
        """Statements, a question about them and its answer, all in one segment."""
        story = self._story(rng, task, most)
        question = self._question(rng, story, len(story.texts) - 1)
        before = [token for i, text in enumerate(story.texts) for token in self._sentence(text, " " if i else "")]
        before = [*self._front, *before]
        questions = (self._encoded(0, before, question, " "),) if question else ()
        return TrainingDocument(segments=(), questions=questions)

    def memory(
        self, rng: random.Random, task: int, most: int, prose: int, length: int, places: int, questions: int
    ) -> TrainingDocument:
        """Statements over segments of at most `length` tokens, with up to `prose` tokens of a book among them.

        `questions` are asked after the last statement and up to `places` - 1 others, half of them after the last. Most
        have a segment of their own, some follow what their segment holds already, and in a few documents the answers
        are in the text.
        """
        story = self._story(rng, task, most)
        answered, joint = rng.random() < 0.1, "\n" if rng.random() < 0.1 else " "
        last = len(story.texts) - 1
        stops = [last, *(rng.randrange(last + 1) for _ in range(places - 1))]
        after = [last if rng.random() < 0.5 else rng.choice(stops) for _ in range(questions)]
        gaps = self._prose(rng, len(story.texts), prose)
        cut = _Cutter(length, self._end, self._closes, self._front)
        cut.read(gaps[0])
        encoded: list[TrainingQuestion] = []
        for i, (text, gap) in enumerate(zip(story.texts, gaps[1:])):
            cut.read([self._sentence(text, joint if cut.begun else "")])
            stop = rng.randrange(len(gap) + 1)
            cut.read(gap[:stop])
            for question in dict.fromkeys([self._question(rng, story, i) for _ in range(after.count(i))]):
                if question is not None:
                    if not answered and rng.random() < 0.85:
                        cut.close()
                    encoded.append(self._encoded(len(cut.segments), cut.open, question, joint))
                    if answered:
                        cut.read([encoded[-1].ids[len(cut.open) :]])
            cut.read(gap[stop:])
        cut.close()
        return TrainingDocument(segments=tuple(cut.segments), questions=tuple(encoded))

    def exam(self, story: Story, question: Question, length: int) -> TrainingDocument:
        """One question of a story, as it is asked when accuracy is reported: in a segment of its own."""
        cut = _Cutter(length, self._end, self._closes, self._front)
        for statement in story.before(question):
            cut.read([self._sentence(statement.text, " " if cut.begun else "")])
        cut.close()
        encoded = self._encoded(len(cut.segments), (), (story.task or 0, question.text, question.answer), " ")
        return TrainingDocument(segments=tuple(cut.segments), questions=(encoded,))

    def _sentence(self, text: str, joint: str) -> Sequence[int]:
        """Its tokens when it follows `joint`: a blank, a line break or nothing."""
        return self._encode_after(joint + text) if joint else self._encode(text)

    def _prose(self, rng: random.Random, statements: int, most: int) -> list[list[Sequence[int]]]:
        """Sentences of one passage of at most `most` tokens, distributed over the gaps before, between and after
        `statements` statements."""
        length = most if rng.random() < 0.5 else rng.randrange(most + 1)
        if not length or not self._books:
            return [[]] * (statements + 1)
        book = rng.choice(self._books)
        start = begin = rng.randrange(max(1, len(book) - length))
        sentences: list[Sequence[int]] = []
        for i in range(start, min(len(book), start + length)):
            if self._closes[book[i]]:
                sentences.append(book[begin : i + 1])
                begin = i + 1
        cuts = sorted(rng.randrange(len(sentences) + 1) for _ in range(statements))
        return [sentences[left:right] for left, right in pairwise([0, *cuts, len(sentences)])]

    def _story(self, rng: random.Random, task: int, most: int) -> "_TrackedStory":
        """A bAbI story, the beginning of one, or a simulated one; of at most `most` statements."""
        count = 2 if task == 4 else most if rng.random() < 0.5 else rng.randrange(2, most + 1)
        if self._stories[task] and rng.random() < 0.5:
            story = rng.choice(self._stories[task])
        else:
            story = simulate(task, seed=rng.getrandbits(40), statements=count, questions=1 if task == 4 else 0).story
        texts = tuple(statement.text for statement in story.statements[:count])
        own: dict[int, list[tuple[int, str, str]]] = {}
        for question in story.questions:
            above = len(story.before(question))
            if above <= count:
                own.setdefault(above - 1, []).append((task, question.text, question.answer))
        facts = tuple(map(_understand, texts))
        return _TrackedStory(task=task, texts=texts, facts=facts, worlds=rules.track(texts), own=own)

    def _question(self, rng: random.Random, story: "_TrackedStory", index: int) -> tuple[int, str, str] | None:
        """Task, text and answer of a question after statement `index`; None where nothing can be asked."""
        own = story.own.get(index)
        if own and rng.random() < 0.5:
            return rng.choice(own)
        easier = _EASIER.get(story.task, ())
        first = rng.choice(easier) if easier and rng.random() < 0.3 else story.task
        for task in dict.fromkeys((first, story.task, *easier)):
            by_answer = possible_questions(task, story.task, story.facts[: index + 1], story.worlds[index])
            if by_answer:
                # The answer is drawn first, so that "no" does not crowd out "yes" and "maybe".
                text, answer, _ = rng.choice(by_answer[rng.choice(sorted(by_answer))])
                return task, text, answer
        return rng.choice(own) if own else None

    def _encoded(
        self, after: int, before: Sequence[int], question: tuple[int, str, str], joint: str
    ) -> TrainingQuestion:
        task, text, answer = question
        ids = self._encode_after(f" {answer}.")
        return TrainingQuestion(
            after=after,
            ids=(*before, *self._sentence(text, joint if before else ""), *ids),
            answer=len(ids),
            label=f"qa{task}",
        )


class _Cutter:
    """Cuts tokens into segments as `split_segments` cuts a text."""

    def __init__(self, length: int, end: SegmentEnd, closes: Sequence[bool], front: Sequence[int]) -> None:
        self._length, self._sentences, self._closes = length, end is SegmentEnd.SENTENCE, closes
        self.segments: list[tuple[int, ...]] = []
        self.open: list[int] = list(front)
        self._front = len(front)

    @property
    def begun(self) -> bool:
        return bool(len(self.open) > self._front or self.segments)

    def read(self, sentences: Sequence[Sequence[int]]) -> None:
        for ids in sentences:
            for token in ids:
                self.open.append(token)
                count = len(self.open)
                if count >= self._length or (self._sentences and self._closes[token] and 2 * count >= self._length):
                    self.close()

    def close(self) -> None:
        """End the open segment, as a break in the text does."""
        if self.open:
            self.segments.append(tuple(self.open))
            self.open = []


@dataclass(frozen=True, kw_only=True)
class _TrackedStory:
    """A story with the state of its world after each statement."""

    task: int
    texts: tuple[str, ...]
    facts: tuple[rules.Fact, ...]
    worlds: tuple[rules.World, ...]
    own: dict[int, list[tuple[int, str, str]]]
    """The story's own questions (task, text, answer), by the index of the statement before them."""


_understand = lru_cache(maxsize=50_000)(rules.understand)
