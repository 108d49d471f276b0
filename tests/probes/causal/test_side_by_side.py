"""Laws of documents read side by side: they say what they say alone."""

from dataclasses import replace

import numpy as np
import pytest
from toys import REMEMBERING

from lm2.runs.interventions import Reset
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.side_by_side import banks_after, observe_side_by_side
from probes.experiments.retention.controlled_documents import overwritten

ALL = pytest.mark.parametrize("checkpoint", REMEMBERING, indirect=True)
ROUNDING = {"atol": 1e-5, "rtol": 1e-5}


def asked(checkpoint: Checkpoint) -> list[EncodedPrompt]:
    """Questions about documents of 4 and of 7 statements."""
    return [
        encode_prompt(checkpoint, prompt) for count in (4, 7) for prompt in overwritten((0,), statements=count, each=3)
    ]


def test_side_by_side_every_question_gets_the_logits_it_gets_alone(precise: Checkpoint) -> None:
    encoded_prompts, heard = asked(precise), []
    found = observe_side_by_side(precise, encoded_prompts, on_document=lambda: heard.append(None))
    for rows, one in zip(found.logits, encoded_prompts, strict=True):
        np.testing.assert_allclose(rows, run(precise, one.spec).logits[list(one.rows)], **ROUNDING)
    assert len(heard) == len(encoded_prompts)


@ALL
def test_a_reset_before_the_question_is_the_intervention_of_that_name(precise: Checkpoint) -> None:
    encoded_prompts = asked(precise)
    for rows, one in zip(
        observe_side_by_side(precise, encoded_prompts, reset=True).logits, encoded_prompts, strict=True
    ):
        alone = run(precise, replace(one.spec, interventions=(Reset(segment=one.segment),)))
        np.testing.assert_allclose(rows, alone.logits[list(one.rows)], **ROUNDING)


@ALL
def test_each_text_leaves_the_bank_that_its_own_run_leaves(precise: Checkpoint, text: str) -> None:
    texts = [text[:30], text[:90], text[:60]]
    for one, bank in zip(texts, banks_after(precise, texts), strict=True):
        np.testing.assert_allclose(bank, run(precise, RunSpec(checkpoint=precise.name, text=one)).bank, **ROUNDING)


def test_what_has_no_bank_cannot_be_reset_or_looked_into(plain: Checkpoint, text: str) -> None:
    with pytest.raises(ValueError, match="no bank to reset"):
        observe_side_by_side(plain, asked(plain), reset=True)
    with pytest.raises(ValueError, match="has no bank"):
        banks_after(plain, [text])
