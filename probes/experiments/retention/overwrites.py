"""Does the model answer the last of several places of a person? Accuracy by overwriting."""

import re
from collections.abc import Sequence

from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.tasks.world import FactKind, understand
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import OnDocument
from probes.experiments.experiment import Experiment
from probes.experiments.retention.controlled_documents import overwritten
from probes.experiments.retention.curves import Along, Curve, curve, encoded_as, table
from probes.findings import Findings


def overwrites(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Curve:
    """Accuracy by how many earlier places of the person asked for the last one replaces.

    `overwritten` varies only that. Raises ValueError as `capacity` does, and for questions of another form than "Where
    is Mary?".
    """
    return curve(checkpoint, encoded_prompts, Along.OVERWRITES, _overwritten, seed, on_document)


def _overwritten(encoded: EncodedPrompt) -> int:
    match = re.fullmatch(r"Where is (\w+)\?", encoded.prompt.question)
    if match is None:
        raise ValueError(
            f"overwriting is counted for questions like 'Where is Mary?', not for {encoded.prompt.question!r}"
        )
    facts = [understand(text) for text in encoded.prompt.statements]
    places = [fact for fact in facts if fact.kind in (FactKind.AT, FactKind.NOT_AT, FactKind.EITHER)]
    return sum(fact.words[0] == match[1] for fact in places) - 1


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    asked = encoded_as(questions[0], checkpoint, overwritten(each=len(questions), seed=seed))
    note = "documents made to measure, in qa1's sentences: length, distance and the number of people are held"
    return (table("Overwriting", overwrites(checkpoint, asked, seed=seed, on_document=on_document), note),)


EXPERIMENT = Experiment(
    key="overwrites",
    title="Overwriting",
    question="Is the last of several places of a person answered?",
    control="the bank reset before the question",
    findings=findings,
    writes=True,
    documents=lambda task, questions: 10 * questions,
)
