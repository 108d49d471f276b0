"""Is what can be read off a bank or a stream used? A concept is erased there as a question is asked, and the model answers.

'Decodable' (a fresh linear probe still reads the concept) and 'used' (the answers suffer) stand side by side, beside random
subspaces and beside another concept.

Slots are erased one by one. LEACE leaves no covariance between a slot and the concept (Belrose et al. 2023), and so none between
all slots side by side and the concept: no linear reader of the whole bank is better than a constant, on the rows it was fitted
on. A model reads with keys, values and gates, which is no linear reader: what it can still tell is part of the answer. QLEACE
leaves no quadratic reader of a slot better than a constant either. It has to know what it erases, row by row, which ground
truth tells; that it does, harms nothing by itself, as what it makes of somebody else's place shows.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Int, Shaped

from lm2.asking import Put
from lm2.checkpoint import Checkpoint
from lm2.config import LM2Config
from lm2.intervals import Difference, Rate, difference
from lm2.interventions import BankEdit, Edit
from lm2.sites import Site
from lm2.world import track
from probes.ablations import Observed, OnDocument, constant, measured, observe
from probes.dataset import collect
from probes.documents import Documents
from probes.effects import Effect, effect
from probes.erasers import Eraser, inlp, leace, qleace, random_share, random_subspace
from probes.examples import Examples, Moment
from probes.linear import Family, fit_many
from probes.metrics import Metric
from probes.packing import Unit
from probes.scores import Estimate, Measure, Predictions, estimates
from probes.sources import Source
from probes.splits import hold_out
from probes.targets import UNKNOWN, CorrectAnswer, Labels, PlaceOf, Target, expand

SEED = 700_000
"""Of the first simulated document that erasers and probes are fitted on: none of those whose questions are answered."""
_PER_FEATURE, _FEWEST, _MOST = 2, 400, 10_000
"""Documents to fit on for each feature of all parts together: with fewer, fresh probes still read what erasers have missed. And their limits."""
_PARTS = 16
"""Fewer of them are read in as many documents."""
_FRESH = 0.1
"""Share of them that fresh probes are fitted on and asked of."""
_DRAWS = 5
"""Random subspaces, which questions take in turn."""

Erasers = Sequence[Eraser]
"""One a part: a slot, or all of a stream."""
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Place(ABC):
    """Where something is erased as a question's segment is read."""

    @abstractmethod
    def size(self, config: LM2Config) -> tuple[int, int]:
        """Parts, and features of each."""

    @abstractmethod
    def sources(self, config: LM2Config) -> tuple[Source, ...]:
        """The features of each part."""

    @abstractmethod
    def unit(self, erasers: Erasers, put: Put) -> Unit: ...


@dataclass(frozen=True, kw_only=True)
class Bank(Place):
    """The bank with which the question's segment begins: every slot has an eraser of its own."""

    def size(self, config: LM2Config) -> tuple[int, int]:
        return config.slots, config.slot_dim

    def sources(self, config: LM2Config) -> tuple[Source, ...]:
        return tuple(Source.parse(f"bank:slot{slot}") for slot in range(config.slots))

    def unit(self, erasers: Erasers, put: Put) -> Unit:
        return tuple(BankEdit(operation=one.operation, segments=(put.segment,), slots=(slot,)) for slot, one in enumerate(erasers))


@dataclass(frozen=True, kw_only=True)
class Stream(Place):
    """The residual stream behind a block: every token of the question's segment, by what holds of the question's last one."""

    layer: int

    def size(self, config: LM2Config) -> tuple[int, int]:
        return 1, config.d_model

    def sources(self, config: LM2Config) -> tuple[Source, ...]:
        return (Source.parse(f"resid_post.{self.layer}"),)

    def unit(self, erasers: Erasers, put: Put) -> Unit:
        return (Edit(site=Site.RESID_POST, operation=erasers[0].operation, layers=(self.layer,), segments=(put.segment,)),)


@dataclass(frozen=True, kw_only=True, eq=False)
class Erased:
    """One way to erase, and both of its ends."""

    name: str
    rank: int
    """Dimensions a part, the largest over parts; 0 where nothing is erased."""
    moved: float
    """Share of the variance that is taken away."""
    decodable: Estimate
    """Balanced accuracy of fresh linear probes of the concept from all parts side by side, pooled over its targets, on stories that
    neither they nor the erasers were fitted on."""
    right: Rate | None
    """Questions answered; None where the model was not asked."""
    effect: Effect | None
    """Change of the answer's logit difference."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Erasure:
    """A concept erased: how well it can be read, beside what the model does without it."""

    targets: tuple[Target, ...]
    conditions: tuple[Erased, ...]
    """Nothing erased is the first, LEACE the second, a random subspace of its rank the third, and another concept the last."""
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
        clean, erased, control, *_, other = self.conditions
        able = clean.decodable.low > self.guessing
        read = (
            f"{'decodable' if able else 'not decodable'} ({_percent(clean.decodable)}, {_percent(erased.decodable)} behind LEACE, "
            f"{self.guessing:.1%} by guessing)"
        )
        if self.beyond_random is None or self.beyond_other is None:
            return f"{read}; use not tested"
        used = max(self.beyond_random.high, self.beyond_other.high) < 0
        said = (
            f"{_percent(clean.right)} right, {_percent(erased.right)} behind LEACE, {_percent(control.right)} behind a random subspace, "
            f"{_percent(other.right)} behind another concept, {self.chance.accuracy:.1%} by the best constant"
        )
        return f"{read}; {'used' if used else 'no use shown'} ({said})"


def _percent(share: Estimate | Rate) -> str:
    return f"{share.value if isinstance(share, Estimate) else share.accuracy:.1%} [{share.low:.1%}, {share.high:.1%}]"


def erasure(
    checkpoint: Checkpoint, puts: Sequence[Put], place: Place = Bank(), *, use: bool = True, seed: int = 0, on_document: OnDocument = lambda: None
) -> Erasure:
    """Where people are, erased from a bank or a stream, beside random subspaces and beside another concept.

    From the bank: where everybody is; another concept is, for each question, where all others than the one it asks for are.
    From a stream, where one direction may serve whoever is asked for: the answer; another concept is where somebody else is.

    `use` False: the model is not asked, and whether it uses the concept stays untested. `on_document` is called once for each
    document to fit on and once a question that is asked. Raises ValueError for questions that ask for nobody's place.
    """
    asked = [_asked(put) for put in puts]
    parts, width = place.size(checkpoint.config)
    count = min(_MOST, max(_FEWEST, _PER_FEATURE * width * max(parts, _PARTS)))
    documents = Documents(tasks=(puts[0].prompt.task or 1,), count=count, seed=SEED + seed)
    examples = Examples.of(checkpoint, documents, Moment.QUESTION, puts[0].spec.segment_length)
    people = tuple(target for target in expand(("place of *",), examples) if isinstance(target, PlaceOf))
    for question in asked:
        question.check(examples)
    found = collect(checkpoint, examples, place.sources(checkpoint.config), on_document=on_document)
    fitting = _Fitting(np.stack([*found.values()], axis=1), examples.groups, seed)
    targets = people if isinstance(place, Bank) else (CorrectAnswer(),)
    labels = [examples.label(target) for target in targets]
    worlds = [track([statement.text for statement in put.prompt.statements])[-1] for put in puts]
    if isinstance(place, Bank):
        told = [[_class(labels[at], worlds[row].where(one.name)) for at, one in enumerate(people)] for row in range(len(puts))]
        ways = _everybody(fitting, labels, [people.index(one) for one in asked], told)
    else:
        other = _somebody_else(examples, people)
        after = [people[(people.index(one) + 1) % len(people)] for one in asked]
        known = [_class(labels[0], put.prompt.answer) for put in puts]
        ways = _answer(fitting, labels[0], other, known, [_class(other, world.where(one.name)) for world, one in zip(worlds, after)])
    seen: Sequence[Observed | None] = [None] * len(ways)
    if use:
        seen = observe(checkpoint, puts, [[way.unit(place, at, put) for at, put in enumerate(puts)] for way in ways], on_document)
    clean, erased, control, *_, other = seen
    return Erasure(
        targets=targets, guessing=1 / max(len(one.names) for one in labels), chance=constant(puts), documents=len(examples),
        conditions=tuple(_told(fitting, labels, way, clean, edited) for way, edited in zip(ways, seen)),
        beyond_random=_beyond(erased, control), beyond_other=_beyond(erased, other),
    )  # fmt: skip


def _asked(put: Put) -> PlaceOf:
    """What a question asks for."""
    found = re.fullmatch(r"Where is (\w+)\?", put.prompt.question)
    if found is None:
        raise ValueError(f"{put.prompt.question!r} asks for nobody's place: erasing where people are is an experiment of qa1")
    return PlaceOf(name=found[1])


def _class(labels: Labels, name: str | None) -> int:
    """The number of a class by its name; behind the last one, where it is not known."""
    return labels.names.index(name) if name in labels.names else len(labels.names)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Way(ABC):
    """One way to erase, which may be several sets of erasers."""

    name: str
    asked: Sequence[int] | None = None
    """The set for each question, and then a target's probe meets the set of its number; None: in turn, and then probes meet the first."""

    @property
    @abstractmethod
    def every(self) -> list[Erasers]: ...

    @abstractmethod
    def erasers(self, at: int) -> Erasers:
        """For the question of this number."""

    @abstractmethod
    def left(self, features: Float32[np.ndarray, "row part d"], rows: Int[np.ndarray, "row"]) -> list[Float32[np.ndarray, "row part d"]]:
        """What each set leaves of rows."""

    def unit(self, place: Place, at: int, put: Put) -> Unit:
        """What is done to the question of this number."""
        return place.unit(self.erasers(at), put) if self.every else ()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Blind(_Way):
    """The same for all rows, whatever the truth."""

    sets: Sequence[Erasers] = ()
    """Without any, nothing is erased."""

    @property
    def every(self) -> list[Erasers]:
        return [*self.sets]

    def erasers(self, at: int) -> Erasers:
        return self.sets[at % len(self.sets) if self.asked is None else self.asked[at]]

    def left(self, features: Float32[np.ndarray, "row part d"], rows: Int[np.ndarray, "row"]) -> list[Float32[np.ndarray, "row part d"]]:
        return [_apply(erasers, features) for erasers in self.sets]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Knowing(_Way):
    """By the class that each row is of."""

    sets: Sequence[Sequence[Erasers]]
    """For each class, the last for rows of which it is not known."""
    labels: Sequence[Labels]
    """What each set erases."""
    classes: Sequence[int]
    """Of each question, what its set erases."""

    @property
    def every(self) -> list[Erasers]:
        return [erasers for one in self.sets for erasers in one]

    def erasers(self, at: int) -> Erasers:
        return self.sets[self.asked[at]][self.classes[at]]

    def left(self, features: Float32[np.ndarray, "row part d"], rows: Int[np.ndarray, "row"]) -> list[Float32[np.ndarray, "row part d"]]:
        found = []
        for by_class, labels in zip(self.sets, self.labels):
            left = np.empty_like(features)
            for own, erasers in zip([*range(len(labels.names)), UNKNOWN], by_class):
                kept = labels.values[rows] == own
                left[kept] = _apply(erasers, features[kept])
            found.append(left)
        return found


def _apply(erasers: Erasers, features: Float32[np.ndarray, "row part d"]) -> Float32[np.ndarray, "row part d"]:
    return np.stack([one.apply(features[:, part]) for part, one in enumerate(erasers)], axis=1)


class _Fitting:
    """Rows to fit erasers on, and others to fit and ask fresh probes."""

    def __init__(self, features: Float32[np.ndarray, "row part d"], groups: Shaped[np.ndarray, "row"], seed: int) -> None:
        self._features, self._groups, self._seed = features, groups, seed
        self._rows = hold_out(groups, _FRESH, seed)
        self._fresh = hold_out(groups[self._rows.test], 0.5, seed)

    def leace(self, labels: Sequence[Labels]) -> Erasers:
        own = [_at(one, self._rows.train) for one in labels]
        return self._each(lambda features, part: leace(features, own))

    def qleace(self, one: Labels) -> list[Erasers]:
        """Erasers by class."""
        own = _at(one, self._rows.train)
        return [*zip(*self._each(lambda features, part: qleace(features, own)))]

    def inlp(self, labels: Sequence[Labels]) -> Erasers:
        own, groups = [_at(one, self._rows.train) for one in labels], self._groups[self._rows.train]
        return self._each(lambda features, part: inlp(features, own, groups, self._seed))

    def subspaces(self, like: Erasers) -> list[Erasers]:
        """Drawn at random, of as many dimensions."""
        return self._draws(lambda features, part, seed: random_subspace(features, like[part].rank, seed))

    def shares(self, like: Erasers) -> list[Erasers]:
        """Drawn at random, of as much variance."""
        return self._draws(lambda features, part, seed: random_share(features, _moved(features, like[part].apply(features)), seed))

    def _each(self, make: Callable[[Float32[np.ndarray, "row d"], int], Made]) -> list[Made]:
        return [make(np.ascontiguousarray(self._features[self._rows.train, part]), part) for part in range(self._features.shape[1])]

    def _draws(self, make: Callable[[Float32[np.ndarray, "row d"], int, int], Eraser]) -> list[Erasers]:
        seeds = np.random.SeedSequence(self._seed).generate_state(_DRAWS * self._features.shape[1]).reshape(_DRAWS, -1)
        return [self._each(lambda features, part, own=own: make(features, part, int(own[part]))) for own in seeds]

    def moved(self, way: _Way) -> float:
        """Mean over its sets and over parts."""
        rows = self._features[self._rows.test]
        left = way.left(rows, self._rows.test)
        return float(np.mean([[_moved(rows[:, part], one[:, part]) for part in range(rows.shape[1])] for one in left])) if left else 0.0

    def decodable(self, way: _Way, labels: Sequence[Labels]) -> Estimate:
        """What fresh probes read off all parts side by side. All targets as one: a row for each target of each document."""
        rows, own = self._features[self._rows.test], [_at(one, self._rows.test) for one in labels]
        said = np.empty((len(own), len(self._fresh.test)), int)
        together = [[at] for at in range(len(own))] if way.asked is not None else [[*range(len(own))]]
        for targets, left in zip(together, way.left(rows, self._rows.test) or [rows]):
            left = left.reshape(len(left), -1)
            probes = fit_many(
                left[self._fresh.train], np.stack([own[at].values[self._fresh.train] for at in targets]), [len(own[at].names) for at in targets],
                family=Family.LOGISTIC, strengths=[Family.LOGISTIC.default] * len(targets),
            )  # fmt: skip
            said[targets] = [probe.predict(left[self._fresh.test]) for probe in probes]
        pooled = Predictions(
            labels=np.concatenate([one.values[self._fresh.test] for one in own]), classes=max(len(one.names) for one in own), predicted=said.ravel(),
            groups=np.tile(self._groups[self._rows.test][self._fresh.test], len(own)),
        )  # fmt: skip
        return estimates(Measure.BALANCED_ACCURACY, [pooled])[0]


def _at(labels: Labels, rows: Int[np.ndarray, "kept"]) -> Labels:
    return labels._replace(values=labels.values[rows])


def _moved(features: Float32[np.ndarray, "row d"], left: Float32[np.ndarray, "row d"]) -> float:
    """Squared distance that rows are moved, over their variance."""
    return float(((left - features) ** 2).sum() / ((features - features.mean(0)) ** 2).sum())


def _beside_random(fitting: _Fitting, labels: Sequence[Labels], what: str) -> list[_Way]:
    """Nothing, and a concept by two methods that do not know it, with their controls."""
    least, projected = fitting.leace(labels), fitting.inlp(labels)
    return [
        _Blind(name="nothing"),
        _Blind(name=f"{what}, LEACE", sets=[least]),
        _Blind(name="a random subspace of that rank (control)", sets=fitting.subspaces(least)),
        _Blind(name="a random subspace of that variance (control)", sets=fitting.shares(least)),
        _Blind(name=f"{what}, INLP", sets=[projected]),
        _Blind(name="a random subspace of INLP's rank (control)", sets=fitting.subspaces(projected)),
    ]


def _everybody(fitting: _Fitting, labels: Sequence[Labels], asked: Sequence[int], told: Sequence[Sequence[int]]) -> list[_Way]:
    """`told`: where each question's document has everybody at its end."""
    alone, by_class = [fitting.leace([one]) for one in labels], [fitting.qleace(one) for one in labels]
    others = [fitting.leace([other for other in labels if other is not one]) for one in labels]
    after = [(at + 1) % len(labels) for at in range(len(labels))]
    return [
        *_beside_random(fitting, labels, "where everybody is"),
        _Blind(name="where the person asked for is, LEACE", sets=alone, asked=asked),
        _Knowing(
            name="where the person asked for is, QLEACE", sets=by_class, labels=labels, asked=asked, classes=[own[at] for own, at in zip(told, asked)]
        ),
        _Knowing(
            name="where somebody else is, QLEACE (control)", sets=[by_class[at] for at in after], labels=[labels[at] for at in after], asked=asked,
            classes=[own[after[at]] for own, at in zip(told, asked)],
        ),
        _Blind(name="where all others are, LEACE (another concept)", sets=others, asked=asked),
    ]  # fmt: skip


def _answer(fitting: _Fitting, labels: Labels, other: Labels, known: Sequence[int], known_other: Sequence[int]) -> list[_Way]:
    """`known`: each question's answer; `known_other`: where somebody else is as it is asked."""
    same = [0] * len(known)
    return [
        *_beside_random(fitting, [labels], "the answer"),
        _Knowing(name="the answer, QLEACE", sets=[fitting.qleace(labels)], labels=[labels], asked=same, classes=known),
        _Knowing(name="where somebody else is, QLEACE (control)", sets=[fitting.qleace(other)], labels=[other], asked=same, classes=known_other),
        _Blind(name="where somebody else is, LEACE (another concept)", sets=[fitting.leace([other])]),
    ]


def _somebody_else(examples: Examples, people: Sequence[PlaceOf]) -> Labels:
    """Where the person is who comes after the one that each row's question asks for."""
    labels = [examples.label(target) for target in people]
    names = sorted({name for one in labels for name in one.names})
    places = np.array([[names.index(one.names[value]) if value >= 0 else UNKNOWN for value in one.values] for one in labels])
    asked = np.array([people.index(_asked(put)) for put in examples.puts])[examples.document]
    return Labels(places[(asked + 1) % len(people), np.arange(len(asked))], tuple(names))


def _told(fitting: _Fitting, labels: Sequence[Labels], way: _Way, clean: Observed | None, edited: Observed | None) -> Erased:
    return Erased(
        name=way.name, rank=max((one.rank for erasers in way.every for one in erasers), default=0), moved=fitting.moved(way),
        decodable=fitting.decodable(way, labels), right=None if edited is None else edited.share(),
        effect=None if edited is None else effect(measured(clean, edited, Metric.LOGIT_DIFFERENCE), clean.stories),
    )  # fmt: skip


def _beyond(one: Observed | None, other: Observed | None) -> Difference | None:
    if one is None or other is None:
        return None
    right = [[said == put.answer_ids for said, put in zip(each.said, each.puts)] for each in (one, other)]
    return difference(*right, one.stories)
