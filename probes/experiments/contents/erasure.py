"""Is a concept that can be decoded from a bank or a stream used? It is erased there before a question is answered.

'Decodable' (a fresh linear probe still reads the concept) stands beside 'used' (the answers suffer).

Slots are erased one by one. LEACE leaves no covariance between a slot and the concept (Belrose et al. 2023), and so
none between all slots side by side and the concept: no linear reader of the whole bank is better than a constant, on
the rows it was fitted on. A model reads with keys, values and gates, which is not linear, so what it can still tell is
part of the answer. QLEACE leaves no quadratic reader of a slot better than a constant either. It needs the true class
of each row; that this alone does no harm is shown by erasing somebody else's place in the same way.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm2.intervals import Bounded, Difference, Rate, difference
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.tasks.sets.built_in import Simulated
from lm2.tasks.world import track
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import (
    Observed,
    OnDocument,
    check_foils,
    constant_answer,
    logit_difference,
    metric_change,
    observe,
)
from probes.erasure.conditions import Bank, ErasureCondition, Fitting, LabelAware, Place, Uniform
from probes.experiments.experiment import Experiment, held_out
from probes.features.collect import collect
from probes.features.documents import Documents
from probes.features.examples import Examples, RowPosition
from probes.features.target_names import expand
from probes.features.targets import UNKNOWN, Labels, Target
from probes.features.world_targets import CorrectAnswer, PlaceOf
from probes.findings import NOTHING, Cell, Column, Findings, columns_of, share
from probes.stats.effects import Effect, effect
from probes.stats.metrics import Metric
from probes.stats.scores import Estimate

SEED = 700_000
"""Of the first simulated document to fit on; none of these documents' questions is answered."""
_PER_FEATURE, _FEWEST, _MOST = 2, 400, 10_000
"""Documents to fit on for each feature of all parts, and their limits. With fewer, fresh probes still read what erasers
have missed."""
_DOCUMENTS = 4_096
"""Documents to fit on for a bank of 2,048 entries."""
_PARTS = 16
"""Fewer parts count as so many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Erased:
    """One way to erase, with what is still decodable and what the model still answers."""

    name: str
    rank: int
    """Erased dimensions of a part, the largest over parts."""
    moved: float
    """Share of the variance that is erased."""
    decodable: Estimate
    """Balanced accuracy of fresh linear probes of the concept from all parts side by side, pooled over its targets, on
    stories that neither they nor the erasers were fitted on."""
    right: Rate | None
    """Share of questions answered right; None if the model was not asked."""
    effect: Effect | None
    """Change of the answer's logit difference."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Erasure:
    """A concept erased in several ways."""

    targets: tuple[Target, ...]
    conditions: tuple[Erased, ...]
    """First nothing erased, LEACE and a random subspace of its rank; last QLEACE, its control and another concept."""
    guessing: float
    """Balanced accuracy without features."""
    chance: Rate
    """The best constant answer."""
    beyond_random: Difference | None
    """Share answered right after LEACE minus that after random subspaces of its rank, question by question."""
    beyond_other: Difference | None
    """Share answered right after LEACE minus that after erasing another concept."""
    documents: int
    """Read to fit erasers and to fit and test fresh probes."""

    @property
    def verdict(self) -> str:
        """Whether the concept is decodable and used, in a sentence."""
        clean, erased, control, *_, label_aware, _, other = self.conditions
        decodable = clean.decodable.low > self.guessing
        read = (
            f"{'decodable' if decodable else 'not decodable'} ({_percent(clean.decodable)},"
            f" {_percent(erased.decodable)} behind LEACE, {self.guessing:.1%} by guessing)"
        )
        if self.beyond_random is None or self.beyond_other is None:
            return f"{read}; use not tested"
        used = max(self.beyond_random.high, self.beyond_other.high) < 0
        answers = (
            f"{_percent(clean.right)} right, {_percent(erased.right)} behind LEACE, {_percent(label_aware.right)}"
            f" behind QLEACE, {_percent(control.right)} behind a random subspace, {_percent(other.right)} behind"
            f" another concept, {self.chance.accuracy:.1%} by the best constant"
        )
        return f"{read}; {'used' if used else 'no use shown'} ({answers})"


def _percent(share: Estimate | Rate | None) -> str:
    assert share is not None, "the model was asked"
    return f"{share.value if isinstance(share, Estimate) else share.accuracy:.1%} [{share.low:.1%}, {share.high:.1%}]"


def erasure(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    place: Place = Bank(),
    *,
    use: bool = True,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Erasure:
    """Where people are, erased from a bank or a stream, compared with random subspaces and another concept.

    From the bank, the concept is where everybody is; the other concept is, for each question, where all others than the
    person asked for are. From a stream, where one direction may serve any person, the concept is the answer; the other
    is where somebody else is.

    `use` False does not ask the model, so that use stays untested. `on_document` is called once for each document to
    fit on and each question asked. Raises ValueError for questions that ask for nobody's place.
    """
    asked = [_person(encoded) for encoded in encoded_prompts]
    if use:
        check_foils(encoded_prompts)
    parts, width = place.size(checkpoint.config)
    count = min(_MOST, max(_FEWEST, _PER_FEATURE * width * max(parts, _PARTS)))
    simulated = Simulated(task=encoded_prompts[0].prompt.task or 1, seed=SEED + seed)
    documents = Documents(questions=(simulated.name,), count=count)
    examples = Examples.of(checkpoint, documents, RowPosition.QUESTION, encoded_prompts[0].spec.segment_length)
    people = tuple(target for target in expand(("place of *",), examples) if isinstance(target, PlaceOf))
    for person in asked:
        person.check(examples)
    features = collect(checkpoint, examples, place.sources(checkpoint.config), on_document=on_document)
    fitting = Fitting(np.stack([*features.values()], axis=1), examples.groups, seed)
    targets = people if isinstance(place, Bank) else (CorrectAnswer(),)
    labels = [target.label(examples) for target in targets]
    worlds = [track(encoded.prompt.statements)[-1] for encoded in encoded_prompts]
    indexes = [people.index(person) for person in asked]
    if isinstance(place, Bank):
        places = [
            [_class(label, world.where(person.name)) for label, person in zip(labels, people)] for world in worlds
        ]
        conditions = _everybody(fitting, labels, indexes, places)
    else:
        other = _somebody_else(examples, people)
        names = [people[(index + 1) % len(people)].name for index in indexes]
        other_places = [_class(other, world.where(name)) for world, name in zip(worlds, names)]
        answers = [_class(labels[0], encoded.prompt.answer) for encoded in encoded_prompts]
        conditions = _answer(fitting, labels[0], other, answers, other_places)
    observed: Sequence[Observed | None] = [None] * len(conditions)
    if use:
        units = [
            [condition.unit(place, i, encoded) for i, encoded in enumerate(encoded_prompts)] for condition in conditions
        ]
        observed = observe(checkpoint, encoded_prompts, units, on_document)
    clean, erased, random_subspace, *_, other_concept = observed
    beyond_random, beyond_other = (
        None if erased is None or control is None else difference(erased.right, control.right, erased.stories)
        for control in (random_subspace, other_concept)
    )
    return Erasure(
        targets=targets,
        guessing=1 / max(len(label.names) for label in labels),
        chance=constant_answer(encoded_prompts),
        documents=len(examples),
        conditions=tuple(
            Erased(
                name=condition.name,
                rank=max((eraser.rank for erasers in condition.every for eraser in erasers), default=0),
                moved=fitting.moved(condition),
                decodable=fitting.decodable(condition, labels),
                right=edited and edited.share(),
                effect=clean and edited and _effect(clean, edited),
            )
            for condition, edited in zip(conditions, observed)
        ),
        beyond_random=beyond_random,
        beyond_other=beyond_other,
    )


def _person(encoded: EncodedPrompt) -> PlaceOf:
    """The place that a question asks for."""
    match = re.fullmatch(r"Where is (\w+)\?", encoded.prompt.question)
    if match is None:
        raise ValueError(
            f"{encoded.prompt.question!r} asks for nobody's place: erasing where people are is an experiment of qa1"
        )
    return PlaceOf(name=match[1])


def _class(labels: Labels, name: str | None) -> int:
    """The number of a class by its name; one after the last if the name is unknown."""
    return [*labels.names, name].index(name)


def _beside_random(fitting: Fitting, labels: Sequence[Labels], what: str) -> list[ErasureCondition]:
    """Nothing erased, and a concept by LEACE and INLP with their controls."""
    leace, inlp = fitting.leace(labels), fitting.inlp(labels)
    return [
        Uniform(name="nothing"),
        Uniform(name=f"{what}, LEACE", sets=[leace]),
        Uniform(name="a random subspace of that rank (control)", sets=fitting.subspaces(leace)),
        Uniform(name="a random subspace of that variance (control)", sets=fitting.shares(leace)),
        Uniform(name=f"{what}, INLP", sets=[inlp]),
        Uniform(name="a random subspace of INLP's rank (control)", sets=fitting.subspaces(inlp)),
    ]


def _everybody(
    fitting: Fitting, labels: Sequence[Labels], asked: Sequence[int], places: Sequence[Sequence[int]]
) -> list[ErasureCondition]:
    """`asked`: the person that each question asks for; `places`: where everybody is at the end of its document."""
    alone, by_class = [fitting.leace([label]) for label in labels], [fitting.qleace(label) for label in labels]
    others = [fitting.leace([other for other in labels if other is not label]) for label in labels]
    return [
        *_beside_random(fitting, labels, "where everybody is"),
        Uniform(name="where the person asked for is, LEACE", sets=alone, asked=asked),
        LabelAware(
            name="where the person asked for is, QLEACE",
            sets=by_class,
            labels=labels,
            asked=asked,
            classes=[row[person] for row, person in zip(places, asked)],
        ),
        LabelAware(
            name="where somebody else is, QLEACE (control)",
            sets=[*by_class[1:], by_class[0]],
            labels=[*labels[1:], labels[0]],
            asked=asked,
            classes=[row[(person + 1) % len(row)] for row, person in zip(places, asked)],
        ),
        Uniform(name="where all others are, LEACE (another concept)", sets=others, asked=asked),
    ]


def _answer(
    fitting: Fitting, labels: Labels, other: Labels, answers: Sequence[int], other_places: Sequence[int]
) -> list[ErasureCondition]:
    """`other_places`: where somebody else is at the end of each question's document."""
    first = [0] * len(answers)
    return [
        *_beside_random(fitting, [labels], "the answer"),
        LabelAware(
            name="the answer, QLEACE", sets=[fitting.qleace(labels)], labels=[labels], asked=first, classes=answers
        ),
        LabelAware(
            name="where somebody else is, QLEACE (control)",
            sets=[fitting.qleace(other)],
            labels=[other],
            asked=first,
            classes=other_places,
        ),
        Uniform(name="where somebody else is, LEACE (another concept)", sets=[fitting.leace([other])]),
    ]


def _somebody_else(examples: Examples, people: Sequence[PlaceOf]) -> Labels:
    """Where the person after the one that each row's question asks for is."""
    labels = [target.label(examples) for target in people]
    names = sorted({name for label in labels for name in label.names})
    places = np.array(
        [[names.index(label.names[value]) if value >= 0 else UNKNOWN for value in label.values] for label in labels]
    )
    asked = np.array([people.index(_person(encoded)) for encoded in examples.encoded_prompts])[examples.document]
    return Labels(places[(asked + 1) % len(people), np.arange(len(asked))], tuple(names))


def _effect(clean: Observed, edited: Observed) -> Effect:
    return effect(metric_change(clean, edited, Metric.LOGIT_DIFFERENCE), clean.stories)


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    erased = erasure(checkpoint, questions, seed=seed, on_document=on_document)
    rows: list[tuple[Cell | Bounded, ...]] = []
    for condition in erased.conditions:
        decodable, right, change = condition.decodable, condition.right, condition.effect
        rows.append(
            (
                condition.name,
                condition.rank,
                100 * condition.moved,
                Bounded(100 * decodable.value, 100 * decodable.low, 100 * decodable.high),
                NOTHING if right is None else share(right),
                NOTHING if change is None else change.mean,
            )
        )
    rows.append(("best constant answer (chance)", 0, NOTHING, NOTHING, share(erased.chance), NOTHING))
    note = (
        f"{erased.verdict}. {held_out(questions)}; {', '.join(map(str, erased.targets))}, erased from every slot as the"
        " question's segment begins. Decodable: balanced accuracy, pooled over these, of fresh linear probes of all"
        f" slots side by side; {erased.documents} simulated stories, a tenth of them for fresh probes"
    )
    headers = (
        "erased",
        "dimensions a slot",
        Column("variance taken", "%"),
        Column("decodable", "%"),
        Column("right", "%"),
        f"change of {logit_difference(questions)}",
    )
    return (Findings(title="Decodable, and used?", columns=columns_of(headers, rows), note=note),)


EXPERIMENT = Experiment(
    key="erasure",
    title="Concept erased",
    question="Is what can be read off the bank, where everybody is, used?",
    control="a random subspace of the same rank; where all others are",
    findings=findings,
    writes=True,
    documents=lambda task, questions: questions + _DOCUMENTS,
)
