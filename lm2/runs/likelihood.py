"""Log-likelihoods and perplexity of given texts, read segment by segment.

The first token has nothing before it: it is not predicted, and not counted. It is the begin-of-text token where texts
begin with one.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lm2.model.lm2 import SegmentOutput
from lm2.runs.loop import run_segments
from lm2.runs.runner import prepare
from lm2.runs.spec import RunSpec
from lm2.shown import shown
from lm2.text.segments import Segment
from lm2.weights.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Of a continuation."""

    log_probability: float
    """Sum over its tokens, in nats."""
    greedy: bool
    """Whether every token was the most probable one."""
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Of a text."""

    tokens: int
    """Predicted tokens: all but the first, which may be a begin-of-text token."""
    nats_per_token: float
    bits_per_byte: float
    """Bits of all predicted tokens over UTF-8 bytes of the whole text."""


def log_likelihoods(
    checkpoint: Checkpoint,
    pairs: Sequence[tuple[str, str]],
    *,
    segment_length: int | None = None,
    bos: bool | None = None,
) -> list[Likelihood]:
    """The log-likelihood of each (context, continuation)'s continuation.

    Its tokens are those of context + continuation that share a character with the continuation. Pairs of one context
    share the segments in which their texts agree. Logits are computed for the counted tokens alone and not kept, so a
    long context costs memory only where the model attends to all of it.

    Raises ValueError as `run` does, for a continuation without a token after the text's first one, and for one with
    characters that the tokenizer does not know.
    """
    by_context: dict[str, list[int]] = defaultdict(list)
    for index, (context, _) in enumerate(pairs):
        by_context[context].append(index)
    likelihoods: dict[int, Likelihood] = {}
    for context, indices in by_context.items():
        readings = [_reading(checkpoint, context, pairs[index][1], segment_length, bos) for index in indices]
        _read(checkpoint, readings)
        likelihoods.update(zip(indices, (reading.likelihood for reading in readings)))
    return [likelihoods[index] for index in range(len(pairs))]


def perplexity(
    checkpoint: Checkpoint, text: str, *, segment_length: int | None = None, bos: bool | None = None
) -> Perplexity:
    """Raises ValueError as `run` does, for a text of one token, and for one with characters that the tokenizer does not
    know."""
    reading = _reading(checkpoint, "", text, segment_length, bos)
    _read(checkpoint, [reading])
    nats, tokens = -reading.log_probability, reading.likelihood.tokens
    return Perplexity(
        tokens=tokens, nats_per_token=nats / tokens, bits_per_byte=nats / math.log(2) / len(text.encode())
    )


@dataclass(kw_only=True)
class _Reading:
    """A text that is being read, and the sum over its counted tokens so far."""

    spec: RunSpec
    ids: tuple[int, ...]
    segments: tuple[Segment, ...]
    first: int
    """The first token that counts, with all after it."""
    log_probability: float = 0.0
    greedy: bool = True

    @property
    def likelihood(self) -> Likelihood:
        return Likelihood(log_probability=self.log_probability, greedy=self.greedy, tokens=len(self.ids) - self.first)

    def add(self, segment: Segment, output: SegmentOutput) -> None:
        """Count the tokens that `segment` predicts: its own but the first, and the next segment's first."""
        start, end = max(self.first, segment.start + 1), min(len(self.ids), segment.end + 1)
        if start >= end:
            return
        final = output.final[0, start - 1 - segment.start : end - 1 - segment.start]
        logits = output.unembed(final).float()
        ids = torch.tensor(self.ids[start:end], device=logits.device)
        self.log_probability += float(logits.log_softmax(-1).gather(1, ids[:, None]).double().sum())
        self.greedy = self.greedy and bool((logits.argmax(-1) == ids).all())


def _reading(
    checkpoint: Checkpoint, context: str, continuation: str, segment_length: int | None, bos: bool | None
) -> _Reading:
    spec = RunSpec(checkpoint=checkpoint.name, text=context + continuation, segment_length=segment_length, bos=bos)
    tokens, segments = prepare(checkpoint, spec)
    first = max(1, tokens.first_after(len(context)))
    if first >= len(tokens):
        raise ValueError(
            f"{continuation[:40]!r} has no token after the text's first one: nothing in it can be predicted"
        )
    if not checkpoint.tokenizer.knows(tokens, len(context)):
        raise ValueError(
            f"the tokenizer has no token for some of {shown(continuation)}: its likelihood would be that of other"
            " texts, too"
        )
    if checkpoint.config.causal:
        # The last token predicts nothing that counts; without it, one-token continuations of a context are one text.
        last = replace(segments[-1], ids=segments[-1].ids[:-1])
        segments = (*segments[:-1], last) if last.ids else segments[:-1]
    return _Reading(spec=spec, ids=tokens.ids, segments=segments, first=first)


def _read(checkpoint: Checkpoint, readings: Sequence[_Reading]) -> None:
    """Run the segments that all readings begin with once, and the others for each reading."""
    texts = [reading.segments for reading in readings]
    shared = next((i for i, column in enumerate(zip(*texts)) if len(set(column)) > 1), min(map(len, texts)))
    model, before = checkpoint.model, None
    with checkpoint.lock, torch.inference_mode():
        for segment, output, left in run_segments(model, texts[0][:shared], readings[0].spec, {}):
            before = left
            for reading in readings:
                reading.add(segment, output)
        for reading in readings:
            for segment, output, _ in run_segments(model, reading.segments[shared:], reading.spec, {}, before):
                reading.add(segment, output)
