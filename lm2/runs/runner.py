"""run: from specs to traces."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from lm2.model.config import LM2Config, SegmentEnd
from lm2.model.sites import Axis
from lm2.origin import processor, threads
from lm2.runs.capture import Capture, Coordinate, check_site
from lm2.runs.donors import Patch
from lm2.runs.hooks import NO_SOURCES, SourceActivations, SourceRequest, source_requests
from lm2.runs.interventions import Carry, Edit, Intervention
from lm2.runs.loop import Carried, Records, in_turns, run_segments, to_numpy
from lm2.runs.spec import RunSpec
from lm2.runs.trace import GrowingLogits, Trace
from lm2.text.segments import Segment, possible_segments, split_segments
from lm2.text.sequence import TokenSequence
from lm2.text.tokens import Tokenizer
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.cost import TooLargeError, check_working

LIMIT_BYTES = 2 * 1024**3
"""What a run may keep unless its caller sets another limit."""


def prepare(checkpoint: Checkpoint, spec: RunSpec, new_tokens: int = 0) -> tuple[TokenSequence, tuple[Segment, ...]]:
    """The spec's text as tokens and segments. Interventions may also be of places in `new_tokens` tokens that will be
    written after it.

    Raises ValueError for a text without tokens, another checkpoint's spec, and interventions or captures of places that
    this text or a donor does not have; TooLargeError for a segment of either that would take more working memory than
    the checkpoint allows.
    """
    config = checkpoint.config
    if spec.checkpoint != checkpoint.name:
        raise ValueError(f"the spec is for checkpoint {spec.checkpoint!r}, not {checkpoint.name!r}")
    length = spec.segment_length or config.segment_length
    full = config.memory.design.full_length(config)
    if full not in (None, length):
        raise ValueError(f"this model's segments are {full} tokens long, as many as it has slots, not {length}")
    tokens, segments = _cut(checkpoint.tokenizer, spec.text, length, config.segment_end, spec.bos)
    if len(tokens) == tokens.bos:
        raise ValueError("the text is empty: a run needs at least one token")
    check_working(config, segments, checkpoint.working_bytes)
    for capture in spec.captures:
        check_site(capture.site, capture.layers, capture.segments, config, len(segments))
    texts = dict.fromkeys(text for change in spec.interventions for text in change.donors)
    donors = {text: _donor_segments(checkpoint, text, spec) for text in texts}
    possible = possible_segments(segments, new_tokens if spec.interventions else 0, length, config.segment_end)
    for change in spec.interventions:
        if new_tokens:
            _check_ends(change, segments, possible)
        change.check(config, possible, donors)
    return tokens, segments


def _check_ends(change: Intervention, segments: Sequence[Segment], possible: Sequence[Segment]) -> None:
    """Raise ValueError for an edit that needs the ends of segments that have none yet."""
    if (
        isinstance(change, Edit)
        and isinstance(change.operation, Patch)
        and Axis.TOKEN in change.site.axes
        and any(change.reaches(segment) for segment in possible[len(segments) - 1 :])
    ):
        raise ValueError(
            f"a patch of {change.site.name} lines up the ends of segments, and segment {len(segments) - 1} has none yet"
            " while text is written: patch earlier segments, or a site without tokens, or use Mean"
        )


@lru_cache(maxsize=8)
def _cut(
    tokenizer: Tokenizer, text: str, length: int, segment_end: SegmentEnd, bos: bool | None
) -> tuple[TokenSequence, tuple[Segment, ...]]:
    """A text's tokens and segments. For a long text they take a third of a second, and are needed several times."""
    tokens = tokenizer.encode(text, bos)
    return tokens, split_segments(tokens, length, segment_end)


def _donor_segments(checkpoint: Checkpoint, donor: str, spec: RunSpec) -> tuple[Segment, ...]:
    """Raises ValueError for a text without tokens, and TooLargeError as `prepare` does."""
    config = checkpoint.config
    length = spec.segment_length or config.segment_length
    tokens, segments = _cut(checkpoint.tokenizer, donor, length, config.segment_end, spec.bos)
    if len(tokens) == tokens.bos:
        raise ValueError(f"the donor {donor!r} is empty: something can be taken from a text of at least one token")
    check_working(config, segments, checkpoint.working_bytes)
    return segments


def predicted_bytes(checkpoint: Checkpoint, spec: RunSpec) -> int:
    """Bytes of arrays that `run` will keep for this spec, known before it runs. Raises ValueError as `prepare` does."""
    return _bytes(checkpoint.config, spec, *prepare(checkpoint, spec))


def _bytes(config: LM2Config, spec: RunSpec, tokens: TokenSequence, segments: Sequence[Segment]) -> int:
    total = 4 * (len(tokens) * config.d_vocab + config.slots * config.slot_dim)
    for capture in spec.captures:
        captured = segments if capture.segments is None else [segments[index] for index in set(capture.segments)]
        # Most segments of a long text are alike in what decides how much is kept.
        alike = Counter(
            (segment.start if config.lookback is None else min(segment.start, config.lookback), len(segment.ids))
            for segment in captured
        )
        for (start, length), count in alike.items():
            shape = capture.reduction.shape(capture.site.axes, capture.site.sizes(config, start, length))
            total += 4 * math.prod(shape) * len(capture.blocks(config)) * count
    return total


def run(
    checkpoint: Checkpoint,
    spec: RunSpec,
    *,
    on_segment: Callable[[int, int], None] | None = None,
    limit_bytes: int = LIMIT_BYTES,
    sources: SourceActivations | None = None,
) -> Trace:
    """Run a text segment by segment with the spec's interventions, and keep what it captures.

    Captures change nothing: the logits are bitwise those of a run without them. Interventions apply in their order;
    captures show values as the model used them. Donors are run first, clean, each once. With a READ_ONLY intervention,
    logits and captures come from the pass that has it, the bank and the sites of writing from the pass that wrote
    without it. Safe to call from many threads on one checkpoint.

    Args:
        on_segment: called with (segments done, segments in all) after each segment of the text itself.
        limit_bytes: refuse to keep more.
        sources: result of `source_activations` for this spec, or for one that takes more; None, donors are run.

    Raises ValueError as `prepare` does, and TooLargeError with both numbers before anything runs.
    """
    tokens, segments = prepare(checkpoint, spec)
    needed = _bytes(checkpoint.config, spec, tokens, segments)
    if needed > limit_bytes:
        raise TooLargeError(
            f"this run would keep {needed:,} bytes, more than the {limit_bytes:,} allowed: "
            "capture fewer sites, blocks or segments, or reduce them (HeadMean, PooledMax, TopSlots)"
        )
    records: Records = {}
    logits = GrowingLogits(len(tokens), checkpoint.config.d_vocab)
    output = None
    with torch.inference_mode():
        sources = _source_activations(checkpoint, spec, segments) if sources is None else sources
        steps = run_segments(checkpoint.model, segments, spec, records, sources=sources)
        for segment, output, _ in in_turns(checkpoint.lock, steps):
            logits.add(to_numpy(output.logits[0, : len(segment.ids)]))
            if on_segment is not None:
                on_segment(segment.index + 1, len(segments))
    assert output is not None, "a text has a segment"
    return Trace(
        spec=spec,
        checkpoint_digest=checkpoint.digest,
        weights_digest=checkpoint.weights_digest,
        processor=processor(),
        threads=threads(),
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        tokens=tokens,
        segments=segments,
        logits=logits.array(),
        bank=None if output.bank is None else to_numpy(output.bank[0]),
        records=records,
    )


def source_activations(checkpoint: Checkpoint, spec: RunSpec, new_tokens: int = 0) -> SourceActivations:
    """What a spec's interventions take from other texts: each text is run once, clean, as far as it is needed.

    Usable for every spec of the same text, segment length and checkpoint whose interventions are among these, and for
    up to `new_tokens` tokens that are written after the text. Raises ValueError as `prepare` does.
    """
    _, segments = prepare(checkpoint, spec, new_tokens)
    if not spec.interventions:
        return NO_SOURCES
    length = spec.segment_length or checkpoint.config.segment_length
    possible = possible_segments(segments, new_tokens, length, checkpoint.config.segment_end)
    with torch.inference_mode():
        return _source_activations(checkpoint, spec, possible)


def _source_activations(checkpoint: Checkpoint, spec: RunSpec, segments: Sequence[Segment]) -> SourceActivations:
    by_text: dict[str, list[SourceRequest]] = defaultdict(list)
    for request in source_requests(spec.interventions, checkpoint.config, segments):
        for text in request.operation.donors:
            by_text[text].append(request)
    values: dict[SourceRequest, Tensor] = {}
    for text, requests in by_text.items():
        for request, value in zip(requests, _clean_values(checkpoint, replace(spec, text=text), requests)):
            share = request.operation.share(value, request.site.axes)
            values[request] = values[request] + share if request in values else share
    carry = {change.texts for change in spec.interventions if isinstance(change, Carry)}
    return SourceActivations(values=values, banks={texts: _bank_after(checkpoint, texts, spec) for texts in carry})


def _clean_values(checkpoint: Checkpoint, donor: RunSpec, requests: Sequence[SourceRequest]) -> list[Tensor]:
    """The value for each request in a donor's clean run."""
    segments = _donor_segments(checkpoint, donor.text, donor)
    places = [
        Coordinate(request.operation.donor_segment(request.place.segment, len(segments)), request.place.layer)
        for request in requests
    ]
    captures = [
        Capture(request.site, layers=None if place.layer is None else (place.layer,), segments=(place.segment,))
        for request, place in zip(requests, places)
    ]
    records: Records = {}
    needed = segments[: max(place.segment for place in places) + 1]
    clean = replace(donor, interventions=(), captures=tuple(dict.fromkeys(captures)))
    for _ in in_turns(checkpoint.lock, run_segments(checkpoint.model, needed, clean, records)):
        pass
    like = checkpoint.model.embed.weight
    values = {key: torch.tensor(value, dtype=like.dtype, device=like.device) for key, value in records.items()}
    return [values[key] for key in zip(captures, places)]  # many segments can take the same


def _bank_after(checkpoint: Checkpoint, texts: Sequence[str], spec: RunSpec) -> Float[Tensor, "slot slot_dim"]:
    """The bank that reading some texts one after the other leaves."""
    model = checkpoint.model
    bank = model.fresh_bank(1)
    for text in texts:
        clean = replace(spec, text=text, interventions=(), captures=())
        segments = _donor_segments(checkpoint, text, spec)
        for _, output, _ in in_turns(checkpoint.lock, run_segments(model, segments, clean, {}, Carried(bank, None))):
            bank = output.bank
    assert bank is not None, "Carry is refused without a memory"
    return bank[0]
