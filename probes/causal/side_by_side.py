"""Many documents read side by side: what is said to each question, and the bank that each text leaves."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from lm2.model.lm2 import SegmentOutput
from lm2.runs.batched import follow, meet_in_the_bank
from lm2.runs.interventions import Reset
from lm2.runs.loop import to_numpy
from lm2.runs.runner import prepare, run
from lm2.runs.spec import RunSpec
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.text.segments import Segment
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.cost import side_by_side
from probes.causal.ablations import Observed, OnDocument

_ROWS = 32


def together(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    reset: bool = False,
    on_document: OnDocument = lambda: None,
) -> Observed:
    """What a run of each question says, to rounding; several times faster where segments meet only through the bank.

    `reset`: the question's segment begins with a fresh bank. `on_document` hears of each document that has been read.
    Raises ValueError where there is no bank to reset.
    """
    if reset and not checkpoint.config.memory_layers:
        raise ValueError(f"a {checkpoint.config.memory.value} model has no bank to reset")
    if not meet_in_the_bank(checkpoint.config):
        return Observed(
            encoded_prompts=tuple(encoded_prompts),
            logits=tuple(_alone(checkpoint, encoded, reset, on_document) for encoded in encoded_prompts),
        )
    # Nothing but the bank goes from segment to segment: with a fresh one the document may as well begin there.
    documents = [encoded.segments[encoded.segment if reset else 0 :] for encoded in encoded_prompts]
    found: list[list[np.ndarray]] = [[] for _ in encoded_prompts]
    for few in _batches(checkpoint, documents):
        with checkpoint.lock, torch.inference_mode():
            for at, segment, output, row in _side_by_side(checkpoint, documents, few):
                rows = [
                    place - segment.start for place in encoded_prompts[at].rows if segment.start <= place < segment.end
                ]
                found[at].append(to_numpy(output.unembed(output.final[row, rows])))
        for _ in few:
            on_document()
    return Observed(encoded_prompts=tuple(encoded_prompts), logits=tuple(np.concatenate(parts) for parts in found))


def banks_after(
    checkpoint: Checkpoint, texts: Sequence[str], segment_length: int | None = None
) -> list[Float[np.ndarray, "slot slot_dim"]]:
    """The bank that each text leaves, read alone from a fresh one. Raises ValueError for a model without memory, and as
    `run` does."""
    if not checkpoint.config.memory_layers:
        raise ValueError(f"a {checkpoint.config.memory.value} model has no bank")
    specs = [RunSpec(checkpoint=checkpoint.name, text=text, segment_length=segment_length) for text in texts]
    if not meet_in_the_bank(checkpoint.config):
        return [run(checkpoint, spec).bank for spec in specs]
    documents = [prepare(checkpoint, spec)[1] for spec in specs]
    left: dict[int, np.ndarray] = {}
    for few in _batches(checkpoint, documents):
        with checkpoint.lock, torch.inference_mode():
            for at, segment, output, row in _side_by_side(checkpoint, documents, few):
                if segment is documents[at][-1]:
                    left[at] = to_numpy(output.bank[row])
    return [left[at] for at in range(len(texts))]


def _alone(
    checkpoint: Checkpoint, encoded: EncodedPrompt, reset: bool, on_document: OnDocument
) -> Float[np.ndarray, "row d_vocab"]:
    changes = (Reset(segment=encoded.segment),) if reset else ()
    rows = run(checkpoint, replace(encoded.spec, interventions=changes)).logits[list(encoded.rows)]
    on_document()
    return rows


class _Read(NamedTuple):
    """A segment that has been read as a row of a batch."""

    document: int
    segment: Segment
    output: SegmentOutput
    row: int


def _batches(checkpoint: Checkpoint, documents: Sequence[Sequence[Segment]]) -> Iterator[list[int]]:
    """Documents by number, the longest first: those of a batch are of about one length."""
    order = sorted(range(len(documents)), key=lambda at: -len(documents[at]))
    rows = side_by_side(
        checkpoint.config, [segment for document in documents for segment in document], checkpoint.working_bytes, _ROWS
    )
    return (order[start : start + rows] for start in range(0, len(order), rows))


def _side_by_side(
    checkpoint: Checkpoint, documents: Sequence[Sequence[Segment]], few: Sequence[int]
) -> Iterator[_Read]:
    """Every segment of a batch. Whoever consumes it holds the checkpoint's lock and is in inference mode."""
    ids = [[segment.ids for segment in documents[at]] for at in few]
    for step, output in enumerate(follow(checkpoint.model, ids, checkpoint.model.fresh_bank(len(few)))):
        for row, at in enumerate(few[: len(output.final)]):
            yield _Read(at, documents[at][step], output, row)
