"""Questions of bAbI tasks 1-10: the answers that follow from what statements tell.

Which statements count as support, and in which order, was read off the official files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from lm2.tasks.world import OPPOSITE, Fact, FactKind, World, WorldError, track, understand

COUNTS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class UnanswerableError(ValueError):
    """The statements do not tell the answer of a question; the message quotes it."""


def answer(question: str, statements: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """The answer of a question of tasks 1-10 and the indexes of the statements that justify it.

    Support is in the official files' order. UnanswerableError when `statements` do not tell the answer,
    WorldError for a question or statement that is none of tasks 1-10.
    """
    worlds = track(statements)
    return answer_in(question, [understand(text) for text in statements], worlds[-1] if worlds else World())


def answer_in(question: str, facts: Sequence[Fact], world: World) -> tuple[str, tuple[int, ...]]:
    """As `answer`, for statements already understood and the world after them."""
    for pattern, solve in _QUESTIONS:
        match = pattern.fullmatch(question)
        if match:
            solution = solve(match.groupdict(), facts, world)
            if solution is None:
                raise UnanswerableError(f"{len(facts)} statements do not tell the answer of {question!r}")
            return solution
    raise WorldError(f"{question!r} is not a question of tasks 1-10; expected one like 'Where is Mary?'")


_Found = tuple[str, tuple[int, ...]] | None


_Solver = Callable[[Mapping[str, str], Sequence[Fact], World], _Found]


def _person_place(asked: Mapping[str, str], facts: Sequence[Fact], world: World) -> _Found:
    at = world.people.get(asked["person"])
    return (at.place, (at.told_by,)) if at and at.place else None


def _is_there(asked: Mapping[str, str], facts: Sequence[Fact], world: World) -> _Found:
    at, place = world.people.get(asked["person"]), asked["place"]
    if at is None or (at.place is None and not at.possible and place not in at.excluded):
        return None
    # "either in the park or the park" occurs in the official files, and there too the answer is maybe.
    word = "yes" if place == at.place else "maybe" if place in at.possible else "no"
    return word, (at.told_by,)


def _object_place(asked: Mapping[str, str], facts: Sequence[Fact], world: World) -> _Found:
    thing = world.objects.get(asked["object"])
    if thing is None or thing.place is None:
        return None
    return thing.place, (thing.touched_by, thing.visits[-1].told_by)


def _object_before(asked: Mapping[str, str], facts: Sequence[Fact], world: World) -> _Found:
    thing = world.objects.get(asked["object"])
    visits = list(thing.visits) if thing else []
    while visits and visits[-1].place != asked["place"]:
        visits.pop()
    if thing is None or not visits:
        return None
    arrived = visits[-1].told_by
    while visits and visits[-1].place == asked["place"]:
        visits.pop()
    if not visits or visits[-1].place is None:
        return None
    return visits[-1].place, (thing.touched_by, arrived, visits[-1].told_by)


def _neighbour(asked: Mapping[str, str], facts: Sequence[Fact], world: World) -> _Found:
    """The place lying in the direction of the one asked ("what is north of"), or the other way round."""
    for index, fact in enumerate(facts):
        if fact.kind is not FactKind.RELATION:
            continue
        first, direction, second = fact.words
        for place, towards, other in ((first, direction, second), (second, OPPOSITE[direction], first)):
            if towards == asked["direction"] and asked.get("other") == other:
                return place, (index,)
            if towards == asked["direction"] and asked.get("place") == place:
                return other, (index,)
    return None


def _gift(asked: Mapping[str, str], facts: Sequence[Fact], world: World) -> _Found:
    """The part of the last matching gift that the question leaves open."""
    for index in range(len(facts) - 1, -1, -1):
        if facts[index].kind is FactKind.GIVE:
            parts: dict[str, str] = dict(zip(("giver", "object", "receiver"), facts[index].words, strict=True))
            if all(parts[name] == value for name, value in asked.items() if name in parts):
                # "Who gave the milk?" leaves two open, and asks for the giver; "Who received" for the receiver.
                wanted = "receiver" if "got" in asked else next(name for name in parts if name not in asked)
                return parts[wanted], (index,)
    return None


def _handled(person: str, facts: Sequence[Fact]) -> dict[str, list[int]]:
    """Each object that `person` ever took or got, in order of the first time, with all its statements."""
    handled: dict[str, list[int]] = {}
    for index, fact in enumerate(facts):
        if fact.kind in (FactKind.TAKE, FactKind.DROP, FactKind.GIVE) and person in (fact.words[0], fact.words[-1]):
            handled.setdefault(fact.words[1], []).append(index)
    return handled


def _carried_count(asked: Mapping[str, str], facts: Sequence[Fact], world: World) -> _Found:
    handled = _handled(asked["person"], facts)
    count = len(world.carried_by(asked["person"]))
    # Nobody is known to carry nothing before something was in their hands.
    if not handled or count >= len(COUNTS):
        return None
    return COUNTS[count], tuple(sorted(index for indexes in handled.values() for index in indexes))


def _carried_list(asked: Mapping[str, str], facts: Sequence[Fact], world: World) -> _Found:
    handled = _handled(asked["person"], facts)
    if not handled:
        return None
    held = [name for name in handled if world.objects[name].holder == asked["person"]]
    return ",".join(held) or "nothing", tuple(index for indexes in handled.values() for index in indexes)


_QUESTIONS: tuple[tuple[re.Pattern[str], _Solver], ...] = tuple(
    (re.compile(pattern), solve)
    for pattern, solve in (
        (r"Where is the (?P<object>\w+)\?", _object_place),
        (r"Where is (?P<person>\w+)\?", _person_place),
        (r"Where was the (?P<object>\w+) before the (?P<place>\w+)\?", _object_before),
        (r"Is (?P<person>\w+) in the (?P<place>\w+)\?", _is_there),
        (r"What is (?P<direction>north|south|east|west) of the (?P<other>\w+)\?", _neighbour),
        (r"What is the (?P<place>\w+) (?P<direction>north|south|east|west) of\?", _neighbour),
        (r"What did (?P<giver>\w+) give to (?P<receiver>\w+)\?", _gift),
        (r"Who did (?P<giver>\w+) give the (?P<object>\w+) to\?", _gift),
        (r"Who gave the (?P<object>\w+) to (?P<receiver>\w+)\?", _gift),
        (r"Who gave the (?P<object>\w+)\?", _gift),
        (r"Who (?P<got>received) the (?P<object>\w+)\?", _gift),
        (r"How many objects is (?P<person>\w+) carrying\?", _carried_count),
        (r"What is (?P<person>\w+) carrying\?", _carried_list),
    )
)
