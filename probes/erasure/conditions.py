"""Conditions of the erasure experiment: what is erased for each question, and what that leaves for fresh probes."""

import math
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
"""Share of the documents on which fresh probes are fitted and tested."""
_DRAWS = 5
"""Random subspaces; questions take them in turn."""

Features = Float32[np.ndarray, "row part d"]
Erasers = Sequence[Eraser]
"""One for each part: a slot, or the whole stream."""
Fitted = TypeVar("Fitted")


@dataclass(frozen=True, kw_only=True)
class Place(ABC):
    """What is erased as a question's segment is read: the bank or a stream."""

    @abstractmethod
    def size(self, config: LM2Config) -> tuple[int, int]:
        """The number of parts, and of features of each."""

    @abstractmethod
    def sources(self, config: LM2Config) -> tuple[Source, ...]:
        """The features of each part."""

    @abstractmethod
    def unit(self, erasers: Erasers, encoded: EncodedPrompt) -> Unit: ...


@dataclass(frozen=True, kw_only=True)
class Bank(Place):
    """The bank that the question's segment begins with: every slot has an eraser of its own."""

    def size(self, config: LM2Config) -> tuple[int, int]:
        return config.slots, config.slot_dim

    def sources(self, config: LM2Config) -> tuple[Source, ...]:
        return tuple(source_names.parse(f"bank:slot{slot}") for slot in range(config.slots))

    def unit(self, erasers: Erasers, encoded: EncodedPrompt) -> Unit:
        return tuple(
            BankEdit(operation=eraser.operation, segments=(encoded.segment,), slots=(slot,))
            for slot, eraser in enumerate(erasers)
        )


@dataclass(frozen=True, kw_only=True)
class StreamPlace(Place):
    """The residual stream after a block, at every token of the question's segment; erasers are fitted on the question's
    last token."""

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
    """One way to erase, by one set of erasers or several."""

    name: str
    asked: Sequence[int] | None = None
    """The number of each question's set; the probe of a target is then fitted on what the set of its number leaves.
    None: questions take the sets in turn, and probes are fitted on what the first leaves."""

    @property
    @abstractmethod
    def every(self) -> list[Erasers]:
        """All erasers, by part."""

    @abstractmethod
    def erasers(self, question: int) -> Erasers:
        """The erasers for a question by its number."""

    @abstractmethod
    def left(self, features: Features, rows: Int[np.ndarray, "row"]) -> list[Features]:
        """What each set leaves of the features of these rows."""

    def unit(self, place: Place, question: int, encoded: EncodedPrompt) -> Unit:
        """The interventions for a question by its number."""
        return place.unit(self.erasers(question), encoded) if self.every else ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Uniform(ErasureCondition):
    """The same for all rows, whatever their class."""

    sets: Sequence[Erasers] = ()
    """Without any, nothing is erased."""

    @property
    def every(self) -> list[Erasers]:
        return [*self.sets]

    def erasers(self, question: int) -> Erasers:
        return self.sets[question % len(self.sets) if self.asked is None else self.asked[question]]

    def left(self, features: Features, rows: Int[np.ndarray, "row"]) -> list[Features]:
        return [_apply(erasers, features) for erasers in self.sets]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelAware(ErasureCondition):
    """By the class of each row."""

    sets: Sequence[Sequence[Erasers]]
    """Of each set, the erasers for each class; the last are for rows whose class is unknown."""
    labels: Sequence[Labels]
    """What each set erases."""
    asked: Sequence[int] = ()
    classes: Sequence[int]
    """Of each question, the class that its set erases."""

    @property
    def every(self) -> list[Erasers]:
        return [erasers for by_class in self.sets for erasers in by_class]

    def erasers(self, question: int) -> Erasers:
        return self.sets[self.asked[question]][self.classes[question]]

    def left(self, features: Features, rows: Int[np.ndarray, "row"]) -> list[Features]:
        by_set = [np.empty_like(features) for _ in self.sets]
        for left, by_class, labels in zip(by_set, self.sets, self.labels):
            for number, erasers in zip([*range(len(labels.names)), UNKNOWN], by_class):
                of_class = labels.values[rows] == number
                left[of_class] = _apply(erasers, features[of_class])
        return by_set


def _apply(erasers: Erasers, features: Features) -> Features:
    return np.stack([eraser.apply(features[:, part]) for part, eraser in enumerate(erasers)], axis=1)


class Fitting:
    """Fits erasers on some rows, and fresh probes on others that are held out."""

    def __init__(self, features: Features, groups: Shaped[np.ndarray, "row"], seed: int) -> None:
        self._features, self._groups, self._seed = features, groups, seed
        self._rows = hold_out(groups, _FRESH, seed)
        self._fresh = hold_out(groups[self._rows.test], 0.5, seed)

    def leace(self, labels: Sequence[Labels]) -> Erasers:
        train = [_of_rows(label, self._rows.train) for label in labels]
        return self._each(lambda features, part: leace(features, train))

    def qleace(self, label: Labels) -> list[Erasers]:
        """Erasers by class."""
        train = _of_rows(label, self._rows.train)
        return [*zip(*self._each(lambda features, part: qleace(features, train)))]

    def inlp(self, labels: Sequence[Labels]) -> Erasers:
        train, groups = [_of_rows(label, self._rows.train) for label in labels], self._groups[self._rows.train]
        return self._each(lambda features, part: inlp(features, train, groups, self._seed))

    def subspaces(self, like: Erasers) -> list[Erasers]:
        """Random subspaces of as many dimensions."""
        return self._draws(lambda features, part, seed: random_subspace(features, like[part].rank, seed))

    def shares(self, like: Erasers) -> list[Erasers]:
        """Random subspaces of as much variance."""
        return self._draws(
            lambda features, part, seed: random_share(features, _moved(features, like[part].apply(features)), seed)
        )

    def _each(self, fit: Callable[[Float32[np.ndarray, "row d"], int], Fitted]) -> list[Fitted]:
        return [
            fit(np.ascontiguousarray(self._features[self._rows.train, part]), part)
            for part in range(self._features.shape[1])
        ]

    def _draws(self, draw: Callable[[Float32[np.ndarray, "row d"], int, int], Eraser]) -> list[Erasers]:
        shape = (_DRAWS, self._features.shape[1])
        seeds = np.random.SeedSequence(self._seed).generate_state(math.prod(shape)).reshape(shape).tolist()
        return [self._each(lambda features, part, row=row: draw(features, part, row[part])) for row in seeds]

    def moved(self, condition: ErasureCondition) -> float:
        """The share of variance that is erased: mean over sets and parts."""
        features = self._features[self._rows.test]
        shares = [
            _moved(features[:, part], left[:, part])
            for left in condition.left(features, self._rows.test)
            for part in range(features.shape[1])
        ]
        return float(np.mean(shares)) if shares else 0.0

    def decodable(self, condition: ErasureCondition, labels: Sequence[Labels]) -> Estimate:
        """Balanced accuracy of fresh probes of all parts side by side, pooled over targets."""
        features, test = self._features[self._rows.test], [_of_rows(label, self._rows.test) for label in labels]
        predicted = np.empty((len(test), len(self._fresh.test)), int)
        every = range(len(test))
        targets_of_sets = [[target] for target in every] if condition.asked is not None else [[*every]]
        for targets, left in zip(targets_of_sets, condition.left(features, self._rows.test) or [features]):
            left = left.reshape(len(left), -1)
            probes = fit_many(
                left[self._fresh.train],
                np.stack([test[target].values[self._fresh.train] for target in targets]),
                [len(test[target].names) for target in targets],
                family=Family.LOGISTIC,
                strengths=[Family.LOGISTIC.default] * len(targets),
            )
            predicted[targets] = [probe.predict(left[self._fresh.test]) for probe in probes]
        pooled = Predictions(
            labels=np.concatenate([label.values[self._fresh.test] for label in test]),
            classes=max(len(label.names) for label in test),
            predicted=predicted.ravel(),
            groups=np.tile(self._groups[self._rows.test][self._fresh.test], len(test)),
        )
        return estimates(Measure.BALANCED_ACCURACY, [pooled])[0]


def _of_rows(labels: Labels, rows: Int[np.ndarray, "row"]) -> Labels:
    return labels._replace(values=labels.values[rows])


def _moved(features: Float32[np.ndarray, "row d"], left: Float32[np.ndarray, "row d"]) -> float:
    """Squared distance that rows are moved, over their variance."""
    return float(((left - features) ** 2).sum() / ((features - features.mean(0)) ** 2).sum())
