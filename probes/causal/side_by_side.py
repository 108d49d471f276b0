"""Many documents read side by side: the answers to questions, and the bank that each text leaves."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lm2.model.memory import of_memory
from lm2.runs.batched import ReadStep, read_documents
from lm2.runs.loop import to_numpy
from lm2.runs.runner import prepare
from lm2.runs.spec import RunSpec
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.text.segments import Segment
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import Observed, OnDocument


def observe_side_by_side(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    reset: bool = False,
    on_document: OnDocument = lambda: None,
) -> Observed:
    """The answers of a run of each question, to rounding; several times faster if segments meet only in the bank.

    `reset`: the question's segment begins with a fresh bank. `on_document` is called after each document.
    Raises ValueError if there is no bank to reset.
    """
    if reset and not checkpoint.config.memory_layers:
        raise ValueError(f"a model of memory kind {checkpoint.config.memory.value!r} has no bank to reset")
    logits: list[list[np.ndarray]] = [[] for _ in encoded_prompts]

    def answer_rows(document: int, segment: Segment) -> list[int]:
        """The rows of a segment that predict the answer."""
        rows = encoded_prompts[document].rows
        return [row - segment.start for row in rows if segment.start <= row < segment.end]

    def keep(step: ReadStep) -> None:
        for row, document, segment in step.rows:
            if tokens := answer_rows(document, segment):
                logits[document].append(to_numpy(step.output.unembed(step.output.final[row, tokens])))

    read_documents(
        checkpoint,
        [encoded.segments for encoded in encoded_prompts],
        keep,
        wanted=lambda document, segment: bool(answer_rows(document, segment)),
        resets=[(encoded.segment,) if reset else () for encoded in encoded_prompts],
        on_document=on_document,
    )
    return Observed(encoded_prompts=tuple(encoded_prompts), logits=tuple(np.concatenate(parts) for parts in logits))


def banks_after(
    checkpoint: Checkpoint, texts: Sequence[str], segment_length: int | None = None
) -> list[Float[np.ndarray, "slot slot_dim"]]:
    """The bank that each text leaves, read from a fresh one. Raises ValueError for a model without memory, and as `run`
    does."""
    if not checkpoint.config.memory_layers:
        raise ValueError(f"a model of memory kind {checkpoint.config.memory.value!r} has no bank")
    specs = [RunSpec(checkpoint=checkpoint.name, text=text, segment_length=segment_length) for text in texts]
    documents = [prepare(checkpoint, spec)[1] for spec in specs]
    banks: dict[int, np.ndarray] = {}

    def last(document: int, segment: Segment) -> bool:
        return segment is documents[document][-1]

    def keep(step: ReadStep) -> None:
        for row, document, segment in step.rows:
            if last(document, segment):
                banks[document] = to_numpy(of_memory(step.output.bank)[row])

    read_documents(checkpoint, documents, keep, wanted=last)
    return [banks[i] for i in range(len(texts))]
