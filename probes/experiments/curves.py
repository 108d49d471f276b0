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
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.tasks.world import FactKind, track, understand
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import Observed, OnDocument, answers
from probes.causal.side_by_side import together
from probes.stats.effects import Effect, effect
from probes.stats.half_life import HalfLife, half_life
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


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """The forgetting curve, and how fast it falls."""

    curve: Curve
    half_life: HalfLife


def forgetting(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Forgetting:
    """Accuracy by distance in segments between a question and the end of its last supporting fact.

    The further back a fact, the more has been written since: `probes.experiments.controlled_documents.stretched` gives stories of
    many lengths. `on_document` is called twice a question. Raises ValueError for questions without any supporting fact,
    and for a model without memory.
    """
    curve = _curve(checkpoint, encoded_prompts, Along.DISTANCE, lambda encoded: encoded.distance, seed, on_document)
    held = [point for point in curve.points if point.right.groups >= FEWEST]
    kept = [one for one in curve.asked if one.at in {point.at for point in held}]
    return Forgetting(
        curve=curve,
        half_life=half_life(
            [one.at for one in kept], [one.right for one in kept], [one.group for one in kept],
            {p.at: p.chance for p in held}, seed=seed
        ),
    )  # fmt: skip


def capacity(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Curve:
    """Accuracy by load: of how many different people and things the document tells before the question.

    In stories found in the wild load grows with length and distance; `probes.experiments.controlled_documents.memory_load` varies it
    alone. Raises ValueError as `forgetting` does, and for statements that are none of bAbI tasks 1-10.
    """
    return _curve(checkpoint, encoded_prompts, Along.LOAD, _load, seed, on_document)


def overwrites(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Curve:
    """Accuracy by how many earlier places of the person asked for the last one had to replace.

    `probes.experiments.controlled_documents.overwritten` varies that alone. Raises ValueError as `capacity` does, and for questions
    of another form than "Where is Mary?".
    """
    return _curve(checkpoint, encoded_prompts, Along.OVERWRITES, _overwritten, seed, on_document)


def _load(encoded: EncodedPrompt) -> int:
    world = track([statement.text for statement in encoded.prompt.statements])[-1]
    return len(world.people) + len(world.objects)


def _overwritten(encoded: EncodedPrompt) -> int:
    asked = re.fullmatch(r"Where is (\w+)\?", encoded.prompt.question)
    if asked is None:
        raise ValueError(
            f"overwriting is counted for questions like 'Where is Mary?', not for {encoded.prompt.question!r}"
        )
    facts = [understand(statement.text) for statement in encoded.prompt.statements]
    return (
        sum(
            fact.words[0] == asked[1] and fact.kind in (FactKind.AT, FactKind.NOT_AT, FactKind.EITHER) for fact in facts
        )
        - 1
    )


def _curve(
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
            encoded=encoded, at=at, group=encoded.prompt.story_id.partition("+")[0],
            right=bool(right), control=bool(control), log_probability=on, control_log_probability=off,
        )
        for encoded, at, (right, control, on, off) in zip(kept, places, measured)
    )  # fmt: skip
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
    groups = [one.group for one in asked]
    on, control = (
        np.array([getattr(one, name) for one in asked]) for name in ("log_probability", "control_log_probability")
    )
    return Point(
        at=at,
        right=rate([one.right for one in asked], groups),
        control=rate([one.control for one in asked], groups),
        log_probability=float(on.mean()),
        control_log_probability=float(control.mean()),
        gain=effect(on - control, groups, seed=seed),
        chance=max(
            max(counts.values()) / counts.total(), float(np.mean([_guess(one.encoded, counts) for one in asked]))
        ),
        distance=float(np.mean([one.encoded.distance for one in asked])),
    )


def _guess(encoded: EncodedPrompt, answers: Counter[str]) -> float:
    """How often a draw from the answers that the document names would be right."""
    named = {word for statement in encoded.prompt.statements for word in re.findall(r"\w+", statement.text)} & set(
        answers
    )
    return 1 / len(named) if encoded.prompt.answer in named else 0.0
