"""Recall: does the model answer questions whose facts lie segments back, and is it the memory that answers?"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from lm2.intervals import Rate, rate
from lm2.runs.interventions import Freeze, Intervention, Reset
from lm2.runs.runner import run
from lm2.shown import shown
from lm2.tasks.encoded_prompt import EncodedPrompt, NoTokenError, encode_prompt
from lm2.tasks.prompt import Prompt
from lm2.weights.checkpoint import Checkpoint


class Memory(Enum):
    """What the memory may do while a question is being prepared."""

    ON = "on"
    FROZEN = "frozen"
    """No segment writes."""
    RESET = "reset"
    """The question's segment begins with a fresh bank."""


@dataclass(frozen=True, kw_only=True)
class RecallResult:
    """One question, asked alone after the statements above it."""

    story: str
    """Questions of one story share their facts: they count as one group."""
    right: bool
    """The most probable tokens were an accepted answer's, of as many tokens as the first one's."""
    distance: int | None
    """Segments between the question and the end of its last supporting fact; None where the file names no fact."""
    answer: str
    predicted: str
    """What the model would have said, as many tokens as the answer has."""


@dataclass(frozen=True, kw_only=True)
class RecallReport:
    memory: Memory
    segment_length: int
    overall: Rate
    by_distance: dict[int, Rate]
    """Of the questions whose facts are known."""
    skipped: tuple[str, ...] = ()
    """Of each question that could not be asked, which it was and why."""


def ask(checkpoint: Checkpoint, prompt: Prompt, memory: Memory, segment_length: int | None = None) -> RecallResult:
    """Feed a prompt and its answer, and see whether the model would have given it, or another accepted one.

    Raises ValueError as `run` and `encode_prompt` do.
    """
    asked = encode_prompt(checkpoint, replace(prompt, rivals=()), segment_length)
    changes: tuple[Intervention, ...] = ()
    if memory is Memory.FROZEN:
        changes = (Freeze(),)
    elif memory is Memory.RESET:
        changes = (Reset(segment=asked.segment),)
    trace = run(checkpoint, replace(asked.spec, interventions=changes))
    predicted = tuple(map(int, trace.logits[list(asked.rows)].argmax(-1)))
    return RecallResult(
        story=prompt.group,
        right=predicted == asked.answer_ids
        or any(_ids(checkpoint, asked, answer) == predicted for answer in prompt.answers[1:]),
        distance=asked.distance,
        answer=prompt.answer,
        predicted=checkpoint.tokenizer.decode_after(asked.tokens.ids[: asked.answer.start], predicted).strip(),
    )


def _ids(checkpoint: Checkpoint, asked: EncodedPrompt, answer: str) -> tuple[int, ...] | None:
    """The tokens of another answer in the place of the one that was read; None where the tokenizer lacks one."""
    try:
        other = replace(asked.prompt, answers=(answer,))
        return encode_prompt(checkpoint, other, asked.spec.segment_length).answer_ids
    except NoTokenError:
        return None


def recall(
    checkpoint: Checkpoint,
    prompts: Iterable[Prompt],
    memory: Memory = Memory.ON,
    *,
    segment_length: int | None = None,
    on_question: Callable[[int], None] | None = None,
) -> RecallReport:
    """Ask every question that the tokenizer can take and sum up, in all and by distance.

    Raises ValueError when there is none.
    """
    asked, skipped = [], []
    for number, prompt in enumerate(prompts, start=1):
        try:
            asked.append(ask(checkpoint, prompt, memory, segment_length))
        except NoTokenError as error:
            skipped.append(f"question {number} ({shown(prompt.question)}): {error}")
        if on_question is not None:
            on_question(number)
    if not asked:
        raise ValueError(f"there is no question to ask{''.join(f'; {reason}' for reason in skipped[:1])}")
    by_distance: dict[int, list[RecallResult]] = defaultdict(list)
    for result in asked:
        if result.distance is not None:
            by_distance[result.distance].append(result)
    return RecallReport(
        memory=memory,
        segment_length=segment_length or checkpoint.config.segment_length,
        overall=_rate(asked),
        by_distance={distance: _rate(by_distance[distance]) for distance in sorted(by_distance)},
        skipped=tuple(skipped),
    )


def _rate(asked: Sequence[RecallResult]) -> Rate:
    return rate([recall_result.right for recall_result in asked], [recall_result.story for recall_result in asked])
