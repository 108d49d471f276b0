"""Baselines: what the text of a row's segment tells up to the row's token, without a model that reads it."""

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
class OfText(Source, ABC):
    """What the text alone tells: features that a probe of a model should be beside."""

    def check_condition(self, config: LM2Config) -> None:
        if self.condition is not Condition.TRAINED:
            raise ValueError(f"{self.own} is the text's own: it cannot be {self.condition.value}")

    def there(self, config: LM2Config, moment: RowPosition) -> bool:
        return True

    @abstractmethod
    def rows(self, at: SegmentRows) -> Float[np.ndarray, "row d"]:
        """The features of the rows of one segment."""


@dataclass(frozen=True, kw_only=True)
class Tokens(OfText):
    """How often each token has occurred; a column for every token of the documents, in the order of their ids."""

    @property
    def own(self) -> str:
        return "tokens"

    def width(self, config: LM2Config, examples: Examples) -> int:
        return len(examples.vocabulary)

    def rows(self, at: SegmentRows) -> Float[np.ndarray, "row d"]:
        return (np.array(at.segment.ids)[:, None] == at.examples.vocabulary).cumsum(0)[at.positions]


@dataclass(frozen=True, kw_only=True)
class Embedding(OfText):
    """The mean of the tokens' embeddings."""

    @property
    def own(self) -> str:
        return "embedding"

    def width(self, config: LM2Config, examples: Examples) -> int:
        return config.d_model

    def rows(self, at: SegmentRows) -> Float[np.ndarray, "row d"]:
        return at.embedding[list(at.segment.ids)].cumsum(0)[at.positions] / (at.positions + 1)[:, None]


@dataclass(frozen=True, kw_only=True)
class Position(OfText):
    """The number of the segment and the token's place in it, a column for each number of either."""

    @property
    def own(self) -> str:
        return "position"

    def width(self, config: LM2Config, examples: Examples) -> int:
        return int(examples.segment.max() + examples.position.max()) + 2

    def rows(self, at: SegmentRows) -> Float[np.ndarray, "row d"]:
        segments, tokens = int(at.examples.segment.max()) + 1, int(at.examples.position.max()) + 1
        found = np.zeros((len(at.positions), segments + tokens))
        found[:, at.segment.index] = 1
        found[np.arange(len(at.positions)), segments + at.positions] = 1
        return found
