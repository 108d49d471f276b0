"""Documents to learn from: what a memory has to be taught, in the order in which it can be learnt.

1. REPEAT: random tokens, said twice; attention learns to find what stood behind the same token before.
2. OPEN: 2, 3, 4 ... statements and a question about them inside one segment; attention learns to answer.
3. MEMORY: statements over 1, 2, 3 ... segments, and questions whose facts lie in earlier ones.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from lm2.babi import Story
from lm2.config import SegmentEnd
from lm2.segments import is_full
from lm2.tokens import Tokenizer


class Phase(Enum):
    REPEAT = "repeat"
    OPEN = "open"
    MEMORY = "memory"


COPIED = -1
"""Stands where a distance would, for tokens that are only to be repeated."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question, read from the bank that stands after `after` segments of its document."""

    after: int
    ids: tuple[int, ...]
    """Statements of the segment it falls into (often none), the question, the answer's one token."""
    distance: int
    """Segments between the question and the end of the last statement about the person asked for."""


@dataclass(frozen=True, kw_only=True)
class Document:
    segments: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    """Per segment, the positions whose next token is to be predicted."""
    asked: tuple[Asked, ...] = ()
    distance: int | None = None
    """The distance of the answers inside the segments, or COPIED; None where it varies, and they are not counted."""


@dataclass(frozen=True)
class _Fact:
    person: str
    place: str
    text: str


class WhereIs:
    """Draws documents about where people are from stories of bAbI task 1; every draw comes from the given generator."""

    def __init__(self, stories: Sequence[Story], tokenizer: Tokenizer) -> None:
        """Raises ValueError when a statement does not name a person first and a place last, or a place is not one token."""
        self._tokenizer = tokenizer
        self._stories = [[_fact(statement.text) for statement in story.statements] for story in stories]
        facts = {fact for story in self._stories for fact in story}
        self.people = sorted({fact.person for fact in facts})
        self._tokens = {text: tokenizer.encode(text).ids for fact in facts for text in (fact.text, f" {fact.text}")}
        self._questions = {
            person: (tokenizer.encode(f"Where is {person}?").ids, tokenizer.encode(f" Where is {person}?").ids) for person in self.people
        }
        self._places = {place: tokenizer.encode(f" {place}").ids for place in sorted({fact.place for fact in facts})}
        long = [place for place, ids in self._places.items() if len(ids) != 1]
        if long:
            raise ValueError(f"places must be one token each for this curriculum; these are more: {long}")
        self._words = sorted({token for ids in self._tokens.values() for token in ids})
        self._newline = tokenizer.encode("\n").ids

    def repeat(self, chance: random.Random) -> Document:
        """Different tokens of the stories in random order, twice over, behind a few others.

        Lengths vary, or attention would learn to look back by a fixed number of tokens instead of by content. The
        first token of the second half is given; the rest of it is to be predicted.
        """
        half, before = chance.randrange(3, 9), chance.randrange(5)
        words = chance.sample(self._words, half)
        ids = (*chance.choices(self._words, k=before), *words, *words)
        return Document(segments=(ids,), answers=(tuple(range(before + half, len(ids) - 1)),), distance=COPIED)

    def open(self, chance: random.Random, most: int) -> Document:
        """Two to `most` statements, a question about one of the people in them and its answer, all in one segment.

        The first two statements name different people, for where there is only one nothing has to be told apart;
        and there is one question, for a second one could be answered by what the first left over.
        """
        facts = self._facts(chance, 2)
        while facts[0].person == facts[1].person:
            facts = self._facts(chance, 2)
        facts += self._facts(chance, chance.randrange(most - 1))
        ids, _, _ = self._lay_out(chance, facts, answered=False)
        fact = chance.choice(list(_latest(facts).values()))
        ids += (*self._questions[fact.person][1], *self._places[fact.place])
        return Document(segments=(tuple(ids),), answers=((len(ids) - 2,),), distance=0)

    def memory(self, chance: random.Random, segments: int, length: int, *, questions: int) -> Document:
        """Statements over `segments` segments of about `length` tokens, and `questions` asked after some of them, half after the last."""
        facts = self._facts(chance, 2 + segments * length // 5)
        if chance.random() < 0.5:  # let somebody stand still, or long distances would hardly ever occur
            silent, since = chance.choice(self.people), chance.randrange(1, max(2, len(facts) // 2))
            facts = [fact for at, fact in enumerate(facts) if at < since or fact.person != silent]
        ids, ends, answers = self._lay_out(chance, facts, answered=chance.random() < 0.15)
        cuts = _cuts(chance, segments, length, ends, len(ids))
        last = len(cuts) - 1
        after = [last if chance.random() < 0.5 else chance.randrange(1, last + 1) for _ in range(questions)]
        asked = [self._ask(chance, facts, ids, ends, cuts, at) for at in after]
        bounds = list(zip(cuts, cuts[1:]))
        return Document(
            segments=tuple(tuple(ids[left:right]) for left, right in bounds),
            answers=tuple(tuple(at - left for at in answers if left <= at < right - 1) for left, right in bounds),
            asked=tuple(question for question in asked if question is not None),
        )

    def _facts(self, chance: random.Random, count: int) -> list[_Fact]:
        facts: list[_Fact] = []
        while len(facts) < count:
            facts += chance.choice(self._stories)
        return facts[:count]

    def _lay_out(self, chance: random.Random, facts: list[_Fact], *, answered: bool) -> tuple[list[int], list[int], list[int]]:
        """Token ids; for each statement the position of its last token; the positions that predict an answer."""
        lines = chance.random() < 0.2
        ids: list[int] = []
        ends: list[int] = []
        answers: list[int] = []
        for at, fact in enumerate(facts):
            ids += self._newline if lines and at else ()
            ids += self._tokens[fact.text if lines or at == 0 else f" {fact.text}"]
            ends.append(len(ids) - 1)
            if answered and at % 2:
                known = _latest(facts[: at + 1])[chance.choice(facts[: at + 1]).person]
                plain, spaced = self._questions[known.person]
                ids += (*self._newline, *plain) if lines else spaced
                ids += self._places[known.place]
                answers.append(len(ids) - 2)
        return ids, ends, answers

    def _ask(
        self, chance: random.Random, facts: list[_Fact], ids: list[int], ends: list[int], cuts: list[int], after: int
    ) -> Asked | None:
        """A question after segment `after`, alone in its segment or behind some statements; None where nothing is known yet."""
        start = cuts[after]
        behind = [end + 1 for end in ends if start <= end < start + 12]
        stop = chance.choice(behind) if behind and chance.random() < 0.2 else start
        # A statement that the end of a segment cuts is unfinished for a question right behind the cut.
        latest = {facts[at].person: at for at, end in enumerate(ends) if end < stop}
        if not latest:
            return None
        person = min(latest, key=latest.__getitem__) if chance.random() < 0.4 else chance.choice(sorted(latest))
        last_token = ends[latest[person]]
        plain, spaced = self._questions[person]
        question = plain if stop == start and chance.random() < 0.8 else spaced
        return Asked(
            after=after,
            ids=(*ids[start:stop], *question, *self._places[facts[latest[person]].place]),
            distance=after - max(at for at, cut in enumerate(cuts[: after + 1]) if cut <= last_token),
        )


def _fact(text: str) -> _Fact:
    words = text.rstrip(".").split()
    if len(words) < 3 or not words[0].istitle():
        raise ValueError(f"a statement of task 1 names a person first and a place last, unlike {text!r}")
    return _Fact(person=words[0], place=words[-1], text=text)


def _latest(facts: Sequence[_Fact]) -> dict[str, _Fact]:
    return {fact.person: fact for fact in facts}


def _cuts(chance: random.Random, segments: int, length: int, ends: list[int], tokens: int) -> list[int]:
    """Where segments begin, and where the last one ends: as a text is cut in most documents, anywhere in the others."""
    anywhere = chance.random() < 0.15
    cuts, at = [0], 0
    while len(cuts) <= segments and cuts[-1] < tokens:
        at += 1
        if anywhere:
            at = min(tokens, at + chance.randrange(length // 2, length))
        if anywhere or at == tokens or is_full(at - cuts[-1], length, SegmentEnd.SENTENCE, "." if at - 1 in ends else ""):
            cuts.append(at)
    return cuts
