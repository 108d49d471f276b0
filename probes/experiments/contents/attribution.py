"""Which parts of the model raise the answer above other answers directly?"""

from collections.abc import Sequence

from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.attribution import attribute, average
from probes.causal.observe import OnDocument, answers, check_foils, logit_difference
from probes.experiments.experiment import Experiment, held_out
from probes.findings import NOTHING, Column, Findings, columns_of, mean


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    check_foils(questions)
    attributions = []
    for question, answer in zip(questions, answers(questions)):
        row = question.rows[0]
        attributions.append(attribute(checkpoint, question.spec, row, token=answer.ids[0], foils=answer.foils))
        on_document()
    pooled = average(attributions, [question.prompt.group for question in questions], seed=seed)
    rows = [
        *((label, mean(effect), effect.p) for label, effect in zip(pooled.labels, pooled.effects)),
        ("sum of the parts", sum(effect.mean for effect in pooled.effects), NOTHING),
        ("answer logit difference", pooled.logit, NOTHING),
    ]
    note = (
        f"{held_out(questions)}; what each part adds directly, with the final norm's scale as it was; what works by way"
        " of later blocks shows little here"
    )
    headers = ("part", Column(logit_difference(questions), "logits"), "p")
    return (Findings(title="Parts of the answer's logit difference", columns=columns_of(headers, rows), note=note),)


EXPERIMENT = Experiment(
    key="attribution",
    title="Direct logit attribution",
    question="Which parts of the model put the answer before its rivals directly?",
    control="the parts sum to the logit difference",
    findings=findings,
)
