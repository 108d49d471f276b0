"""The segment loop of one document."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.finite import in_segments
from lm2.model.lm2 import LM2, SegmentOutput
from lm2.model.sites import Site
from lm2.model.stream import Cache
from lm2.runs.capture import Capture, Coordinate
from lm2.runs.hooks import NO_SOURCES, Hook, SourceActivations, bank_in, bank_out, hooks, text_rows, watch
from lm2.runs.interventions import BankEdit, Edit
from lm2.runs.spec import RunSpec
from lm2.runs.trace import read_only
from lm2.text.segments import Segment, pad

_Step = TypeVar("_Step")

Records = dict[tuple[Capture, Coordinate], np.ndarray]
"""What was captured, by capture and place."""


class Keeping(Protocol):
    """Takes each value as it is captured, as a dictionary does."""

    def __setitem__(self, key: tuple[Capture, Coordinate], value: np.ndarray, /) -> None: ...


def to_numpy(value: Tensor) -> np.ndarray:
    """The only way out of torch: a read-only float32 copy on the CPU."""
    return read_only(value.detach().float().cpu().numpy().copy())


class Carried(NamedTuple):
    """What goes from one segment to the next."""

    bank: Float[Tensor, "one slot slot_dim"] | None
    cache: Cache | None
    """Earlier tokens that may still be attended to."""
    read_cache: Cache | None = None
    """The same tokens as passes with read-only interventions attend to them; None, as in `cache`."""


def run_segments(
    model: LM2,
    segments: Sequence[Segment],
    spec: RunSpec,
    records: Keeping,
    before: Carried | None = None,
    sources: SourceActivations = NO_SOURCES,
    *,
    write: bool = True,
) -> Iterator[tuple[Segment, SegmentOutput, Carried]]:
    """The segment loop: runs each segment with its hooks, its bank and the earlier tokens that it may look back on.
    Yields each segment, its output and what it leaves to the next. An output's bank is the one that is handed on.

    Where an intervention is read-only, the segment is fed twice: first without it, to write, and then with it, to be
    read. Each pass looks back on the earlier ones of its kind, and both start from the bank that was written.

    The caller holds the checkpoint's lock and is in inference mode.

    Args:
        records: receives what the spec captures.
        before: what the segments before these left; None, there are none.
        sources: what the interventions take from other texts.
        write: False where the new bank will not be used.

    Raises NotFiniteError, with site, block and segment, as soon as a stream, a bank or a logit is NaN or infinite.
    """
    config, changes = model.config, spec.interventions
    lasting = tuple(change for change in changes if not change.read_only)
    fresh = model.fresh_bank(1)
    handed, cache, read_cache = before or Carried(fresh, None)
    read_cache = cache if read_cache is None else read_cache
    by_segment = _by_segment(spec.captures)
    names = {
        capture: [(layer, capture.site.hook_name(layer)) for layer in capture.blocks(config)]
        for capture in spec.captures
    }
    for segment in segments:
        captures = (*by_segment[None], *by_segment.get(segment.index, ()))
        apart = read_cache is not cache or any(
            isinstance(change, Edit | BankEdit) and change.read_only and change.reaches(segment) for change in changes
        )
        bank = bank_in(lasting, config, segment, handed, fresh, sources)
        kept = [capture for capture in captures if not apart or capture.site.writing]
        added = [
            *hooks(lasting, config, segment, sources, write=write),
            *_watches(config, segment, kept, names, records),
        ]
        written = output = _feed(model, segment, bank, cache, added, write)
        if apart:
            read = bank_in(changes, config, segment, handed, fresh, sources)
            kept = [capture for capture in captures if not capture.site.writing]
            added = [
                *hooks(changes, config, segment, sources, write=False),
                *_watches(config, segment, kept, names, records),
            ]
            output = _feed(model, segment, read, read_cache, added, write=False)
        handed = bank_out(lasting, segment, bank, written.bank)
        cache = carried(config, written, segment.end).cache
        read_cache = carried(config, output, segment.end).cache if apart else cache
        output = replace(output, bank=handed, unembed=in_segments(segment.index)(output.unembed))
        yield segment, output, Carried(handed, cache, read_cache)


def run_up_to(
    model: LM2, segments: Sequence[Segment], spec: RunSpec, sources: SourceActivations = NO_SOURCES
) -> Carried:
    """Run segments; returns what they leave to the next one."""
    before = Carried(model.fresh_bank(1), None)
    for _, _, left in run_segments(model, segments, spec, {}, sources=sources):
        before = left
    return before


def in_turns(lock: AbstractContextManager, steps: Iterator[_Step]) -> Iterator[_Step]:
    """The steps, with the lock held for one at a time, so that a long text does not keep others waiting."""
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
    ids, non_padding = pad([segment.ids], length, model.embed.weight.device)
    with in_segments(segment.index), model.hooks(fwd_hooks=[*added]):
        return model.segment(ids, bank, cache=cache, non_padding=non_padding, write=write)


def carried(config: LM2Config, output: SegmentOutput, end: int) -> Carried:
    """What a segment that ends before token `end` of the text leaves to the next, without padding."""
    count = end if config.lookback is None else min(end, config.lookback)
    cache = output.cache
    return Carried(output.bank, cache.last(count) if 0 < count < cache.positions.shape[1] else cache if count else None)


def _by_segment(captures: Sequence[Capture]) -> Mapping[int | None, Sequence[Capture]]:
    """The captures by the segments that they name; under None, those of all segments. A donor's run can have
    thousands."""
    by_segment: dict[int | None, list[Capture]] = defaultdict(list, {None: []})
    for capture in captures:
        for segment in (None,) if capture.segments is None else set(capture.segments):
            by_segment[segment].append(capture)
    return by_segment


def _watches(
    config: LM2Config,
    segment: Segment,
    captures: Sequence[Capture],
    names: Mapping[Capture, Sequence[tuple[int | None, str]]],
    records: Keeping,
) -> Iterator[Hook]:
    """Hooks that keep what is captured. They come after those that edit, and so show what the model really used.

    `names`: the block and the name of each hook point of a capture.
    """
    sizes = Site.ATTN_SCORES.sizes(config, segment.start, len(segment.ids))  # the lengths that a segment decides

    def keep(capture: Capture, place: Coordinate, value: Tensor) -> None:
        rows = text_rows(capture.site.axes, sizes)
        records[capture, place] = to_numpy(capture.reduction.apply(value[rows][0], capture.site.axes))

    for capture in captures:
        for layer, name in names[capture]:
            yield watch(name, partial(keep, capture, Coordinate(segment.index, layer)))
