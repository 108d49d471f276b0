"""What bAbI sentences of tasks 1-10 tell about the world, and the answers that follow from it.

Works on text alone, so that it can be checked against the official files. Conventions that are not
obvious from the text (which lines count as support, in which order) were read off those files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

MOVES = ("moved", "went", "went back", "travelled", "journeyed")
TAKES = ("took", "got", "picked up", "grabbed")
DROPS = ("left", "dropped", "discarded", "put down")
GIVES = ("gave", "handed", "passed")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
COUNTS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class WorldError(ValueError):
    """A sentence is not one of tasks 1-10; the message quotes it."""


class UnanswerableError(ValueError):
    """The statements do not tell the answer of a question; the message quotes it."""


class FactKind(Enum):
    """What a statement tells."""

    AT = "at"  # "Mary moved to the garden." and "Mary is in the garden."
    NOT_AT = "not at"
    EITHER = "either"
    TAKE = "take"
    DROP = "drop"
    GIVE = "give"
    RELATION = "relation"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One statement, understood."""

    kind: FactKind
    words: tuple[str, ...]
    """AT, NOT_AT: person, place. EITHER: person, place, place. TAKE, DROP: person, object.
    GIVE: giver, object, receiver. RELATION: place, direction, place."""


@dataclass(frozen=True, kw_only=True)
class Whereabouts:
    """What is known of where someone is. People may walk unseen, so only the last statement counts."""

    place: str | None
    """None when not known for certain."""
    possible: frozenset[str] = frozenset()
    """The places of "either ... or ..."; empty when there is no such choice."""
    excluded: frozenset[str] = frozenset()
    """Places where the person is said not to be."""
    told_by: int
    """Index of the statement that told it."""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A stay of an object at a place."""

    place: str | None
    """None when its carrier's place is not known."""
    told_by: int
    """Index of the statement that located the carrier."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What is known of an object."""

    holder: str | None
    """Who carries it; None when it lies somewhere."""
    visits: tuple[Visit, ...]
    """Where it has been, oldest first; empty while no place is known."""
    touched_by: int
    """Index of the last statement in which it was taken, dropped or given."""

    @property
    def place(self) -> str | None:
        """Where it is, in someone's hands or not; None when unknown."""
        return self.visits[-1].place if self.visits else None


@dataclass(frozen=True, kw_only=True)
class World:
    """All that is known after a statement. People and objects not yet mentioned are absent."""

    people: Mapping[str, Whereabouts] = field(default_factory=dict)
    """People whose whereabouts were told."""
    objects: Mapping[str, Thing] = field(default_factory=dict)
    relations: tuple[tuple[str, str, str], ...] = ()
    """(place, direction, place) as told: the first lies in that direction of the second."""

    def where(self, person: str) -> str | None:
        """The certain place of `person`, None when unknown."""
        return self.people[person].place if person in self.people else None

    def carried_by(self, person: str) -> tuple[str, ...]:
        """What `person` carries, in alphabetical order."""
        return tuple(sorted(name for name, thing in self.objects.items() if thing.holder == person))


def _any(words: Sequence[str]) -> str:
    # Longest first, or "went" would hide "went back".
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_SENTENCES: tuple[tuple[FactKind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (FactKind.AT, rf"(\w+) {_any(MOVES)} to the (\w+)\."),
        (FactKind.TAKE, rf"(\w+) {_any(TAKES)} the (\w+)(?: there)?\."),
        (FactKind.DROP, rf"(\w+) {_any(DROPS)} the (\w+)(?: there)?\."),
        (FactKind.GIVE, rf"(\w+) {_any(GIVES)} the (\w+) to (\w+)\."),
        (FactKind.AT, r"(\w+) is in the (\w+)\."),
        (FactKind.NOT_AT, r"(\w+) is (?:not|no longer) in the (\w+)\."),
        (FactKind.EITHER, r"(\w+) is either in the (\w+) or the (\w+)\."),
        (FactKind.RELATION, rf"The (\w+) is {_any(tuple(OPPOSITE)).replace('?:', '')} of the (\w+)\."),
    )
)


def understand(text: str) -> Fact:
    """The fact a statement tells; WorldError when it is no sentence of tasks 1-10."""
    for kind, pattern in _SENTENCES:
        match = pattern.fullmatch(text)
        if match:
            return Fact(kind=kind, words=match.groups())
    raise WorldError(f"{text!r} is not a statement of tasks 1-10; expected one like 'Mary moved to the garden.'")


def track(texts: Sequence[str]) -> tuple[World, ...]:
    """The world after each of `texts`; WorldError for a sentence that is none of tasks 1-10."""
    worlds = []
    world = World()
    for index, text in enumerate(texts):
        world = _after(world, understand(text), index)
        worlds.append(world)
    return tuple(worlds)


def _after(world: World, fact: Fact, index: int) -> World:
    """The world after one more fact, told by statement `index`."""
    if fact.kind is FactKind.RELATION:
        place, direction, other = fact.words
        return replace(world, relations=(*world.relations, (place, direction, other)))
    if fact.kind in (FactKind.TAKE, FactKind.DROP, FactKind.GIVE):
        return _after_handling(world, fact, index)
    person, *places = fact.words
    named = frozenset(places)
    told = Whereabouts(
        place=places[0] if fact.kind is FactKind.AT else None,
        possible=named if fact.kind is FactKind.EITHER else frozenset(),
        excluded=named if fact.kind is FactKind.NOT_AT else frozenset(),
        told_by=index,
    )
    here = Visit(place=told.place, told_by=index)
    objects = {
        name: replace(thing, visits=(*thing.visits, here)) if thing.holder == person else thing
        for name, thing in world.objects.items()
    }
    return replace(world, people={**world.people, person: told}, objects=objects)


def _after_handling(world: World, fact: Fact, index: int) -> World:
    """The world after something was taken, dropped or given."""
    person, name = fact.words[:2]
    before = world.objects.get(name)
    visits = before.visits if before else ()
    at = world.people.get(person)
    # The carrier's own move is what locates the object from here on, even where it lay there already.
    if at is not None and (not visits or visits[-1].told_by != at.told_by):
        visits = (*visits, Visit(place=at.place, told_by=at.told_by))
    holder = {FactKind.TAKE: person, FactKind.DROP: None, FactKind.GIVE: fact.words[-1]}[fact.kind]
    thing = Thing(holder=holder, visits=visits, touched_by=index)
    return replace(world, objects={**world.objects, name: thing})


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
            found = solve(match.groupdict(), facts, world)
            if found is None:
                raise UnanswerableError(f"{len(facts)} statements do not tell the answer of {question!r}")
            return found
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
    said = "yes" if place == at.place else "maybe" if place in at.possible else "no"
    return said, (at.told_by,)


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
            parts = dict(zip(("giver", "object", "receiver"), facts[index].words, strict=True))
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
