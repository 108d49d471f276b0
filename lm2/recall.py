"""Recall: does the model answer questions whose facts lie segments back, and is it the memory that answers?"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from lm2.babi import Prompt
from lm2.checkpoint import Checkpoint
from lm2.interventions import Freeze, Intervention, Reset
from lm2.runner import prepare, run
from lm2.spec import RunSpec


class Memory(Enum):
    """What the memory may do while a question is being prepared."""

    ON = "on"
    FROZEN = "frozen"
    """No segment writes."""
    RESET = "reset"
    """The question's segment begins with a fresh bank."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question, asked alone after the statements above it."""

    story: str
    """Questions of one story share their facts: they count as one group."""
    right: bool
    """Every token of the answer was the most probable one."""
    distance: int | None
    """Segments between the question and the end of its last supporting fact; None where the file names no fact."""
    answer: str
    predicted: str
    """What the model would have said, as many tokens as the answer has."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share with its 95 % interval."""

    n: int
    groups: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class RecallReport:
    memory: Memory
    segment_length: int
    overall: Rate
    by_distance: dict[int, Rate]


def ask(checkpoint: Checkpoint, prompt: Prompt, memory: Memory, segment_length: int | None = None) -> Asked:
    """Feed a prompt and its answer, and see whether the model would have given the answer.

    Raises ValueError as `run` does.
    """
    text = f"{prompt.text} {prompt.answer}"
    spec = RunSpec(checkpoint=checkpoint.name, text=text, segment_length=segment_length)
    tokens, segments = prepare(checkpoint, spec)
    question = tokens.within(*prompt.question_span)
    at = next(segment.index for segment in segments if question[0] < segment.end)
    changes: tuple[Intervention, ...] = ()
    if memory is Memory.FROZEN:
        changes = (Freeze(),)
    elif memory is Memory.RESET:
        changes = (Reset(segment=at),)
    trace = run(checkpoint, RunSpec(checkpoint=checkpoint.name, text=text, segment_length=segment_length, interventions=changes))
    answer = range(question[-1] + 1, len(tokens))
    said = trace.logits[[place - 1 for place in answer]].argmax(-1)
    distance = None
    if prompt.support:
        fact = tokens.within(*prompt.statement_spans[max(prompt.support)])
        distance = at - next(segment.index for segment in segments if fact[-1] < segment.end)
    return Asked(
        story=prompt.story_id,
        right=[int(token) for token in said] == [tokens.ids[place] for place in answer],
        distance=distance,
        answer=prompt.answer,
        predicted=checkpoint.tokenizer.decode(map(int, said)).strip(),
    )


def recall(
    checkpoint: Checkpoint,
    prompts: Iterable[Prompt],
    memory: Memory = Memory.ON,
    *,
    segment_length: int | None = None,
    on_question: Callable[[int], None] | None = None,
) -> RecallReport:
    """Ask every question and sum up, in all and by distance.

    Raises ValueError when there is no question.
    """
    asked = []
    for prompt in prompts:
        asked.append(ask(checkpoint, prompt, memory, segment_length))
        if on_question is not None:
            on_question(len(asked))
    if not asked:
        raise ValueError("there is no question to ask")
    by_distance: dict[int, list[Asked]] = defaultdict(list)
    for one in asked:
        if one.distance is not None:
            by_distance[one.distance].append(one)
    return RecallReport(
        memory=memory,
        segment_length=segment_length or checkpoint.config.segment_length,
        overall=rate(asked),
        by_distance={distance: rate(by_distance[distance]) for distance in sorted(by_distance)},
    )


def rate(asked: Sequence[Asked]) -> Rate:
    """Accuracy with a Wilson 95 % interval (Wilson 1927) whose sample size is cut down to what clustering leaves.

    The design effect is the variance of the mean over whole stories divided by the binomial one, at least 1
    (Kish 1965); so questions of one story count as one group, and an interval at 100 % is still no point.
    """
    n = len(asked)
    groups: dict[str, list[bool]] = defaultdict(list)
    for one in asked:
        groups[one.story].append(one.right)
    accuracy = sum(one.right for one in asked) / n
    k = len(groups)
    effective = float(n)
    if k > 1 and 0 < accuracy < 1:
        sums = np.array([sum(group) - accuracy * len(group) for group in groups.values()])
        variance = k / (k - 1) * float((sums**2).sum()) / n**2
        effective = n / max(1.0, variance / (accuracy * (1 - accuracy) / n))
    elif k < n:  # all right or all wrong: nothing is known of the spread between stories but their number
        effective = float(k)
    z = 1.959964
    centre = (accuracy + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * float(np.sqrt(accuracy * (1 - accuracy) / effective + z**2 / (4 * effective**2)))
    return Rate(n=n, groups=k, accuracy=accuracy, low=min(accuracy, max(0.0, centre - half)), high=max(accuracy, min(1.0, centre + half)))
