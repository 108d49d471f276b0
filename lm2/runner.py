"""run: the only segment loop, the only place where specs become hooks, the only lock."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lm2.capture import Capture, Coordinate, Sizes
from lm2.checkpoint import Checkpoint
from lm2.config import LM2Config, MemoryKind
from lm2.hooks import HookPoint
from lm2.interventions import Edit, Handover
from lm2.model import LM2, Cache, SegmentOutput
from lm2.segments import Segment, is_full, pad, split_segments
from lm2.sites import Axis, Site
from lm2.spec import RunSpec
from lm2.tokens import TokenSequence
from lm2.trace import Trace, read_only

LIMIT_BYTES = 2 * 1024**3
"""What a run may keep unless its caller allows more."""


class TooLargeError(ValueError):
    """A run would keep more bytes than it may."""


def to_numpy(value: Tensor) -> np.ndarray:
    """The one door out of torch: float32 on the CPU, a copy that nobody can write to."""
    return read_only(value.detach().float().cpu().numpy().copy())


def prepare(checkpoint: Checkpoint, spec: RunSpec) -> tuple[TokenSequence, tuple[Segment, ...]]:
    """The spec's text as tokens and segments.

    Raises ValueError for a text without tokens, another checkpoint's spec, and interventions or captures
    of places that are not there.
    """
    config = checkpoint.config
    if spec.checkpoint != checkpoint.name:
        raise ValueError(f"the spec is for checkpoint {spec.checkpoint!r}, not {checkpoint.name!r}")
    length = spec.segment_length or config.segment_length
    if config.memory is MemoryKind.RELEASE and length != config.slots:
        raise ValueError(f"this model's segments are {config.slots} tokens long, as many as it has slots, not {length}")
    tokens = checkpoint.tokenizer.encode(spec.text)
    if not tokens.ids:
        raise ValueError("the text is empty: a run needs at least one token")
    segments = split_segments(tokens, length, config.segment_end)
    for part in (*spec.interventions, *spec.captures):
        part.check(config, len(segments))
    return tokens, segments


def predicted_bytes(checkpoint: Checkpoint, spec: RunSpec) -> int:
    """Bytes of arrays that `run` will keep for this spec, known before it runs."""
    tokens, segments = prepare(checkpoint, spec)
    config = checkpoint.config
    total = 4 * (len(tokens) * config.d_vocab + config.slots * config.slot_dim)
    for segment in segments:
        for capture in spec.captures:
            entries = math.prod(capture.reduction.shape(capture.site.axes, _sizes(config, capture.site, segment)))
            total += sum(4 * entries for layer in capture.site.layers(config) if capture.wants(Coordinate(segment.index, layer)))
    return total


def run(
    checkpoint: Checkpoint,
    spec: RunSpec,
    *,
    on_segment: Callable[[int, int], None] | None = None,
    limit_bytes: int = LIMIT_BYTES,
) -> Trace:
    """Feed the text segment by segment and keep what the spec asks for.

    Observing changes nothing: the logits are bitwise those of a run without captures. Safe to call from many
    threads on one checkpoint.

    Args:
        on_segment: hears (segments done, segments in all) after each segment.
        limit_bytes: refuse to keep more.

    Raises ValueError as `prepare` does, and TooLargeError with both numbers before anything runs.
    """
    tokens, segments = prepare(checkpoint, spec)
    wanted = predicted_bytes(checkpoint, spec)
    if wanted > limit_bytes:
        raise TooLargeError(
            f"this run would keep {wanted:,} bytes, more than the {limit_bytes:,} allowed: "
            "capture fewer sites, blocks or segments, or reduce them (HeadMean, PooledMax, TopSlots)"
        )
    records: dict[tuple[Capture, Coordinate], np.ndarray] = {}
    logits = []
    output = None
    with checkpoint.lock, torch.inference_mode():
        for segment, output in feed(checkpoint.model, segments, spec, records):
            logits.append(to_numpy(output.logits[0, : len(segment.ids)]))
            if on_segment is not None:
                on_segment(segment.index + 1, len(segments))
    return Trace(
        spec=spec,
        checkpoint_digest=checkpoint.digest,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        tokens=tokens,
        segments=segments,
        logits=read_only(np.concatenate(logits)),
        bank=None if output.bank is None else to_numpy(output.bank[0]),
        records=records,
    )


class Carried(NamedTuple):
    """What goes from one segment to the next."""

    bank: Float[Tensor, "one slot slot_dim"] | None
    cache: Cache | None
    """Earlier tokens that may still be attended to."""


def feed(
    model: LM2,
    segments: Sequence[Segment],
    spec: RunSpec,
    records: dict[tuple[Capture, Coordinate], np.ndarray],
    begun: Carried | None = None,
) -> Iterator[tuple[Segment, SegmentOutput]]:
    """The segment loop: each segment with its hooks, its bank and what it may look back on.

    What the spec captures is put into `records`. `begun` is what the segments before these left; None, there are none.
    Whoever consumes it holds the checkpoint's lock and is in inference mode.
    """
    fresh = model.fresh_bank(1)
    handed, cache = begun or (fresh, None)
    previous = handed
    handovers = [change for change in spec.interventions if isinstance(change, Handover)]
    for segment in segments:
        bank = handed
        for change in handovers:
            bank = change.begin(segment.index, bank, previous, fresh)
        with model.hooks(fwd_hooks=_hooks(model.config, segment, spec, records)):
            output = _step(model, segment.ids, bank, cache)
        yield segment, output
        previous, (handed, cache) = bank, carried(model.config, output, segment.end)


def _step(model: LM2, ids: Sequence[int], bank: Tensor | None, cache: Cache | None) -> SegmentOutput:
    # The released arithmetic runs on full segments only; nothing else needs padding when rows come one by one.
    length = model.config.slots if model.config.memory is MemoryKind.RELEASE else None
    input_ids, real = pad([ids], length, model.embed.weight.device)
    return model.segment(input_ids, bank, cache=cache, real=real)


def carried(config: LM2Config, output: SegmentOutput, end: int) -> Carried:
    """What a segment whose last token is before place `end` leaves to the next, without padding."""
    kept = end if config.lookback is None else min(end, config.lookback)
    cache = output.cache
    return Carried(output.bank, cache.last(kept) if 0 < kept < cache.positions.shape[1] else cache if kept else None)


def _sizes(config: LM2Config, site: Site, segment: Segment) -> Sizes:
    tokens = len(segment.ids)
    kept = segment.start if config.lookback is None else min(segment.start, config.lookback)
    heads = config.memory_heads if ".mem." in site.template else config.n_heads
    return {
        Axis.TOKEN: tokens, Axis.KEY: kept + tokens, Axis.SLOT: config.slots, Axis.SLOT_DIM: config.slot_dim,
        Axis.D_MODEL: config.d_model, Axis.D_MLP: config.d_mlp, Axis.KV_HEAD: config.n_key_value_heads, Axis.ONE: 1,
        Axis.HEAD: heads, Axis.D_HEAD: config.d_model // heads,
    }  # fmt: skip


def _hooks(
    config: LM2Config, segment: Segment, spec: RunSpec, records: dict[tuple[Capture, Coordinate], np.ndarray]
) -> list[tuple[str, Callable[[Tensor, HookPoint], Tensor | None]]]:
    """Edits first and captures after them, so that a capture shows what the model really used."""
    hooks: list[tuple[str, Callable[[Tensor, HookPoint], Tensor | None]]] = []
    for change in spec.interventions:
        if isinstance(change, Edit):
            for layer in change.site.layers(config):
                if change.at(Coordinate(segment.index, layer)):
                    hooks.append((change.site.hook_name(layer), _edit(change)))
    for capture in spec.captures:
        for layer in capture.site.layers(config):
            place = Coordinate(segment.index, layer)
            if capture.wants(place):
                hooks.append((capture.site.hook_name(layer), _keep(capture, place, _sizes(config, capture.site, segment), records)))
    return hooks


def _edit(change: Edit) -> Callable[[Tensor, HookPoint], Tensor]:
    def replace(value: Tensor, hook: HookPoint) -> Tensor:
        return change.edit(value)

    return replace


def _keep(
    capture: Capture, place: Coordinate, sizes: Sizes, records: dict[tuple[Capture, Coordinate], np.ndarray]
) -> Callable[[Tensor, HookPoint], None]:
    def keep(value: Tensor, hook: HookPoint) -> None:
        value = value[0]
        for at, axis in enumerate(capture.site.axes):
            if axis in (Axis.TOKEN, Axis.KEY):  # leave padding out
                value = value.narrow(at, 0, sizes[axis])
        records[capture, place] = to_numpy(capture.reduction.apply(value, capture.site.axes))

    return keep


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A text and what the model wrote behind it."""

    prompt: TokenSequence
    ids: tuple[int, ...]
    """The new tokens."""
    text: str
    """What they spell."""
    logits: Float[np.ndarray, "token d_vocab"]
    """Row i is what new token i was chosen from."""


def generate(
    checkpoint: Checkpoint,
    text: str,
    *,
    max_tokens: int,
    until: Sequence[str] = (),
    segment_length: int | None = None,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Generation:
    """Continue a text: greedily at temperature 0, else by sampling with `generator`; at most until what is new spells one of `until`.

    The open segment decodes with its key/value cache; when it is full it is fed once whole, which updates the
    bank. Equal to full recomputation to rounding.

    Raises ValueError for an empty text, fewer than 1 token, a negative temperature, or sampling without a generator.
    """
    if max_tokens < 1 or temperature < 0 or (temperature > 0 and generator is None):
        raise ValueError(
            f"generation needs max_tokens >= 1, temperature >= 0 and, to sample, a generator; not {max_tokens}, {temperature}, {generator}"
        )
    spec = RunSpec(checkpoint=checkpoint.name, text=text, segment_length=segment_length)
    prompt, segments = prepare(checkpoint, spec)
    length = segment_length or checkpoint.config.segment_length
    new: list[int] = []
    rows: list[np.ndarray] = []
    with checkpoint.lock, torch.inference_mode():
        decoder = _Decoder(checkpoint, segments, spec, length)
        while True:
            rows.append(to_numpy(decoder.logits))
            new.append(_choose(decoder.logits, temperature, generator))
            if len(new) == max_tokens or any(stop in checkpoint.tokenizer.decode(new) for stop in until):
                break
            decoder.push(new[-1])
    return Generation(prompt=prompt, ids=tuple(new), text=checkpoint.tokenizer.decode(new), logits=read_only(np.stack(rows)))


def _choose(logits: Float[Tensor, "d_vocab"], temperature: float, generator: torch.Generator | None) -> int:
    if temperature == 0:
        return int(logits.argmax())
    # On the CPU, so that one seed gives one text on every device.
    return int(torch.multinomial((logits.float().cpu() / temperature).softmax(-1), 1, generator=generator))


class _Decoder:
    """The open segment of a text that is being written."""

    def __init__(self, checkpoint: Checkpoint, segments: Sequence[Segment], spec: RunSpec, length: int) -> None:
        self._model, self._length, self._piece = checkpoint.model, length, checkpoint.tokenizer.piece
        self._start, self._ids = segments[-1].start, list(segments[-1].ids)
        self._bank, self._before = self._model.fresh_bank(1), None
        for segment, output in feed(self._model, segments[:-1], spec, {}):
            self._close(output, segment.end)
        self._show(_step(self._model, self._ids, self._bank, self._before))

    def push(self, token: int) -> None:
        """Append a token, opening a new segment behind a full one."""
        if is_full(len(self._ids), self._length, self._model.config.segment_end, self._piece(self._ids[-1])):
            end = self._start + len(self._ids)
            self._close(_step(self._model, self._ids, self._bank, self._before), end)
            self._start, self._ids = end, [token]
            self._show(_step(self._model, self._ids, self._bank, self._before))
        elif self._model.config.memory is MemoryKind.RELEASE:  # gates that pool over the segment change with every token
            self._ids.append(token)
            self._show(_step(self._model, self._ids, self._bank, self._before))
        else:
            self._ids.append(token)
            input_ids, _ = pad([[token]], None, self._model.embed.weight.device)
            # A lone token writes nothing: the segment is written whole when it is full.
            self._show(self._model.segment(input_ids, self._bank, cache=self._open, write=False))

    def _show(self, output: SegmentOutput) -> None:
        self._open = output.cache
        self.logits = output.logits[0, len(self._ids) - 1 if output.logits.shape[1] > 1 else 0]

    def _close(self, output: SegmentOutput, end: int) -> None:
        self._bank, self._before = carried(self._model.config, output, end)
