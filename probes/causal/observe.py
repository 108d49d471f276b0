"""Questions under interventions: what a model says to each, and how much that differs from what it says without."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Float

from lm2.intervals import Rate, rate
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import Unit
from probes.causal.planner import answers_under
from probes.stats.metrics import Answer, Metric, measure

OnDocument = Callable[[], None]
"""Hears of each document that has run."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a model said to the same questions in one condition."""

    encoded_prompts: tuple[EncodedPrompt, ...]
    logits: tuple[Float[np.ndarray, "row d_vocab"], ...]
    """Per question, the rows that predict its answer."""

    @property
    def said(self) -> list[tuple[int, ...]]:
        """The most probable token at each place of the answer."""
        return [tuple(map(int, rows.argmax(-1))) for rows in self.logits]

    @property
    def stories(self) -> list[str]:
        return [encoded.prompt.group for encoded in self.encoded_prompts]

    def share(self) -> Rate:
        """Share of questions answered with the answer behind them, clustered by story."""
        return rate(
            [said == encoded.answer_ids for said, encoded in zip(self.said, self.encoded_prompts, strict=True)],
            self.stories,
        )


def observe(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    conditions: Sequence[Sequence[Unit]],
    on_document: OnDocument = lambda: None,
) -> list[Observed]:
    """Every question under every condition, which has a unit of interventions for each question. `on_document` is
    called once a question.

    Raises ValueError as `run` does.
    """
    found = []
    for encoded, *units in zip(encoded_prompts, *conditions, strict=True):
        found.append(answers_under(checkpoint, encoded, units))
        on_document()
    return [
        Observed(encoded_prompts=tuple(encoded_prompts), logits=tuple(logits[at] for logits in found))
        for at in range(len(conditions))
    ]


def answers(encoded_prompts: Sequence[EncodedPrompt]) -> tuple[Answer, ...]:
    """What is measured of each question: its answer, against the answers of all the others."""
    first = {encoded.answer_ids[0] for encoded in encoded_prompts}
    return tuple(
        Answer(ids=encoded.answer_ids, foils=tuple(sorted(first - {encoded.answer_ids[0]})))
        for encoded in encoded_prompts
    )


def check_foils(encoded_prompts: Sequence[EncodedPrompt], metric: Metric = Metric.LOGIT_DIFFERENCE) -> None:
    """Raise ValueError where the metric is a difference to other questions' answers and there is no other answer."""
    if metric is Metric.LOGIT_DIFFERENCE and len({encoded.answer_ids[0] for encoded in encoded_prompts}) < 2:
        raise ValueError(
            f"a logit difference is to the other questions' answers, and all of {len(encoded_prompts)} have one answer:"
            " ask more questions"
        )


def before(encoded_prompts: Sequence[EncodedPrompt], at: int, count: int) -> tuple[EncodedPrompt, ...]:
    """The last `count` documents of other stories before one, around the end of them all. Raises ValueError where there
    are fewer."""
    around = (encoded_prompts[at - back] for back in range(1, len(encoded_prompts)))
    others = list(
        islice((encoded for encoded in around if encoded.prompt.group != encoded_prompts[at].prompt.group), count)
    )
    if len(others) < count:
        raise ValueError(
            f"a control takes documents of {count} other stories, and {len(encoded_prompts)} questions have"
            f" {len(others)}: ask more questions"
        )
    return tuple(reversed(others))


def measured(clean: Observed, edited: Observed, metric: Metric) -> Float[np.ndarray, "document"]:
    """A metric of every question under ablation, less its own unablated value."""
    asked = zip(answers(clean.encoded_prompts), clean.logits, edited.logits, strict=True)
    return np.array(
        [
            measure(metric, answer, after, before) - measure(metric, answer, before, before)
            for answer, before, after in asked
        ]
    )


def constant(encoded_prompts: Sequence[EncodedPrompt]) -> Rate:
    """Chance: the share of questions that the best constant answer gets right."""
    answers = [encoded.prompt.answer for encoded in encoded_prompts]
    best = max(sorted(set(answers)), key=answers.count)
    return rate([answer == best for answer in answers], [encoded.prompt.group for encoded in encoded_prompts])
