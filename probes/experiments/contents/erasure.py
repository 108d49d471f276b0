"""Is what can be read off a bank or a stream used? A concept is erased there as a question is asked, and the model
answers.

'Decodable' (a fresh linear probe still reads the concept) and 'used' (the answers suffer) stand side by side, beside
random subspaces and beside another concept.

Slots are erased one by one. LEACE leaves no covariance between a slot and the concept (Belrose et al. 2023), and so
none between all slots side by side and the concept: no linear reader of the whole bank is better than a constant, on
the rows it was fitted on. A model reads with keys, values and gates, which is no linear reader: what it can still tell
is part of the answer. QLEACE leaves no quadratic reader of a slot better than a constant either. It has to know what it
erases, row by row, which ground truth tells; that it does, harms nothing by itself, as what it makes of somebody else's
place shows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm2.intervals import Bounded, Difference, Rate, difference
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.tasks.world import track
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import Observed, OnDocument, check_foils, constant, measured, observe
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
"""Of the first simulated document that erasers and probes are fitted on: none of those whose questions are answered."""
_PER_FEATURE, _FEWEST, _MOST = 2, 400, 10_000
"""Documents to fit on for each feature of all parts together: with fewer, fresh probes still read what erasers have
missed. And their limits."""
_DOCUMENTS = 4_096
"""Read to fit on for a bank of 2,048 entries."""
_PARTS = 16
"""Fewer of them are read in as many documents."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Erased:
    """One way to erase, and both of its ends."""

    name: str
    rank: int
    """Dimensions a part, the largest over parts; 0 where nothing is erased."""
    moved: float
    """Share of the variance that is taken away."""
    decodable: Estimate
    """Balanced accuracy of fresh linear probes of the concept from all parts side by side, pooled over its targets, on
    stories that neither they nor the erasers were fitted on."""
    right: Rate | None
    """Questions answered; None where the model was not asked."""
    effect: Effect | None
    """Change of the answer's logit difference."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Erasure:
    """A concept erased: how well it can be read, beside what the model does without it."""

    targets: tuple[Target, ...]
    conditions: tuple[Erased, ...]
    """Nothing erased is the first, LEACE the second, a random subspace of its rank the third; QLEACE, its control and
    another concept are the last three."""
    guessing: float
    """Balanced accuracy without features."""
    chance: Rate
    """The best constant answer."""
    beyond_random: Difference | None
    """Share answered behind LEACE less that behind random subspaces of its rank, question by question."""
    beyond_other: Difference | None
    """The same, less that behind another concept."""
    documents: int
    """Read to fit on and to ask fresh probes of."""

    @property
    def verdict(self) -> str:
        """Both in a sentence."""
        clean, erased, control, *_, knowing, _, other = self.conditions
        able = clean.decodable.low > self.guessing
        read = (
            f"{'decodable' if able else 'not decodable'} ({_percent(clean.decodable)}, {_percent(erased.decodable)}"
            f" behind LEACE, {self.guessing:.1%} by guessing)"
        )
        if self.beyond_random is None or self.beyond_other is None:
            return f"{read}; use not tested"
        used = max(self.beyond_random.high, self.beyond_other.high) < 0
        said = (
            f"{_percent(clean.right)} right, {_percent(erased.right)} behind LEACE, {_percent(knowing.right)} behind"
            f" QLEACE, {_percent(control.right)} behind a random subspace, {_percent(other.right)} behind another"
            f" concept, {self.chance.accuracy:.1%} by the best constant"
        )
        return f"{read}; {'used' if used else 'no use shown'} ({said})"


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
    """Where people are, erased from a bank or a stream, beside random subspaces and beside another concept.

    From the bank: where everybody is; another concept is, for each question, where all others than the one it asks for
    are. From a stream, where one direction may serve whoever is asked for: the answer; another concept is where
    somebody else is.

    `use` False: the model is not asked, and whether it uses the concept stays untested. `on_document` is called once
    for each document to fit on and once a question that is asked. Raises ValueError for questions that ask for nobody's
    place.
    """
    asked = [_asked(encoded) for encoded in encoded_prompts]
    if use:
        check_foils(encoded_prompts)
    parts, width = place.size(checkpoint.config)
    count = min(_MOST, max(_FEWEST, _PER_FEATURE * width * max(parts, _PARTS)))
    documents = Documents(tasks=(encoded_prompts[0].prompt.task or 1,), count=count, seed=SEED + seed)
    examples = Examples.of(checkpoint, documents, RowPosition.QUESTION, encoded_prompts[0].spec.segment_length)
    people = tuple(target for target in expand(("place of *",), examples) if isinstance(target, PlaceOf))
    for question in asked:
        question.check(examples)
    found = collect(checkpoint, examples, place.sources(checkpoint.config), on_document=on_document)
    fitting = Fitting(np.stack([*found.values()], axis=1), examples.groups, seed)
    targets = people if isinstance(place, Bank) else (CorrectAnswer(),)
    labels = [target.label(examples) for target in targets]
    worlds = [track(encoded.prompt.statements)[-1] for encoded in encoded_prompts]
    if isinstance(place, Bank):
        told = [
            [_class(labels[at], worlds[row].where(one.name)) for at, one in enumerate(people)]
            for row in range(len(encoded_prompts))
        ]
        ways = _everybody(fitting, labels, [people.index(one) for one in asked], told)
    else:
        other = _somebody_else(examples, people)
        after = [people[(people.index(one) + 1) % len(people)] for one in asked]
        known = [_class(labels[0], encoded.prompt.answer) for encoded in encoded_prompts]
        ways = _answer(
            fitting,
            labels[0],
            other,
            known,
            [_class(other, world.where(one.name)) for world, one in zip(worlds, after)],
        )
    seen: Sequence[Observed | None] = [None] * len(ways)
    if use:
        seen = observe(
            checkpoint,
            encoded_prompts,
            [[way.unit(place, at, encoded) for at, encoded in enumerate(encoded_prompts)] for way in ways],
            on_document,
        )
    clean, erased, control, *_, other = seen
    return Erasure(
        targets=targets,
        guessing=1 / max(len(label.names) for label in labels),
        chance=constant(encoded_prompts),
        documents=len(examples),
        conditions=tuple(_told(fitting, labels, way, clean, edited) for way, edited in zip(ways, seen)),
        beyond_random=_beyond(erased, control),
        beyond_other=_beyond(erased, other),
    )


def _asked(encoded: EncodedPrompt) -> PlaceOf:
    """What a question asks for."""
    found = re.fullmatch(r"Where is (\w+)\?", encoded.prompt.question)
    if found is None:
        raise ValueError(
            f"{encoded.prompt.question!r} asks for nobody's place: erasing where people are is an experiment of qa1"
        )
    return PlaceOf(name=found[1])


def _class(labels: Labels, name: str | None) -> int:
    """The number of a class by its name; behind the last one, where it is not known."""
    return labels.names.index(name) if name in labels.names else len(labels.names)


def _beside_random(fitting: Fitting, labels: Sequence[Labels], what: str) -> list[ErasureCondition]:
    """Nothing, and a concept by two methods that do not know it, with their controls."""
    least, projected = fitting.leace(labels), fitting.inlp(labels)
    return [
        Uniform(name="nothing"),
        Uniform(name=f"{what}, LEACE", sets=[least]),
        Uniform(name="a random subspace of that rank (control)", sets=fitting.subspaces(least)),
        Uniform(name="a random subspace of that variance (control)", sets=fitting.shares(least)),
        Uniform(name=f"{what}, INLP", sets=[projected]),
        Uniform(name="a random subspace of INLP's rank (control)", sets=fitting.subspaces(projected)),
    ]


def _everybody(
    fitting: Fitting, labels: Sequence[Labels], asked: Sequence[int], told: Sequence[Sequence[int]]
) -> list[ErasureCondition]:
    """`told`: where each question's document has everybody at its end."""
    alone, by_class = [fitting.leace([label]) for label in labels], [fitting.qleace(label) for label in labels]
    others = [fitting.leace([other for other in labels if other is not label]) for label in labels]
    after = [(at + 1) % len(labels) for at in range(len(labels))]
    return [
        *_beside_random(fitting, labels, "where everybody is"),
        Uniform(name="where the person asked for is, LEACE", sets=alone, asked=asked),
        LabelAware(
            name="where the person asked for is, QLEACE",
            sets=by_class,
            labels=labels,
            asked=asked,
            classes=[own[at] for own, at in zip(told, asked)],
        ),
        LabelAware(
            name="where somebody else is, QLEACE (control)",
            sets=[by_class[at] for at in after],
            labels=[labels[at] for at in after],
            asked=asked,
            classes=[own[after[at]] for own, at in zip(told, asked)],
        ),
        Uniform(name="where all others are, LEACE (another concept)", sets=others, asked=asked),
    ]


def _answer(
    fitting: Fitting, labels: Labels, other: Labels, known: Sequence[int], known_other: Sequence[int]
) -> list[ErasureCondition]:
    """`known`: each question's answer; `known_other`: where somebody else is as it is asked."""
    same = [0] * len(known)
    return [
        *_beside_random(fitting, [labels], "the answer"),
        LabelAware(
            name="the answer, QLEACE", sets=[fitting.qleace(labels)], labels=[labels], asked=same, classes=known
        ),
        LabelAware(
            name="where somebody else is, QLEACE (control)",
            sets=[fitting.qleace(other)],
            labels=[other],
            asked=same,
            classes=known_other,
        ),
        Uniform(name="where somebody else is, LEACE (another concept)", sets=[fitting.leace([other])]),
    ]


def _somebody_else(examples: Examples, people: Sequence[PlaceOf]) -> Labels:
    """Where the person is who comes after the one that each row's question asks for."""
    labels = [target.label(examples) for target in people]
    names = sorted({name for label in labels for name in label.names})
    places = np.array(
        [[names.index(label.names[value]) if value >= 0 else UNKNOWN for value in label.values] for label in labels]
    )
    asked = np.array([people.index(_asked(encoded)) for encoded in examples.encoded_prompts])[examples.document]
    return Labels(places[(asked + 1) % len(people), np.arange(len(asked))], tuple(names))


def _told(
    fitting: Fitting, labels: Sequence[Labels], way: ErasureCondition, clean: Observed | None, edited: Observed | None
) -> Erased:
    return Erased(
        name=way.name,
        rank=max((eraser.rank for erasers in way.every for eraser in erasers), default=0),
        moved=fitting.moved(way),
        decodable=fitting.decodable(way, labels),
        right=None if edited is None else edited.share(),
        effect=None
        if clean is None or edited is None
        else effect(measured(clean, edited, Metric.LOGIT_DIFFERENCE), clean.stories),
    )


def _beyond(one: Observed | None, other: Observed | None) -> Difference | None:
    if one is None or other is None:
        return None
    right = [
        [said == encoded.answer_ids for said, encoded in zip(each.said, each.encoded_prompts)] for each in (one, other)
    ]
    return difference(right[0], right[1], one.stories)


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    erased = erasure(checkpoint, questions, seed=seed, on_document=on_document)
    rows: list[tuple[Cell | Bounded, ...]] = [
        (
            condition.name,
            condition.rank,
            100 * condition.moved,
            _estimate(condition.decodable),
            NOTHING if condition.right is None else share(condition.right),
            NOTHING if condition.effect is None else condition.effect.mean,
        )
        for condition in erased.conditions
    ]
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
        "change of answer logit difference",
    )
    return (Findings(title="Decodable, and used?", columns=columns_of(headers, rows), note=note),)


def _estimate(estimate: Estimate) -> Bounded:
    return Bounded(100 * estimate.value, 100 * estimate.low, 100 * estimate.high)


EXPERIMENT = Experiment(
    key="erasure",
    title="Concept erased",
    question="Is what can be read off the bank, where everybody is, used?",
    control="a random subspace of the same rank; where all others are",
    findings=findings,
    documents=lambda task, questions: questions + _DOCUMENTS,
)
