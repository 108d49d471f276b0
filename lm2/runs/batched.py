"""Documents side by side, as rows of one batch; for models whose segments meet only through the bank."""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.finite import in_segments
from lm2.model.lm2 import LM2, SegmentOutput
from lm2.model.stream import Stream
from lm2.runs.hooks import Hook
from lm2.runs.interventions import Reset
from lm2.runs.loop import run_segments
from lm2.runs.spec import RunSpec
from lm2.text.segments import Segment, pad
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.cost import side_by_side

_ROWS = 32
"""Documents of a batch. Larger batches gain nothing."""


Begun = Callable[[Stream, Sequence[Segment]], Stream]
"""The stream of a batch of segments, from its start on as far as it is known without running the model."""


def can_batch(config: LM2Config) -> bool:
    """Whether documents can be read side by side: nothing but the bank goes from segment to segment, and segments may
    be padded."""
    return config.lookback == 0 and config.memory.design.batches


class BatchStep(NamedTuple):
    """A segment of each document of a batch, and its output."""

    ids: Int[Tensor, "row token"]
    non_padding: Bool[Tensor, "row token"]
    output: SegmentOutput


def run_batch(
    model: LM2,
    documents: Sequence[Sequence[Segment]],
    bank: Float[Tensor, "row slot slot_dim"] | None,
    *,
    writes: int | None = None,
    begun: Begun = lambda stream, segments: stream,
) -> Iterator[BatchStep]:
    """The segment loop of many documents, each of which begins with its row of `bank`.

    `documents` holds the segments of each, the longest document first; rows drop out as documents end, so row i of
    every step is document i. The first `writes` segments write; None, all. `begun` may take a stream from before
    block 0 to a later block.

    Raises ValueError for another order, and NotFiniteError as `run_segments` does.
    """
    if any(len(document) < len(other) for document, other in itertools.pairwise(documents)):
        raise ValueError(
            f"documents must come longest first, not with {[len(document) for document in documents]} segments"
        )
    for i in range(len(documents[0]) if documents else 0):
        segments = [document[i] for document in documents if i < len(document)]
        ids, non_padding = pad([segment.ids for segment in segments], device=model.embed.weight.device)
        indexes = {segment.index for segment in segments}
        with in_segments(*indexes):
            stream = model.begin(
                ids,
                None if bank is None else bank[: len(ids)],
                non_padding=non_padding,
                write=writes is None or i < writes,
            )
            output = model.finish(model.through(begun(stream, segments)))
        bank = output.bank
        yield BatchStep(ids, non_padding, replace(output, unembed=in_segments(*indexes)(output.unembed)))


class ReadStep(NamedTuple):
    """A segment of each of some documents, as rows of a batch."""

    documents: tuple[int, ...]
    """Row i belongs to document `documents[i]`."""
    segments: tuple[Segment, ...]
    output: SegmentOutput

    @property
    def rows(self) -> Iterator[tuple[int, int, Segment]]:
        """Each row with its document and segment."""
        return zip(range(len(self.documents)), self.documents, self.segments)


def read_documents(
    checkpoint: Checkpoint,
    documents: Sequence[Sequence[Segment]],
    on_step: Callable[[ReadStep], None],
    *,
    wanted: Callable[[int, Segment], bool] = lambda document, segment: True,
    resets: Sequence[Collection[int]] | None = None,
    hooks: Sequence[Hook] = (),
    on_document: Callable[[], None] = lambda: None,
) -> None:
    """Read documents, side by side where that is possible, else one by one. Equal to a run of each, to rounding.

    The checkpoint's lock is held for one step at a time.

    Args:
        on_step: called after each step that has a wanted segment, under the lock and in inference mode.
        wanted: whether a segment of a document, by its index, is needed. Only these, and what they depend on, are read.
        resets: for each document, the segments that begin with a fresh bank.
        hooks: they are on the model while it reads.
        on_document: called once for each document, after its last wanted segment.
    """
    resets = [()] * len(documents) if resets is None else resets
    left = Counter(i for i, segments in enumerate(documents) for segment in segments if wanted(i, segment))
    steps = _read_batches(checkpoint, documents, wanted, resets)
    while True:
        with checkpoint.lock, torch.inference_mode(), checkpoint.model.hooks(fwd_hooks=[*hooks]):
            step = next(steps, None)
            if step is None:
                return
            needed = [document for _, document, segment in step.rows if wanted(document, segment)]
            if needed:
                on_step(step)
        left.subtract(needed)
        for document in dict.fromkeys(needed):
            if not left[document]:
                on_document()


def _read_batches(
    checkpoint: Checkpoint,
    documents: Sequence[Sequence[Segment]],
    wanted: Callable[[int, Segment], bool],
    resets: Sequence[Collection[int]],
) -> Iterator[ReadStep]:
    model, batches = checkpoint.model, can_batch(checkpoint.config)
    parts = [
        (i, part)
        for i, segments in enumerate(documents)
        for part in _parts([wanted(i, segment) for segment in segments], segments, resets[i] if batches else ())
    ]
    if not batches:
        for document, segments in parts:
            changes = tuple(Reset(segment=index) for index in resets[document])
            spec = RunSpec(checkpoint=checkpoint.name, text="", interventions=changes)
            for segment, output, _ in run_segments(model, segments, spec, {}):
                yield ReadStep((document,), (segment,), output)
        return
    parts.sort(key=lambda part: -len(part[1]))
    every = [segment for _, segments in parts for segment in segments]
    rows = side_by_side(checkpoint.config, every, checkpoint.working_bytes, _ROWS)
    for start in range(0, len(parts), rows):
        numbers, batch = zip(*parts[start : start + rows])
        for i, step in enumerate(run_batch(model, batch, model.fresh_bank(len(batch)))):
            count = len(step.ids)
            yield ReadStep(numbers[:count], tuple(segments[i] for segments in batch[:count]), step.output)


def _parts(needed: Sequence[bool], segments: Sequence[Segment], resets: Collection[int]) -> Iterator[Sequence[Segment]]:
    """The parts of a document that begin with a fresh bank, each up to its last segment that is needed."""
    starts = [i for i, segment in enumerate(segments) if i == 0 or segment.index in resets]
    for start, end in itertools.pairwise([*starts, len(segments)]):
        last = max((i for i in range(start, end) if needed[i]), default=None)
        if last is not None:
            yield segments[start : last + 1]
