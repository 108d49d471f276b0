"""The base classes of interventions: what each answers, and what those that hold an operation share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from lm2.model.config import LM2Config
from lm2.model.sites import Axis
from lm2.runs.capture import Sizes, check_numbers
from lm2.runs.donors import Donated
from lm2.runs.operations import Operation
from lm2.serialize import Plain, distinct
from lm2.shown import numbered, shown

if TYPE_CHECKING:
    from lm2.text.segments import Segment

BEFORE = -1
"""In place of a block's number: before the first one."""

Donors = Mapping[str, Sequence["Segment"]]
"""The segments of each text that a run takes something from."""


class Persistence(Enum):
    """How far an edit reaches."""

    PERSIST = "persist"
    """Everything after it is computed from the edited value."""
    READ_ONLY = "read_only"
    """The stream sees the edit, the bank does not: what is written is written as if nothing had been edited."""


@dataclass(frozen=True, kw_only=True)
class Intervention(Plain, ABC):
    """A change to a run. Subclasses are frozen, hold plain values only, and refuse values that no run could use."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("layers", "segments", "slots", "heads", "tokens"):
            distinct(name, getattr(self, name, None))

    @property
    @abstractmethod
    def words(self) -> str:
        """What it changes and where, in a few words for titles and captions."""

    @abstractmethod
    def first_block(self, config: LM2Config, segment: "Segment") -> int | None:
        """The block in which it first does something in a segment: BEFORE all of them, or the number of blocks for
        after the last. None where it does nothing."""

    @property
    def read_only(self) -> bool:
        """Whether the bank is to be written as if this were not there."""
        return False

    @property
    def donors(self) -> tuple[str, ...]:
        """Other texts that must be run for it."""
        return ()

    @abstractmethod
    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        """Raise ValueError, with the range that exists, when it names a place that this run's `segments` or a donor's
        do not have. `donors` holds every text in `self.donors`."""


@dataclass(frozen=True, kw_only=True)
class Editing(Intervention, ABC):
    """Puts an operation's result in the place of a value."""

    operation: Operation
    segments: tuple[int, ...] | None = None
    slots: tuple[int, ...] | None = None
    persistence: Persistence = Persistence.PERSIST

    def __post_init__(self) -> None:
        if not isinstance(self.operation, Operation):
            raise ValueError(f"operation must be an operation such as Set(value=0.0), not {shown(self.operation)}")
        if not isinstance(self.persistence, Persistence):
            raise ValueError(f"persistence must be a Persistence, not {shown(self.persistence)}")
        super().__post_init__()

    @property
    def read_only(self) -> bool:
        return self.persistence is Persistence.READ_ONLY

    @property
    def donors(self) -> tuple[str, ...]:
        return self.operation.donors if isinstance(self.operation, Donated) else ()

    def _words(self, target: str, **places: tuple[int, ...] | None) -> str:
        return f"{target} {self.operation.words}{where(**places)}{', for reading alone' if self.read_only else ''}"

    def reaches(self, segment: "Segment") -> bool:
        """Whether it changes anything in a segment."""
        return (self.segments is None or segment.index in self.segments) and self.slots != ()

    def _check(self, where: str, axes: tuple[Axis, ...], sizes: Sizes) -> None:
        check_numbers("slot", self.slots, range(sizes[Axis.SLOT]))
        self.operation.check(where, axes, sizes)

    def _donor_segments(self, segment: int, donors: Donors) -> Iterator["Segment"]:
        """The donors' segments that `segment` takes from. Raises ValueError where a donor has none of that number."""
        if not isinstance(self.operation, Donated):
            return
        for text in self.operation.donors:
            count = len(donors[text])
            index = self.operation.donor_segment(segment, count)
            if index >= count:
                short = text if len(text) <= 40 else f"{text[:40]}…"
                raise ValueError(f"there is no segment {index} in the donor {short!r}; it has segments 0..{count - 1}")
            yield donors[text][index]


def first_reader(config: LM2Config) -> int:
    """The first block in which another bank makes a difference."""
    return BEFORE if config.memory.design.bank_in_stream else min(config.memory_layers, default=BEFORE)


@dataclass(frozen=True, kw_only=True)
class BankIntervention(Intervention, ABC):
    """Decides which bank a segment begins with, or which it hands on."""

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        check_memory(config, "bank")

    def reaches(self, segment: "Segment") -> bool:
        """Whether it changes the bank that a segment begins with."""
        return False

    def first_block(self, config: LM2Config, segment: "Segment") -> int | None:
        return first_reader(config) if self.reaches(segment) else None


def where(**places: tuple[int, ...] | None) -> str:
    """The places by their numbers, each kind under its noun; nothing of kinds that are not restricted."""
    listed = [numbered(noun, numbers) for noun, numbers in places.items() if numbers is not None]
    return f" in {', '.join(listed)}" if listed else ""


def check_memory(config: LM2Config, lacking: str) -> None:
    if not config.memory_layers:
        raise ValueError(f"a model of memory kind {config.memory.value!r} has no {lacking}")
