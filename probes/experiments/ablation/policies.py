"""Is it the memory that answers? It writes, does not write, is reset, is off, or begins with other documents' bank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from lm2.intervals import Bounded, Rate
from lm2.runs.interventions import Carry, Freeze, MemoryOff, Reset
from lm2.tasks.chance import guess_share
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import Unit
from probes.causal.observe import (
    Observed,
    OnDocument,
    check_foils,
    constant_answer,
    logit_difference,
    metric_change,
    observe,
    other_stories,
)
from probes.experiments.experiment import Experiment, held_out
from probes.findings import NOTHING, Cell, Column, Findings, columns_of, mean, share
from probes.stats.effects import Effect, effect
from probes.stats.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class AblationCondition:
    """One way to run the same questions."""

    name: str
    right: Rate
    effect: Effect
    """Of the logit difference, ablated less unablated."""

    @classmethod
    def of(cls, name: str, clean: Observed, edited: Observed) -> Self:
        return cls(
            name=name,
            right=edited.share(),
            effect=effect(metric_change(clean, edited, Metric.LOGIT_DIFFERENCE), clean.stories),
        )

    @property
    def row(self) -> tuple[Cell | Bounded, ...]:
        return self.name, share(self.right), mean(self.effect), self.effect.d_z, self.effect.p


def condition_columns(
    questions: Sequence[EncodedPrompt], rows: Sequence[Sequence[Cell | Bounded]]
) -> tuple[Column, ...]:
    """Columns of `AblationCondition.row`s."""
    headers = ("condition", Column("right", "%"), f"change of {logit_difference(questions)}", "d_z", "p")
    return columns_of(headers, rows)


def policies(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], *, on_document: OnDocument = lambda: None
) -> tuple[AblationCondition, ...]:
    """The questions with the memory on, frozen, reset, off, or begun with other documents' bank.

    Control: writes frozen from the question's own segment on, which can change nothing. `on_document` is called once
    for each question. Raises ValueError for questions of fewer than 4 stories or with a single answer.
    """
    check_foils(encoded_prompts)
    count = len(encoded_prompts)
    conditions: dict[str, list[Unit]] = {
        "memory on": [()] * count,
        "writes frozen from the question on (control)": [
            (Freeze(segment=encoded.segment_of(encoded.rows[-1])),) for encoded in encoded_prompts
        ],
        "writes frozen from half way on": [(Freeze(segment=encoded.segment // 2),) for encoded in encoded_prompts],
        "writes frozen from the start": [(Freeze(),)] * count,
        "bank reset before the question": [(Reset(segment=encoded.segment),) for encoded in encoded_prompts],
        "memory off": [(MemoryOff(),)] * count,
        "bank carried over from 3 documents": [
            (Carry(texts=tuple(encoded.prompt.text for encoded in other_stories(encoded_prompts, index, 3))),)
            for index in range(count)
        ],
    }
    observed = observe(checkpoint, encoded_prompts, [*conditions.values()], on_document)
    return tuple(AblationCondition.of(name, observed[0], edited) for name, edited in zip(conditions, observed))


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    rows = [condition.row for condition in policies(checkpoint, questions, on_document=on_document)]
    rows.append(("best constant answer (chance)", share(constant_answer(questions)), *[NOTHING] * 3))
    guessed = guess_share([encoded.prompt.rivals for encoded in questions])
    if guessed is not None:
        rows.append(("a guess among the rivals (chance)", 100 * guessed, *[NOTHING] * 3))
    columns = condition_columns(questions, rows)
    return (Findings(title="What the memory may do", columns=columns, note=held_out(questions)),)


EXPERIMENT = Experiment(
    key="policies",
    title="Freeze, reset, carry, off",
    question="Is it the memory that answers?",
    control="writes frozen from the question on, which can change nothing",
    findings=findings,
)
