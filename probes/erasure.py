"""Is what can be read off the bank used? A concept is erased from every slot as the question's segment begins, and the model is asked.

Slots are erased one by one. LEACE leaves no covariance between a slot and the concept (Belrose et al. 2023), and so none between
all slots side by side and the concept: no linear reader of the whole bank is better than a constant. A model reads with keys,
values and gates, which is no linear reader; what it can still tell is part of the answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from concept_erasure import LeaceFitter
from jaxtyping import Float, Float32, Int

from lm2.asking import Put
from lm2.checkpoint import Checkpoint
from lm2.intervals import Rate
from lm2.interventions import BankEdit, Erase
from lm2.trace import read_only
from probes.ablations import Observed, OnDocument, constant, measured, observe
from probes.dataset import collect
from probes.documents import Documents
from probes.effects import Effect, effect
from probes.examples import Examples, Moment
from probes.linear import Family, fit_many
from probes.metrics import Metric
from probes.packing import Unit
from probes.scores import Estimate, Measure, Predictions, estimates
from probes.sources import Source
from probes.splits import hold_out
from probes.targets import Labels, PlaceOf, Target, expand

FITTED = 2000
"""Simulated documents that erasers and probes are fitted on, and fresh probes asked of: none of those whose questions are answered."""
SEED = 700_000
"""Of the first of them."""
_DRAWS = 5
"""Random subspaces."""
_ROUNDS = 4
"""Of INLP."""
_PENALTY = 0.1


class Method(Enum):
    """How a concept is erased."""

    LEACE = "LEACE"
    """The least change after which no linear reader finds it."""
    INLP = "INLP"
    """Projecting out what linear probes read by, again and again (Ravfogel et al. 2020)."""
    RANDOM = "random subspace"
    """The control: as many dimensions, drawn at random."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Eraser:
    """x becomes x - left' right (x - mean), with read-only arrays."""

    method: Method
    left: Float32[np.ndarray, "rank d"]
    right: Float32[np.ndarray, "rank d"]
    mean: Float32[np.ndarray, "d"]

    @property
    def rank(self) -> int:
        return len(self.left)

    def apply(self, features: Float32[np.ndarray, "row d"]) -> Float32[np.ndarray, "row d"]:
        return features - (features - self.mean) @ self.right.T @ self.left

    @property
    def operation(self) -> Erase:
        """The same, for a run."""
        return Erase(left=_rows(self.left), right=_rows(self.right), mean=tuple(self.mean.tolist()))


def _rows(array: Float32[np.ndarray, "rank d"]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, array.tolist()))


def leace(features: Float32[np.ndarray, "row d"], labels: Sequence[Labels]) -> Eraser:
    """Erases several targets at once: the concept has a column for each class of each, and rows of which a target says nothing have 0 there."""
    concept = np.concatenate([_indicators(one) for one in labels], axis=1)
    fitted = LeaceFitter.fit(torch.from_numpy(features).double(), torch.from_numpy(concept).double()).eraser
    left, right = fitted.proj_left.T.numpy(), fitted.proj_right.numpy()
    kept = np.abs(right).sum(1) > 0
    return _eraser(Method.LEACE, left[kept], right[kept], fitted.bias.numpy())


def inlp(features: Float32[np.ndarray, "row d"], labels: Sequence[Labels], rounds: int = _ROUNDS) -> Eraser:
    """Each round projects out the directions of ridge probes of all targets, fitted on what the rounds before have left."""
    basis = np.zeros((0, features.shape[1]))
    for _ in range(rounds):
        left = features - (features - features.mean(0)) @ basis.T @ basis
        probes = fit_many(
            left.astype(np.float32), np.stack([one.values for one in labels]), [len(one.names) for one in labels], family=Family.RIDGE,
            strengths=[_PENALTY] * len(labels),
        )  # fmt: skip
        found = np.concatenate([basis.T, *[probe.raw_direction - probe.raw_direction.mean(1, keepdims=True) for probe in probes]], axis=1)
        vectors, sizes, _ = np.linalg.svd(found / np.maximum(np.linalg.norm(found, axis=0), 1e-12), full_matrices=False)
        basis = vectors[:, sizes > 1e-3 * sizes[0]].T
    return _eraser(Method.INLP, basis, basis, features.mean(0))


def random_subspace(features: Float32[np.ndarray, "row d"], rank: int, seed: int) -> Eraser:
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((features.shape[1], rank)))[0].T
    return _eraser(Method.RANDOM, basis, basis, features.mean(0))


def _eraser(method: Method, left: Float[np.ndarray, "rank d"], right: Float[np.ndarray, "rank d"], mean: Float[np.ndarray, "d"]) -> Eraser:
    arrays = (read_only(np.ascontiguousarray(array, np.float32)) for array in (left, right, mean))
    return Eraser(method=method, **dict(zip(("left", "right", "mean"), arrays)))


def _indicators(labels: Labels) -> Float[np.ndarray, "row class"]:
    return (labels.values[:, None] == np.arange(len(labels.names))).astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Erased:
    """One way to erase, and both of its ends."""

    name: str
    rank: int
    """Dimensions a slot, the largest over slots; 0 where nothing is erased."""
    moved: float
    """Share of the slots' variance that is taken away."""
    decodable: Estimate
    """Balanced accuracy of fresh linear probes of all slots side by side, pooled over what is erased, on stories that neither they
    nor the erasers were fitted on."""
    right: Rate
    """Questions answered."""
    effect: Effect
    """Change of the answer's logit difference."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Erasure:
    """A concept erased from the bank: how well it can be read, beside what the model does without it."""

    targets: tuple[Target, ...]
    conditions: tuple[Erased, ...]
    """Nothing erased is the first."""
    chance: Rate
    """The best constant answer."""
    documents: int
    """Read to fit on and to ask fresh probes of."""


def erasure(checkpoint: Checkpoint, puts: Sequence[Put], *, seed: int = 0, on_document: OnDocument = lambda: None) -> Erasure:
    """Where every person is, erased from every slot, beside random subspaces of the same rank and beside other concepts.

    Other concepts: for each question, the place of the person it asks for alone, and the places of all others. `on_document`
    is called once for each document to fit on and once a question. Raises ValueError for questions that ask for nobody's place.
    """
    task = puts[0].prompt.task
    examples = Examples.of(
        checkpoint, Documents(tasks=(1 if task is None else task,), count=FITTED, seed=SEED + seed), Moment.QUESTION, puts[0].spec.segment_length
    )
    targets = tuple(target for target in expand(("place of *",), examples) if isinstance(target, PlaceOf))
    asked = [_asked(put, targets) for put in puts]
    labels = {target: examples.label(target) for target in targets}
    sources = {slot: Source.parse(f"bank:slot{slot}") for slot in range(checkpoint.config.slots)}
    found = collect(checkpoint, examples, list(sources.values()), on_document=on_document)
    slots = np.stack([found[source] for source in sources.values()], axis=1)
    halves = _Halves(slots, labels, examples, seed)
    ways = _ways(halves, asked, seed)
    units = [[_edits(way.set_of(at), put) for at, put in enumerate(puts)] for way in ways]
    clean, *seen = observe(checkpoint, puts, [[()] * len(puts), *units], on_document)
    told = [_told(halves, way, clean, edited) for way, edited in zip([None, *ways], [clean, *seen])]
    return Erasure(targets=targets, conditions=tuple(told), chance=constant(puts), documents=len(examples))


Erasers = Sequence[Eraser]
"""One a slot."""


class _Halves:
    """Banks to fit on, and others to ask fresh probes of."""

    def __init__(
        self, slots: Float32[np.ndarray, "row slot slot_dim"], labels: Mapping[Target, Labels], examples: Examples, seed: int
    ) -> None:
        first = hold_out(examples.groups, 0.5, seed)
        self.fitted, self.labels = slots[first.train], {target: _at(one, first.train) for target, one in labels.items()}
        self._slots, self._groups = slots[first.test], examples.groups[first.test]
        self._own = [_at(one, first.test) for one in labels.values()]
        self._fold = hold_out(self._groups, 0.5, seed)

    def each(self, make: Callable[[Float32[np.ndarray, "row slot_dim"], int], Eraser]) -> Erasers:
        """An eraser for each slot."""
        return [make(np.ascontiguousarray(self.fitted[:, slot]), slot) for slot in range(self.fitted.shape[1])]

    def moved(self, sets: Sequence[Erasers]) -> float:
        """Share of the variance of slots that is taken away, mean over sets."""
        whole = float(((self._slots - self._slots.mean(0)) ** 2).sum())
        return float(np.mean([((_left(one, self._slots) - self._slots) ** 2).sum() / whole for one in sets]))

    def decodable(self, sets: Sequence[tuple[Erasers | None, Sequence[int]]]) -> Estimate:
        """What fresh probes read of some targets, by number, off what each set of erasers leaves."""
        said, true, fold = [], [], self._fold
        for erasers, targets in sets:
            own = [self._own[at] for at in targets]
            left = _left(erasers, self._slots).reshape(len(self._slots), -1)
            labels, classes = np.stack([one.values for one in own]), [len(one.names) for one in own]
            probes = fit_many(left[fold.train], labels[:, fold.train], classes, family=Family.RIDGE, strengths=[_PENALTY] * len(own))
            said += [probe.predict(left[fold.test]) for probe in probes]
            true += [one[fold.test] for one in labels]
        pooled = Predictions(
            labels=np.concatenate(true), predicted=np.concatenate(said), groups=np.tile(self._groups[fold.test], len(said)),
            classes=max(len(one.names) for one in self._own),
        )  # fmt: skip
        return estimates(Measure.BALANCED_ACCURACY, [pooled])[0]


def _left(erasers: Erasers | None, slots: Float32[np.ndarray, "row slot slot_dim"]) -> Float32[np.ndarray, "row slot slot_dim"]:
    return slots if erasers is None else np.stack([one.apply(slots[:, slot]) for slot, one in enumerate(erasers)], axis=1)


def _at(labels: Labels, rows: Int[np.ndarray, "kept"]) -> Labels:
    return labels._replace(values=labels.values[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Way:
    """One way to erase."""

    name: str
    sets: Sequence[Erasers]
    targets: Sequence[Sequence[int]]
    """What each set erases, or is a control for."""
    of: Sequence[int] | None = None
    """The set of each question; None, in turn."""

    def set_of(self, question: int) -> Erasers:
        return self.sets[question % len(self.sets) if self.of is None else self.of[question]]


def _ways(halves: _Halves, asked: Sequence[int], seed: int) -> list[_Way]:
    labels, every = list(halves.labels.values()), range(len(halves.labels))
    rest = [[other for other in every if other != one] for one in every]
    everybody = halves.each(lambda x, slot: leace(x, labels))
    projected = halves.each(lambda x, slot: inlp(x, labels))

    def beside(like: Erasers, name: str) -> _Way:
        sets = [halves.each(lambda x, slot, draw=draw: random_subspace(x, like[slot].rank, 1000 * seed + 100 * draw + slot)) for draw in range(_DRAWS)]
        return _Way(name=name, sets=sets, targets=[every] * _DRAWS)

    return [
        _Way(name="where everybody is, LEACE", sets=[everybody], targets=[every]),
        beside(everybody, "a random subspace of that rank (control)"),
        _Way(name=f"where everybody is, INLP of {_ROUNDS} rounds", sets=[projected], targets=[every]),
        beside(projected, "a random subspace of INLP's rank (control)"),
        _Way(
            name="where the person asked for is, LEACE", sets=[halves.each(lambda x, slot, one=one: leace(x, [labels[one]])) for one in every],
            targets=[[one] for one in every], of=asked,
        ),
        _Way(
            name="where all others are, LEACE (another concept)",
            sets=[halves.each(lambda x, slot, few=few: leace(x, [labels[one] for one in few])) for few in rest], targets=rest, of=asked,
        ),
    ]  # fmt: skip


def _edits(erasers: Erasers, put: Put) -> Unit:
    """As the question's segment begins."""
    return tuple(BankEdit(operation=one.operation, segments=(put.segment,), slots=(slot,)) for slot, one in enumerate(erasers))


def _told(halves: _Halves, way: _Way | None, clean: Observed, edited: Observed) -> Erased:
    pairs = [(None, range(len(halves.labels)))] if way is None else list(zip(way.sets, way.targets))
    return Erased(
        name="nothing" if way is None else way.name, rank=0 if way is None else max(one.rank for erasers in way.sets for one in erasers),
        moved=0.0 if way is None else halves.moved(way.sets), decodable=halves.decodable(pairs), right=edited.share(),
        effect=effect(measured(clean, edited, Metric.LOGIT_DIFFERENCE), clean.stories),
    )  # fmt: skip


def _asked(put: Put, targets: Sequence[PlaceOf]) -> int:
    """The target that a question asks for."""
    for at, target in enumerate(targets):
        if put.prompt.question == f"Where is {target.name}?":
            return at
    raise ValueError(f"{put.prompt.question!r} asks for nobody's place: erasing where everybody is is an experiment of qa1")
