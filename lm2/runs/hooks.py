"""From interventions to tensors: the hooks of one segment, the bank it begins with, and the bank it hands on."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.hooks import HookPoint
from lm2.model.memory import Fill
from lm2.model.sites import AnySite, Axis, Site
from lm2.runs.capture import Coordinate, Sizes
from lm2.runs.donors import Donated, Initial
from lm2.runs.interventions import (
    BankEdit,
    BankIntervention,
    Carry,
    Edit,
    Freeze,
    Intervention,
    MemoryOff,
    Reset,
    WriteBlock,
)
from lm2.runs.operations import Operation
from lm2.text.segments import Segment

Hook = tuple[str, Callable[[Tensor, HookPoint], Tensor | None]]
"""The name of a hook point, and what is done there."""
EditHook = tuple[str, Callable[[Tensor, HookPoint], Tensor]]
"""A hook that replaces the value."""

_SCORES = (Site.ATTN_SCORES, Site.READ_SCORES, Site.WRITE_SCORES)


def watch(name: str, see: Callable[[Tensor], object]) -> Hook:
    """A hook that looks at a value and changes nothing."""

    def look(value: Tensor, hook: HookPoint) -> None:
        see(value)

    return name, look


@dataclass(frozen=True)
class SourceRequest:
    """An operation that takes something from other texts, and the place that it is for."""

    operation: Donated
    site: AnySite
    place: Coordinate


@dataclass(frozen=True, kw_only=True)
class SourceActivations:
    """What interventions take from other texts' clean runs."""

    values: Mapping[SourceRequest, Tensor] = field(default_factory=dict)
    """Activations or their mean, without a batch axis."""
    banks: Mapping[tuple[str, ...], Float[Tensor, "slot slot_dim"]] = field(default_factory=dict)
    """The bank that reading some texts one after the other has left."""

    @property
    def bytes(self) -> int:
        """Bytes held in tensors, each counted once."""
        return sum({id(value): value.nbytes for value in (*self.values.values(), *self.banks.values())}.values())


NO_SOURCES = SourceActivations()


def source_requests(
    interventions: Iterable[Intervention], config: LM2Config, segments: Sequence[Segment]
) -> tuple[SourceRequest, ...]:
    """Everything but banks that these interventions take from other texts' runs, each once."""
    requests: dict[SourceRequest, None] = {}
    for change in interventions:
        if not isinstance(change, Edit | BankEdit) or not isinstance(change.operation, Donated):
            continue
        site, layers = (change.site, change.blocks(config)) if isinstance(change, Edit) else _bank_place(config)
        for segment in filter(change.reaches, segments):
            places = (Coordinate(segment.index, layer) for layer in layers)
            requests |= {SourceRequest(change.operation, site, place): None for place in places}
    return tuple(requests)


def _bank_place(config: LM2Config) -> tuple[Site, tuple[int]]:
    """Where the bank that a segment begins with can be seen: writing starts from it, in the first block that has a
    memory."""
    return Site.BANK_PRE, (min(config.memory_layers),)


def bank_in(
    interventions: Iterable[Intervention],
    config: LM2Config,
    segment: Segment,
    handed: Float[Tensor, "batch slot slot_dim"] | None,
    fresh: Float[Tensor, "batch slot slot_dim"] | None,
    sources: SourceActivations = NO_SOURCES,
) -> Float[Tensor, "batch slot slot_dim"] | None:
    """The bank that a segment begins with.

    Args:
        interventions: all, for the bank that is read; those that are not `read_only`, for the bank that is written to.
        handed: what the segment before handed on; for the first one, `fresh`.
        fresh: the bank at the start of a document.
    """
    if fresh is None:  # a model without memory, in which no bank can be changed
        return handed
    bank = handed
    for change in interventions:
        if not isinstance(change, BankIntervention) or not change.reaches(segment):
            continue
        if isinstance(change, Reset):
            bank = fresh
        elif isinstance(change, Carry):
            bank = sources.banks[change.texts].expand_as(fresh)
        elif isinstance(change, BankEdit):
            assert bank is not None, "the segment before has written"
            site, (layer,) = _bank_place(config)
            source = (
                fresh[0]
                if isinstance(change.operation, Initial)
                else _source(change.operation, site, Coordinate(segment.index, layer), sources)
            )
            indices = {} if change.slots is None else {Axis.SLOT: change.slots}
            bank = _edited(change.operation, bank, site.axes, source, indices)
    return bank


def bank_out(
    interventions: Iterable[Intervention],
    segment: Segment,
    began: Float[Tensor, "batch slot slot_dim"] | None,
    written: Float[Tensor, "batch slot slot_dim"] | None,
) -> Float[Tensor, "batch slot slot_dim"] | None:
    """The bank that a segment hands on, where it `began` with one and has `written` another."""
    frozen = any(isinstance(change, Freeze) and change.segment <= segment.index for change in interventions)
    return began if frozen or len(_blocked(interventions, segment)) == len(segment.ids) else written


def _blocked(interventions: Iterable[Intervention], segment: Segment) -> list[int]:
    """The tokens of a segment that cannot write, counted from its start."""
    tokens = {token for change in interventions if isinstance(change, WriteBlock) for token in change.tokens}
    return [token - segment.start for token in range(segment.start, segment.end) if token in tokens]


def _source(operation: Operation, site: AnySite, place: Coordinate, sources: SourceActivations) -> Tensor | None:
    return sources.values[SourceRequest(operation, site, place)] if isinstance(operation, Donated) else None


def hooks(
    interventions: Sequence[Intervention],
    config: LM2Config,
    segment: Segment,
    sources: SourceActivations = NO_SOURCES,
    *,
    write: bool = True,
) -> list[EditHook]:
    """The hooks of one segment, in the interventions' order.

    Every row of a batch is edited alike, and no tensor is changed in place. Padding and the rows of memory tokens are
    left alone. `write`: whether the segment is fed so that it writes.
    """
    blocked, design = _blocked(interventions, segment), config.memory.design
    added: list[EditHook] = []
    for change in interventions:
        if isinstance(change, Edit):
            added += _edits(change, config, segment, sources)
        elif isinstance(change, MemoryOff):
            for layer in change.blocks(config, segment):
                added += _fills(design.without_reading(config, layer, len(segment.ids), write), layer)
        elif isinstance(change, WriteBlock) and blocked and write:
            for layer in sorted(config.memory_layers):
                added += _fills(design.without_writing(config, layer, blocked, len(blocked) == len(segment.ids)), layer)
    return added


def text_rows(axes: tuple[Axis, ...], sizes: Sizes) -> tuple[slice, ...]:
    """The index into a value [batch, *axes] that leaves out padding and memory tokens."""
    return (slice(None), *(slice(sizes[axis]) if axis in (Axis.TOKEN, Axis.KEY) else slice(None) for axis in axes))


def _edited(
    operation: Operation,
    value: Tensor,
    axes: tuple[Axis, ...],
    source: Tensor | None,
    indices: Mapping[Axis, Sequence[int]],
) -> Tensor:
    """`value` [batch, *axes] with the operation's result where the `indices` of all axes meet; axes without indices
    are edited whole."""
    new = operation.replace(value, axes, source).to(value.dtype)
    return new.where(_mask(value, {1 + i: indices[axis] for i, axis in enumerate(axes) if axis in indices}), value)


def _mask(value: Tensor, indices: Mapping[int, Sequence[int]]) -> Bool[Tensor, "..."]:
    """A mask that broadcasts to `value`: True where the indices of all axes meet."""
    mask = torch.ones((), dtype=torch.bool, device=value.device)
    for axis, numbers in indices.items():
        along = torch.zeros(value.shape[axis], dtype=torch.bool, device=value.device)
        along[list(numbers)] = True
        mask = mask & along.view(-1, *[1] * (value.ndim - axis - 1))
    return mask


def _edits(change: Edit, config: LM2Config, segment: Segment, sources: SourceActivations) -> Iterator[EditHook]:
    axes, indices = change.site.axes, change.indices(segment)
    rows = text_rows(axes, change.site.sizes(config, segment.start, len(segment.ids)))
    for layer in change.blocks(config) if change.reaches(segment) else ():
        source = _source(change.operation, change.site, Coordinate(segment.index, layer), sources)

        def edit(value: Tensor, hook: HookPoint, source: Tensor | None = source) -> Tensor:
            old = value[rows]
            new = _edited(change.operation, old, axes, source, indices)
            if change.site in _SCORES:  # what the mask hides stays hidden, and what it shows is seen
                new = new.where(new.isneginf() == old.isneginf(), old)
            value = value.clone()
            value[rows] = new
            return value

        yield change.site.hook_name(layer), edit


def _fills(fills: Iterable[Fill], layer: int) -> Iterator[EditHook]:
    for site, number, indices in fills:
        yield (
            site.hook_name(layer),
            lambda value, hook, number=number, indices=indices: value.masked_fill(_mask(value, indices), number),
        )
