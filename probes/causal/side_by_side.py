"""Many documents read side by side: what is said to each question, and the bank that each text leaves."""

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


def together(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    reset: bool = False,
    on_document: OnDocument = lambda: None,
) -> Observed:
    """What a run of each question says, to rounding; several times faster where segments meet only through the bank.

    `reset`: the question's segment begins with a fresh bank. `on_document` is called after each document.
    Raises ValueError where there is no bank to reset.
    """
    if reset and not checkpoint.config.memory_layers:
        raise ValueError(f"a model of memory kind {checkpoint.config.memory.value!r} has no bank to reset")
    logits: list[list[np.ndarray]] = [[] for _ in encoded_prompts]

    def rows(document: int, segment: Segment) -> list[int]:
        """Where the answer is predicted in a segment."""
        places = encoded_prompts[document].rows
        return [place - segment.start for place in places if segment.start <= place < segment.end]

    def keep(step: ReadStep) -> None:
        for row, document, segment in step.rows:
            if tokens := rows(document, segment):
                logits[document].append(to_numpy(step.output.unembed(step.output.final[row, tokens])))

    read_documents(
        checkpoint,
        [encoded.segments for encoded in encoded_prompts],
        keep,
        wanted=lambda document, segment: bool(rows(document, segment)),
        resets=[(encoded.segment,) if reset else () for encoded in encoded_prompts],
        on_document=on_document,
    )
    return Observed(encoded_prompts=tuple(encoded_prompts), logits=tuple(np.concatenate(parts) for parts in logits))


def banks_after(
    checkpoint: Checkpoint, texts: Sequence[str], segment_length: int | None = None
) -> list[Float[np.ndarray, "slot slot_dim"]]:
    """The bank that each text leaves, read alone from a fresh one. Raises ValueError for a model without memory, and as
    `run` does."""
    if not checkpoint.config.memory_layers:
        raise ValueError(f"a model of memory kind {checkpoint.config.memory.value!r} has no bank")
    specs = [RunSpec(checkpoint=checkpoint.name, text=text, segment_length=segment_length) for text in texts]
    documents = [prepare(checkpoint, spec)[1] for spec in specs]
    left: dict[int, np.ndarray] = {}

    def last(document: int, segment: Segment) -> bool:
        return segment is documents[document][-1]

    def keep(step: ReadStep) -> None:
        left.update(
            {
                document: to_numpy(of_memory(step.output.bank)[row])
                for row, document, segment in step.rows
                if last(document, segment)
            }
        )

    read_documents(checkpoint, documents, keep, wanted=last)
    return [left[at] for at in range(len(texts))]
