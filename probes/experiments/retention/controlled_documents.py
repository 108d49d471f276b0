"""Controlled documents in the sentences of bAbI task 1: one quantity varies and the rest is held constant.

Every design is balanced and depends only on its seed. Documents of one group differ only in the varied quantity: they
ask for the same person, whose last statement has the same number and names the same place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice, product
from random import Random

from lm2.tasks.babi import Question, Statement, Story, ask, prompts, stretch_all
from lm2.tasks.prompt import Prompt
from lm2.tasks.world import MOVES
from lm2.text.tokens import BREAK

PEOPLE = ("Mary", "John", "Sandra", "Daniel")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")


def stretched(stories: Sequence[Story], statements: Sequence[int]) -> tuple[Prompt, ...]:
    """Every question of task 1 stories, once for each number of statements about others put before it.

    Raises ValueError as `lm2.tasks.babi.stretch` does.
    """
    return tuple(chain.from_iterable(prompts(stretch_all(stories, statements=count)) for count in statements))


def memory_load(
    people: Sequence[int] = (2, 3, 4),
    *,
    statements: int = 8,
    each: int = 192,
    seed: int = 0,
    cast: Sequence[str] = PEOPLE,
) -> tuple[Prompt, ...]:
    """`each` documents for every number of different people, with length, distance and the statement about the person
    asked for held constant.

    The person asked for has one statement, and the others share the rest, each with at least one. Persons, their
    statement's number and its place are balanced in every 192 documents (4 people, 8 statements, 6 places).

    Raises ValueError for fewer than 2 people, and for more people than names or statements.
    """
    if not people or min(people) < 2 or max(people) > min(len(cast), statements):
        raise ValueError(
            f"people must be from 2 to {min(len(cast), statements)} for {statements} statements and {len(cast)} names,"
            f" not {tuple(people)}"
        )
    documents = []
    for index, (person, number, place) in enumerate(_balanced(cast, range(statements), each, seed)):
        for count in people:
            draw = Random(f"loads:{seed}:{index}:{count}")
            others = draw.sample([name for name in cast if name != person], count - 1)
            story = _walks(_order(others, statements - 1, draw), draw)
            story.insert(number, _moved(person, place, draw))
            documents.append(_prompt(f"loads:{index}", story, person, place, number))
    return tuple(documents)


def overwritten(
    times: Sequence[int] = (0, 1, 2, 3, 4),
    *,
    statements: int = 10,
    each: int = 144,
    seed: int = 0,
    cast: Sequence[str] = PEOPLE,
) -> tuple[Prompt, ...]:
    """`each` documents for every number of earlier places of the person asked for, with length, distance and load held
    constant.

    The person was at `times` different other places before; everybody else shares the other statements. Persons, the
    last statement's number and its place are balanced in every 144 documents of the default sizes.

    Raises ValueError for more earlier places than there are, and for too few statements to name everybody.
    """
    most, others = max(times, default=0), len(cast) - 1
    if not times or min(times) < 0 or most >= len(PLACES) or statements < most + 1 + others:
        raise ValueError(
            f"times must be from 0 to {min(len(PLACES) - 1, statements - 1 - others)} for {statements} statements,"
            f" {len(PLACES)} places and {len(cast)} names, not {tuple(times)}"
        )
    documents = []
    for index, (person, last, place) in enumerate(_balanced(cast, range(most, statements), each, seed)):
        for count in times:
            draw = Random(f"overwritten:{seed}:{index}:{count}")
            story = _walks(_order([name for name in cast if name != person], statements - 1 - count, draw), draw)
            earlier = draw.sample([other for other in PLACES if other != place], count)
            for number, where in zip([*sorted(draw.sample(range(last), count)), last], [*earlier, place]):
                story.insert(number, _moved(person, where, draw))
            documents.append(_prompt(f"overwritten:{index}", story, person, place, last))
    return tuple(documents)


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """A fact, and facts about others, each in a document of its own, that may follow it. Every statement has a segment
    of its own."""

    group: str
    alone: Prompt
    """A statement about someone else, the fact, the question."""
    repeated: Prompt
    """Control: the first statement again between fact and question, one more write without anything new."""
    rivals: tuple[Prompt, ...]
    """In its place, a new statement about another person, at another place than the fact's."""


def rivals(count: int = 48, *, each: int = 4, seed: int = 0) -> tuple[Rivals, ...]:
    """`count` facts with `each` rivals; persons and places are balanced in every 24."""
    if count < 1 or each < 1:
        raise ValueError(f"at least 1 document with 1 rival must be made, not {count} with {each}")
    documents = []
    for index, (person, _, place) in enumerate(_balanced(PEOPLE, range(1), count, seed)):
        draw = Random(f"rivals:{seed}:{index}")
        first, *others = draw.sample([name for name in PEOPLE if name != person], 3)
        elsewhere = [other for other in PLACES if other != place]
        story = [_moved(first, draw.choice(elsewhere), draw), _moved(person, place, draw)]
        between = [_moved(draw.choice(others), draw.choice(elsewhere), draw) for _ in range(each)]
        group = f"rivals:{index}"
        alone, repeated, *told = (
            _apart(_prompt(group, [*story, *more], person, place, 1)) for more in ([], [story[0]], *zip(between))
        )
        documents.append(Rivals(group=group, alone=alone, repeated=repeated, rivals=tuple(told)))
    return tuple(documents)


def _balanced(cast: Sequence[str], numbers: Sequence[int], each: int, seed: int) -> list[tuple[str, int, str]]:
    """`each` combinations of person, statement number and place, whose frequencies differ by at most one."""
    combinations = list(product(cast, numbers, PLACES))
    Random(f"balanced:{seed}").shuffle(combinations)
    return list(islice(cycle(combinations), each))


def _order(people: Sequence[str], statements: int, draw: Random) -> list[str]:
    """The person of each statement: everybody at least once."""
    order = [*people, *draw.choices(people, k=statements - len(people))]
    draw.shuffle(order)
    return order


def _walks(order: Sequence[str], draw: Random) -> list[str]:
    """Statements in which people go from place to place."""
    places: dict[str, str] = {}
    statements = []
    for person in order:
        places[person] = draw.choice([place for place in PLACES if place != places.get(person)])
        statements.append(_moved(person, places[person], draw))
    return statements


def _moved(person: str, place: str, draw: Random) -> str:
    return f"{person} {draw.choice(MOVES)} to the {place}."


def _prompt(group: str, statements: Sequence[str], person: str, answer: str, support: int) -> Prompt:
    question = Question(line=len(statements) + 1, text=f"Where is {person}?", answer=answer, support=(support + 1,))
    lines = tuple(Statement(line=number, text=text) for number, text in enumerate(statements, start=1))
    return ask(Story(id=group, task=1, lines=(*lines, question)), question)


def _apart(prompt: Prompt) -> Prompt:
    """Every statement in a segment of its own."""
    return replace(prompt, text=BREAK.join([*prompt.statements, prompt.question]))
