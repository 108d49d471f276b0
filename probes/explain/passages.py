"""Passages: documents as a memory meets them, with how much each token reads and writes each slot."""

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
"""Tokens of a passage: longer segments are cut."""
_ROWS = 32
_CELLS = 2**24
"""Tokens times slots of the documents that are read side by side, unless a single one has more."""
_GATES = (Site.GATE_IN, Site.CANDIDATE, Site.GATE_FORGET)
_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]+")

Values = Float[np.ndarray, "token slot"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Passage:
    """A segment of a document, or a part of a long one."""

    group: str
    """The story or document that it is from."""
    segment: int
    start: int
    """Place of its first token in the document."""
    text: str
    spans: tuple[tuple[int, int], ...]
    """Each token's characters in `text`, without the blanks around them."""
    words: tuple[str, ...]
    """The word that each token is of."""
    values: Mapping[Signal, Values]
    """Reading from segment 1 on, for before it nothing was written that could be read; writing up to the last segment
    but one, for nobody reads what the last one writes."""


def passages(
    checkpoint: Checkpoint,
    entries: Sequence[Entry],
    spec: ExplainSpec,
    *,
    on_document: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Passage, ...]]:
    """The passages of each document in turn. What is held at a time is bounded, however many documents there are.

    Raises ValueError for another checkpoint's spec, a model or block without memory, a signal that the memory lacks,
    and as `run` does.
    """
    config = checkpoint.config
    _check(config, spec)
    run = RunSpec(checkpoint=spec.checkpoint, text="", segment_length=spec.segment_length)
    laid = (_Laid(entry, *prepare(checkpoint, replace(run, text=entry.text))) for entry in entries)
    for few in _few(laid, config.slots):
        for each in _read(checkpoint, few, spec):
            on_document()
            yield tuple(each)


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


class _Laid(NamedTuple):
    """A document as the checkpoint will read it."""

    entry: Entry
    tokens: TokenSequence
    segments: tuple[Segment, ...]


def _few(laid: Iterator[_Laid], slots: int) -> Iterator[list[_Laid]]:
    """Documents that are read together."""
    held: list[_Laid] = []
    for one in laid:
        if held and (len(held) == _ROWS or slots * sum(len(other.tokens) for other in (*held, one)) > _CELLS):
            yield held
            held = []
        held.append(one)
    if held:
        yield held


def _read(checkpoint: Checkpoint, few: Sequence[_Laid], spec: ExplainSpec) -> list[list[Passage]]:
    """The passages of documents that are read together."""
    found: list[list[Passage]] = [[] for _ in few]
    words = [words_of(one.tokens) for one in few]
    kept: dict[tuple[AnySite, int], np.ndarray] = {}

    def see(capture: Capture, layer: int, value: Tensor) -> None:
        over_heads = isinstance(capture.reduction, HeadMean)
        kept[capture.site, layer] = to_numpy(value.float().mean(1) if over_heads else value)

    def keep(step: ReadStep) -> None:
        values = _values(checkpoint.config, spec, kept)
        for row, document, segment in step.rows:
            own = {signal: value[row] for signal, value in values.items()}
            found[document] += _cut(few[document], words[document], segment, own)

    hooks = [
        watch(capture.site.hook_name(layer), partial(see, capture, layer))
        for capture in _captures(checkpoint.config, spec)
        for layer in capture.layers or ()
    ]
    read_documents(checkpoint, [one.segments for one in few], keep, hooks=hooks)
    return found


def _captures(config: LM2Config, spec: ExplainSpec) -> tuple[Capture, ...]:
    layers = _layers(config, spec)
    found = [Capture(Site.READ_PATTERN, HeadMean(), layers)] if Signal.READ in spec.signals else []
    if Signal.WRITE in spec.signals:
        found.append(Capture(Site.WRITE_PATTERN, HeadMean(), layers))
        if Site.GATE_FORGET.layers(config):
            found += [Capture(site, layers=layers) for site in _GATES]
        else:
            first, last = min(config.memory_layers), max(config.memory_layers)
            found += [Capture(Site.BANK_PRE, layers=(first,)), Capture(Site.BANK_POST, layers=(last,))]
    return tuple(found)


def _layers(config: LM2Config, spec: ExplainSpec) -> tuple[int, ...]:
    return tuple(sorted(config.memory_layers)) if spec.block is None else (spec.block,)


def _values(
    config: LM2Config, spec: ExplainSpec, kept: Mapping[tuple[AnySite, int], np.ndarray]
) -> dict[Signal, Float[np.ndarray, "row token slot"]]:
    """What each token of one segment has to do with each slot, from what was captured."""
    layers, found = _layers(config, spec), {}
    if Signal.READ in spec.signals:
        found[Signal.READ] = np.mean([kept[Site.READ_PATTERN, layer] for layer in layers], axis=0)
    if Signal.WRITE in spec.signals:
        patterns = [kept[Site.WRITE_PATTERN, layer] for layer in layers]
        sizes = _sizes(config, layers, kept)
        credit = sum((size[..., None] * pattern for size, pattern in zip(sizes, patterns)), start=np.zeros(()))
        found[Signal.WRITE] = credit.swapaxes(1, 2)
    return found


def _sizes(
    config: LM2Config, layers: Sequence[int], kept: Mapping[tuple[AnySite, int], np.ndarray]
) -> list[Float[np.ndarray, "row slot"]]:
    """The norm of what is left of each block's write as the segment ends; without gates, of an equal part of how
    far the slot moved."""
    if not Site.GATE_FORGET.layers(config):
        first, last = min(config.memory_layers), max(config.memory_layers)
        moved = np.linalg.norm(kept[Site.BANK_POST, last] - kept[Site.BANK_PRE, first], axis=-1)
        return [moved / len(layers) for _ in layers]
    gates = [[kept[site, layer] for site in _GATES] for layer in layers]
    return [np.linalg.norm(left, axis=-1) for left in left_of(gates)]


def words_of(tokens: TokenSequence) -> tuple[str, ...]:
    """The word that each token is of, by its first character that is no blank: pieces of one word have it in common.

    A token of blanks alone is a word of its own, made visible.
    """
    found = [(match.start(), match.group()) for match in _WORD.finditer(tokens.text)]
    starts = [start for start, _ in found]
    words = []
    for piece, (start, end) in zip(tokens.shown, tokens.spans):
        at = bisect_right(starts, _trimmed(tokens.text, start, end)[0]) - 1
        blank = not tokens.text[start:end].strip() or at < 0
        words.append(piece.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·") if blank else found[at][1])
    return tuple(words)


def _cut(laid: _Laid, words: Sequence[str], segment: Segment, values: Mapping[Signal, Values]) -> Iterator[Passage]:
    """A segment's passages."""
    text, there = laid.tokens.text, {Signal.READ: segment.index > 0, Signal.WRITE: segment.end < len(laid.tokens)}
    for start in range(segment.start, segment.end, LONGEST):
        stop = min(start + LONGEST, segment.end)
        spans = [_trimmed(text, *span) for span in laid.tokens.spans[start:stop]]
        first, last = spans[0][0], spans[-1][1]
        rows = slice(start - segment.start, stop - segment.start)
        yield Passage(
            group=laid.entry.group,
            segment=segment.index,
            start=start,
            text=text[first:last],
            spans=tuple((left - first, right - first) for left, right in spans),
            words=tuple(words[start:stop]),
            values={signal: value[rows].copy() for signal, value in values.items() if there[signal]},
        )


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The characters of a span without the blanks around them; a span of blanks alone is kept."""
    part = text[start:end]
    return (start + len(part) - len(part.lstrip()), start + len(part.rstrip())) if part.strip() else (start, end)
