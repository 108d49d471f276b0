"""Targets: what is to be read off a row, with the truth known exactly from the story's state, the text, or a file of
one's own.

Every target is written as a short text and read back from it ("place of Mary", "token 3 back"). A "*" in the place of a
name or slot stands for every one that the documents hold.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int

from lm2.runs.trace import read_only
from lm2.tasks.world import World
from probes.features.documents import without_names
from probes.features.examples import Examples
from probes.features.label_files import TARGET, read_labels

UNKNOWN = -1
"""The label of a row of which a target says nothing."""
NOBODY = "nobody"
"""Who holds an object that lies somewhere."""
OVERWRITTEN = 0.5
"""A slot is overwritten by a change larger than this share of its norm."""
_COUNTED = 10
"""Statements told: so many and more are one class."""
_FREQUENT = 20
"""Tokens that are classes of their own."""
_WRITTEN = {str: ".+", int: r"\d+"}
"""How the values of a target's fields are written, as patterns."""


class Labels(NamedTuple):
    """What a target says of each row."""

    values: Int[np.ndarray, "row"]
    """A class by number; -1 where nothing is known."""
    names: tuple[str, ...]
    """The classes: numbers first in their order, then words in theirs."""


@dataclass(frozen=True, kw_only=True)
class Target(ABC):
    """Something that may be read off a row. Its text gives it back: `Target.parse(str(target)) == target`."""

    form: ClassVar[str]
    """How it is written, a field of that name in each brace."""

    def __str__(self) -> str:
        return self.form.format(**vars(self))

    @staticmethod
    def parse(text: str) -> "Target":
        """Raises ValueError, with all forms that there are, for a text of none."""
        for kind in KINDS:
            types: dict[str, Any] = {field.name: field.type for field in fields(kind)}
            pattern = kind.form.format(**{name: rf"(?P<{name}>{_WRITTEN[type_]})" for name, type_ in types.items()})
            found = re.fullmatch(pattern, text)
            if found:
                return kind(**{name: types[name](value) for name, value in found.groupdict().items()})
        raise ValueError(f"no target is called {text!r}; targets are {', '.join(kind.form for kind in KINDS)}")

    def check(self, examples: Examples) -> None:  # noqa: B027 - most targets are there in all documents
        """Raise ValueError, with those that there are, for a name or slot that these documents do not hold."""

    @abstractmethod
    def label(self, examples: Examples) -> Labels:
        """What it says of each row. Raises ValueError as `check` does."""


def expand(texts: Sequence[str], examples: Examples) -> tuple[Target, ...]:
    """The targets that are written, each once; "*" stands for every name or slot there is.

    Raises ValueError for a text that is no target, and for names, slots and files that are not there.
    """
    found: dict[Target, None] = {}
    for text in texts:
        kind = next(
            (kind for kind in KINDS if issubclass(kind, _OneOf) and re.sub(r"\{\w+\}", "*", kind.form) == text), None
        )
        targets = [Target.parse(text)] if kind is None else kind.every(examples)
        if kind is not None and not targets:
            raise ValueError(f"{text!r} stands for nothing: these documents have no {kind.what}")
        for target in targets:
            target.check(examples)
        found |= dict.fromkeys(targets)
    return tuple(found)


class _OneOf(Target, ABC):
    """About one of several things."""

    what: ClassVar[str]

    @staticmethod
    @abstractmethod
    def there(examples: Examples) -> Sequence[str] | range:
        """All that it can be about."""

    @classmethod
    def every(cls, examples: Examples) -> list[Target]:
        (field,) = fields(cls)
        return [cls(**{field.name: value}) for value in cls.there(examples)]

    def check(self, examples: Examples) -> None:
        (value,), there = vars(self).values(), self.there(examples)
        if value not in there:
            raise ValueError(
                f"{str(self)!r}: these documents have no {self.what} {value}; they have"
                f" {', '.join(map(str, there)) or 'none'}"
            )


class _OfState(Target, ABC):
    """Follows from the document and the number of statements told."""

    @abstractmethod
    def said(self, examples: Examples, document: int, told: int) -> str | None:
        """The class of rows of a document at which so many statements have been told; None where it is not known."""

    def label(self, examples: Examples) -> Labels:
        self.check(examples)
        states, which = np.unique(np.stack([examples.document, examples.told]), axis=1, return_inverse=True)
        classes = [self.said(examples, int(document), int(told)) for document, told in states.T]
        return _labels([classes[at] for at in which.ravel()])


@dataclass(frozen=True, kw_only=True)
class PlaceOf(_OneOf, _OfState):
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
class HolderOf(_OneOf, _OfState):
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


@dataclass(frozen=True, kw_only=True)
class SegmentIndex(Target):
    """The number of the row's segment."""

    form = "segment"

    def label(self, examples: Examples) -> Labels:
        return _labels(list(map(str, examples.segment)))


@dataclass(frozen=True, kw_only=True)
class FactDistance(Target):
    """Segments since the coming question's last supporting fact. Unknown before it."""

    form = "distance"

    def label(self, examples: Examples) -> Labels:
        return _labels([str(distance) if distance >= 0 else None for distance in examples.fact_distance])


@dataclass(frozen=True, kw_only=True)
class TokenBack(Target):
    """The token so many places before the row's, in whatever segment; 0, the row's own.

    The 20 most frequent are classes (of as frequent ones, those of lower id), written as id and spelling; others are
    unknown.
    """

    form = "token {back} back"
    back: int

    def label(self, examples: Examples) -> Labels:
        places = zip(examples.document, examples.place - self.back)
        tokens = [examples.encoded_prompts[at].tokens.ids[place] if place >= 0 else None for at, place in places]
        counts = Counter(token for token in tokens if token is not None)
        spelling = {
            token: piece for one in examples.encoded_prompts for token, piece in zip(one.tokens.ids, one.tokens.pieces)
        }
        frequent = sorted(counts, key=lambda token: (-counts[token], token))[:_FREQUENT]
        names = {token: f"{token} {spelling[token]!r}" for token in frequent}
        return _labels([None if token is None else names.get(token) for token in tokens])


@dataclass(frozen=True, kw_only=True)
class SlotOverwritten(_OneOf):
    """Whether the row's segment overwrites a slot: its change is larger than half of the slot's norm before
    (Euclidean).

    The change is from the bank that the segment begins with to the one that it hands on, whichever of them is the
    row's.
    """

    form, what = "slot {slot} overwritten", "slot"
    slot: int

    @staticmethod
    def there(examples: Examples) -> range:
        return range(examples.slots)

    def label(self, examples: Examples) -> Labels:
        self.check(examples)
        if examples.changes is None:
            raise ValueError(
                f"{str(self)!r} takes a run of the model to say: label it with probes.features.collect.labelled"
            )
        return _labels(["yes" if change > OVERWRITTEN else "no" for change in examples.changes[:, self.slot]])


@dataclass(frozen=True, kw_only=True)
class OwnLabels(Target):
    """Labels of one's own: a CSV file with columns row, label and group, and maybe others, such as `Examples.table`
    has.

    Rows that the file does not name, or gives no label, are unknown. Every row that it names needs a group, which is
    joined with the row's own: `groups` has them.
    """

    form = TARGET + "{file}"
    file: str

    def check(self, examples: Examples) -> None:
        read_labels(Path(self.file), len(examples))

    def label(self, examples: Examples) -> Labels:
        labels: list[str | None] = [None] * len(examples)
        for row, label, _ in read_labels(Path(self.file), len(examples)):
            labels[row] = label or None
        return _labels(labels)

    def groups(self, examples: Examples) -> list[str]:
        """The file's group of each row that it names, "" for the others."""
        found = [""] * len(examples)
        for row, _, group in read_labels(Path(self.file), len(examples)):
            found[row] = group
        return found


KINDS: tuple[type[Target], ...] = (
    PlaceOf,
    PreviousPlaceOf,
    HolderOf,
    CorrectAnswer,
    FactTold,
    FactsTold,
    QuestionType,
    SegmentIndex,
    FactDistance,
    TokenBack,
    SlotOverwritten,
    OwnLabels,
)


def _place(world: World, name: str) -> str | None:
    """Where a person or an object is known to be."""
    return world.objects[name].place if name in world.objects else world.where(name)


def _told_of(examples: Examples, names: Callable[[World], Iterable[str]]) -> list[str]:
    """Everything that some world names, in alphabetical order."""
    return sorted({name for worlds in examples.worlds for world in worlds for name in names(world)})


def _labels(classes: Sequence[str | None]) -> Labels:
    there = {name for name in classes if name is not None}
    names = sorted(filter(str.isdecimal, there), key=int) + sorted(name for name in there if not name.isdecimal())
    number = {name: at for at, name in enumerate(names)} | {None: UNKNOWN}
    return Labels(read_only(np.array([number[name] for name in classes])), tuple(names))
