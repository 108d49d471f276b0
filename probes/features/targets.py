"""Targets of probes: labels known exactly from the text, a run, or the user's own file."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int

from lm2.runs.trace import read_only
from probes.features.examples import Examples
from probes.features.label_files import TARGET, read_labels

UNKNOWN = -1
"""The label of a row where the target is unknown."""
OVERWRITTEN = 0.5
"""A slot is overwritten by a change larger than this share of its norm."""
_FREQUENT = 20
"""Number of tokens that are classes."""


class Labels(NamedTuple):
    """A target's label of each row."""

    values: Int[np.ndarray, "row"]
    """A class's index in `names`; -1 if it is unknown."""
    names: tuple[str, ...]
    """The classes: numbers in their order, then words in theirs."""


@dataclass(frozen=True, kw_only=True)
class Target(ABC):
    """Something to read off a row; `parse(str(target)) == target`."""

    form: ClassVar[str]
    """How it is written, with its fields in braces."""

    def __str__(self) -> str:
        return self.form.format(**vars(self))

    def check(self, examples: Examples) -> None:  # noqa: B027 - all documents have most targets
        """Raise ValueError, with those that exist, for a name or slot that these documents do not have."""

    @abstractmethod
    def label(self, examples: Examples) -> Labels:
        """Each row's label. Raises ValueError as `check` does."""


class OneOf(Target, ABC):
    """A target about one name or slot, which is its only field."""

    noun: ClassVar[str]

    @staticmethod
    @abstractmethod
    def values(examples: Examples) -> Sequence[str] | range:
        """The names or slots of these documents."""

    @classmethod
    def every(cls, examples: Examples) -> list[Target]:
        (field,) = fields(cls)
        return [cls(**{field.name: value}) for value in cls.values(examples)]

    def check(self, examples: Examples) -> None:
        (value,), values = vars(self).values(), self.values(examples)
        if value not in values:
            raise ValueError(
                f"{str(self)!r}: these documents have no {self.noun} {value}; they have"
                f" {', '.join(map(str, values)) or 'none'}"
            )


@dataclass(frozen=True, kw_only=True)
class SegmentIndex(Target):
    """The index of the row's segment."""

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
    """The token so many places before the row's, in any segment; 0 is the row's own.

    The 20 most frequent tokens are classes (of equally frequent ones, those of lower id), written as id and spelling;
    others are unknown.
    """

    form = "token {back} back"
    back: int

    def label(self, examples: Examples) -> Labels:
        sequences = [encoded.tokens for encoded in examples.encoded_prompts]
        places = zip(examples.document, examples.place - self.back)
        tokens = [sequences[document].ids[place] if place >= 0 else None for document, place in places]
        counts = Counter(token for token in tokens if token is not None)
        spelling = {token: piece for sequence in sequences for token, piece in zip(sequence.ids, sequence.pieces)}
        frequent = sorted(counts, key=lambda token: (-counts[token], token))[:_FREQUENT]
        names = {token: f"{token} {spelling[token]!r}" for token in frequent}
        return labels_of([None if token is None else names.get(token) for token in tokens])


@dataclass(frozen=True, kw_only=True)
class SlotOverwritten(OneOf):
    """Whether the row's segment overwrites a slot: changes it by more than half of its norm before (Euclidean).

    The change is from the bank that the segment starts with to the one that it passes on.
    """

    form, noun = "slot {slot} overwritten", "slot"
    slot: int

    @staticmethod
    def values(examples: Examples) -> range:
        return range(examples.slots)

    def label(self, examples: Examples) -> Labels:
        self.check(examples)
        if examples.changes is None:
            raise ValueError(f"{str(self)!r} takes a run of the model: label it with probes.features.collect.labelled")
        return labels_of(["yes" if change > OVERWRITTEN else "no" for change in examples.changes[:, self.slot]])


@dataclass(frozen=True, kw_only=True)
class SetLabel(OneOf):
    """A label that the documents' question set gives to stretches of their texts.

    A row's is that of the stretch that has the last character of its token; of several, the one that starts last.
    Unknown where there is none.
    """

    form, noun = "label {name}", "label"
    name: str

    @staticmethod
    def values(examples: Examples) -> list[str]:
        return sorted({label.name for encoded in examples.encoded_prompts for label in encoded.prompt.labels})

    def label(self, examples: Examples) -> Labels:
        self.check(examples)
        labels = [
            sorted((label for label in encoded.prompt.labels if label.name == self.name), key=attrgetter("start"))
            for encoded in examples.encoded_prompts
        ]
        classes = []
        for document, place in zip(examples.document, examples.place):
            last = examples.encoded_prompts[document].tokens.spans[place][1] - 1
            held = [label.value for label in labels[document] if label.start <= last < label.end]
            classes.append(held[-1] if held else None)
        return labels_of(classes)


@dataclass(frozen=True, kw_only=True)
class OwnLabels(Target):
    """Labels from the user's CSV file with columns row, label and group, and maybe others, as in `Examples.table`.

    Rows that the file does not name or label are unknown. Every row that it names needs a group, which is joined with
    the row's own.
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
        """The file's group of each row, "" for rows that it does not name."""
        groups = [""] * len(examples)
        for row, _, group in read_labels(Path(self.file), len(examples)):
            groups[row] = group
        return groups


def labels_of(classes: Sequence[str | None]) -> Labels:
    """The class of each row, None if it is unknown, as labels."""
    present = {name for name in classes if name is not None}
    names = sorted(filter(str.isdecimal, present), key=int) + sorted(name for name in present if not name.isdecimal())
    index = {name: i for i, name in enumerate(names)} | {None: UNKNOWN}
    return Labels(read_only(np.array([index[name] for name in classes])), tuple(names))
