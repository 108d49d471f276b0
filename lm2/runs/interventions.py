"""Declared changes to a run: values in a RunSpec, turned into hooks and banks by `run` alone.

An Edit changes an activation at a site. A BankIntervention decides which bank a segment begins with or hands on; a
BankEdit is one. WriteBlock and MemoryOff cut the ways into the memory and out of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from lm2.model.config import LM2Config
from lm2.model.gates import GATES
from lm2.model.sites import AnySite, Axis, Site
from lm2.runs.capture import Coordinate, Sizes, blocks_of, check_places, check_there
from lm2.runs.operations import Donated, Initial, Operation
from lm2.serialize import Plain, distinct, none_empty
from lm2.shown import excerpts, numbered, shown

if TYPE_CHECKING:
    from lm2.text.segments import Segment

_GATES = {gate.site: gate.words for gate in GATES.values()}

BEFORE = -1
"""In place of a block's number: before the first one."""

Donors = Mapping[str, Sequence["Segment"]]
"""Other texts that a run takes something from, each cut into segments."""


class Persistence(Enum):
    """How far an edit reaches."""

    PERSIST = "persist"
    """Everything after it is computed from the edited value."""
    READ_ONLY = "read_only"
    """The stream sees the edit, the bank does not: what is written is written as if nothing had been edited."""


@dataclass(frozen=True, kw_only=True)
class Intervention(Plain, ABC):
    """A change to a run. Subclasses are frozen, hold plain values only, and refuse what makes no sense anywhere."""

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
        """Raise ValueError, with the range that exists, when it names a place that this run or a donor's does not have.

        Args:
            segments: those of the run's own text.
            donors: the segments of every text in `self.donors`.
        """


@dataclass(frozen=True, kw_only=True)
class _Editing(Intervention, ABC):
    """Puts an operation's result in the place of a value."""

    operation: Operation
    segments: tuple[int, ...] | None = None
    """Segments; None, all."""
    slots: tuple[int, ...] | None = None
    """Slots; None, all."""
    persistence: Persistence = Persistence.PERSIST

    def __post_init__(self) -> None:
        if not isinstance(self.operation, Operation):
            raise ValueError(f"operation must be an operation such as Set(value=0.0), not {shown(self.operation)}")
        if not isinstance(self.persistence, Persistence):
            raise ValueError(f"persistence must be a Persistence, not {shown(self.persistence)}")
        super().__post_init__()
        distinct("segments", self.segments)
        distinct("slots", self.slots)

    @property
    def read_only(self) -> bool:
        return self.persistence is Persistence.READ_ONLY

    @property
    def donors(self) -> tuple[str, ...]:
        return self.operation.donors if isinstance(self.operation, Donated) else ()

    @property
    def _reach(self) -> str:
        return ", for reading alone" if self.read_only else ""

    def reaches(self, segment: "Segment") -> bool:
        """Whether there is something in a segment that it changes."""
        return (self.segments is None or segment.index in self.segments) and self.slots != ()

    def _check(self, where: str, axes: tuple[Axis, ...], sizes: Sizes) -> None:
        check_there("slot", self.slots, range(sizes[Axis.SLOT]))
        self.operation.check(where, axes, sizes)

    def _donor_segments(self, segment: int, donors: Donors) -> Iterator["Segment"]:
        """The donors' segments that `segment` takes from. Raises ValueError where a donor has none of that number."""
        if not isinstance(self.operation, Donated):
            return
        for text in self.operation.donors:
            at = self.operation.of(segment, len(donors[text]))
            if at >= len(donors[text]):
                raise ValueError(
                    f"there is no segment {at} in the donor {_short(text)}; it has segments 0..{len(donors[text]) - 1}"
                )
            yield donors[text][at]


def _where(**places: tuple[int, ...] | None) -> str:
    """Where something happens: the numbers of each kind of place that is not all of them."""
    named = [numbered(noun, numbers) for noun, numbers in places.items() if numbers is not None]
    return f" in {', '.join(named)}" if named else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


@dataclass(frozen=True, kw_only=True)
class Edit(_Editing):
    """Changes a site's activation at some blocks, segments, slots, heads and tokens: at all places that all of these
    name.

    The mask of scores stays: no edit lets a token see what is hidden from it. Ablations should resample (Patch with
    another story) or take a Mean; Set(value=0) asks the model about values that it has never seen.
    """

    site: AnySite
    layers: tuple[int, ...] | None = None
    """Blocks; None, all that have the site."""
    heads: tuple[int, ...] | None = None
    """Heads, of the memory or of attention (key/value heads where the site has those), as the site has them; None,
    all."""
    tokens: tuple[int, ...] | None = None
    """Token places in the document; None, all. In a segment, those of them that it has."""

    def __post_init__(self) -> None:
        if not isinstance(self.site, AnySite):
            raise ValueError(f"site must be a Site, not {shown(self.site)}")
        super().__post_init__()
        for name in ("layers", "heads", "tokens"):
            distinct(name, getattr(self, name))
        if isinstance(self.operation, Initial):
            raise ValueError(
                "Initial is what the bank holds at the start of a document: it needs a BankEdit, not an Edit of"
                f" {self.site.name}"
            )
        self.operation.check_axes(self.site.name, self.site.axes)
        for what, chosen, axes in (
            ("slots", self.slots, {Axis.SLOT}),
            ("heads", self.heads, {Axis.HEAD, Axis.KV_HEAD}),
            ("tokens", self.tokens, {Axis.TOKEN}),
        ):
            if chosen is not None and axes.isdisjoint(self.site.axes):
                raise ValueError(f"{self.site.name} has no {what} to choose from")

    @property
    def words(self) -> str:
        where = _where(slot=self.slots, head=self.heads, token=self.tokens, block=self.layers, segment=self.segments)
        return f"{_GATES.get(self.site, self.site.name)} {self.operation.words}{where}{self._reach}"

    def first_block(self, config: LM2Config, segment: "Segment") -> int | None:
        layers = self.blocks(config) if self.reaches(segment) else ()
        if layers == (None,):
            return BEFORE if self.site is Site.EMBED else config.n_layers
        return min((layer for layer in layers if layer is not None), default=None)

    def reaches(self, segment: "Segment") -> bool:
        return super().reaches(segment) and () not in (self.layers, self.heads, self._own(segment))

    def blocks(self, config: LM2Config) -> tuple[int | None, ...]:
        """The blocks whose activation it changes; (None,) for a site outside the blocks."""
        return blocks_of(self.site, self.layers, config)

    def chosen(self, segment: "Segment") -> dict[Axis, tuple[int, ...]]:
        """What is edited along each axis that is not edited whole; tokens count from the segment's start."""
        chosen = {
            Axis.SLOT: self.slots,
            Axis.HEAD: self.heads,
            Axis.KV_HEAD: self.heads,
            Axis.TOKEN: self._own(segment),
        }
        return {axis: own for axis in self.site.axes if (own := chosen.get(axis)) is not None}

    def _own(self, segment: "Segment") -> tuple[int, ...] | None:
        if self.tokens is None:
            return None
        return tuple(place - segment.start for place in self.tokens if segment.start <= place < segment.end)

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        check_places(self.site, self.layers, self.segments, config, len(segments))
        sizes = self.site.sizes(config, 0, segments[-1].end)
        self._check(self.site.name, self.site.axes, sizes)
        heads = Axis.HEAD if Axis.HEAD in self.site.axes else Axis.KV_HEAD
        check_there("head", self.heads, range(sizes[heads]))
        check_there("token", self.tokens, range(segments[-1].end))
        held = [segment for segment in segments if self.segments is None or segment.index in self.segments]
        for place in self.tokens or ():
            if not any(segment.start <= place < segment.end for segment in held):
                there = ", ".join(f"{segment.start}..{segment.end - 1}" for segment in held) or "none"
                raise ValueError(f"token {place} is in none of the segments that are edited; their tokens are {there}")
        self._check_read_only(config)
        if not isinstance(self.operation, Donated):
            return
        for segment in filter(self.reaches, held):
            tokens = len(segment.ids) - min(self._own(segment) or (0,))
            for donor in self._donor_segments(segment.index, donors):
                one, other = (self.site.sizes(config, each.start, len(each.ids)) for each in (segment, donor))
                self.operation.check_sizes(self.site.name, self.site.axes, one, other, tokens)

    def _check_read_only(self, config: LM2Config) -> None:
        if not self.read_only:
            return
        if not config.memory_layers:
            raise ValueError(
                f"a model of memory kind {config.memory.value!r} has no bank: READ_ONLY has no meaning there"
            )
        if self.site.writing and not config.memory.design.reads_own_writes:
            raise ValueError(
                f"no token of the segment sees {self.site.name}: with READ_ONLY the edit would change nothing"
            )


def _first_reader(config: LM2Config) -> int:
    """The block from which on another bank makes a difference."""
    return BEFORE if config.memory.design.bank_in_stream else min(config.memory_layers, default=BEFORE)


@dataclass(frozen=True, kw_only=True)
class BankIntervention(Intervention, ABC):
    """Decides which bank a segment begins with, or which it hands on."""

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        if not config.memory_layers:
            raise ValueError(f"a model of memory kind {config.memory.value!r} has no bank")

    @abstractmethod
    def starts(self, segment: "Segment") -> bool:
        """Whether a segment begins with another bank because of it."""

    def first_block(self, config: LM2Config, segment: "Segment") -> int | None:
        return _first_reader(config) if self.starts(segment) else None


@dataclass(frozen=True, kw_only=True)
class BankEdit(_Editing, BankIntervention):
    """Changes the bank that segments begin with.

    PERSIST: the segment begins with it, reads it and writes to it. READ_ONLY: the segment reads it, and hands on what
    it would have handed on.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.operation.check_axes("the bank", Site.BANK_PRE.axes)

    @property
    def words(self) -> str:
        what = "bank" if self.slots is None else numbered("slot", self.slots)
        return f"{what} {self.operation.words}{_where(segment=self.segments)}{self._reach}"

    def starts(self, segment: "Segment") -> bool:
        return self.reaches(segment)

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        BankIntervention.check(self, config, segments, donors)
        check_there("segment", self.segments, range(len(segments)))
        self._check("the bank", Site.BANK_PRE.axes, Site.BANK_PRE.sizes(config, 0, segments[-1].end))
        for segment in filter(self.reaches, segments):
            list(self._donor_segments(segment.index, donors))


@dataclass(frozen=True, kw_only=True)
class _AtSegment(BankIntervention, ABC):
    """Happens at one segment."""

    segment: int

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        super().check(config, segments, donors)
        check_there("segment", (self.segment,), range(len(segments)))


@dataclass(frozen=True, kw_only=True)
class Freeze(_AtSegment):
    """Segments from `segment` on write nothing: each hands on the bank it began with."""

    segment: int = 0

    @property
    def words(self) -> str:
        return f"writes frozen from segment {self.segment} on"

    def starts(self, segment: "Segment") -> bool:
        return False

    def first_block(self, config: LM2Config, segment: "Segment") -> int | None:
        # What it hands on, once all blocks are through.
        return config.n_layers if self.segment <= segment.index else None


@dataclass(frozen=True, kw_only=True)
class Reset(_AtSegment):
    """`segment` begins with a fresh bank."""

    @property
    def words(self) -> str:
        return f"bank reset before segment {self.segment}"

    def starts(self, segment: "Segment") -> bool:
        return self.segment == segment.index


@dataclass(frozen=True, kw_only=True)
class Carry(BankIntervention):
    """The document begins with the bank that reading other texts, one after the other, has left, and not with a fresh
    one.

    What the released code does, whose bank is never reset. Nothing but the bank is carried: no token of them can be
    attended to.
    """

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        none_empty("texts", self.texts)

    @property
    def words(self) -> str:
        return f"bank carried over from {excerpts(self.texts)}"

    def starts(self, segment: "Segment") -> bool:
        return segment.index == 0

    @property
    def donors(self) -> tuple[str, ...]:
        return self.texts


@dataclass(frozen=True, kw_only=True)
class WriteBlock(Intervention):
    """Some tokens cannot write: no slot attends to them. A segment of such tokens alone hands on the bank it began
    with."""

    tokens: tuple[int, ...]
    """Token places in the document."""

    def __post_init__(self) -> None:
        super().__post_init__()
        distinct("tokens", self.tokens)

    @property
    def words(self) -> str:
        return f"{numbered('token', self.tokens)} cannot write"

    def first_block(self, config: LM2Config, segment: "Segment") -> int | None:
        return _first_reader(config) if any(segment.start <= at < segment.end for at in self.tokens) else None

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        if not config.memory_layers:
            raise ValueError(
                f"a model of memory kind {config.memory.value!r} has no bank: nothing is written that could be blocked"
            )
        if refused := config.memory.design.write_block_refused:
            raise ValueError(refused)
        check_there("token", self.tokens, range(segments[-1].end))


@dataclass(frozen=True, kw_only=True)
class MemoryOff(Intervention):
    """What is read from memory adds nothing to the stream; writing goes on.

    GATED and RELEASE: MEM_OUT is 0. TOKENS: no token attends to the front copy.
    """

    layers: tuple[int, ...] | None = None
    """Blocks; None, all that have a memory."""
    segments: tuple[int, ...] | None = None
    """Segments; None, all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        distinct("layers", self.layers)
        distinct("segments", self.segments)

    @property
    def words(self) -> str:
        return f"memory off{_where(block=self.layers, segment=self.segments)}"

    def first_block(self, config: LM2Config, segment: "Segment") -> int | None:
        return min((at for at in config.memory_layers if self.at(Coordinate(segment.index, at))), default=None)

    def at(self, place: Coordinate) -> bool:
        return (self.layers is None or place.layer in self.layers) and (
            self.segments is None or place.segment in self.segments
        )

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        if not config.memory_layers:
            raise ValueError(f"a model of memory kind {config.memory.value!r} has no memory to turn off")
        check_there("block", self.layers, sorted(config.memory_layers))
        check_there("segment", self.segments, range(len(segments)))
