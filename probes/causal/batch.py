"""One document under many units of interventions at once: row i of a batch is the document under unit i."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.hooks import HookPoint
from lm2.model.memory import of_memory
from lm2.runs.hooks import EditHook, SourceActivations, bank_in, bank_out, hooks
from lm2.runs.interventions import BankIntervention, Edit, Freeze, Intervention, WriteBlock
from lm2.text.segments import Segment

Unit = tuple[Intervention, ...]
"""Interventions that are applied together in one run of a document."""

_Function = Callable[[Tensor, HookPoint], Tensor]


def rows_hooks(
    units: Sequence[Unit], config: LM2Config, segment: Segment, sources: SourceActivations, *, write: bool
) -> list[EditHook]:
    """The hooks of one segment with a row for each unit, which has its own unit's edits in their order.

    Edits that differ only in which slots, heads and tokens they change are computed once for all rows. An activation
    that all rows share as a batch of 1 comes out with a row for each.
    """
    points: dict[str, list[_Step]] = defaultdict(list)
    cache: dict[Hashable, list[EditHook]] = {}
    for row, unit in enumerate(units):
        turn: dict[str, int] = defaultdict(int)
        for key, (name, function), places in _changes(unit, config, segment, sources, write, cache):
            steps = points[name]
            if turn[name] == len(steps):
                steps.append({})
            steps[turn[name]].setdefault((key, name), _SharedEdit(function)).places[row] = places
            turn[name] += 1
    return [(name, _apply(steps, len(units))) for name, steps in points.items()]


def rows_begin(
    units: Sequence[Unit],
    config: LM2Config,
    segment: Segment,
    handed: Float[Tensor, "batch slot slot_dim"] | None,
    fresh: Float[Tensor, "one slot slot_dim"] | None,
    sources: SourceActivations,
) -> Float[Tensor, "batch slot slot_dim"] | None:
    """The bank that a segment begins with under each unit; `handed` itself, perhaps with one row for all, if no unit
    changes it."""
    if handed is None or not any(isinstance(change, BankIntervention) for unit in units for change in unit):
        return handed
    before = handed.expand(len(units), -1, -1).split(1)
    after = [of_memory(bank_in(unit, config, segment, bank, fresh, sources)) for unit, bank in zip(units, before)]
    return handed if all(new is old for old, new in zip(before, after)) else torch.cat(after)


def rows_hand_on(
    units: Sequence[Unit],
    segment: Segment,
    began: Float[Tensor, "batch slot slot_dim"] | None,
    written: Float[Tensor, "batch slot slot_dim"] | None,
) -> Float[Tensor, "batch slot slot_dim"] | None:
    """The bank that a segment hands on under each unit."""
    if written is None or not any(isinstance(change, Freeze | WriteBlock) for unit in units for change in unit):
        return written
    rows = zip(units, of_memory(began).expand(len(units), -1, -1).split(1), written.split(1))
    return torch.cat([of_memory(bank_out(unit, segment, before, after)) for unit, before, after in rows])


def joint_unit(units: Iterable[Unit]) -> Unit:
    """All interventions of these units, those that differ in one kind of place merged into one."""
    changes = list(dict.fromkeys(change for unit in units for change in unit))
    for kind in ("slots", "heads", "layers", "segments"):
        groups: dict[Hashable, list[Intervention]] = defaultdict(list)
        for change in changes:
            values = vars(change)
            limited = values.get(kind) is not None
            others = (type(change), *(value for name, value in values.items() if name != kind))
            groups[others if limited else change].append(change)
        changes = [
            replace(first, **{kind: tuple(dict.fromkeys(i for change in (first, *rest) for i in vars(change)[kind]))})
            if rest
            else first
            for first, *rest in groups.values()
        ]
    return tuple(changes)


_Places = Mapping[int, Sequence[int]]
"""The indexes to change along each axis of a value, where not all are."""


@dataclass
class _SharedEdit:
    """One edit of several rows, of each at its own places."""

    function: _Function
    places: dict[int, _Places] = field(default_factory=dict)
    """By row."""

    def mask(self, like: Tensor) -> Bool[Tensor, "row ..."] | None:
        """The places that change; None for all of them."""
        mask = None
        for axis in {axis for places in self.places.values() for axis in places}:
            changed = np.zeros((len(self.places), like.shape[axis]), bool)
            for row, places in zip(changed, self.places.values()):
                row[list(places[axis]) if axis in places else slice(None)] = True
            shape = [-1 if i == axis else 1 for i in range(1, like.ndim)]
            along = torch.from_numpy(changed).to(like.device).view(len(changed), *shape)
            mask = along if mask is None else mask & along
        return mask


_Step = dict[Hashable, _SharedEdit]
"""The edits of all rows that have the same turn at one hook point."""


def _changes(
    unit: Unit,
    config: LM2Config,
    segment: Segment,
    sources: SourceActivations,
    write: bool,
    cache: dict[Hashable, list[EditHook]],
) -> Iterator[tuple[Hashable, EditHook, _Places]]:
    """A unit's hooks in a segment, each with a key that equal ones share and the places that it changes."""
    # Which tokens write depends on all write blocks at once.
    blocks = tuple(change for change in unit if isinstance(change, WriteBlock))
    for change in unit:
        places: _Places = {}
        alike: Unit = blocks if isinstance(change, WriteBlock) else (change,)
        key: Hashable = alike
        if isinstance(change, Edit):
            if not change.reaches(segment):
                continue
            key = (change.site, change.operation, change.layers)
            places = {1 + change.site.axes.index(axis): indexes for axis, indexes in change.indices(segment).items()}
            alike = (replace(change, slots=None, heads=None, tokens=None),)
        if key not in cache:
            cache[key] = hooks(alike, config, segment, sources, write=write)
        for hook in cache[key]:
            yield key, hook, places


def _apply(steps: Sequence[_Step], count: int) -> _Function:
    def apply(value: Tensor, hook: HookPoint) -> Tensor:
        for edit in (edit for step in steps for edit in step.values()):
            rows = list(edit.places)
            old = value if len(value) == 1 or len(rows) == count else value[rows]
            new, mask = edit.function(old, hook), edit.mask(value)
            new = new if mask is None else new.where(mask, old)
            if len(rows) == count:
                value = new
            else:
                value = value.expand(count, *value.shape[1:]).clone()
                value[rows] = new
        return value.expand(count, *value.shape[1:])

    return apply
