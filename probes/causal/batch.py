"""One document under many interventions at once: row i of a batch is the document under the i-th ones."""

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
"""What is done together to one run of a document."""

_Function = Callable[[Tensor, HookPoint], Tensor]


def rows_hooks(
    units: Sequence[Unit], config: LM2Config, segment: Segment, sources: SourceActivations, *, write: bool
) -> list[EditHook]:
    """The hooks of one segment that is fed once a unit: each row has its own unit's edits, in their order.

    Edits that differ only in which slots, heads and tokens they change are computed once for all rows. An activation
    that all rows share as a batch of 1 comes out with a row for each.
    """
    points: dict[str, list[_Step]] = defaultdict(list)
    made: dict[Hashable, list[EditHook]] = {}
    for row, unit in enumerate(units):
        turn: dict[str, int] = defaultdict(int)
        for key, (name, function), chosen in _changes(unit, config, segment, sources, write, made):
            steps = points[name]
            if turn[name] == len(steps):
                steps.append({})
            steps[turn[name]].setdefault((key, name), _Alike(function)).add(row, chosen)
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
    """The bank that a segment begins with under each unit; `handed` as it is, be it of one row for all, where none
    changes it."""
    if handed is None or not any(isinstance(change, BankIntervention) for unit in units for change in unit):
        return handed
    before = handed.expand(len(units), -1, -1).split(1)
    after = [of_memory(bank_in(unit, config, segment, bank, fresh, sources)) for unit, bank in zip(units, before)]
    return handed if all(one is other for one, other in zip(before, after)) else torch.cat(after)


def rows_hand_on(
    units: Sequence[Unit],
    segment: Segment,
    began: Float[Tensor, "batch slot slot_dim"] | None,
    written: Float[Tensor, "batch slot slot_dim"] | None,
) -> Float[Tensor, "batch slot slot_dim"] | None:
    """The bank that a segment hands on under each unit."""
    if written is None or not any(isinstance(change, Freeze | WriteBlock) for unit in units for change in unit):
        return written
    both = zip(units, of_memory(began).expand(len(units), -1, -1).split(1), written.split(1))
    return torch.cat([of_memory(bank_out(unit, segment, one, other)) for unit, one, other in both])


def together(units: Iterable[Unit]) -> Unit:
    """What all of these units do, in as few interventions as can say it: those that differ in one kind of place become
    one."""
    found = list(dict.fromkeys(change for unit in units for change in unit))
    for kind in ("slots", "heads", "layers", "segments"):
        alike: dict[Hashable, list[Intervention]] = defaultdict(list)
        for change in found:
            values = vars(change)
            alike[
                (
                    (change,)
                    if values.get(kind) is None
                    else (type(change), *(values[name] for name in values if name != kind))
                )
            ].append(change)
        found = [
            (
                same[0]
                if len(same) == 1
                else replace(same[0], **{kind: tuple(dict.fromkeys(at for one in same for at in getattr(one, kind)))})
            )
            for same in alike.values()
        ]
    return tuple(found)


@dataclass
class _Alike:
    """Rows to which the same is done, each at its own places."""

    function: _Function
    rows: list[int] = field(default_factory=list)
    chosen: list[Mapping[int, Sequence[int]]] = field(default_factory=list)
    """Per row: what is changed along each axis of the value that is not changed whole."""

    def add(self, row: int, chosen: Mapping[int, Sequence[int]]) -> None:
        self.rows.append(row)
        self.chosen.append(chosen)

    def mask(self, like: Tensor) -> Bool[Tensor, "row ..."] | None:
        """The places that change; None, all of them."""
        mask = None
        for axis in {axis for chosen in self.chosen for axis in chosen}:
            there = np.zeros((len(self.rows), like.shape[axis]), bool)
            for row, chosen in zip(there, self.chosen):
                row[list(chosen[axis]) if axis in chosen else slice(None)] = True
            part = (
                torch.from_numpy(there)
                .to(like.device)
                .view(len(there), *[-1 if at == axis else 1 for at in range(1, like.ndim)])
            )
            mask = part if mask is None else mask & part
        return mask


_Step = dict[Hashable, _Alike]
"""What comes in the same turn at one hook point."""


def _changes(
    unit: Unit,
    config: LM2Config,
    segment: Segment,
    sources: SourceActivations,
    write: bool,
    made: dict[Hashable, list[EditHook]],
) -> Iterator[tuple[Hashable, EditHook, Mapping[int, Sequence[int]]]]:
    """A unit's hooks in a segment with what tells them apart, and the places that each changes. `made`: hooks that are
    there already."""
    # Which tokens write, all of them decide together.
    blocks = tuple(change for change in unit if isinstance(change, WriteBlock))
    for change in unit:
        chosen: Mapping[int, Sequence[int]] = {}
        alike: Unit = blocks if isinstance(change, WriteBlock) else (change,)
        key: Hashable = alike
        if isinstance(change, Edit):
            if not change.reaches(segment):
                continue
            key = (change.site, change.operation, change.layers)
            chosen = {1 + change.site.axes.index(axis): places for axis, places in change.indices(segment).items()}
        if key not in made:
            made[key] = hooks(
                (_everywhere(change),) if isinstance(change, Edit) else alike, config, segment, sources, write=write
            )
        for hook in made[key]:
            yield key, hook, chosen


def _everywhere(change: Edit) -> Edit:
    return replace(change, slots=None, heads=None, tokens=None)


def _apply(steps: Sequence[_Step], count: int) -> _Function:
    def apply(value: Tensor, hook: HookPoint) -> Tensor:
        for step in steps:
            for alike in step.values():
                shared, all_rows = len(value) == 1, len(alike.rows) == count
                part = value if shared or all_rows else value[alike.rows]
                new, mask = alike.function(part, hook), alike.mask(value)
                new = new if mask is None else new.where(mask, part)
                if not all_rows:
                    whole = value.expand(count, *value.shape[1:]).clone()
                    whole[alike.rows] = new
                    new = whole
                value = new
        return value.expand(count, *value.shape[1:])

    return apply
