"""Documents made to measure: one thing is varied and the rest is held, in the sentences of bAbI task 1.

Every design is balanced and drawn from its seed alone. Documents of one group differ in the varied thing only: the same
person is asked for, told of at the same place in the document, and last seen in the same place of the world.
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
    """Every question of task 1 stories, once for each number of statements about others put between its facts and
    itself.

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
    """`each` documents for every number of different people: length, distance and what is told of the person asked for
    are held.

    The person asked for is told of once, and the others share the other statements, each at least once. Persons, their
    statement's number and its place are balanced in every 192 documents (4 people, 8 statements, 6 places).

    Raises ValueError for fewer than 2 people, and for more than the cast or the statements hold.
    """
    if not people or min(people) < 2 or max(people) > min(len(cast), statements):
        raise ValueError(
            f"people must be from 2 to {min(len(cast), statements)} for {statements} statements and {len(cast)} names,"
            f" not {tuple(people)}"
        )
    made = []
    for index, (person, at, place) in enumerate(_balanced(cast, range(statements), each, seed)):
        for count in people:
            draw = Random(f"loads:{seed}:{index}:{count}")
            others = draw.sample([name for name in cast if name != person], count - 1)
            told = _walks(_order(others, statements - 1, draw), draw)
            told.insert(at, _moved(person, place, draw))
            made.append(_prompt(f"loads:{index}", told, person, place, at))
    return tuple(made)


def overwritten(
    times: Sequence[int] = (0, 1, 2, 3, 4),
    *,
    statements: int = 10,
    each: int = 144,
    seed: int = 0,
    cast: Sequence[str] = PEOPLE,
) -> tuple[Prompt, ...]:
    """`each` documents for every number of earlier places of the person asked for: length, distance and load are held.

    The person was at `times` other places before, all different from each other; everybody else is told of in the other
    statements. Persons, the last statement's number and its place are balanced in every 144 documents of the default
    sizes.

    Raises ValueError for more earlier places than there are, and for too few statements to tell of everybody.
    """
    most, others = max(times, default=0), len(cast) - 1
    if not times or min(times) < 0 or most >= len(PLACES) or statements < most + 1 + others:
        raise ValueError(
            f"times must be from 0 to {min(len(PLACES) - 1, statements - 1 - others)} for {statements} statements,"
            f" {len(PLACES)} places and {len(cast)} names, not {tuple(times)}"
        )
    made = []
    for index, (person, last, place) in enumerate(_balanced(cast, range(most, statements), each, seed)):
        for count in times:
            draw = Random(f"overwritten:{seed}:{index}:{count}")
            told = _walks(_order([name for name in cast if name != person], statements - 1 - count, draw), draw)
            earlier = draw.sample([other for other in PLACES if other != place], count)
            for at, where in zip([*sorted(draw.sample(range(last), count)), last], [*earlier, place]):
                told.insert(at, _moved(person, where, draw))
            made.append(_prompt(f"overwritten:{index}", told, person, place, last))
    return tuple(made)


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """A fact, and facts about others that are told behind it in its place. Every statement has a segment of its own."""

    group: str
    alone: Prompt
    """A statement about someone else, the fact, the question."""
    repeated: Prompt
    """The first statement once more between fact and question: control, one more write that tells nothing new."""
    rivals: tuple[Prompt, ...]
    """Instead of it, something new about another person, at another place than the fact's."""


def rivals(documents: int = 48, *, each: int = 4, seed: int = 0) -> tuple[Rivals, ...]:
    """`documents` facts with `each` rivals; persons and places are balanced in every 24."""
    if documents < 1 or each < 1:
        raise ValueError(f"at least 1 document with 1 rival must be made, not {documents} with {each}")
    made = []
    for index, (person, _, place) in enumerate(_balanced(PEOPLE, range(1), documents, seed)):
        draw = Random(f"rivals:{seed}:{index}")
        first, *others = draw.sample([name for name in PEOPLE if name != person], 3)
        elsewhere = [other for other in PLACES if other != place]
        told = [_moved(first, draw.choice(elsewhere), draw), _moved(person, place, draw)]
        between = [_moved(draw.choice(others), draw.choice(elsewhere), draw) for _ in range(each)]
        one = f"rivals:{index}"
        made.append(
            Rivals(
                group=one,
                alone=_apart(_prompt(one, told, person, place, 1)),
                repeated=_apart(_prompt(one, [*told, told[0]], person, place, 1)),
                rivals=tuple(_apart(_prompt(one, [*told, rival], person, place, 1)) for rival in between),
            )
        )
    return tuple(made)


def _balanced(cast: Sequence[str], at: Sequence[int], each: int, seed: int) -> list[tuple[str, int, str]]:
    """`each` combinations of person, statement number and place, all as often as one another up to one."""
    every = list(product(cast, at, PLACES))
    Random(f"balanced:{seed}").shuffle(every)
    return list(islice(cycle(every), each))


def _order(people: Sequence[str], statements: int, draw: Random) -> list[str]:
    """Who is told of in each statement: everybody at least once."""
    order = [*people, *draw.choices(people, k=statements - len(people))]
    draw.shuffle(order)
    return order


def _walks(order: Sequence[str], draw: Random) -> list[str]:
    """Statements in which people go from place to place."""
    at: dict[str, str] = {}
    told = []
    for person in order:
        at[person] = draw.choice([place for place in PLACES if place != at.get(person)])
        told.append(_moved(person, at[person], draw))
    return told


def _moved(person: str, place: str, draw: Random) -> str:
    return f"{person} {draw.choice(MOVES)} to the {place}."


def _prompt(group: str, told: Sequence[str], person: str, answer: str, support: int) -> Prompt:
    question = Question(line=len(told) + 1, text=f"Where is {person}?", answer=answer, support=(support + 1,))
    lines = tuple(Statement(line=number, text=text) for number, text in enumerate(told, start=1))
    return ask(Story(id=group, task=1, lines=(*lines, question)), question)


def _apart(prompt: Prompt) -> Prompt:
    """Every statement in a segment of its own."""
    return replace(prompt, text=BREAK.join([*prompt.statements, prompt.question]))
