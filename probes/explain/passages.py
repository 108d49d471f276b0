"""Passages: pieces of documents, with how much each token reads and writes each slot."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.sites import AnySite, Site
from lm2.runs.batched import ReadStep, read_documents
from lm2.runs.capture import Capture, HeadMean
from lm2.runs.hooks import watch
from lm2.runs.loop import to_numpy
from lm2.runs.runner import prepare
from lm2.runs.spec import RunSpec
from lm2.text.segments import Segment
from lm2.text.sequence import TokenSequence
from lm2.weights.checkpoint import Checkpoint
from probes.experiments.contents.provenance import left_of
from probes.explain.corpus import Entry
from probes.explain.spec import ExplainSpec, Signal

LONGEST = 32
"""Tokens of a passage; longer segments are cut."""
_BATCH = 32
"""Documents read side by side."""
_CELLS = 2**24
"""The most tokens times slots of such a batch, unless a single document has more."""
_GATES = (Site.GATE_IN, Site.CANDIDATE, Site.GATE_FORGET)
_VISIBLE = str.maketrans("\n\t ", "⏎⇥·")
_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]+")

Values = Float[np.ndarray, "token slot"]
_Activations = dict[tuple[AnySite, int], np.ndarray]
"""What one segment of some documents held, by site and block: [row, ...]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Passage:
    """A segment of a document, or a part of a long one."""

    group: str
    """Its story or document."""
    segment: int
    start: int
    """Place of its first token in the document."""
    text: str
    spans: tuple[tuple[int, int], ...]
    """Each token's characters in `text`, without the blanks around them."""
    words: tuple[str, ...]
    """Each token's word."""
    values: Mapping[Signal, Values]
    """Reading is left out of segment 0, before which nothing was written, and writing of the last segment, after which
    nothing is read."""


def passages(
    checkpoint: Checkpoint,
    entries: Sequence[Entry],
    spec: ExplainSpec,
    *,
    on_document: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Passage, ...]]:
    """The passages of each document in turn, read in batches of bounded size.

    Raises ValueError for another checkpoint's spec, a model or block without memory, a signal that the memory lacks,
    and as `run` does.
    """
    config = checkpoint.config
    _check(config, spec)
    run = RunSpec(checkpoint=spec.checkpoint, text="", segment_length=spec.segment_length)
    batch: list[_Document] = []
    for entry in entries:
        document = _Document(entry, *prepare(checkpoint, replace(run, text=entry.text)))
        cells = config.slots * sum(len(other.tokens) for other in (*batch, document))
        if batch and (len(batch) == _BATCH or cells > _CELLS):
            yield from _read(checkpoint, batch, spec, on_document)
            batch = []
        batch.append(document)
    yield from _read(checkpoint, batch, spec, on_document)


def _check(config: LM2Config, spec: ExplainSpec) -> None:
    if not config.memory_layers:
        raise ValueError(f"a model of memory kind {config.memory.value!r} has no slots to explain")
    if spec.block is not None and spec.block not in config.memory_layers:
        raise ValueError(f"block {spec.block} has no memory; blocks {sorted(config.memory_layers)} have one")
    if Signal.WRITE in spec.signals and not Site.WRITE_PATTERN.layers(config):
        raise ValueError(f"{config.memory.design.no_write_pattern}: explain what reads its slots, with signals [read]")
    outside = [slot for slot in spec.slots or () if not 0 <= slot < config.slots]
    if outside:
        raise ValueError(f"there is no slot {', '.join(map(str, outside))}; this model has slots 0..{config.slots - 1}")


class _Document(NamedTuple):
    """A document in the checkpoint's tokens and segments."""

    entry: Entry
    tokens: TokenSequence
    segments: tuple[Segment, ...]


def _read(
    checkpoint: Checkpoint, documents: Sequence[_Document], spec: ExplainSpec, on_document: Callable[[], None]
) -> Iterator[tuple[Passage, ...]]:
    """The passages of each of some documents, which are read side by side."""
    passages: list[list[Passage]] = [[] for _ in documents]
    words = [words_of(document.tokens) for document in documents]
    activations: _Activations = {}

    def see(capture: Capture, layer: int, value: Tensor) -> None:
        over_heads = isinstance(capture.reduction, HeadMean)
        activations[capture.site, layer] = to_numpy(value.float().mean(1) if over_heads else value)

    def keep(step: ReadStep) -> None:
        values = _values(checkpoint.config, spec, activations)
        for row, index, segment in step.rows:
            own = {signal: value[row] for signal, value in values.items()}
            passages[index] += _cut(documents[index], words[index], segment, own)

    hooks = [
        watch(capture.site.hook_name(layer), partial(see, capture, layer))
        for capture in _captures(checkpoint.config, spec)
        for layer in capture.layers or ()
    ]
    read_documents(checkpoint, [document.segments for document in documents], keep, hooks=hooks)
    for document_passages in passages:
        on_document()
        yield tuple(document_passages)


def _captures(config: LM2Config, spec: ExplainSpec) -> list[Capture]:
    layers, captures = _layers(config, spec), []
    if Signal.READ in spec.signals:
        captures.append(Capture(Site.READ_PATTERN, HeadMean(), layers))
    if Signal.WRITE in spec.signals:
        captures.append(Capture(Site.WRITE_PATTERN, HeadMean(), layers))
        if Site.GATE_FORGET.layers(config):
            captures += [Capture(site, layers=layers) for site in _GATES]
        else:
            captures.append(Capture(Site.BANK_PRE, layers=(min(config.memory_layers),)))
            captures.append(Capture(Site.BANK_POST, layers=(max(config.memory_layers),)))
    return captures


def _layers(config: LM2Config, spec: ExplainSpec) -> tuple[int, ...]:
    return tuple(sorted(config.memory_layers)) if spec.block is None else (spec.block,)


def _values(
    config: LM2Config, spec: ExplainSpec, activations: _Activations
) -> dict[Signal, Float[np.ndarray, "row token slot"]]:
    """Each signal's values in one segment."""
    layers, values = _layers(config, spec), {}
    if Signal.READ in spec.signals:
        values[Signal.READ] = np.mean([activations[Site.READ_PATTERN, layer] for layer in layers], axis=0)
    if Signal.WRITE in spec.signals:
        patterns = [activations[Site.WRITE_PATTERN, layer] for layer in layers]
        norms = _norms(config, layers, activations)
        credit = sum((norm[..., None] * pattern for norm, pattern in zip(norms, patterns)), start=np.zeros(()))
        values[Signal.WRITE] = credit.swapaxes(1, 2)
    return values


def _norms(config: LM2Config, layers: Sequence[int], activations: _Activations) -> list[Float[np.ndarray, "row slot"]]:
    """The norm of what is left of each block's write at the end of the segment; without gates, an equal part of how far
    the slot moved."""
    if not Site.GATE_FORGET.layers(config):
        after = activations[Site.BANK_POST, max(config.memory_layers)]
        moved = np.linalg.norm(after - activations[Site.BANK_PRE, min(config.memory_layers)], axis=-1)
        return [moved / len(layers)] * len(layers)
    gates = [[activations[site, layer] for site in _GATES] for layer in layers]
    return [np.linalg.norm(left, axis=-1) for left in left_of(gates)]


def words_of(tokens: TokenSequence) -> tuple[str, ...]:
    """Each token's word, found by its first character that is not blank. A blank token is a word of its own, with its
    blanks made visible."""
    matches = list(_WORD.finditer(tokens.text))
    starts = [match.start() for match in matches]
    words = []
    for piece, (start, end) in zip(tokens.shown, tokens.spans):
        index = bisect_right(starts, _trimmed(tokens.text, start, end)[0]) - 1
        blank = not tokens.text[start:end].strip() or index < 0
        words.append(piece.translate(_VISIBLE) if blank else matches[index].group())
    return tuple(words)


def _cut(
    document: _Document, words: Sequence[str], segment: Segment, values: Mapping[Signal, Values]
) -> Iterator[Passage]:
    """A segment's passages."""
    text, spans = document.tokens.text, document.tokens.spans
    useful = {Signal.READ: segment.index > 0, Signal.WRITE: segment.end < len(document.tokens)}
    for start in range(segment.start, segment.end, LONGEST):
        stop = min(start + LONGEST, segment.end)
        trimmed = [_trimmed(text, *span) for span in spans[start:stop]]
        first, last = trimmed[0][0], trimmed[-1][1]
        rows = slice(start - segment.start, stop - segment.start)
        yield Passage(
            group=document.entry.group,
            segment=segment.index,
            start=start,
            text=text[first:last],
            spans=tuple((left - first, right - first) for left, right in trimmed),
            words=tuple(words[start:stop]),
            values={signal: value[rows].copy() for signal, value in values.items() if useful[signal]},
        )


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without the blanks around it; a blank span stays as it is."""
    piece = text[start:end]
    return (start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())) if piece.strip() else (start, end)
