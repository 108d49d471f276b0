"""Targets: what is to be read off a row, with the truth known exactly from the text, a run, or a file of one's own."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int

from lm2.runs.trace import read_only
from probes.features.examples import Examples
from probes.features.label_files import TARGET, read_labels

UNKNOWN = -1
"""The label of a row of which a target says nothing."""
OVERWRITTEN = 0.5
"""A slot is overwritten by a change larger than this share of its norm."""
_FREQUENT = 20
"""Tokens that are classes of their own."""


class Labels(NamedTuple):
    """What a target says of each row."""

    values: Int[np.ndarray, "row"]
    """A class by number; -1 where nothing is known."""
    names: tuple[str, ...]
    """The classes: numbers first in their order, then words in theirs."""


@dataclass(frozen=True, kw_only=True)
class Target(ABC):
    """Something that may be read off a row. Its text gives it back: `parse(str(target)) == target`."""

    form: ClassVar[str]
    """How it is written, a field of that name in each brace."""

    def __str__(self) -> str:
        return self.form.format(**vars(self))

    def check(self, examples: Examples) -> None:  # noqa: B027 - most targets are there in all documents
        """Raise ValueError, with those that there are, for a name or slot that these documents do not hold."""

    @abstractmethod
    def label(self, examples: Examples) -> Labels:
        """What it says of each row. Raises ValueError as `check` does."""


class OneOf(Target, ABC):
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


@dataclass(frozen=True, kw_only=True)
class SegmentIndex(Target):
    """The number of the row's segment."""

    form = "segment"

    def label(self, examples: Examples) -> Labels:
        return labels_of(list(map(str, examples.segment)))


@dataclass(frozen=True, kw_only=True)
class FactDistance(Target):
    """Segments since the coming question's last supporting fact. Unknown before it."""

    form = "distance"

    def label(self, examples: Examples) -> Labels:
        return labels_of([str(distance) if distance >= 0 else None for distance in examples.fact_distance])


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
            token: piece
            for encoded_prompt in examples.encoded_prompts
            for token, piece in zip(encoded_prompt.tokens.ids, encoded_prompt.tokens.pieces)
        }
        frequent = sorted(counts, key=lambda token: (-counts[token], token))[:_FREQUENT]
        names = {token: f"{token} {spelling[token]!r}" for token in frequent}
        return labels_of([None if token is None else names.get(token) for token in tokens])


@dataclass(frozen=True, kw_only=True)
class SlotOverwritten(OneOf):
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
        return labels_of(["yes" if change > OVERWRITTEN else "no" for change in examples.changes[:, self.slot]])


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
        return labels_of(labels)

    def groups(self, examples: Examples) -> list[str]:
        """The file's group of each row that it names, "" for the others."""
        found = [""] * len(examples)
        for row, _, group in read_labels(Path(self.file), len(examples)):
            found[row] = group
        return found


def labels_of(classes: Sequence[str | None]) -> Labels:
    there = {name for name in classes if name is not None}
    names = sorted(filter(str.isdecimal, there), key=int) + sorted(name for name in there if not name.isdecimal())
    number = {name: at for at, name in enumerate(names)} | {None: UNKNOWN}
    return Labels(read_only(np.array([number[name] for name in classes])), tuple(names))
