"""Generation: the one way to decode, for one text with its key/value cache and for many side by side."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lm2.model.lm2 import LM2, SegmentOutput
from lm2.model.sites import Axis
from lm2.model.stream import Cache
from lm2.runs.batched import BatchStep, ReadStep, can_batch, read_documents, run_batch
from lm2.runs.hooks import SourceActivations
from lm2.runs.interventions import Edit, Intervention
from lm2.runs.loop import Carried, Records, run_segments, run_up_to, to_numpy
from lm2.runs.runner import prepare, source_activations
from lm2.runs.spec import RunSpec
from lm2.runs.trace import read_only
from lm2.text.segments import Segment, is_full
from lm2.text.sequence import TokenSequence
from lm2.weights.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A text and what the model wrote after it."""

    prompt: TokenSequence
    ids: tuple[int, ...]
    """The new tokens."""
    text: str
    """The new tokens as text."""
    logits: Float[np.ndarray, "token d_vocab"]
    """New token i was chosen from row i."""


def generate(
    checkpoint: Checkpoint,
    text: str,
    *,
    max_tokens: int,
    until: Sequence[str] = (),
    segment_length: int | None = None,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    bos: bool | None = None,
    interventions: Sequence[Intervention] = (),
) -> Generation:
    """Continue a text: greedily at temperature 0, else by sampling with `generator`; at most until the new text has one
    of `until` in it.

    The open segment is decoded with its key/value cache; when full, it is run once as a whole, which updates the bank.
    Equal to full recomputation, to rounding: each new token is chosen from what `run` of the text so far predicts next,
    with the same interventions. These number the segments and tokens of the finished text, and hold for all that is
    written unless they name places. A patch of a site with tokens needs the ends of its segments, so it can only be of
    segments that are closed before anything is written.

    Raises ValueError for an empty text, fewer than 1 token, a negative temperature, sampling without a generator, or
    interventions of places that the finished text cannot have.
    """
    if max_tokens < 1 or not 0 <= temperature < math.inf or (temperature > 0 and generator is None):
        raise ValueError(
            "generation needs max_tokens >= 1, a finite temperature >= 0 and, to sample, a generator; not"
            f" {max_tokens}, {temperature}, {generator}"
        )

    def choose(logits: Float[Tensor, "one d_vocab"]) -> list[int]:
        if temperature == 0:
            return greedy(logits)
        # On the CPU, so that a seed gives the same text on every device.
        weights = (logits[0].float().cpu() / temperature).softmax(-1)
        return torch.multinomial(weights, 1, generator=generator).tolist()

    spec = RunSpec(
        checkpoint=checkpoint.name,
        text=text,
        segment_length=segment_length,
        interventions=tuple(interventions),
        bos=bos,
    )
    prompt, segments = prepare(checkpoint, spec, max_tokens)
    sources = source_activations(checkpoint, spec, max_tokens)
    model = checkpoint.model
    with checkpoint.lock, torch.inference_mode():
        open_text = OpenText(prompt, segments[-1], run_up_to(model, segments[:-1], spec, sources))
        reader = SingleReader(model, spec, {}, sources)
        steps = decode(checkpoint, [open_text], reader, spec, max_tokens, until, choose)
        logits = [to_numpy(logits[0]) for logits in steps]
    return Generation(
        prompt=prompt,
        ids=tuple(open_text.new),
        text=checkpoint.tokenizer.decode_after(prompt.ids, open_text.new),
        logits=read_only(np.stack(logits)),
    )


def answers(
    checkpoint: Checkpoint, texts: Sequence[str], *, max_tokens: int, stop: str, segment_length: int | None = None
) -> list[str]:
    """The greedy continuation of each text: until it has `stop` in it, for at most `max_tokens` tokens.

    Equal to `generate`, text by text. Memory stays bounded however long the texts are, unless the model attends to all
    earlier tokens. Raises ValueError for an empty text.
    """
    if not can_batch(checkpoint.config):
        return [
            generate(checkpoint, text, max_tokens=max_tokens, until=(stop,), segment_length=segment_length).text
            for text in texts
        ]
    model = checkpoint.model
    spec = RunSpec(checkpoint=checkpoint.name, text="", segment_length=segment_length)
    prepared = [prepare(checkpoint, replace(spec, text=text)) for text in texts]
    fresh = model.fresh_bank(1)
    open_texts = [OpenText(prompt, segments[-1], Carried(fresh, None)) for prompt, segments in prepared]
    closed = [segments[:-1] for _, segments in prepared]

    def last(document: int, segment: Segment) -> bool:
        return segment is closed[document][-1]

    def keep(step: ReadStep) -> None:
        assert step.output.bank is not None, "the model has a fresh bank"
        for row, document, segment in step.rows:
            if last(document, segment):
                open_texts[document].before = Carried(step.output.bank[row : row + 1], None)

    if fresh is not None:  # without a bank, nothing is carried over to the open segments
        read_documents(checkpoint, closed, keep, wanted=last)
    with checkpoint.lock, torch.inference_mode():
        for _ in decode(checkpoint, open_texts, _BatchReader(model), spec, max_tokens, (stop,)):
            pass
    return [checkpoint.tokenizer.decode_after(text.prompt.ids, text.new) for text in open_texts]


@dataclass(eq=False)
class OpenText:
    """A text that is being continued."""

    prompt: TokenSequence
    segment: Segment
    """The open segment, with its new tokens that have been read."""
    before: Carried
    """What the segments before the open one left."""
    new: list[int] = field(default_factory=list)


def greedy(logits: Float[Tensor, "text d_vocab"]) -> list[int]:
    """The most probable token of each text."""
    return logits.argmax(-1).tolist()


def decode(
    checkpoint: Checkpoint,
    texts: Sequence[OpenText],
    reader: "SingleReader | _BatchReader",
    spec: RunSpec,
    max_tokens: int,
    until: Sequence[str] = (),
    choose: Callable[[Float[Tensor, "text d_vocab"]], list[int]] = greedy,
) -> Iterator[Float[Tensor, "text d_vocab"]]:
    """Add new tokens to each text, until they have one of `until` in them, at most `max_tokens`. Yields the logits that
    each step's tokens are chosen from.

    A full segment is closed as a run of the finished text would close it. The caller holds the checkpoint's lock and is
    in inference mode.
    """
    tokenizer, config = checkpoint.tokenizer, checkpoint.config
    length = spec.segment_length or config.segment_length

    def ended(text: OpenText) -> bool:
        new_text = tokenizer.decode_after(text.prompt.ids, text.new) if until else ""
        return len(text.new) == max_tokens or any(stop in new_text for stop in until)

    while texts:
        logits = reader.predict(texts)
        for text, token in zip(texts, choose(logits)):
            text.new.append(token)
        yield logits
        texts = [text for text in texts if not ended(text)]
        full = [
            text
            for text in texts
            if is_full(len(ids := text.segment.ids), length, config.segment_end, tokenizer.piece(ids[-1]))
        ]
        if full:
            reader.close(full)
        for text in texts:
            text.segment = replace(text.segment, ids=(*text.segment.ids, text.new[-1]))


class SingleReader:
    """Reads one text: its open segment token by token with its key/value cache, and once more as a whole when full.

    Models that cannot decode with a cache, and edits of sites whose keys would grow with it, always read the whole
    segment.
    """

    def __init__(self, model: LM2, spec: RunSpec, records: Records, sources: SourceActivations) -> None:
        """Every step has the interventions and captures of `spec`; `records` receives the captures of the last one."""
        self._model, self._spec, self._records, self._sources = model, spec, records, sources
        self._by_token = (
            model.config.causal
            and model.config.memory.design.decodes_with_cache
            and not any(isinstance(change, Edit) and Axis.KEY in change.site.axes for change in spec.interventions)
        )
        self._read: Cache | None = None
        """The tokens of the open segment that have been read, and the earlier ones that they may attend to."""

    def predict(self, texts: Sequence[OpenText]) -> Float[Tensor, "one d_vocab"]:
        """The next token's logits."""
        (text,) = texts
        segment, before = text.segment, text.before
        if self._read is not None and self._by_token:
            segment = replace(segment, start=segment.end - 1, ids=segment.ids[-1:])
            before = Carried(before.bank, self._read)
        _, output, _ = self._run(segment, before, write=False)
        self._read = output.cache
        return output.logits[:, len(segment.ids) - 1]

    def close(self, texts: Sequence[OpenText]) -> None:
        """Write the open segment to the bank, and open an empty one."""
        (text,) = texts
        _, _, left = self._run(text.segment, text.before, write=True)
        _open_next(text, left)
        self._read = None

    def _run(self, segment: Segment, before: Carried, *, write: bool) -> tuple[Segment, SegmentOutput, Carried]:
        return next(run_segments(self._model, [segment], self._spec, self._records, before, self._sources, write=write))


class _BatchReader:
    """Reads many texts. Open segments are short: reading them again costs less than keeping caches of uneven rows."""

    def __init__(self, model: LM2) -> None:
        self._model = model

    def predict(self, texts: Sequence[OpenText]) -> Float[Tensor, "text d_vocab"]:
        step = self._step(texts, writes=0)
        last = step.non_padding.sum(1) - 1
        return step.output.unembed(step.output.final[torch.arange(len(texts), device=last.device), last])

    def close(self, texts: Sequence[OpenText]) -> None:
        bank = self._step(texts, writes=None).output.bank
        for text, row in zip(texts, [None] * len(texts) if bank is None else bank.split(1)):
            _open_next(text, Carried(row, None))

    def _step(self, texts: Sequence[OpenText], writes: int | None) -> BatchStep:
        banks = [text.before.bank for text in texts if text.before.bank is not None]
        bank = torch.cat(banks) if banks else None
        return next(run_batch(self._model, [[text.segment] for text in texts], bank, writes=writes))


def _open_next(text: OpenText, before: Carried) -> None:
    text.segment = Segment(index=text.segment.index + 1, start=text.segment.end, ids=())
    text.before = before
