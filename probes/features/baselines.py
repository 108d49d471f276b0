"""Baselines: features of the segment's text up to the row's token, without a model."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lm2.model.config import LM2Config
from lm2.text.segments import Segment
from probes.features.examples import Examples, RowPosition
from probes.features.sources import Condition, Source


class SegmentRows(NamedTuple):
    """The rows of one segment."""

    segment: Segment
    positions: Int[np.ndarray, "row"]
    """Of the rows' tokens in the segment."""
    examples: Examples
    embedding: Float[np.ndarray, "d_vocab d_model"]


@dataclass(frozen=True, kw_only=True)
class TextBaseline(Source, ABC):
    """Features of the text alone, to compare a model's with."""

    def check_condition(self, config: LM2Config) -> None:
        if self.condition is not Condition.TRAINED:
            raise ValueError(f"{self.name} depends on the text alone: it cannot be {self.condition.value}")

    def exists(self, config: LM2Config, moment: RowPosition) -> bool:
        return True

    @abstractmethod
    def features(self, rows: SegmentRows) -> Float[np.ndarray, "row d"]: ...


@dataclass(frozen=True, kw_only=True)
class Tokens(TextBaseline):
    """Counts of each token so far; a column for every token of the documents, in the order of their ids."""

    @property
    def name(self) -> str:
        return "tokens"

    def width(self, config: LM2Config, examples: Examples) -> int:
        return len(examples.vocabulary)

    def features(self, rows: SegmentRows) -> Float[np.ndarray, "row d"]:
        return (np.array(rows.segment.ids)[:, None] == rows.examples.vocabulary).cumsum(0)[rows.positions]


@dataclass(frozen=True, kw_only=True)
class Embedding(TextBaseline):
    """Mean embedding of the tokens so far."""

    @property
    def name(self) -> str:
        return "embedding"

    def width(self, config: LM2Config, examples: Examples) -> int:
        return config.d_model

    def features(self, rows: SegmentRows) -> Float[np.ndarray, "row d"]:
        return rows.embedding[list(rows.segment.ids)].cumsum(0)[rows.positions] / (rows.positions + 1)[:, None]


@dataclass(frozen=True, kw_only=True)
class Position(TextBaseline):
    """The segment's number and the token's position in it, one-hot."""

    @property
    def name(self) -> str:
        return "position"

    def width(self, config: LM2Config, examples: Examples) -> int:
        return int(examples.segment.max() + examples.position.max()) + 2

    def features(self, rows: SegmentRows) -> Float[np.ndarray, "row d"]:
        segments = int(rows.examples.segment.max()) + 1
        one_hot = np.zeros((len(rows.positions), segments + int(rows.examples.position.max()) + 1))
        one_hot[:, rows.segment.index] = 1
        one_hot[np.arange(len(rows.positions)), segments + rows.positions] = 1
        return one_hot
