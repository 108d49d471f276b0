"""Declared changes to a run: values in a RunSpec, turned into hooks and banks by `run` alone.

An Edit changes an activation at a site. A BankIntervention decides which bank a segment begins with or hands on; a
BankEdit is one. WriteBlock and MemoryOff cut the ways into the memory and out of it. Where an intervention names
segments, blocks, slots, heads or tokens, None means all.
"""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm2.model.config import LM2Config
from lm2.model.gates import GATES
from lm2.model.sites import AnySite, Axis, Site
from lm2.runs.capture import blocks_of, check_numbers, check_site
from lm2.runs.donors import Donated, Initial
from lm2.runs.intervention_base import (
    BEFORE,
    BankIntervention,
    Donors,
    Editing,
    Intervention,
    Persistence,
    check_memory,
    first_reader,
    where,
)
from lm2.serialize import none_empty
from lm2.shown import excerpts, numbered, shown

if TYPE_CHECKING:
    from lm2.text.segments import Segment

_GATES = {gate.site: gate.words for gate in GATES.values()}


@dataclass(frozen=True, kw_only=True)
class Edit(Editing):
    """Changes a site's activation where all of the named blocks, segments, slots, heads and tokens meet.

    `heads` are the site's own: of the memory or of attention, key/value heads where the site has those. `tokens` are
    numbered through the document.

    The mask of scores stays: no edit lets a token see what is hidden from it. Ablations should resample (Patch with
    another story) or take a Mean; Set(value=0) asks the model about values that it has never seen.
    """

    site: AnySite
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    tokens: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.site, AnySite):
            raise ValueError(f"site must be a Site, not {shown(self.site)}")
        super().__post_init__()
        if isinstance(self.operation, Initial):
            raise ValueError(
                "Initial is what the bank holds at the start of a document: it needs a BankEdit, not an Edit of"
                f" {self.site.name}"
            )
        self.operation.check_axes(self.site.name, self.site.axes)
        for name, numbers, axes in (
            ("slots", self.slots, {Axis.SLOT}),
            ("heads", self.heads, {Axis.HEAD, Axis.KV_HEAD}),
            ("tokens", self.tokens, {Axis.TOKEN}),
        ):
            if numbers is not None and axes.isdisjoint(self.site.axes):
                raise ValueError(f"{self.site.name} has no {name} to choose from")

    @property
    def words(self) -> str:
        target = _GATES.get(self.site, self.site.name)
        return self._words(
            target, slot=self.slots, head=self.heads, token=self.tokens, block=self.layers, segment=self.segments
        )

    def first_block(self, config: LM2Config, segment: "Segment") -> int | None:
        layers = self.blocks(config) if self.reaches(segment) else ()
        if layers == (None,):
            return BEFORE if self.site is Site.EMBED else config.n_layers
        return min((layer for layer in layers if layer is not None), default=None)

    def reaches(self, segment: "Segment") -> bool:
        return super().reaches(segment) and () not in (self.layers, self.heads, self._tokens_in(segment))

    def blocks(self, config: LM2Config) -> tuple[int | None, ...]:
        """The blocks whose activation it changes; (None,) for a site outside the blocks."""
        return blocks_of(self.site, self.layers, config)

    def indices(self, segment: "Segment") -> dict[Axis, tuple[int, ...]]:
        """The indices that are edited along each axis that is not edited whole; tokens count from the segment's
        start."""
        chosen = {
            Axis.SLOT: self.slots,
            Axis.HEAD: self.heads,
            Axis.KV_HEAD: self.heads,
            Axis.TOKEN: self._tokens_in(segment),
        }
        return {axis: numbers for axis in self.site.axes if (numbers := chosen.get(axis)) is not None}

    def _tokens_in(self, segment: "Segment") -> tuple[int, ...] | None:
        if self.tokens is None:
            return None
        return tuple(token - segment.start for token in self.tokens if segment.start <= token < segment.end)

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        check_site(self.site, self.layers, self.segments, config, len(segments))
        axes, sizes = self.site.axes, self.site.sizes(config, 0, segments[-1].end)
        self._check(self.site.name, axes, sizes)
        check_numbers("head", self.heads, range(sizes[Axis.HEAD if Axis.HEAD in axes else Axis.KV_HEAD]))
        check_numbers("token", self.tokens, range(segments[-1].end))
        named = [segment for segment in segments if self.segments is None or segment.index in self.segments]
        for token in self.tokens or ():
            if not any(segment.start <= token < segment.end for segment in named):
                ranges = ", ".join(f"{segment.start}..{segment.end - 1}" for segment in named) or "none"
                raise ValueError(f"token {token} is in none of the segments that are edited; their tokens are {ranges}")
        if self.persistence is Persistence.READ_ONLY:
            check_memory(config, "bank: READ_ONLY has no meaning there")
            if self.site.writing and not config.memory.design.reads_own_writes:
                raise ValueError(
                    f"no token of the segment sees {self.site.name}: with READ_ONLY the edit would change nothing"
                )
        if not isinstance(self.operation, Donated):
            return
        for segment in filter(self.reaches, named):
            tokens = len(segment.ids) - min(self._tokens_in(segment) or (0,))
            own = self.site.sizes(config, segment.start, len(segment.ids))
            for donor in self._donor_segments(segment.index, donors):
                donated = self.site.sizes(config, donor.start, len(donor.ids))
                self.operation.check_sizes(self.site.name, axes, own, donated, tokens)


@dataclass(frozen=True, kw_only=True)
class BankEdit(Editing, BankIntervention):
    """Changes the bank that segments begin with.

    PERSIST: the segment begins with it, reads it and writes to it. READ_ONLY: the segment reads it, and hands on what
    it would have handed on.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.operation.check_axes("the bank", Site.BANK_PRE.axes)

    @property
    def words(self) -> str:
        return self._words("bank" if self.slots is None else numbered("slot", self.slots), segment=self.segments)

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        BankIntervention.check(self, config, segments, donors)
        check_numbers("segment", self.segments, range(len(segments)))
        self._check("the bank", Site.BANK_PRE.axes, Site.BANK_PRE.sizes(config, 0, segments[-1].end))
        for segment in filter(self.reaches, segments):
            list(self._donor_segments(segment.index, donors))


@dataclass(frozen=True, kw_only=True)
class _AtSegment(BankIntervention, ABC):
    segment: int

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        super().check(config, segments, donors)
        check_numbers("segment", (self.segment,), range(len(segments)))


@dataclass(frozen=True, kw_only=True)
class Freeze(_AtSegment):
    """Segments from `segment` on write nothing: each hands on the bank it began with."""

    segment: int = 0

    @property
    def words(self) -> str:
        return f"writes frozen from segment {self.segment} on"

    def first_block(self, config: LM2Config, segment: "Segment") -> int | None:
        # The bank is handed on after the last block.
        return config.n_layers if self.segment <= segment.index else None


@dataclass(frozen=True, kw_only=True)
class Reset(_AtSegment):
    """`segment` begins with a fresh bank."""

    @property
    def words(self) -> str:
        return f"bank reset before segment {self.segment}"

    def reaches(self, segment: "Segment") -> bool:
        return self.segment == segment.index


@dataclass(frozen=True, kw_only=True)
class Carry(BankIntervention):
    """The document begins not with a fresh bank but with the one left by reading other texts in order.

    The released code does this: its bank is never reset. Nothing but the bank is carried: the other texts' tokens
    cannot be attended to.
    """

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        none_empty("texts", self.texts)

    @property
    def words(self) -> str:
        return f"bank carried over from {excerpts(self.texts)}"

    def reaches(self, segment: "Segment") -> bool:
        return segment.index == 0

    @property
    def donors(self) -> tuple[str, ...]:
        return self.texts


@dataclass(frozen=True, kw_only=True)
class WriteBlock(Intervention):
    """Some tokens of the document cannot write: no slot attends to them. A segment of such tokens alone hands on the
    bank it began with."""

    tokens: tuple[int, ...]

    @property
    def words(self) -> str:
        return f"{numbered('token', self.tokens)} cannot write"

    def first_block(self, config: LM2Config, segment: "Segment") -> int | None:
        return first_reader(config) if any(segment.start <= token < segment.end for token in self.tokens) else None

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        check_memory(config, "bank: nothing is written that could be blocked")
        if refused := config.memory.design.write_block_refused:
            raise ValueError(refused)
        check_numbers("token", self.tokens, range(segments[-1].end))


@dataclass(frozen=True, kw_only=True)
class MemoryOff(Intervention):
    """What is read from memory adds nothing to the stream; writing goes on.

    GATED and RELEASE: MEM_OUT is 0. TOKENS: no token attends to the front copy.
    """

    layers: tuple[int, ...] | None = None
    segments: tuple[int, ...] | None = None

    @property
    def words(self) -> str:
        return f"memory off{where(block=self.layers, segment=self.segments)}"

    def first_block(self, config: LM2Config, segment: "Segment") -> int | None:
        return min(self.blocks(config, segment), default=None)

    def blocks(self, config: LM2Config, segment: "Segment") -> list[int]:
        """The blocks whose memory is off in a segment, in order."""
        if self.segments is not None and segment.index not in self.segments:
            return []
        return [layer for layer in sorted(config.memory_layers) if self.layers is None or layer in self.layers]

    def check(self, config: LM2Config, segments: Sequence["Segment"], donors: Donors) -> None:
        check_memory(config, "memory to turn off")
        check_numbers("block", self.layers, sorted(config.memory_layers))
        check_numbers("segment", self.segments, range(len(segments)))
