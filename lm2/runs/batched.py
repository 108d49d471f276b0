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
from lm2.runs.hooks import Hook
from lm2.runs.interventions import Reset
from lm2.runs.loop import run_segments
from lm2.runs.spec import RunSpec
from lm2.text.segments import Segment, pad
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.cost import side_by_side

_ROWS = 32
"""Documents of a batch. With more of them matrix products gain nothing."""


def meet_in_the_bank(config: LM2Config) -> bool:
    """Whether nothing but the bank goes from segment to segment, and segments may be padded: documents can then be read
    side by side."""
    return config.lookback == 0 and config.memory.design.batches


class BatchStep(NamedTuple):
    """A segment of each document of a batch, and what the model makes of them."""

    ids: Int[Tensor, "row token"]
    non_padding: Bool[Tensor, "row token"]
    output: SegmentOutput


def run_batch(
    model: LM2,
    documents: Sequence[Sequence[Segment]],
    bank: Float[Tensor, "row slot slot_dim"] | None,
    *,
    writes: int | None = None,
) -> Iterator[BatchStep]:
    """The segment loop of many documents, all of which begin with their row of `bank`.

    `documents`: the segments of each, the longest document first; rows drop out as documents end, so row i of every
    step is document i. `writes`: how many of their segments write; None, all.

    Raises ValueError for another order, and NotFiniteError as `run_segments` does.
    """
    if any(len(document) < len(other) for document, other in itertools.pairwise(documents)):
        raise ValueError(
            f"documents must come longest first, not with {[len(document) for document in documents]} segments"
        )
    for at in range(len(documents[0]) if documents else 0):
        segments = [document[at] for document in documents if at < len(document)]
        ids, non_padding = pad([segment.ids for segment in segments], device=model.embed.weight.device)
        indexes = {segment.index for segment in segments}
        with in_segments(*indexes):
            output = model.segment(
                ids,
                None if bank is None else bank[: len(ids)],
                non_padding=non_padding,
                write=writes is None or at < writes,
            )
        bank = output.bank
        yield BatchStep(ids, non_padding, replace(output, unembed=in_segments(*indexes)(output.unembed)))


class ReadStep(NamedTuple):
    """A segment of each of some documents, as rows of a batch."""

    documents: tuple[int, ...]
    """Row i is of document `documents[i]`."""
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
    """Read documents, side by side where segments meet only through the bank, else one by one. What is read equals a
    run of each, to rounding.

    The checkpoint's lock is held for one step at a time.

    Args:
        on_step: called after each step of which something is wanted, under the lock and in inference mode.
        wanted: whether a segment of a document, by its number, is asked for: only these, and what they depend on, are
            read.
        resets: of each document, the segments that begin with a fresh bank.
        hooks: they are on the model while it reads.
        on_document: called once for each document, when all that is wanted of it has been read.
    """
    resets = [()] * len(documents) if resets is None else resets
    left = Counter(at for at, segments in enumerate(documents) for segment in segments if wanted(at, segment))
    steps = _read_batches(checkpoint, documents, wanted, resets)
    while True:
        with checkpoint.lock, torch.inference_mode(), checkpoint.model.hooks(fwd_hooks=[*hooks]):
            step = next(steps, None)
            if step is None:
                return
            asked = [document for _, document, segment in step.rows if wanted(document, segment)]
            if asked:
                on_step(step)
        left.subtract(asked)
        for document in dict.fromkeys(asked):
            if not left[document]:
                on_document()


def _read_batches(
    checkpoint: Checkpoint,
    documents: Sequence[Sequence[Segment]],
    wanted: Callable[[int, Segment], bool],
    resets: Sequence[Collection[int]],
) -> Iterator[ReadStep]:
    model, together = checkpoint.model, meet_in_the_bank(checkpoint.config)
    parts = [
        part
        for at, segments in enumerate(documents)
        for part in _parts(at, segments, wanted, resets[at] if together else ())
    ]
    if not together:
        for at, segments in parts:
            changes = tuple(Reset(segment=index) for index in resets[at])
            spec = RunSpec(checkpoint=checkpoint.name, text="", interventions=changes)
            for segment, output in run_segments(model, segments, spec, {}):
                yield ReadStep((at,), (segment,), output)
        return
    parts.sort(key=lambda part: -len(part[1]))
    every = [segment for _, segments in parts for segment in segments]
    rows = side_by_side(checkpoint.config, every, checkpoint.working_bytes, _ROWS)
    for start in range(0, len(parts), rows):
        numbers, batch = zip(*parts[start : start + rows])
        for at, step in enumerate(run_batch(model, batch, model.fresh_bank(len(batch)))):
            count = len(step.ids)
            yield ReadStep(numbers[:count], tuple(segments[at] for segments in batch[:count]), step.output)


def _parts(
    document: int, segments: Sequence[Segment], wanted: Callable[[int, Segment], bool], resets: Collection[int]
) -> list[tuple[int, list[Segment]]]:
    """The parts of a document that begin with a fresh bank, each up to the last segment that is wanted of it."""
    parts: list[list[Segment]] = []
    for segment in segments:
        if not parts or segment.index in resets:
            parts.append([])
        parts[-1].append(segment)
    for part in parts:
        while part and not wanted(document, part[-1]):
            part.pop()
    return [(document, part) for part in parts if part]
