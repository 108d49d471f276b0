"""How many people can the bank hold at once? Accuracy by load."""

from collections.abc import Sequence

from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.tasks.world import track
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import OnDocument
from probes.experiments.experiment import Experiment
from probes.experiments.retention.controlled_documents import memory_load
from probes.experiments.retention.curves import Along, Curve, curve, encoded_as, table
from probes.findings import Findings


def capacity(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Curve:
    """Accuracy by load: how many different people and things the document names before the question.

    In ordinary stories load grows with length and distance; `memory_load` varies it alone. Raises ValueError as
    `forgetting` does, and for statements that are not from bAbI tasks 1-10.
    """
    return curve(checkpoint, encoded_prompts, Along.LOAD, _load, seed, on_document)


def _load(encoded: EncodedPrompt) -> int:
    world = track(encoded.prompt.statements)[-1]
    return len(world.people) + len(world.objects)


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    asked = encoded_as(questions[0], checkpoint, memory_load(each=len(questions), seed=seed))
    note = (
        "documents made to measure, in qa1's sentences: length, distance and what is told of the person asked for are"
        " held"
    )
    return (table("Capacity", capacity(checkpoint, asked, seed=seed, on_document=on_document), note),)


EXPERIMENT = Experiment(
    key="capacity",
    title="Capacity",
    question="How many people can the bank hold at once?",
    control="the bank reset before the question",
    findings=findings,
    writes=True,
    documents=lambda task, questions: 6 * questions,
)
