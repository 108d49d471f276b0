"""Ways to erase from parts of a bank or a stream: what is done to each question, and what is left of rows for fresh
probes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Int, Shaped

from lm2.model.config import LM2Config
from lm2.model.sites import Site
from lm2.runs.interventions import BankEdit, Edit
from lm2.tasks.encoded_prompt import EncodedPrompt
from probes.causal.batch import Unit
from probes.erasure.erasers import Eraser, inlp, leace, qleace, random_share, random_subspace
from probes.estimators.linear import fit_many
from probes.estimators.probe import Family
from probes.features import source_names
from probes.features.sources import Source
from probes.features.targets import UNKNOWN, Labels
from probes.stats.predictions import Measure, Predictions
from probes.stats.scores import Estimate, estimates
from probes.stats.splits import hold_out

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
    def unit(self, erasers: Erasers, encoded: EncodedPrompt) -> Unit: ...


@dataclass(frozen=True, kw_only=True)
class Bank(Place):
    """The bank with which the question's segment begins: every slot has an eraser of its own."""

    def size(self, config: LM2Config) -> tuple[int, int]:
        return config.slots, config.slot_dim

    def sources(self, config: LM2Config) -> tuple[Source, ...]:
        return tuple(source_names.parse(f"bank:slot{slot}") for slot in range(config.slots))

    def unit(self, erasers: Erasers, encoded: EncodedPrompt) -> Unit:
        return tuple(
            BankEdit(operation=one.operation, segments=(encoded.segment,), slots=(slot,))
            for slot, one in enumerate(erasers)
        )


@dataclass(frozen=True, kw_only=True)
class StreamPlace(Place):
    """The residual stream behind a block: every token of the question's segment, by what holds of the question's last
    one."""

    layer: int

    def size(self, config: LM2Config) -> tuple[int, int]:
        return 1, config.d_model

    def sources(self, config: LM2Config) -> tuple[Source, ...]:
        return (source_names.parse(f"resid_post.{self.layer}"),)

    def unit(self, erasers: Erasers, encoded: EncodedPrompt) -> Unit:
        return (
            Edit(
                site=Site.RESID_POST, operation=erasers[0].operation, layers=(self.layer,), segments=(encoded.segment,)
            ),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ErasureCondition(ABC):
    """One way to erase, which may be several sets of erasers."""

    name: str
    asked: Sequence[int] | None = None
    """The set for each question, and then a target's probe meets the set of its number; None: in turn, and then probes
    meet the first."""

    @property
    @abstractmethod
    def every(self) -> list[Erasers]: ...

    @abstractmethod
    def erasers(self, at: int) -> Erasers:
        """For the question of this number."""

    @abstractmethod
    def left(
        self, features: Float32[np.ndarray, "row part d"], rows: Int[np.ndarray, "row"]
    ) -> list[Float32[np.ndarray, "row part d"]]:
        """What each set leaves of rows."""

    def unit(self, place: Place, at: int, encoded: EncodedPrompt) -> Unit:
        """What is done to the question of this number."""
        return place.unit(self.erasers(at), encoded) if self.every else ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Uniform(ErasureCondition):
    """The same for all rows, whatever the truth."""

    sets: Sequence[Erasers] = ()
    """Without any, nothing is erased."""

    @property
    def every(self) -> list[Erasers]:
        return [*self.sets]

    def erasers(self, at: int) -> Erasers:
        return self.sets[at % len(self.sets) if self.asked is None else self.asked[at]]

    def left(
        self, features: Float32[np.ndarray, "row part d"], rows: Int[np.ndarray, "row"]
    ) -> list[Float32[np.ndarray, "row part d"]]:
        return [_apply(erasers, features) for erasers in self.sets]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelAware(ErasureCondition):
    """By the class that each row is of."""

    sets: Sequence[Sequence[Erasers]]
    """For each class, the last for rows of which it is not known."""
    labels: Sequence[Labels]
    """What each set erases."""
    asked: Sequence[int] = ()
    classes: Sequence[int]
    """Of each question, what its set erases."""

    @property
    def every(self) -> list[Erasers]:
        return [erasers for one in self.sets for erasers in one]

    def erasers(self, at: int) -> Erasers:
        return self.sets[self.asked[at]][self.classes[at]]

    def left(
        self, features: Float32[np.ndarray, "row part d"], rows: Int[np.ndarray, "row"]
    ) -> list[Float32[np.ndarray, "row part d"]]:
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


class Fitting:
    """Rows to fit erasers on, and others to fit and ask fresh probes."""

    def __init__(
        self, features: Float32[np.ndarray, "row part d"], groups: Shaped[np.ndarray, "row"], seed: int
    ) -> None:
        self._features, self._groups, self._seed = features, groups, seed
        self._rows = hold_out(groups, _FRESH, seed)
        self._fresh = hold_out(groups[self._rows.test], 0.5, seed)

    def leace(self, labels: Sequence[Labels]) -> Erasers:
        own = [_at(label, self._rows.train) for label in labels]
        return self._each(lambda features, part: leace(features, own))

    def qleace(self, one: Labels) -> list[Erasers]:
        """Erasers by class."""
        own = _at(one, self._rows.train)
        return [*zip(*self._each(lambda features, part: qleace(features, own)))]

    def inlp(self, labels: Sequence[Labels]) -> Erasers:
        own, groups = [_at(label, self._rows.train) for label in labels], self._groups[self._rows.train]
        return self._each(lambda features, part: inlp(features, own, groups, self._seed))

    def subspaces(self, like: Erasers) -> list[Erasers]:
        """Drawn at random, of as many dimensions."""
        return self._draws(lambda features, part, seed: random_subspace(features, like[part].rank, seed))

    def shares(self, like: Erasers) -> list[Erasers]:
        """Drawn at random, of as much variance."""
        return self._draws(
            lambda features, part, seed: random_share(features, _moved(features, like[part].apply(features)), seed)
        )

    def _each(self, make: Callable[[Float32[np.ndarray, "row d"], int], Made]) -> list[Made]:
        return [
            make(np.ascontiguousarray(self._features[self._rows.train, part]), part)
            for part in range(self._features.shape[1])
        ]

    def _draws(self, make: Callable[[Float32[np.ndarray, "row d"], int, int], Eraser]) -> list[Erasers]:
        seeds = np.random.SeedSequence(self._seed).generate_state(_DRAWS * self._features.shape[1]).reshape(_DRAWS, -1)
        return [self._each(lambda features, part, own=own: make(features, part, int(own[part]))) for own in seeds]

    def moved(self, way: ErasureCondition) -> float:
        """Mean over its sets and over parts."""
        rows = self._features[self._rows.test]
        left = way.left(rows, self._rows.test)
        return (
            float(np.mean([[_moved(rows[:, part], one[:, part]) for part in range(rows.shape[1])] for one in left]))
            if left
            else 0.0
        )

    def decodable(self, way: ErasureCondition, labels: Sequence[Labels]) -> Estimate:
        """What fresh probes read off all parts side by side. All targets as one: a row for each target of each
        document."""
        rows, own = self._features[self._rows.test], [_at(label, self._rows.test) for label in labels]
        said = np.empty((len(own), len(self._fresh.test)), int)
        together = [[at] for at in range(len(own))] if way.asked is not None else [[*range(len(own))]]
        for targets, left in zip(together, way.left(rows, self._rows.test) or [rows]):
            left = left.reshape(len(left), -1)
            probes = fit_many(
                left[self._fresh.train],
                np.stack([own[at].values[self._fresh.train] for at in targets]),
                [len(own[at].names) for at in targets],
                family=Family.LOGISTIC,
                strengths=[Family.LOGISTIC.default] * len(targets),
            )
            said[targets] = [probe.predict(left[self._fresh.test]) for probe in probes]
        pooled = Predictions(
            labels=np.concatenate([one.values[self._fresh.test] for one in own]),
            classes=max(len(one.names) for one in own),
            predicted=said.ravel(),
            groups=np.tile(self._groups[self._rows.test][self._fresh.test], len(own)),
        )
        return estimates(Measure.BALANCED_ACCURACY, [pooled])[0]


def _at(labels: Labels, rows: Int[np.ndarray, "kept"]) -> Labels:
    return labels._replace(values=labels.values[rows])


def _moved(features: Float32[np.ndarray, "row d"], left: Float32[np.ndarray, "row d"]) -> float:
    """Squared distance that rows are moved, over their variance."""
    return float(((left - features) ** 2).sum() / ((features - features.mean(0)) ** 2).sum())
