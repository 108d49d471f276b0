"""Targets that follow from the state of a story: where people and objects are, what has been told, what is asked."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from lm2.tasks.world import World
from probes.features.documents import without_names
from probes.features.examples import Examples
from probes.features.targets import Labels, OneOf, Target, labels_of

NOBODY = "nobody"
"""Who holds an object that lies somewhere."""


_COUNTED = 10
"""Statements told: so many and more are one class."""


class _OfState(Target, ABC):
    """Follows from the document and the number of statements told."""

    @abstractmethod
    def said(self, examples: Examples, document: int, told: int) -> str | None:
        """The class of rows of a document at which so many statements have been told; None where it is not known."""

    def label(self, examples: Examples) -> Labels:
        self.check(examples)
        states, which = np.unique(np.stack([examples.document, examples.told]), axis=1, return_inverse=True)
        classes = [self.said(examples, int(document), int(told)) for document, told in states.T]
        return labels_of([classes[at] for at in which.ravel()])


@dataclass(frozen=True, kw_only=True)
class PlaceOf(OneOf, _OfState):
    """Where a person or an object is. Unknown before it is told of, and where the story leaves it open."""

    form, what = "place of {name}", "person or object"
    name: str

    @staticmethod
    def there(examples: Examples) -> list[str]:
        return _told_of(
            examples, lambda world: [name for name in (*world.people, *world.objects) if _place(world, name)]
        )

    def said(self, examples: Examples, document: int, told: int) -> str | None:
        return _place(examples.worlds[document][told - 1], self.name) if told else None


@dataclass(frozen=True, kw_only=True)
class PreviousPlaceOf(PlaceOf):
    """Where a person or an object was before it came to the place where it is. Unknown, too, while it has been at one
    place only."""

    form = "previous place of {name}"

    def said(self, examples: Examples, document: int, told: int) -> str | None:
        places = [_place(world, self.name) for world in examples.worlds[document][:told]]
        stays = [place for place, before in zip(places, [None, *places]) if place != before]
        return stays[-2] if len(stays) > 1 and places[-1] else None


@dataclass(frozen=True, kw_only=True)
class HolderOf(OneOf, _OfState):
    """Who carries an object: "nobody" where it lies somewhere, unknown before it is told of."""

    form, what = "holder of {name}", "object"
    name: str

    @staticmethod
    def there(examples: Examples) -> list[str]:
        return _told_of(examples, lambda world: world.objects)

    def said(self, examples: Examples, document: int, told: int) -> str | None:
        objects = examples.worlds[document][told - 1].objects if told else {}
        return (objects[self.name].holder or NOBODY) if self.name in objects else None


@dataclass(frozen=True, kw_only=True)
class CorrectAnswer(_OfState):
    """The answer to the coming question."""

    form = "answer"

    def said(self, examples: Examples, document: int, told: int) -> str:
        return examples.encoded_prompts[document].prompt.answer


@dataclass(frozen=True, kw_only=True)
class FactTold(_OfState):
    """Whether all supporting facts of the coming question have been told. Unknown where the file names none."""

    form = "fact told"

    def said(self, examples: Examples, document: int, told: int) -> str | None:
        support = examples.encoded_prompts[document].prompt.support
        return ("yes" if told > max(support) else "no") if support else None


@dataclass(frozen=True, kw_only=True)
class FactsTold(_OfState):
    """How many statements have been told: 0 to 9, or "10+"."""

    form = "facts told"

    def said(self, examples: Examples, document: int, told: int) -> str:
        return str(told) if told < _COUNTED else f"{_COUNTED}+"


@dataclass(frozen=True, kw_only=True)
class QuestionType(_OfState):
    """The coming question without its names."""

    form = "question type"

    def said(self, examples: Examples, document: int, told: int) -> str:
        return without_names(examples.encoded_prompts[document].prompt.question, examples.names)


def _place(world: World, name: str) -> str | None:
    """Where a person or an object is known to be."""
    return world.objects[name].place if name in world.objects else world.where(name)


def _told_of(examples: Examples, names: Callable[[World], Iterable[str]]) -> list[str]:
    """Everything that some world names, in alphabetical order."""
    return sorted({name for worlds in examples.worlds for world in worlds for name in names(world)})
