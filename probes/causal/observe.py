"""Questions under interventions: a model's answers, and how much they differ from those without interventions."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Float

from lm2.intervals import Rate, rate
from lm2.tasks.chance import best_constant
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import Unit
from probes.causal.planner import answers_under
from probes.stats.metrics import Answer, Metric, first_token, measure

OnDocument = Callable[[], None]
"""Called after each document."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A model's answers to questions in one condition."""

    encoded_prompts: tuple[EncodedPrompt, ...]
    logits: tuple[Float[np.ndarray, "row d_vocab"], ...]
    """Of each question, the rows that predict its answer."""

    @property
    def right(self) -> list[bool]:
        """Whether the most probable token is right at each place of the answer."""
        return [
            tuple(rows.argmax(-1)) == encoded.answer_ids
            for rows, encoded in zip(self.logits, self.encoded_prompts, strict=True)
        ]

    @property
    def stories(self) -> list[str]:
        return [encoded.prompt.group for encoded in self.encoded_prompts]

    def share(self) -> Rate:
        """Share of questions answered right, clustered by story."""
        return rate(self.right, self.stories)


def observe(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    conditions: Sequence[Sequence[Unit]],
    on_document: OnDocument = lambda: None,
) -> list[Observed]:
    """Every question under every condition. A condition has a unit of interventions for each question.

    `on_document` is called once for each question. Raises ValueError as `run` does.
    """
    by_question = []
    for encoded, *units in zip(encoded_prompts, *conditions, strict=True):
        by_question.append(answers_under(checkpoint, encoded, units))
        on_document()
    return [
        Observed(encoded_prompts=tuple(encoded_prompts), logits=tuple(logits[i] for logits in by_question))
        for i in range(len(conditions))
    ]


def answers(encoded_prompts: Sequence[EncodedPrompt]) -> tuple[Answer, ...]:
    """The answer of each question, with its rivals as foils.

    Where none are given, these are the other questions' answers of as many tokens, or all of them where none has as
    many.
    """
    by_length: dict[int, set[int]] = defaultdict(set)
    for encoded in encoded_prompts:
        by_length[len(encoded.answer_ids)].add(encoded.answer_ids[0])
    every = set().union(*by_length.values())

    def foils(encoded: EncodedPrompt) -> tuple[int, ...]:
        own, as_long = {encoded.answer_ids[0]}, by_length[len(encoded.answer_ids)]
        return tuple(sorted(set(encoded.rivals) - own or as_long - own or every - own))

    return tuple(Answer(ids=encoded.answer_ids, foils=foils(encoded)) for encoded in encoded_prompts)


def logit_difference(encoded_prompts: Sequence[EncodedPrompt]) -> str:
    """The name of the answers' logit difference in a column."""
    return f"answer logit difference{first_token(len(encoded.answer) for encoded in encoded_prompts)}"


def check_foils(encoded_prompts: Sequence[EncodedPrompt], metric: Metric = Metric.LOGIT_DIFFERENCE) -> None:
    """Raises ValueError for a logit difference if all questions have one answer."""
    if metric is Metric.LOGIT_DIFFERENCE and not all(answer.foils for answer in answers(encoded_prompts)):
        raise ValueError(
            f"a logit difference is to the other questions' answers, and all of {len(encoded_prompts)} have one answer:"
            " ask more questions, or give rivals"
        )


def other_stories(encoded_prompts: Sequence[EncodedPrompt], index: int, count: int) -> tuple[EncodedPrompt, ...]:
    """The last `count` documents of other stories before one, continued from the end. Raises ValueError if there are
    fewer."""
    story = encoded_prompts[index].prompt.group
    before = (encoded_prompts[index - back] for back in range(1, len(encoded_prompts)))
    others = list(islice((encoded for encoded in before if encoded.prompt.group != story), count))
    if len(others) < count:
        raise ValueError(
            f"a control takes documents of {count} other stories, and {len(encoded_prompts)} questions have"
            f" {len(others)}: ask more questions"
        )
    return tuple(reversed(others))


def metric_change(clean: Observed, edited: Observed, metric: Metric) -> Float[np.ndarray, "document"]:
    """A metric of every question when edited, minus its own value when clean."""
    questions = zip(answers(clean.encoded_prompts), clean.logits, edited.logits, strict=True)
    return np.array(
        [
            measure(metric, answer, after, before) - measure(metric, answer, before, before)
            for answer, before, after in questions
        ]
    )


def constant_answer(encoded_prompts: Sequence[EncodedPrompt]) -> Rate:
    """Chance: the share of questions that the best constant answer gets right."""
    answers = [encoded.prompt.answer for encoded in encoded_prompts]
    best = best_constant(Counter(answers))
    return rate([answer == best for answer in answers], [encoded.prompt.group for encoded in encoded_prompts])
