"""Does a slot's number matter? The bank's slots are put in another order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm2.intervals import Rate
from lm2.runs.interventions import BankEdit
from lm2.runs.operations import Permute
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import Observed, OnDocument, observe, other_stories
from probes.causal.patching import bank_edit
from probes.experiments.experiment import Experiment, held_out
from probes.findings import Column, Findings, columns_of, share


@dataclass(frozen=True, kw_only=True)
class Permutation:
    """The bank's slots in another order when the question's segment begins."""

    right: Rate
    largest_change: float
    """Of any logit of any answer, in logits: 0 up to rounding if reading ignores a slot's number."""
    foreign: Rate
    """Control: the slots replaced by another story's instead."""
    foreign_change: float


def permutation(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Permutation:
    """Permute the slots in a random order for each question. `on_document` is called once for each question.

    Raises ValueError for questions of fewer than 2 stories.
    """
    draw = np.random.default_rng(seed)
    orders = [Permute(order=tuple(map(int, draw.permutation(checkpoint.config.slots)))) for _ in encoded_prompts]
    permuted = [
        (BankEdit(operation=order, segments=(encoded.segment,)),) for encoded, order in zip(encoded_prompts, orders)
    ]
    replaced = []
    for index, encoded in enumerate(encoded_prompts):
        (donor,) = other_stories(encoded_prompts, index, 1)
        replaced.append((bank_edit(donor.spec.text, donor.segment, encoded.segment),))
    clean, moved, foreign = observe(
        checkpoint, encoded_prompts, [[()] * len(encoded_prompts), permuted, replaced], on_document
    )
    return Permutation(
        right=moved.share(),
        largest_change=_largest_change(clean, moved),
        foreign=foreign.share(),
        foreign_change=_largest_change(clean, foreign),
    )


def _largest_change(clean: Observed, edited: Observed) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(clean.logits, edited.logits))


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    permuted = permutation(checkpoint, questions, seed=seed, on_document=on_document)
    rows = (
        ("slots in a random order", share(permuted.right), permuted.largest_change),
        ("another story's slots (control)", share(permuted.foreign), permuted.foreign_change),
    )
    note = f"{held_out(questions)}; the bank is changed as the question's segment begins"
    headers = ("condition", Column("right", "%"), "largest change of a logit")
    return (Findings(title="Slots permuted", columns=columns_of(headers, rows), note=note),)


EXPERIMENT = Experiment(
    key="permutation",
    title="Slots permuted",
    question="Does a slot's number matter?",
    control="another story's slots",
    findings=findings,
)
