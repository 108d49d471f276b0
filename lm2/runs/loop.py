"""The segment loop of one document."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.finite import in_segments
from lm2.model.lm2 import LM2, SegmentOutput
from lm2.model.stream import Cache
from lm2.runs.capture import Capture, Coordinate
from lm2.runs.hooks import NOTHING, Hook, SourceActivations, bank_in, bank_out, hooks, non_padding, watch
from lm2.runs.interventions import BankEdit, Edit
from lm2.runs.spec import RunSpec
from lm2.runs.trace import read_only
from lm2.text.segments import Segment, pad

_Step = TypeVar("_Step")

Records = dict[tuple[Capture, Coordinate], np.ndarray]
"""What was captured, and where."""


def to_numpy(value: Tensor) -> np.ndarray:
    """The one door out of torch: float32 on the CPU, a copy that nobody can write to."""
    return read_only(value.detach().float().cpu().numpy().copy())


class Carried(NamedTuple):
    """What goes from one segment to the next."""

    bank: Float[Tensor, "one slot slot_dim"] | None
    cache: Cache | None
    """Earlier tokens that may still be attended to."""


def run_segments(
    model: LM2,
    segments: Sequence[Segment],
    spec: RunSpec,
    records: Records,
    before: Carried | None = None,
    sources: SourceActivations = NOTHING,
    *,
    write: bool = True,
) -> Iterator[tuple[Segment, SegmentOutput]]:
    """The segment loop: each segment with its hooks, its bank and what it may look back on. An output's bank is what is
    handed on.

    Where an intervention is read-only, the segment is fed twice: first without it, to write, and then with it, to be
    read. Each pass looks back on its own earlier ones, and both go on from the bank that was written.

    What the spec captures is put into `records`. `before` is what the segments before these left; None, there are none.
    `sources`: what the interventions take from other texts. `write`: False where nobody will use the new bank. Whoever
    consumes it holds the checkpoint's lock and is in inference mode.

    Raises NotFiniteError, with site, block and segment, as soon as a stream, a bank or a logit is NaN or infinite.
    """
    config, changes = model.config, spec.interventions
    lasting = tuple(change for change in changes if not change.read_only)
    fresh = model.fresh_bank(1)
    handed, cache = before or (fresh, None)
    read_cache = cache
    by_segment = _by_segment(spec.captures)
    for segment in segments:
        captures = (*by_segment[None], *by_segment.get(segment.index, ()))
        apart = read_cache is not cache or any(
            isinstance(change, Edit | BankEdit) and change.read_only and change.reaches(segment) for change in changes
        )
        bank = bank_in(lasting, config, segment, handed, fresh, sources)
        seen = [capture for capture in captures if not apart or capture.site.writing]
        added = [*hooks(lasting, config, segment, sources, write=write), *_watching(config, segment, seen, records)]
        written = output = _feed(model, segment, bank, cache, added, write)
        if apart:
            read = bank_in(changes, config, segment, handed, fresh, sources)
            seen = [capture for capture in captures if not capture.site.writing]
            added = [*hooks(changes, config, segment, sources, write=False), *_watching(config, segment, seen, records)]
            output = _feed(model, segment, read, read_cache, added, write=False)
        handed = bank_out(lasting, segment, bank, written.bank)
        yield segment, replace(output, bank=handed, unembed=in_segments(segment.index)(output.unembed))
        cache = carried(config, written, segment.end).cache
        read_cache = carried(config, output, segment.end).cache if apart else cache


def run_up_to(model: LM2, segments: Sequence[Segment], spec: RunSpec) -> Carried:
    """What segments leave to the one after them."""
    left = Carried(model.fresh_bank(1), None)
    for segment, output in run_segments(model, segments, spec, {}):
        left = carried(model.config, output, segment.end)
    return left


def in_turns(lock: AbstractContextManager, steps: Iterator[_Step]) -> Iterator[_Step]:
    """The steps, with the lock held for one at a time: no text, however long, keeps others waiting."""
    while True:
        with lock:
            try:
                step = next(steps)
            except StopIteration:
                return
        yield step


def _feed(
    model: LM2,
    segment: Segment,
    bank: Float[Tensor, "one slot slot_dim"] | None,
    cache: Cache | None,
    added: Sequence[Hook],
    write: bool,
) -> SegmentOutput:
    length = model.config.memory.design.full_length(model.config)
    input_ids, there = pad([segment.ids], length, model.embed.weight.device)
    with in_segments(segment.index), model.hooks(fwd_hooks=[*added]):
        return model.segment(input_ids, bank, cache=cache, non_padding=there, write=write)


def carried(config: LM2Config, output: SegmentOutput, end: int) -> Carried:
    """What a segment whose last token is before place `end` leaves to the next, without padding."""
    kept = end if config.lookback is None else min(end, config.lookback)
    cache = output.cache
    return Carried(output.bank, cache.last(kept) if 0 < kept < cache.positions.shape[1] else cache if kept else None)


def _by_segment(captures: Sequence[Capture]) -> Mapping[int | None, Sequence[Capture]]:
    """The captures of each segment that some of them name; of None, those of all segments. Runs that lend to others
    capture thousands."""
    found: dict[int | None, list[Capture]] = defaultdict(list, {None: []})
    for capture in captures:
        for segment in (None,) if capture.segments is None else set(capture.segments):
            found[segment].append(capture)
    return found


def _watching(config: LM2Config, segment: Segment, captures: Sequence[Capture], records: Records) -> Iterator[Hook]:
    """Hooks that keep what is captured. They come behind those that edit, and so show what the model really used."""

    def keep(capture: Capture, place: Coordinate, value: Tensor) -> None:
        own = non_padding(capture.site.axes, capture.site.sizes(config, segment.start, len(segment.ids)))
        records[capture, place] = to_numpy(capture.reduction.apply(value[own][0], capture.site.axes))

    for capture in captures:
        for layer in capture.blocks(config):
            yield watch(capture.site.hook_name(layer), partial(keep, capture, Coordinate(segment.index, layer)))
