"""Laws of documents read side by side: they say what they say alone."""

from dataclasses import replace

import numpy as np
import pytest

from lm2.asking import Put, put
from lm2.checkpoint import Checkpoint
from lm2.interventions import Reset
from lm2.runner import run
from lm2.spec import RunSpec
from probes.batches import banks_after, together
from probes.designs import overwritten

REMEMBERING = ("gated", "release", "rmt")
ROUNDING = {"atol": 1e-3, "rtol": 1e-3}
"""Memory tokens with random weights carry the last bit on, tenfold a segment."""


def asked(checkpoint: Checkpoint) -> list[Put]:
    """Questions about documents of 4 and of 7 statements."""
    return [put(checkpoint, prompt) for count in (4, 7) for prompt in overwritten((0,), statements=count, each=3)]


def test_side_by_side_every_question_gets_the_logits_it_gets_alone(checkpoint: Checkpoint) -> None:
    puts, heard = asked(checkpoint), []
    found = together(checkpoint, puts, on_document=lambda: heard.append(None))
    for rows, one in zip(found.logits, puts, strict=True):
        np.testing.assert_allclose(rows, run(checkpoint, one.spec).logits[list(one.rows)], **ROUNDING)
    assert len(heard) == len(puts)


@pytest.mark.parametrize("kind", REMEMBERING)
def test_a_reset_before_the_question_is_the_intervention_of_that_name(kind: str, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(kind)
    puts = asked(checkpoint)
    for rows, one in zip(together(checkpoint, puts, reset=True).logits, puts, strict=True):
        alone = run(checkpoint, replace(one.spec, interventions=(Reset(segment=one.segment),)))
        np.testing.assert_allclose(rows, alone.logits[list(one.rows)], **ROUNDING)


@pytest.mark.parametrize("kind", REMEMBERING)
def test_each_text_leaves_the_bank_that_its_own_run_leaves(kind: str, request: pytest.FixtureRequest, text: str) -> None:
    checkpoint = request.getfixturevalue(kind)
    texts = [text[:30], text[:90], text[:60]]
    for one, bank in zip(texts, banks_after(checkpoint, texts), strict=True):
        np.testing.assert_allclose(bank, run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=one)).bank, **ROUNDING)


def test_what_has_no_bank_cannot_be_reset_or_looked_into(plain: Checkpoint, text: str) -> None:
    with pytest.raises(ValueError, match="no bank to reset"):
        together(plain, asked(plain), reset=True)
    with pytest.raises(ValueError, match="has no bank"):
        banks_after(plain, [text])
