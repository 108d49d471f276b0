"""How far back may a fact lie? Accuracy by distance, and how fast it falls."""

from collections.abc import Sequence
from dataclasses import dataclass

from lm2.tasks import stories
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import OnDocument
from probes.experiments.experiment import Experiment
from probes.experiments.retention.controlled_documents import stretched
from probes.experiments.retention.curves import FEWEST, Along, Curve, curve, distance, encoded_as, table
from probes.findings import Findings
from probes.stats.half_life import HalfLife, half_life

_STATEMENTS = (0, 6, 13, 26)
"""Told between the facts and the question of a qa1 story."""


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """The forgetting curve, and how fast it falls."""

    curve: Curve
    half_life: HalfLife


def forgetting(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Forgetting:
    """Accuracy by distance in segments between a question and the end of its last supporting fact.

    The further back a fact, the more has been written since: `stretched` gives stories of many lengths. `on_document`
    is called twice a question. Raises ValueError for questions without any supporting fact, and for a model without
    memory.
    """
    fall = curve(checkpoint, encoded_prompts, Along.DISTANCE, distance, seed, on_document)
    held = [point for point in fall.points if point.right.groups >= FEWEST]
    kept = [one for one in fall.asked if one.at in {point.at for point in held}]
    return Forgetting(
        curve=fall,
        half_life=half_life(
            [one.at for one in kept],
            [one.right for one in kept],
            [one.group for one in kept],
            {p.at: p.chance for p in held},
            seed=seed,
        ),
    )


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    if questions[0].prompt.task == 1:  # such stories can be stretched: every question at several distances
        prompts = stretched(stories.held_out(1, _stories(len(questions))), _STATEMENTS)
        questions = encoded_as(questions[0], checkpoint, prompts)
    found = forgetting(checkpoint, questions, seed=seed, on_document=on_document)
    life = found.half_life
    fall = (
        f"no half-life: {life.reason}"
        if life.segments is None
        else f"half-life {life.segments:.1f} segments ({life.low:.1f} to {life.high:.1f})"
    )
    return (table("Forgetting", found.curve, fall),)


def _stories(questions: int) -> int:
    """How many are stretched: each has five questions; what is told between comes from the other ones."""
    return max(8, questions // (5 * len(_STATEMENTS)))


EXPERIMENT = Experiment(
    key="forgetting",
    title="Forgetting curve",
    question="How far back may a fact lie?",
    control="the bank reset before the question",
    findings=findings,
    documents=lambda task, questions: 2 * (5 * len(_STATEMENTS) * _stories(questions) if task == 1 else questions),
)
