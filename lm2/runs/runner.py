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
from lm2.origin import processor, threads
from lm2.runs.capture import Capture, Coordinate
from lm2.runs.hooks import SourceActivations, SourceRequest, takings
from lm2.runs.interventions import Carry
from lm2.runs.logits import GrowingLogits
from lm2.runs.loop import Carried, Records, in_turns, run_segments, to_numpy
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.text.segments import Segment, split_segments
from lm2.text.sequence import TokenSequence
from lm2.text.tokens import Tokenizer
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.cost import TooLargeError, check_working

LIMIT_BYTES = 2 * 1024**3
"""What a run may keep unless its caller allows more."""


def prepare(checkpoint: Checkpoint, spec: RunSpec) -> tuple[TokenSequence, tuple[Segment, ...]]:
    """The spec's text as tokens and segments.

    Raises ValueError for a text without tokens, another checkpoint's spec, and interventions or captures
    of places that are not there, be it in this text or in one that an intervention takes from; TooLargeError for a
    segment of either that would take more working memory than the checkpoint allows.
    """
    config = checkpoint.config
    if spec.checkpoint != checkpoint.name:
        raise ValueError(f"the spec is for checkpoint {spec.checkpoint!r}, not {checkpoint.name!r}")
    length = spec.segment_length or config.segment_length
    full = config.memory.design.full_length(config)
    if full not in (None, length):
        raise ValueError(f"this model's segments are {full} tokens long, as many as it has slots, not {length}")
    tokens, segments = _cut(checkpoint.tokenizer, spec.text, length, config.segment_end)
    if not tokens.ids:
        raise ValueError("the text is empty: a run needs at least one token")
    check_working(config, segments, checkpoint.working_bytes)
    for capture in spec.captures:
        capture.check(config, len(segments))
    named = dict.fromkeys(text for change in spec.interventions for text in change.donors)
    donors = {text: _donor_segments(checkpoint, text, length) for text in named}
    for change in spec.interventions:
        change.check(config, segments, donors)
    return tokens, segments


@lru_cache(maxsize=8)
def _cut(
    tokenizer: Tokenizer, text: str, length: int, segment_end: SegmentEnd
) -> tuple[TokenSequence, tuple[Segment, ...]]:
    """A text's tokens and segments; of a long one they take a third of a second, and several steps ask for them."""
    tokens = tokenizer.encode(text)
    return tokens, split_segments(tokens, length, segment_end)


def _donor_segments(checkpoint: Checkpoint, donor: str, segment_length: int | None) -> tuple[Segment, ...]:
    """A donor's segments. Raises ValueError for a text without tokens, and TooLargeError as `prepare` does."""
    config = checkpoint.config
    length = segment_length or config.segment_length
    _, segments = _cut(checkpoint.tokenizer, donor, length, config.segment_end)
    if not segments:
        raise ValueError(f"the donor {donor!r} is empty: something can be taken from a text of at least one token")
    check_working(config, segments, checkpoint.working_bytes)
    return segments


def predicted_bytes(checkpoint: Checkpoint, spec: RunSpec) -> int:
    """Bytes of arrays that `run` will keep for this spec, known before it runs. Raises ValueError as `prepare` does."""
    return _bytes(checkpoint.config, spec, *prepare(checkpoint, spec))


def _bytes(config: LM2Config, spec: RunSpec, tokens: TokenSequence, segments: Sequence[Segment]) -> int:
    total = 4 * (len(tokens) * config.d_vocab + config.slots * config.slot_dim)
    for capture in spec.captures:
        held = segments if capture.segments is None else [segments[at] for at in set(capture.segments)]
        # Most segments of a long text are alike: nothing else of them decides how much is kept.
        alike = Counter(
            (segment.start if config.lookback is None else min(segment.start, config.lookback), len(segment.ids))
            for segment in held
        )
        for (start, count), times in alike.items():
            shape = capture.reduction.shape(capture.site.axes, capture.site.sizes(config, start, count))
            total += 4 * math.prod(shape) * len(capture.blocks(config)) * times
    return total


def run(
    checkpoint: Checkpoint,
    spec: RunSpec,
    *,
    on_segment: Callable[[int, int], None] | None = None,
    limit_bytes: int = LIMIT_BYTES,
    sources: SourceActivations | None = None,
) -> Trace:
    """Feed the text segment by segment, change what the spec's interventions say, and keep what it asks for.

    Observing changes nothing: the logits are bitwise those of a run without captures. Interventions apply in their
    order; captures show values as the model used them. Texts that interventions take from are run first, clean, each
    once. With an intervention that is READ_ONLY, logits and captures come from the pass that has it, while the bank and
    the sites of writing come from the pass that wrote without it. Safe to call from many threads on one checkpoint.

    Args:
        on_segment: hears (segments done, segments in all) after each segment of the text itself.
        limit_bytes: refuse to keep more.
        sources: what `source_activations` found for this spec, or for one that takes more; None, those texts are run.

    Raises ValueError as `prepare` does, and TooLargeError with both numbers before anything runs.
    """
    tokens, segments = prepare(checkpoint, spec)
    wanted = _bytes(checkpoint.config, spec, tokens, segments)
    if wanted > limit_bytes:
        raise TooLargeError(
            f"this run would keep {wanted:,} bytes, more than the {limit_bytes:,} allowed: "
            "capture fewer sites, blocks or segments, or reduce them (HeadMean, PooledMax, TopSlots)"
        )
    records: Records = {}
    logits = GrowingLogits(len(tokens), checkpoint.config.d_vocab)
    output = None
    with torch.inference_mode():
        sources = _source_activations(checkpoint, spec, segments) if sources is None else sources
        steps = run_segments(checkpoint.model, segments, spec, records, sources=sources)
        for segment, output in in_turns(checkpoint.lock, steps):
            logits.put(to_numpy(output.logits[0, : len(segment.ids)]))
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
        logits=logits.whole(),
        bank=None if output.bank is None else to_numpy(output.bank[0]),
        records=records,
    )


def source_activations(checkpoint: Checkpoint, spec: RunSpec) -> SourceActivations:
    """What a spec's interventions take from other texts: each of these is run once, clean, as far as it is needed.

    They serve every spec of the same text, segment length and checkpoint whose interventions are among these.
    Raises ValueError as `prepare` does.
    """
    _, segments = prepare(checkpoint, spec)
    with torch.inference_mode():
        return _source_activations(checkpoint, spec, segments)


def _source_activations(checkpoint: Checkpoint, spec: RunSpec, segments: Sequence[Segment]) -> SourceActivations:
    by_text: dict[str, list[SourceRequest]] = defaultdict(list)
    for taking in takings(spec.interventions, checkpoint.config, segments):
        for text in taking.operation.donors:
            by_text[text].append(taking)
    values: dict[SourceRequest, Tensor] = {}
    for text, wanted in by_text.items():
        for taking, value in zip(wanted, _clean(checkpoint, replace(spec, text=text), wanted)):
            share = taking.operation.share(value, taking.site.axes)
            values[taking] = values[taking] + share if taking in values else share
    carry = {change.texts for change in spec.interventions if isinstance(change, Carry)}
    return SourceActivations(values=values, banks={texts: _bank_after(checkpoint, texts, spec) for texts in carry})


def _clean(checkpoint: Checkpoint, donor: RunSpec, wanted: Sequence[SourceRequest]) -> list[Tensor]:
    """What a donor's clean run has at each of the places wanted."""
    segments = _donor_segments(checkpoint, donor.text, donor.segment_length)
    places = [
        Coordinate(taking.operation.of(taking.place.segment, len(segments)), taking.place.layer) for taking in wanted
    ]
    captures = [
        Capture(taking.site, layers=None if place.layer is None else (place.layer,), segments=(place.segment,))
        for taking, place in zip(wanted, places)
    ]
    records: Records = {}
    needed = segments[: max(place.segment for place in places) + 1]
    clean = replace(donor, interventions=(), captures=tuple(dict.fromkeys(captures)))
    for _ in in_turns(checkpoint.lock, run_segments(checkpoint.model, needed, clean, records)):
        pass
    like = checkpoint.model.embed.weight
    kept = {key: torch.tensor(value, dtype=like.dtype, device=like.device) for key, value in records.items()}
    return [kept[key] for key in zip(captures, places)]  # many segments can take the same


def _bank_after(checkpoint: Checkpoint, texts: Sequence[str], spec: RunSpec) -> Float[Tensor, "slot slot_dim"]:
    """The bank that reading some texts one after the other leaves."""
    model = checkpoint.model
    bank = model.fresh_bank(1)
    for text in texts:
        clean = replace(spec, text=text, interventions=(), captures=())
        segments = _donor_segments(checkpoint, text, spec.segment_length)
        for _, output in in_turns(checkpoint.lock, run_segments(model, segments, clean, {}, Carried(bank, None))):
            bank = output.bank
    assert bank is not None, "Carry asks for a memory"
    return bank[0]
