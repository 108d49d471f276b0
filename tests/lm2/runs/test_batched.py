"""Laws of lm2.runs.batched: side by side is as alone."""

import numpy as np
import pytest

from lm2.runs.batched import ReadStep, read_documents, run_batch
from lm2.runs.generation import answers, generate
from lm2.runs.interventions import Reset
from lm2.runs.loop import to_numpy
from lm2.runs.runner import prepare, run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint

TEXTS = [
    "Mary moved to the garden. John went to the office. Daniel went to the kitchen.\fWhere is Mary?",
    "John went to the office.",
    "Mary moved to the garden. John went to the office.\fWhere is John?",
    "Where",
]


@pytest.mark.parametrize("max_tokens", [1, 12])
def test_answers_side_by_side_equal_generation_alone(checkpoint: Checkpoint, max_tokens: int) -> None:
    alone = [generate(checkpoint, text, max_tokens=max_tokens).text for text in TEXTS]
    assert answers(checkpoint, TEXTS, max_tokens=max_tokens, stop="\x00") == alone


def test_an_answer_ends_with_the_piece_that_has_the_stop_in_it(checkpoint: Checkpoint) -> None:
    free = generate(checkpoint, TEXTS[0], max_tokens=12)
    pieces = [checkpoint.tokenizer.piece(token) for token in free.ids]
    stop = next(piece for piece in pieces[3:] if piece.strip("\ufffd"))
    ends = next(at for at, piece in enumerate(pieces) if stop in piece)
    assert answers(checkpoint, TEXTS[:1], max_tokens=12, stop=stop) == [
        checkpoint.tokenizer.decode(free.ids[: ends + 1])
    ]


def test_documents_in_another_order_and_empty_texts_are_refused(gated: Checkpoint) -> None:
    with pytest.raises(ValueError, match="longest first"):
        list(run_batch(gated.model, [[(1,)], [(1,), (2,)]], gated.model.fresh_bank(2)))
    with pytest.raises(ValueError, match="empty"):
        answers(gated, ["Mary", ""], max_tokens=1, stop=".")


@pytest.mark.parametrize("reset", [False, True])
def test_the_wanted_segments_of_documents_are_read_as_in_a_run_of_each(checkpoint: Checkpoint, reset: bool) -> None:
    specs = [RunSpec(checkpoint=checkpoint.name, text=text) for text in TEXTS]
    documents = [prepare(checkpoint, spec)[1] for spec in specs]
    last = [segments[-1] for segments in documents]
    reset = reset and bool(checkpoint.config.memory_layers)
    read: dict[int, np.ndarray] = {}
    done: list[None] = []

    def keep(step: ReadStep) -> None:
        for row, document, segment in step.rows:
            if segment is last[document]:
                read[document] = to_numpy(step.output.logits[row, : len(segment.ids)])

    read_documents(
        checkpoint,
        documents,
        keep,
        wanted=lambda document, segment: segment is last[document],
        resets=[(segment.index,) if reset else () for segment in last],
        on_document=lambda: done.append(None),
    )
    assert len(done) == len(TEXTS)
    for document, (spec, segment) in enumerate(zip(specs, last)):
        changes = (Reset(segment=segment.index),) if reset else ()
        alone = run(checkpoint, RunSpec(checkpoint=spec.checkpoint, text=spec.text, interventions=changes))
        np.testing.assert_allclose(read[document], alone.logits[segment.start :], atol=5e-5)
