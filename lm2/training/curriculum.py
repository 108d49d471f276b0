"""Documents to learn from: what a memory has to be taught, in the order in which it can be learnt.

1. REPEAT: random tokens, said twice; attention learns to find what stood after the same token before.
2. OPEN: a few statements and a question about them inside one segment; attention learns to answer.
3. MEMORY: statements over many segments, later among sentences of books, and questions about all of them.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from lm2.model.config import SegmentEnd
from lm2.serialize import Spec
from lm2.shown import shown
from lm2.tasks import world as rules
from lm2.tasks.babi import Question, Story
from lm2.tasks.simulator import possible_questions, simulate
from lm2.text.segments import is_full
from lm2.text.tokens import Tokenizer

TASKS = tuple(range(1, 11))

_ALSO = {
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
"""Kinds of question that stories of a task can be asked besides their own; each is a step towards it."""


class Phase(Enum):
    REPEAT = "repeat"
    OPEN = "open"
    MEMORY = "memory"


@dataclass(frozen=True, kw_only=True)
class Stage(Spec):
    """A stretch of training. A pair is a number that grows in a straight line from the first step to the last."""

    steps: int
    phase: Phase
    tasks: tuple[int, ...] = (1,)
    statements: tuple[int, int] = (2, 2)
    """Most statements of a document; half of the documents have fewer."""
    prose: tuple[int, int] = (0, 0)
    """Most tokens of book text among the statements; half of the documents have fewer."""
    places: int = 4
    """Most places of a document at which questions are asked; each but the last cuts a segment short."""
    lengths: tuple[int, ...] = (16,)
    """Segment lengths in tokens; each batch draws one."""
    language_weight: float = 0.0
    """Weight of ordinary next-token loss; answers alone count at 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
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


@dataclass(frozen=True, kw_only=True)
class TrainingQuestion:
    """A question, read from the bank that stands after `after` segments of its document."""

    after: int
    ids: tuple[int, ...]
    """What stands before the answer in its segment, and the answer with its full stop."""
    answer: int
    """How many of the last ids are to be predicted."""
    label: str
    """What kind of question it is, e.g. "qa1"."""


@dataclass(frozen=True, kw_only=True)
class TrainingDocument:
    segments: tuple[tuple[int, ...], ...]
    asked: tuple[TrainingQuestion, ...]


class Lessons:
    """Draws documents from stories of bAbI tasks 1-10, the simulator and books; every draw comes from the given
    generator."""

    def __init__(self, stories: Sequence[Story], books: Sequence[str], tokenizer: Tokenizer, end: SegmentEnd) -> None:
        self._tokenizer, self._end = tokenizer, end
        self._stories = {task: [story for story in stories if story.task == task] for task in TASKS}
        self._encode = lru_cache(maxsize=100_000)(lambda text: tokenizer.encode(text).ids)
        self._encode_after = lru_cache(maxsize=100_000)(lambda text: tokenizer.encode_after(text).ids)
        statements = (statement for story in stories[:2000] for statement in story.statements)
        self._words = sorted({token for statement in statements for token in self._encode_after(f" {statement.text}")})
        self._books = [tokenizer.encode(" ".join(book.split())).ids for book in books]
        self._closes = [is_full(2, 3, SegmentEnd.SENTENCE, tokenizer.piece(token)) for token in range(tokenizer.size)]
        """For each token whether a sentence ends with it."""

    def repeat(self, rng: random.Random) -> TrainingDocument:
        """Different tokens of the stories in random order, twice over, after a few others.

        Lengths vary, or attention would learn to look back by a fixed number of tokens instead of by content. The
        first token of the second half is given; the rest of it is to be predicted.
        """
        half, before = rng.randrange(3, 9), rng.randrange(5)
        words = rng.sample(self._words, half)
        ids = (*rng.choices(self._words, k=before), *words, *words)
        return TrainingDocument(segments=(), asked=(TrainingQuestion(after=0, ids=ids, answer=half - 1, label="copy"),))

    def open(self, rng: random.Random, task: int, most: int) -> TrainingDocument:
        """Statements, a question about them and its answer, all in one segment."""
        told = self._told(rng, task, most)
        question = self._question(rng, told, len(told.texts) - 1)
        before = [token for at, text in enumerate(told.texts) for token in self._sentence(text, " " if at else "")]
        return TrainingDocument(segments=(), asked=(self._asked(0, before, question, " "),) if question else ())

    def memory(
        self, rng: random.Random, task: int, most: int, prose: int, length: int, places: int, questions: int
    ) -> TrainingDocument:
        """Statements over segments of at most `length` tokens, with up to `prose` tokens of a book among them.

        `questions` are asked after the last statement and up to `places` - 1 others, half of them after the last; most
        in a segment of their own, some after what their segment holds already, and in a few documents with answers in
        the text.
        """
        told = self._told(rng, task, most)
        answered, joint = rng.random() < 0.1, "\n" if rng.random() < 0.1 else " "
        last = len(told.texts) - 1
        stops = [last, *(rng.randrange(last + 1) for _ in range(places - 1))]
        after = [last if rng.random() < 0.5 else rng.choice(stops) for _ in range(questions)]
        gaps = self._around(rng, len(told.texts), prose)
        cut = _Cutter(length, self._end, self._closes)
        asked: list[TrainingQuestion] = []
        for at, text in enumerate(told.texts):
            if at == 0:
                cut.read(gaps[0])
            cut.read([self._sentence(text, joint if cut.begun else "")])
            now = rng.randrange(len(gaps[at + 1]) + 1)
            cut.read(gaps[at + 1][:now])
            questions_here = [self._question(rng, told, at) for _ in range(after.count(at))]
            for question in dict.fromkeys(questions_here):
                if question is not None:
                    if not answered and rng.random() < 0.85:
                        cut.close()
                    asked.append(self._asked(len(cut.segments), cut.open, question, joint))
                    if answered:
                        cut.read([asked[-1].ids[len(cut.open) :]])
            cut.read(gaps[at + 1][now:])
        cut.close()
        return TrainingDocument(segments=tuple(cut.segments), asked=tuple(asked))

    def exam(self, story: Story, question: Question, length: int) -> TrainingDocument:
        """One question of a story, as it is asked when accuracy is reported: in a segment of its own."""
        cut = _Cutter(length, self._end, self._closes)
        for statement in story.before(question):
            cut.read([self._sentence(statement.text, " " if cut.begun else "")])
        cut.close()
        told = (story.task or 0, question.text, question.answer)
        return TrainingDocument(segments=tuple(cut.segments), asked=(self._asked(len(cut.segments), (), told, " "),))

    def _sentence(self, text: str, joint: str) -> Sequence[int]:
        """Its tokens after a blank, a line break or nothing."""
        return self._encode_after(joint + text) if joint else self._encode(text)

    def _around(self, rng: random.Random, facts: int, most: int) -> list[list[Sequence[int]]]:
        """Sentences of one passage of at most `most` tokens, dealt out to the gaps before, between and after `facts`
        statements."""
        gaps: list[list[Sequence[int]]] = [[] for _ in range(facts + 1)]
        wanted = most if rng.random() < 0.5 else rng.randrange(most + 1)
        if not wanted or not self._books:
            return gaps
        book = rng.choice(self._books)
        start = begin = rng.randrange(max(1, len(book) - wanted))
        sentences: list[Sequence[int]] = []
        for at in range(start, min(len(book), start + wanted)):
            if self._closes[book[at]]:
                sentences.append(book[begin : at + 1])
                begin = at + 1
        where = sorted(rng.randrange(len(sentences) + 1) for _ in range(facts))
        for gap, (left, right) in enumerate(zip([0, *where], [*where, len(sentences)])):
            gaps[gap] = sentences[left:right]
        return gaps

    def _told(self, rng: random.Random, task: int, most: int) -> "_Told":
        """A real story, or the beginning of one, or a simulated one; of at most `most` statements."""
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
        return _Told(task=task, texts=texts, facts=tuple(map(_understand, texts)), worlds=rules.track(texts), own=own)

    def _question(self, rng: random.Random, told: "_Told", at: int) -> tuple[int, str, str] | None:
        """Its task, its text and its answer, after statement `at`; None where nothing can be asked."""
        own = told.own.get(at)
        if own and rng.random() < 0.5:
            return rng.choice(own)
        others = _ALSO.get(told.task, ())
        first = rng.choice(others) if others and rng.random() < 0.3 else told.task
        for kind in dict.fromkeys((first, told.task, *others)):
            found = possible_questions(kind, told.task, told.facts[: at + 1], told.worlds[at])
            if found:
                # The answer is drawn first, so that "no" does not crowd out "yes" and "maybe".
                text, said, _ = rng.choice(found[rng.choice(sorted(found))])
                return kind, text, said
        return rng.choice(own) if own else None

    def _asked(self, after: int, before: Sequence[int], question: tuple[int, str, str], joint: str) -> TrainingQuestion:
        task, text, said = question
        answer = self._encode_after(f" {said}.")
        return TrainingQuestion(
            after=after,
            ids=(*before, *self._sentence(text, joint if before else ""), *answer),
            answer=len(answer),
            label=f"qa{task}",
        )


class _Cutter:
    """Cuts tokens into segments as `split_segments` cuts a text."""

    def __init__(self, length: int, end: SegmentEnd, closes: Sequence[bool]) -> None:
        self._length, self._sentences, self._closes = length, end is SegmentEnd.SENTENCE, closes
        self.segments: list[tuple[int, ...]] = []
        self.open: list[int] = []

    @property
    def begun(self) -> bool:
        return bool(self.open or self.segments)

    def read(self, sentences: Sequence[Sequence[int]]) -> None:
        for ids in sentences:
            for token in ids:
                self.open.append(token)
                count = len(self.open)
                if count >= self._length or (self._sentences and self._closes[token] and 2 * count >= self._length):
                    self.close()

    def close(self) -> None:
        """End the open segment here, as a break in the text does."""
        if self.open:
            self.segments.append(tuple(self.open))
            self.open = []


@dataclass(frozen=True, kw_only=True)
class _Told:
    """A story, understood."""

    task: int
    texts: tuple[str, ...]
    facts: tuple[rules.Fact, ...]
    worlds: tuple[rules.World, ...]
    own: dict[int, list[tuple[int, str, str]]]
    """The story's own questions (task, text, answer), by the statement that they follow."""


_understand = lru_cache(maxsize=50_000)(rules.understand)
