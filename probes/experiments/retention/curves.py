"""How much a memory holds, and for how long: accuracy by distance, by load and by overwriting, with a control for each
question.

The control is the same question with the bank reset when its segment begins: right answers there are not due to the
memory.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from lm2.intervals import Rate, rate
from lm2.tasks.chance import best_constant
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.tasks.prompt import Prompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import Observed, OnDocument, answers
from probes.causal.side_by_side import observe_side_by_side
from probes.findings import Column, Findings, columns_of, share
from probes.stats.effects import Effect, effect
from probes.stats.metrics import Metric, measure

FEWEST = 5
"""A point with fewer stories than this is shown but decides nothing, because one answer would."""


class Along(Enum):
    """What varies along a curve."""

    DISTANCE = "segments since the last supporting fact"
    LOAD = "people and things told of"
    OVERWRITES = "earlier places of the person asked for"


@dataclass(frozen=True, kw_only=True)
class AnsweredQuestion:
    """One question, with the memory on and with the bank reset before it (control)."""

    encoded: EncodedPrompt
    at: int
    """Its position on the curve."""
    group: str
    """Its story; a stretched story counts as the same story."""
    right: bool
    control: bool
    log_probability: float
    """Of the answer: sum over its tokens, in nats."""
    control_log_probability: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """The questions at one position of a curve."""

    at: int
    right: Rate
    """Share answered right, its interval clustered by story."""
    control: Rate
    """The same with the bank reset before the question."""
    log_probability: float
    """Mean over questions, in nats."""
    control_log_probability: float
    gain: Effect
    """Of the memory on the answer's log-probability: on minus reset, question by question."""
    chance: float
    """The better of two guesses: the curve's most frequent answer, or a random one of the curve's answers that the
    document names."""
    distance: float
    """Mean segments since the last supporting fact."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Accuracy along one measure of how hard remembering is."""

    along: Along
    points: tuple[Point, ...]
    asked: tuple[AnsweredQuestion, ...]
    left_out: int
    """Questions without a supporting fact."""
    constant: str
    """The most frequent answer."""

    @property
    def groups(self) -> int:
        """Number of stories."""
        return len({question.group for question in self.asked})

    @property
    def horizon(self) -> int | None:
        """The last position up to which the accuracy's lower bound exceeds chance everywhere; None if it does not at
        the first.

        Along distance, the effective horizon. Positions with fewer than `FEWEST` stories are skipped. If it is the last
        position measured, memory may reach further.
        """
        reached = None
        for point in self.points:
            if point.right.groups >= FEWEST:
                if point.right.low <= point.chance:
                    break
                reached = point.at
        return reached


def curve(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    along: Along,
    position: Callable[[EncodedPrompt], int],
    seed: int,
    on_document: OnDocument,
) -> Curve:
    """Accuracy by the `position` of each question. Raises ValueError if no question has a supporting fact."""
    kept = [encoded for encoded in encoded_prompts if encoded.distance is not None]
    if not kept:
        raise ValueError(
            f"a curve needs questions with supporting facts; {len(encoded_prompts)} were given, none with one"
        )
    positions = [position(encoded) for encoded in kept]
    observed = [observe_side_by_side(checkpoint, kept, reset=reset, on_document=on_document) for reset in (False, True)]
    right, control = (condition.right for condition in observed)
    on, off = map(_log_probabilities, observed)
    asked = tuple(
        AnsweredQuestion(
            encoded=encoded,
            at=at,
            group=encoded.prompt.group.partition("+")[0],
            right=right,
            control=control,
            log_probability=on,
            control_log_probability=off,
        )
        for encoded, at, right, control, on, off in zip(kept, positions, right, control, on, off)
    )
    counts = Counter(encoded.prompt.answer for encoded in kept)
    by_position: dict[int, list[AnsweredQuestion]] = defaultdict(list)
    for question in asked:
        by_position[question.at].append(question)
    return Curve(
        along=along,
        points=tuple(_point(at, by_position[at], counts, seed) for at in sorted(by_position)),
        asked=asked,
        left_out=len(encoded_prompts) - len(kept),
        constant=best_constant(counts),
    )


def _log_probabilities(observed: Observed) -> list[float]:
    return [
        measure(Metric.LOG_PROBABILITY, answer, rows, rows)
        for answer, rows in zip(answers(observed.encoded_prompts), observed.logits)
    ]


def _point(at: int, asked: Sequence[AnsweredQuestion], counts: Counter[str], seed: int) -> Point:
    groups = [question.group for question in asked]
    on = np.array([question.log_probability for question in asked])
    control = np.array([question.control_log_probability for question in asked])
    guesses = [_guess(question.encoded, counts) for question in asked]
    return Point(
        at=at,
        right=rate([question.right for question in asked], groups),
        control=rate([question.control for question in asked], groups),
        log_probability=float(on.mean()),
        control_log_probability=float(control.mean()),
        gain=effect(on - control, groups, seed=seed),
        chance=max(max(counts.values()) / counts.total(), float(np.mean(guesses))),
        distance=float(np.mean([distance(question.encoded) for question in asked])),
    )


def distance(encoded: EncodedPrompt) -> int:
    """Segments since the last supporting fact of a question on a curve."""
    assert encoded.distance is not None, "questions without one are left out"
    return encoded.distance


def _guess(encoded: EncodedPrompt, answers: Counter[str]) -> float:
    """How often a random one of the answers that the document names would be right."""
    words = {word for text in encoded.prompt.statements for word in re.findall(r"\w+", text)}
    return 1 / len(words & set(answers)) if encoded.prompt.answer in words else 0.0


def encoded_as(like: EncodedPrompt, checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
    """Prompts encoded with the segment length of `like`."""
    return [encode_prompt(checkpoint, prompt, like.spec.segment_length) for prompt in prompts]


def table(title: str, curve: Curve, note: str) -> Findings:
    """A row for each point of a curve."""
    rows = [
        (point.at, share(point.right), share(point.control), 100 * point.chance, point.right.n, point.log_probability)
        for point in curve.points
    ]
    reach = (
        "at the first place already not above chance"
        if curve.horizon is None
        else f"above chance up to {curve.horizon}"
    )
    pooled = (
        f"{len(curve.asked)} questions of {curve.groups} stories, 95 % intervals clustered by story; {reach}; {note}"
    )
    headers = (
        curve.along.value,
        Column("right", "%"),
        Column("bank reset", "%"),
        Column("chance", "%"),
        "questions",
        Column("answer log-probability", "nats"),
    )
    return Findings(title=title, columns=columns_of(headers, rows), note=pooled, curve=True)
