"""What bAbI sentences of tasks 1-10 tell about the world.

Works on text alone, so that it can be checked against the official files. Conventions that are not
obvious from the text were read off those files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

MOVES = ("moved", "went", "went back", "travelled", "journeyed")
TAKES = ("took", "got", "picked up", "grabbed")
DROPS = ("left", "dropped", "discarded", "put down")
GIVES = ("gave", "handed", "passed")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


class WorldError(ValueError):
    """A sentence is not one of tasks 1-10; the message quotes it."""


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


@lru_cache(maxsize=1 << 16)
def understand(text: str) -> Fact:
    """The fact a statement tells; WorldError when it is no sentence of tasks 1-10."""
    for kind, pattern in _SENTENCES:
        match = pattern.fullmatch(text)
        if match:
            return Fact(kind=kind, words=match.groups())
    raise WorldError(f"{text!r} is not a statement of tasks 1-10; expected one like 'Mary moved to the garden.'")


def track(texts: Sequence[str], before: Sequence[World] = ()) -> tuple[World, ...]:
    """The world after each of `texts`, which follow those that led to the worlds `before`; WorldError for a sentence
    that is none of tasks 1-10."""
    worlds = [*before[-1:]] or [World()]
    for index, text in enumerate(texts, start=len(before)):
        worlds.append(_after(worlds[-1], understand(text), index))
    return tuple(worlds[1:])


def _after(world: World, fact: Fact, index: int) -> World:
    """The world after one more fact, told by statement `index`."""
    if fact.kind is FactKind.RELATION:
        place, direction, other = fact.words
        relations = (*world.relations, (place, direction, other))
        return World(people=world.people, objects=world.objects, relations=relations)
    if fact.kind in (FactKind.TAKE, FactKind.DROP, FactKind.GIVE):
        return _after_handling(world, fact, index)
    person, *places = fact.words
    named = frozenset(places)
    whereabouts = Whereabouts(
        place=places[0] if fact.kind is FactKind.AT else None,
        possible=named if fact.kind is FactKind.EITHER else frozenset(),
        excluded=named if fact.kind is FactKind.NOT_AT else frozenset(),
        told_by=index,
    )
    here = Visit(place=whereabouts.place, told_by=index)
    objects = {
        name: Thing(holder=person, visits=(*thing.visits, here), touched_by=thing.touched_by)
        if thing.holder == person
        else thing
        for name, thing in world.objects.items()
    }
    return World(people={**world.people, person: whereabouts}, objects=objects, relations=world.relations)


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
    return World(people=world.people, objects={**world.objects, name: thing}, relations=world.relations)
