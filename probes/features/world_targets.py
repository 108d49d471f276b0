"""Targets that follow from the state of a story: places of people and objects, statements so far, the question."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lm2.tasks.world import World
from probes.features.documents import without_names
from probes.features.examples import Examples
from probes.features.targets import Labels, OneOf, Target, labels_of

NOBODY = "nobody"
"""The holder of an object that lies somewhere."""
_MOST_COUNTED = 10
"""This many statements and more are one class."""


class _StateTarget(Target, ABC):
    """A target that depends on the document and the number of statements so far."""

    @abstractmethod
    def class_after(self, examples: Examples, document: int, statements: int) -> str | None:
        """The class of a document's rows after so many statements; None if it is unknown."""

    def label(self, examples: Examples) -> Labels:
        self.check(examples)
        states = list(zip(examples.document.tolist(), examples.statements.tolist()))
        classes = {state: self.class_after(examples, *state) for state in dict.fromkeys(states)}
        return labels_of([classes[state] for state in states])


@dataclass(frozen=True, kw_only=True)
class PlaceOf(OneOf, _StateTarget):
    """Where a person or an object is. Unknown before the story says so, and if it leaves it open."""

    form, noun = "place of {name}", "person or object"
    name: str

    @staticmethod
    def values(examples: Examples) -> list[str]:
        return _named(examples, lambda world: [name for name in (*world.people, *world.objects) if _place(world, name)])

    def class_after(self, examples: Examples, document: int, statements: int) -> str | None:
        return _place(examples.worlds[document][statements - 1], self.name) if statements else None


@dataclass(frozen=True, kw_only=True)
class PreviousPlaceOf(PlaceOf):
    """Where a person or an object was before it came to its place. Unknown while it has been at one place only."""

    form = "previous place of {name}"

    def class_after(self, examples: Examples, document: int, statements: int) -> str | None:
        places = [_place(world, self.name) for world in examples.worlds[document][:statements]]
        stays = [place for place, before in zip(places, [None, *places]) if place != before]
        return stays[-2] if len(stays) > 1 and places[-1] else None


@dataclass(frozen=True, kw_only=True)
class HolderOf(OneOf, _StateTarget):
    """Who carries an object; "nobody" if it lies somewhere, unknown before the story names it."""

    form, noun = "holder of {name}", "object"
    name: str

    @staticmethod
    def values(examples: Examples) -> list[str]:
        return _named(examples, lambda world: world.objects)

    def class_after(self, examples: Examples, document: int, statements: int) -> str | None:
        objects = examples.worlds[document][statements - 1].objects if statements else {}
        return (objects[self.name].holder or NOBODY) if self.name in objects else None


@dataclass(frozen=True, kw_only=True)
class CorrectAnswer(_StateTarget):
    """The answer to the coming question."""

    form = "answer"

    def class_after(self, examples: Examples, document: int, statements: int) -> str:
        return examples.encoded_prompts[document].prompt.answer


@dataclass(frozen=True, kw_only=True)
class FactTold(_StateTarget):
    """Whether all supporting facts of the coming question have been told. Unknown if the file names none."""

    form = "fact told"

    def class_after(self, examples: Examples, document: int, statements: int) -> str | None:
        support = examples.encoded_prompts[document].prompt.support
        return ("yes" if statements > max(support) else "no") if support else None


@dataclass(frozen=True, kw_only=True)
class FactsTold(_StateTarget):
    """The number of statements so far: 0 to 9, or "10+"."""

    form = "facts told"

    def class_after(self, examples: Examples, document: int, statements: int) -> str:
        return str(statements) if statements < _MOST_COUNTED else f"{_MOST_COUNTED}+"


@dataclass(frozen=True, kw_only=True)
class QuestionType(_StateTarget):
    """The coming question without its names."""

    form = "question type"

    def class_after(self, examples: Examples, document: int, statements: int) -> str:
        return without_names(examples.encoded_prompts[document].prompt.question, examples.names)


def _place(world: World, name: str) -> str | None:
    """Where a person or an object is known to be."""
    return world.objects[name].place if name in world.objects else world.where(name)


def _named(examples: Examples, names: Callable[[World], Iterable[str]]) -> list[str]:
    """Everything that some world names, in alphabetical order."""
    return sorted({name for worlds in examples.worlds for world in worlds for name in names(world)})
