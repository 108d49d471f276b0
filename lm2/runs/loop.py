"""The only segment loop, and the only place where specs become hooks."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lm2.model.config import LM2Config, MemoryKind
from lm2.model.finite import in_segments
from lm2.model.hooks import HookPoint
from lm2.model.lm2 import LM2, SegmentOutput
from lm2.model.sites import WRITING
from lm2.model.stream import Cache
from lm2.runs.capture import Capture, Coordinate
from lm2.runs.hooks import NOTHING, Hook, SourceActivations, bank_in, bank_out, hooks, non_padding
from lm2.runs.spec import RunSpec
from lm2.runs.trace import read_only
from lm2.text.segments import Segment, pad


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
    records: dict[tuple[Capture, Coordinate], np.ndarray],
    begun: Carried | None = None,
    given: SourceActivations = NOTHING,
) -> Iterator[tuple[Segment, SegmentOutput]]:
    """The segment loop: each segment with its hooks, its bank and what it may look back on. An output's bank is what is
    handed on.

    Where an intervention is read-only, the segment is fed twice: first without it, to write, and then with it, to be
    read. Each pass looks back on its own earlier ones, and both go on from the bank that was written.

    What the spec captures is put into `records`. `begun` is what the segments before these left; None, there are none.
    `given`: what the interventions take from other texts. Whoever consumes it holds the checkpoint's lock and is in
    inference mode.

    Raises NotFiniteError, with site, block and segment, as soon as a stream, a bank or a logit is NaN or infinite.
    """
    config, changes = model.config, spec.interventions
    lasting = tuple(change for change in changes if not change.read_only)
    fresh = model.fresh_bank(1)
    handed, cache = begun or (fresh, None)
    read_cache = cache
    by_segment = _by_segment(spec.captures)
    for segment in segments:
        captures = (*by_segment[None], *by_segment.get(segment.index, ()))
        apart = read_cache is not cache or any(change.read_only and change.reaches(segment) for change in changes)
        bank = bank_in(lasting, config, segment, handed, fresh, given)
        watch = _watch(config, segment, [one for one in captures if not apart or one.site in WRITING], records)
        with in_segments(segment.index), model.hooks(fwd_hooks=[*hooks(lasting, config, segment, given), *watch]):
            written = output = step(model, segment.ids, bank, cache)
        if apart:
            read = bank_in(changes, config, segment, handed, fresh, given)
            watch = _watch(config, segment, [one for one in captures if one.site not in WRITING], records)
            with (
                in_segments(segment.index),
                model.hooks(fwd_hooks=[*hooks(changes, config, segment, given, write=False), *watch]),
            ):
                output = step(model, segment.ids, read, read_cache, write=False)
        handed = bank_out(lasting, segment, bank, written.bank)
        yield segment, replace(output, bank=handed, unembed=in_segments(segment.index)(output.unembed))
        cache = carried(config, written, segment.end).cache
        read_cache = carried(config, output, segment.end).cache if apart else cache


def step(
    model: LM2,
    ids: Sequence[int],
    bank: Float[Tensor, "one slot slot_dim"] | None,
    cache: Cache | None,
    write: bool = True,
) -> SegmentOutput:
    """Feed the tokens of one segment of one document."""
    # The released arithmetic runs on full segments only; nothing else needs padding when rows come one by one.
    length = model.config.slots if model.config.memory is MemoryKind.RELEASE else None
    input_ids, there = pad([ids], length, model.embed.weight.device)
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


def _watch(
    config: LM2Config,
    segment: Segment,
    captures: Sequence[Capture],
    records: dict[tuple[Capture, Coordinate], np.ndarray],
) -> Iterator[Hook]:
    """Hooks that keep what is captured. They come behind those that edit, and so show what the model really used."""
    for capture in captures:
        for layer in capture.blocks(config):
            yield (
                capture.site.hook_name(layer),
                _keep(capture, Coordinate(segment.index, layer), config, segment, records),
            )


def _keep(
    capture: Capture,
    place: Coordinate,
    config: LM2Config,
    segment: Segment,
    records: dict[tuple[Capture, Coordinate], np.ndarray],
) -> Callable[[Tensor, HookPoint], None]:
    axes = capture.site.axes
    own = non_padding(axes, capture.site.sizes(config, segment.start, len(segment.ids)))

    def keep(value: Tensor, hook: HookPoint) -> None:
        records[capture, place] = to_numpy(capture.reduction.apply(value[own][0], axes))

    return keep
