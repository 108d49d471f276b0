"""How much a memory holds, and for how long: accuracy by distance, by load and by overwriting, each question beside its
own control.

The control is the same question with the bank reset as its segment begins: what is right there is not the memory's
doing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from lm2.intervals import Rate, rate
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.tasks.prompt import Prompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import Observed, OnDocument, answers
from probes.causal.side_by_side import together
from probes.findings import Column, Findings, columns_of, share
from probes.stats.effects import Effect, effect
from probes.stats.metrics import Metric, measure

FEWEST = 5
"""A place on a curve with fewer stories than this is shown but decides nothing: one wrong answer would."""


class Along(Enum):
    """What a curve runs along."""

    DISTANCE = "segments since the last supporting fact"
    LOAD = "people and things told of"
    OVERWRITES = "earlier places of the person asked for"


@dataclass(frozen=True, kw_only=True)
class AnsweredQuestion:
    """One question, with the memory on and with the bank reset before it (control)."""

    encoded: EncodedPrompt
    at: int
    """Its place on the curve."""
    group: str
    """The story it is of; a story that was stretched is the same story."""
    right: bool
    control: bool
    log_probability: float
    """Of the answer: sum over its tokens, in nats."""
    control_log_probability: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """The questions at one place of a curve."""

    at: int
    right: Rate
    """Share answered right, its interval clustered by story."""
    control: Rate
    """The same with the bank reset before the question."""
    log_probability: float
    """Mean over questions, in nats."""
    control_log_probability: float
    gain: Effect
    """Of the memory on the answer's log-probability: on less reset, question by question."""
    chance: float
    """What is right without knowing whose answer is whose: the better of always saying the curve's most frequent
    answer, and of guessing among those of the curve's answers that the document names."""
    distance: float
    """Mean segments since the last supporting fact."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Accuracy along one measure of how hard it is to remember."""

    along: Along
    points: tuple[Point, ...]
    asked: tuple[AnsweredQuestion, ...]
    left_out: int
    """Questions without a supporting fact."""
    constant: str
    """The most frequent answer."""

    @property
    def groups(self) -> int:
        """Stories."""
        return len({one.group for one in self.asked})

    @property
    def horizon(self) -> int | None:
        """The last place at which the accuracy's lower bound exceeds chance, there and everywhere before; None where it
        does not at the first.

        Along distance: the effective horizon. Places with fewer than `FEWEST` stories are passed over. Where it is the
        last place measured, memory may reach further.
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
    place: Callable[[EncodedPrompt], int],
    seed: int,
    on_document: OnDocument,
) -> Curve:
    kept = [encoded for encoded in encoded_prompts if encoded.distance is not None]
    if not kept:
        raise ValueError(
            f"a curve needs questions with supporting facts; {len(encoded_prompts)} were given, none with one"
        )
    places = [place(encoded) for encoded in kept]
    said = [together(checkpoint, kept, reset=reset, on_document=on_document) for reset in (False, True)]
    measured = zip(*(_measured(one, metric) for metric in (Metric.EXACT, Metric.LOG_PROBABILITY) for one in said))
    asked = tuple(
        AnsweredQuestion(
            encoded=encoded,
            at=at,
            group=encoded.prompt.group.partition("+")[0],
            right=bool(right),
            control=bool(control),
            log_probability=on,
            control_log_probability=off,
        )
        for encoded, at, (right, control, on, off) in zip(kept, places, measured)
    )
    counts = Counter(encoded.prompt.answer for encoded in kept)
    by_place: dict[int, list[AnsweredQuestion]] = defaultdict(list)
    for one in asked:
        by_place[one.at].append(one)
    return Curve(
        along=along,
        points=tuple(_point(at, by_place[at], counts, seed) for at in sorted(by_place)),
        asked=asked,
        left_out=len(encoded_prompts) - len(kept),
        constant=max(sorted(counts), key=counts.__getitem__),
    )


def _measured(said: Observed, metric: Metric) -> list[float]:
    return [measure(metric, answer, rows, rows) for answer, rows in zip(answers(said.encoded_prompts), said.logits)]


def _point(at: int, asked: Sequence[AnsweredQuestion], counts: Counter[str], seed: int) -> Point:
    groups = [answered_question.group for answered_question in asked]
    on, control = (
        np.array([getattr(answered_question, name) for answered_question in asked])
        for name in ("log_probability", "control_log_probability")
    )
    return Point(
        at=at,
        right=rate([answered_question.right for answered_question in asked], groups),
        control=rate([answered_question.control for answered_question in asked], groups),
        log_probability=float(on.mean()),
        control_log_probability=float(control.mean()),
        gain=effect(on - control, groups, seed=seed),
        chance=max(
            max(counts.values()) / counts.total(),
            float(np.mean([_guess(answered_question.encoded, counts) for answered_question in asked])),
        ),
        distance=float(np.mean([distance(answered_question.encoded) for answered_question in asked])),
    )


def distance(encoded: EncodedPrompt) -> int:
    """Segments since the last supporting fact of a question on a curve."""
    assert encoded.distance is not None, "questions without one are left out"
    return encoded.distance


def _guess(encoded: EncodedPrompt, answers: Counter[str]) -> float:
    """How often a draw from the answers that the document names would be right."""
    named = {word for text in encoded.prompt.statements for word in re.findall(r"\w+", text)} & set(answers)
    return 1 / len(named) if encoded.prompt.answer in named else 0.0


def encoded_as(like: EncodedPrompt, checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
    """Prompts in segments as long as another's."""
    return [encode_prompt(checkpoint, prompt, like.spec.segment_length) for prompt in prompts]


def table(title: str, curve: Curve, note: str) -> Findings:
    """A row for each place of a curve."""
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
