"""What a question set is like as one checkpoint reads it: sizes in tokens, what its questions bring, and chance."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, Self

from lm2.tasks.chance import best_constant, guess_share
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompts
from lm2.tasks.prompt import Prompt
from lm2.weights.checkpoint import Checkpoint


class Spread(NamedTuple):
    """The least, the median and the largest of some counts."""

    least: int
    median: float
    most: int

    @classmethod
    def of(cls, counts: Sequence[int]) -> Self:
        return cls(min(counts), median(counts), max(counts))


@dataclass(frozen=True, kw_only=True)
class Description:
    """Counts of the questions that the checkpoint can be asked."""

    items: int
    groups: int
    segments: Spread
    """Segments of each question, with its context and answer."""
    context_tokens: Spread
    """Tokens before the question."""
    answer_tokens: Spread
    one_token_answers: int
    facts: int
    """Questions that name the facts that justify their answer."""
    rivals: int
    """Questions that name wrong answers."""
    labels: int
    """Questions with labels."""
    label_names: tuple[str, ...]
    constant: str
    """The answer that is right most often when it is always given."""
    constant_share: float
    guess_share: float | None
    """Of a guess among answer and rivals; None unless each question has rivals."""
    skipped: tuple[str, ...]
    """The questions that the checkpoint cannot be asked, and why."""


def describe(checkpoint: Checkpoint, prompts: Sequence[Prompt], segment_length: int | None = None) -> Description:
    """Raises ValueError as `encode_prompts` does."""
    return describe_encoded(*encode_prompts(checkpoint, prompts, segment_length))


def describe_encoded(items: Sequence[EncodedPrompt], skipped: Sequence[str]) -> Description:
    """As `describe`, of what `encode_prompts` returned."""
    asked = [item.prompt for item in items]
    answers = Counter(answer for prompt in asked for answer in prompt.answers)
    constant = best_constant(answers)
    answer_tokens = [len(item.answer) for item in items]
    return Description(
        items=len(items),
        groups=len({prompt.group for prompt in asked}),
        segments=Spread.of([len(item.segments) for item in items]),
        context_tokens=Spread.of([len(item.tokens.within(0, item.prompt.question_span[0])) for item in items]),
        answer_tokens=Spread.of(answer_tokens),
        one_token_answers=answer_tokens.count(1),
        facts=sum(bool(prompt.support) for prompt in asked),
        rivals=sum(bool(prompt.rivals) for prompt in asked),
        labels=sum(bool(prompt.labels) for prompt in asked),
        label_names=tuple(sorted({label.name for prompt in asked for label in prompt.labels})),
        constant=constant,
        constant_share=answers[constant] / len(items),
        guess_share=guess_share([prompt.rivals for prompt in asked]),
        skipped=tuple(skipped),
    )
