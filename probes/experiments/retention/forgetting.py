"""How far back can a fact lie? Accuracy by distance, and how fast it falls."""

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
"""How many are inserted between the facts and the question of a qa1 story."""


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

    The further back a fact, the more has been written since; `stretched` makes stories of many lengths. `on_document`
    is called twice for each question. Raises ValueError if no question has a supporting fact, and for a model without
    memory.
    """
    fall = curve(checkpoint, encoded_prompts, Along.DISTANCE, distance, seed, on_document)
    chances = {point.at: point.chance for point in fall.points if point.right.groups >= FEWEST}
    counted = [question for question in fall.asked if question.at in chances]
    life = half_life(
        [question.at for question in counted],
        [question.right for question in counted],
        [question.group for question in counted],
        chances,
        seed=seed,
    )
    return Forgetting(curve=fall, half_life=life)


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    told = stories.held_out(1, _stories(len(questions)))
    if questions[0].prompt.group in {story.id for story in told}:
        # Stories of qa1 can be stretched: every question at several distances.
        questions = encoded_as(questions[0], checkpoint, stretched(told, _STATEMENTS))
    forgotten = forgetting(checkpoint, questions, seed=seed, on_document=on_document)
    life = forgotten.half_life
    fall = (
        f"no half-life: {life.reason}"
        if life.segments is None
        else f"half-life {life.segments:.1f} segments ({life.low:.1f} to {life.high:.1f})"
    )
    return (table("Forgetting", forgotten.curve, fall),)


def _stories(questions: int) -> int:
    """How many stories to stretch, each with five questions; the others supply the inserted statements."""
    return max(8, questions // (5 * len(_STATEMENTS)))


EXPERIMENT = Experiment(
    key="forgetting",
    title="Forgetting curve",
    question="How far back may a fact lie?",
    control="the bank reset before the question",
    findings=findings,
    documents=lambda task, questions: 2 * (5 * len(_STATEMENTS) * _stories(questions) if task == 1 else questions),
)
