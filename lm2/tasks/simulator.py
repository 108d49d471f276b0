"""Random stories of the sentence patterns of bAbI tasks 1-10, with the exact world after each statement.

Places of people and objects are drawn first and hidden; every statement is legal in that hidden world
(nobody takes what is elsewhere). Answers come from lm2.tasks.questions, which reads the text alone, so a question is
asked only when the statements above it tell its answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from lm2.tasks import world as rules
from lm2.tasks.babi import Question, Statement, Story
from lm2.tasks.questions import UnanswerableError, answer, answer_in
from lm2.tasks.world import FactKind, World

_PEOPLE = ("Mary", "John", "Sandra", "Daniel")
_GIVERS = ("Bill", "Fred", "Jeff", "Mary")
_UNSURE = ("Bill", "Fred", "Julie", "Mary")
_PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
_TOWN = ("bedroom", "cinema", "kitchen", "office", "park", "school")
_OBJECTS = ("apple", "football", "milk")
# Draws of one block of statements before a question is called impossible there.
_ATTEMPTS = 500


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A story and what is known after each of its statements."""

    story: Story
    worlds: tuple[World, ...]
    """worlds[i] is the state after story.statements[i]."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """The cast of a task and how often it tells what."""

    people: tuple[str, ...] = _PEOPLE
    places: tuple[str, ...] = _PLACES
    objects: tuple[str, ...] = ()
    statements: int = 10
    weights: tuple[tuple[FactKind, int], ...] = ((FactKind.AT, 1),)
    """Share of each kind, near that of the official file."""


_HANDLING = ((FactKind.AT, 60), (FactKind.TAKE, 23), (FactKind.DROP, 17))
_GIVING = ((FactKind.AT, 55), (FactKind.TAKE, 18), (FactKind.DROP, 10), (FactKind.GIVE, 17))
_TASKS = {
    1: _Task(),
    2: _Task(objects=_OBJECTS, statements=20, weights=_HANDLING),
    3: _Task(objects=_OBJECTS, statements=60, weights=_HANDLING),
    4: _Task(people=(), statements=2, weights=()),
    5: _Task(people=_GIVERS, objects=_OBJECTS, statements=25, weights=_GIVING),
    6: _Task(objects=_OBJECTS, weights=_HANDLING),
    7: _Task(objects=_OBJECTS, statements=15, weights=_GIVING),
    8: _Task(objects=_OBJECTS, statements=15, weights=_HANDLING),
    9: _Task(weights=((FactKind.AT, 3), (FactKind.NOT_AT, 1))),
    10: _Task(people=_UNSURE, places=_TOWN, weights=((FactKind.AT, 3), (FactKind.EITHER, 1))),
}


class _Scene:
    """The hidden truth, changed by each sentence drawn."""

    def __init__(self, task: int, cast: _Task, draw: Random) -> None:
        self._task, self._cast, self._draw = task, cast, draw
        self.at: dict[str, str] = {person: draw.choice(cast.places) for person in cast.people}
        self.holder: dict[str, str | None] = dict.fromkeys(cast.objects)
        self.lies: dict[str, str] = {thing: draw.choice(cast.places) for thing in cast.objects}

    def saved(self) -> tuple[dict[str, str], dict[str, str | None], dict[str, str]]:
        """A copy of the state, for `restore`."""
        return dict(self.at), dict(self.holder), dict(self.lies)

    def restore(self, state: tuple[dict[str, str], dict[str, str | None], dict[str, str]]) -> None:
        """Back to a saved state."""
        self.at, self.holder, self.lies = (dict(part) for part in state)  # type: ignore[assignment]

    def sentence(self) -> str:
        """A legal sentence; the state is then as it says."""
        kinds = [kind for kind, _ in self._cast.weights]
        kind = self._draw.choices(kinds, weights=[weight for _, weight in self._cast.weights])[0]
        if kind in (FactKind.TAKE, FactKind.DROP, FactKind.GIVE):
            # Nothing at hand to handle: someone walks instead.
            return self._handling(kind) or self._walk()
        return self._walk() if kind is FactKind.AT else self._unsure(kind)

    def _walk(self) -> str:
        draw = self._draw
        person = draw.choice(self._cast.people)
        place = draw.choice([place for place in self._cast.places if place != self.at[person]])
        self.at[person] = place
        # Tasks 9 and 10 tell half of the places by "is": the walk itself went unseen.
        if self._task in (9, 10) and draw.random() < 0.5:
            return f"{person} is in the {place}."
        return f"{person} {draw.choice(rules.MOVES)} to the {place}."

    def _unsure(self, kind: FactKind) -> str:
        """Someone walks unseen, then the sentence leaves open where to."""
        draw, places = self._draw, self._cast.places
        person = draw.choice(self._cast.people)
        before = self.at[person]
        now = self.at[person] = draw.choice([place for place in places if place != before])
        other = draw.choice([place for place in places if place != now])
        if kind is FactKind.EITHER:
            first, second = draw.sample([now, other], 2)
            return f"{person} is either in the {first} or the {second}."
        if draw.random() < 0.5:
            return f"{person} is no longer in the {before}."
        return f"{person} is not in the {other}."

    def _handling(self, kind: FactKind) -> str | None:
        draw, people = self._draw, self._cast.people
        if kind is FactKind.TAKE:
            near = [(p, o) for p in people for o, h in self.holder.items() if h is None and self.lies[o] == self.at[p]]
            if not near:
                return None
            person, thing = draw.choice(near)
            self.holder[thing] = person
            return f"{person} {draw.choice(rules.TAKES)} the {thing} there."
        held = [(h, o) for o, h in self.holder.items() if h is not None]
        if kind is FactKind.DROP:
            if not held:
                return None
            person, thing = draw.choice(held)
            self.holder[thing], self.lies[thing] = None, self.at[person]
            there = " there" if draw.random() < 0.2 else ""
            return f"{person} {draw.choice(rules.DROPS)} the {thing}{there}."
        meet = [(h, o, p) for h, o in held for p in people if p != h and self.at[p] == self.at[h]]
        if not meet:
            return None
        person, thing, receiver = draw.choice(meet)
        self.holder[thing] = receiver
        return f"{person} {draw.choice(rules.GIVES)} the {thing} to {receiver}."


def simulate(
    task: int,
    *,
    seed: int,
    statements: int | None = None,
    questions: int | None = None,
    people: Sequence[str] | None = None,
    places: Sequence[str] | None = None,
    objects: Sequence[str] | None = None,
) -> Simulation:
    """A random story of task 1-10; the same arguments give the same story.

    `statements` None is the task's usual length, `questions` None is 5; a question follows every
    statements // questions statements, the first one later when that leaves a rest, so that the last
    question ends the story. Task 4 always has 2 statements and 1 question and takes no other numbers.
    Names None are the task's own; people are capitalised words, places and objects lower-case ones.
    ValueError for arguments that give no such story.
    """
    if task not in _TASKS:
        raise ValueError(f"task is {task}; expected one of 1 to 10")
    usual = _TASKS[task]
    cast = _Task(
        people=_names("people", people, usual.people, r"[A-Z][a-z]+"),
        places=_names("places", places, usual.places, r"[a-z]+"),
        objects=_names("objects", objects, usual.objects, r"[a-z]+"),
        weights=usual.weights,
    )
    count = usual.statements if statements is None else statements
    asked = (1 if task == 4 else 5) if questions is None else questions
    if task == 4 and (count, asked) != (2, 1):
        raise ValueError(f"{count} statements and {asked} questions; a story of task 4 has 2 and 1")
    if count < 1 or not 0 <= asked <= count:
        raise ValueError(f"{count} statements and {asked} questions; expected at least 1 statement a question")
    if len(cast.places) < (3 if task == 4 else 2):
        raise ValueError(f"places are {cast.places}; expected at least {3 if task == 4 else 2}")
    # A string seed: Random would otherwise give tasks of the same seed the same first draws.
    draw = Random(f"{task}:{seed}")
    lines, worlds = _directions(cast, draw) if task == 4 else _lines(task, cast, count, asked, draw)
    # The number stands after a colon as the index of a story in a file does, so that split() keeps one group.
    story = Story(id=f"qa{task}_simulated:{seed}", task=task, lines=tuple(lines))
    return Simulation(story=story, worlds=worlds)


def _names(what: str, given: Sequence[str] | None, usual: tuple[str, ...], pattern: str) -> tuple[str, ...]:
    """The cast asked for, checked, or the usual one."""
    if given is None:
        return usual
    bad = [name for name in given if not re.fullmatch(pattern, name)]
    if bad or not given or len(set(given)) != len(given):
        raise ValueError(f"{what} are {tuple(given)}; expected one or more different words like {pattern}")
    if not usual:
        raise ValueError(f"{what} are {tuple(given)}; stories of this task have no {what}")
    return tuple(given)


def _lines(
    task: int, cast: _Task, count: int, asked: int, draw: Random
) -> tuple[list[Statement | Question], tuple[World, ...]]:
    """Blocks of statements, each followed by a question, and the world after each statement."""
    scene = _Scene(task, cast, draw)
    lines: list[Statement | Question] = []
    texts: list[str] = []
    worlds: tuple[World, ...] = ()
    step = count // asked if asked else count
    blocks = [count - step * (asked - 1)] + [step] * (asked - 1) if asked else [count]
    for size in blocks:
        state = scene.saved()
        for _ in range(_ATTEMPTS if asked else 1):
            scene.restore(state)
            block = [scene.sentence() for _ in range(size)]
            after = rules.track(block, worlds)
            question = _question(task, cast, texts + block, after[-1], draw) if asked else None
            if question or not asked:
                break
        else:
            told = f"{len(texts) + size} statements of task {task}"
            raise ValueError(f"{told} told no answer; expected more statements a question")
        lines += [Statement(line=len(lines) + i, text=text) for i, text in enumerate(block, start=1)]
        texts, worlds = texts + block, worlds + after
        if question:
            line_of = [line.line for line in lines if isinstance(line, Statement)]
            text, answer_text, support = question
            support_lines = tuple(line_of[index] for index in support)
            lines.append(Question(line=len(lines) + 1, text=text, answer=answer_text, support=support_lines))
    return lines, worlds


def _directions(cast: _Task, draw: Random) -> tuple[list[Statement | Question], tuple[World, ...]]:
    """A story of task 4: three places in a row, told from the middle one; the question is about it."""
    towards = draw.choice(tuple(rules.OPPOSITE))
    first, middle, last = draw.sample(cast.places, 3)
    texts = []
    for place, direction in ((first, towards), (last, rules.OPPOSITE[towards])):
        relation = (place, direction, middle)
        if draw.random() < 0.5:
            relation = (middle, rules.OPPOSITE[direction], place)
        texts.append("The {} is {} of the {}.".format(*relation))
    draw.shuffle(texts)
    asked = draw.choice((towards, rules.OPPOSITE[towards]))
    text = draw.choice((f"What is {asked} of the {middle}?", f"What is the {middle} {asked} of?"))
    word, support = answer(text, texts)
    question = Question(line=3, text=text, answer=word, support=tuple(index + 1 for index in support))
    statements = [Statement(line=index, text=sentence) for index, sentence in enumerate(texts, start=1)]
    return [*statements, question], rules.track(texts)


_Answered = tuple[str, str, tuple[int, ...]]


def possible_questions(
    kind: int, cast_of: int, facts: Sequence[rules.Fact], world: World
) -> dict[str, list[_Answered]]:
    """Every question in the form of task `kind` that `facts` answer, as (question, answer, support), by answer.

    `cast_of` is the task whose people, places and objects are asked for; `world` is the state after `facts`.
    """
    return _answerable(kind, _TASKS[cast_of], facts, world)


def _answerable(task: int, cast: _Task, facts: Sequence[rules.Fact], world: World) -> dict[str, list[_Answered]]:
    by_answer: dict[str, list[_Answered]] = {}
    for text in _candidates(task, cast, facts):
        try:
            word, support = answer_in(text, facts, world)
        except UnanswerableError:
            continue
        by_answer.setdefault(word, []).append((text, word, support))
    return by_answer


def _question(task: int, cast: _Task, texts: Sequence[str], world: World, draw: Random) -> _Answered | None:
    """A random question that `texts`, which lead to `world`, answer, its answer and support; None when there is none.

    The answer is drawn first, then a question that has it, so that "no" does not crowd out "yes" and "maybe".
    """
    by_answer = _answerable(task, cast, [*map(rules.understand, texts)], world)
    return draw.choice(by_answer[draw.choice(sorted(by_answer))]) if by_answer else None


def _candidates(task: int, cast: _Task, facts: Sequence[rules.Fact]) -> Iterator[str]:
    """Every question of the task's form about the cast; not all have an answer."""
    if task == 1:
        yield from (f"Where is {person}?" for person in cast.people)
    elif task == 2:
        yield from (f"Where is the {thing}?" for thing in cast.objects)
    elif task == 3:
        yield from (f"Where was the {thing} before the {place}?" for thing in cast.objects for place in cast.places)
    elif task == 5:
        yield from _gift_questions(facts)
    elif task in (6, 9, 10):
        yield from (f"Is {person} in the {place}?" for person in cast.people for place in cast.places)
    elif task == 7:
        yield from (f"How many objects is {person} carrying?" for person in cast.people)
    elif task == 8:
        yield from (f"What is {person} carrying?" for person in cast.people)


def _gift_questions(facts: Sequence[rules.Fact]) -> Iterator[str]:
    """The questions of task 5 about the gifts told, each once."""
    gifts = list(dict.fromkeys(fact.words for fact in facts if fact.kind is FactKind.GIVE))
    for giver, thing, receiver in gifts:
        # With two objects between the same two people, "what did" is open (the official files answer at random).
        if sum(words[0] == giver and words[2] == receiver for words in gifts) == 1:
            yield f"What did {giver} give to {receiver}?"
        yield f"Who did {giver} give the {thing} to?"
        yield f"Who gave the {thing} to {receiver}?"
    for thing in dict.fromkeys(words[1] for words in gifts):
        yield f"Who gave the {thing}?"
        yield f"Who received the {thing}?"
