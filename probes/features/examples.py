"""Examples: places in documents at which something is to be read off a model, and the documents that each may not be
parted from."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from lm2.runs.trace import read_only
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.tasks.world import World, track
from lm2.text.segments import Segment
from lm2.weights.checkpoint import Checkpoint
from probes.features.documents import Document, Documents, names
from probes.stats.splits import groups

if TYPE_CHECKING:
    from probes.features.targets import Labels, Target

POLICY = "a fresh bank for every document"
"""What the memory holds as a document begins. Nothing is carried over from one document to another."""


class RowPosition(Enum):
    """Where in a document rows are. The bank of a row is the one that its segment begins with, unless a member says
    otherwise."""

    SEGMENT = "segment"
    """The last token of every segment before the question's. The bank is the one that the segment hands on."""
    STATEMENT = "statement"
    """The last token of every statement."""
    QUESTION = "question"
    """The last token of the question."""
    TOKEN = "token"
    """Every token of every statement."""

    @property
    def ends(self) -> bool:
        """Whether nothing that is read of a row's segment stands behind the row, so that what the segment writes is
        about no later token."""
        return self in (RowPosition.SEGMENT, RowPosition.QUESTION)

    def places(self, encoded: EncodedPrompt) -> list[int]:
        """The tokens of a document that are rows, in order."""
        if self is RowPosition.SEGMENT:
            return [segment.end - 1 for segment in encoded.segments[: encoded.segment]]
        if self is RowPosition.STATEMENT:
            return [span[-1] for span in encoded.statements]
        if self is RowPosition.QUESTION:
            return [encoded.question[-1]]
        return [place for span in encoded.statements for place in span]


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Rows of documents, in the documents' order. Every source of features and every target has these rows.

    Raises ValueError for rows without a group, and where there is no row.
    """

    encoded_prompts: tuple[EncodedPrompt, ...]
    """The documents. They are read up to the question's last token: no row sees an answer."""
    moment: RowPosition
    digest: str
    """SHA-256 of the weights whose tokenizer and segments these are."""
    slots: int
    """Of that model's bank."""
    document: Int[np.ndarray, "row"]
    segment: Int[np.ndarray, "row"]
    position: Int[np.ndarray, "row"]
    """Of the token in its segment, from 0."""
    token: Int[np.ndarray, "row"]
    """Its id."""
    told: Int[np.ndarray, "row"]
    """Statements that end at the token or before it."""
    fact_distance: Int[np.ndarray, "row"]
    """Segments since the last supporting fact of the coming question; -1 before it, and where the file names no
    fact."""
    kind: Shaped[np.ndarray, "row"]
    """The last statement told, "" before the first: the type of a row that Hewitt and Liang (2019) give a control label
    to."""
    groups: Shaped[np.ndarray, "row"]
    """Rows of one group stay on one side of every split."""
    changes: Float[np.ndarray, "row slot"] | None = None
    """How far the row's segment moves each slot, over the slot's norm before; None until `probes.features.collect` has
    measured it."""

    def __post_init__(self) -> None:
        if len(self.groups) != len(self.document) or not all(self.groups):
            raise ValueError(
                f"every row needs a group: {sum(map(bool, self.groups))} of {len(self.document)} rows have one"
            )
        if not len(self.document):
            raise ValueError(
                f"none of {len(self.encoded_prompts)} documents has a row where the moment is {self.moment.value}"
            )

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, documents: Documents, moment: RowPosition, segment_length: int | None = None
    ) -> "Examples":
        """The rows of a choice of documents, as a checkpoint reads them. Raises ValueError as `Documents.asked` and
        `encode_prompt` do."""
        return cls.among(checkpoint, documents.asked(checkpoint.tokenizer), moment, segment_length)

    @classmethod
    def among(
        cls,
        checkpoint: Checkpoint,
        documents: Sequence[Document],
        moment: RowPosition,
        segment_length: int | None = None,
    ) -> "Examples":
        """The rows of these documents. Those that share a story, a passage or a template are one group."""
        encoded_prompts = tuple(encode_prompt(checkpoint, document.prompt, segment_length) for document in documents)
        joined = groups(*zip(*(document.shared for document in documents)))
        columns = [
            np.concatenate(column)
            for column in zip(*(_columns(encoded_prompt, moment) for encoded_prompt in encoded_prompts))
        ]
        document = np.repeat(
            np.arange(len(encoded_prompts)), [len(moment.places(encoded_prompt)) for encoded_prompt in encoded_prompts]
        )
        arrays = dict(zip(("segment", "position", "token", "told", "fact_distance", "kind"), columns, strict=True))
        arrays |= {"document": document, "groups": np.asarray(joined)[document]}
        return cls(
            encoded_prompts=encoded_prompts,
            moment=moment,
            digest=checkpoint.digest,
            slots=checkpoint.config.slots,
            **{name: read_only(array) for name, array in arrays.items()},
        )

    def __len__(self) -> int:
        return len(self.document)

    @cached_property
    def place(self) -> Int[np.ndarray, "row"]:
        """Of the token in its document."""
        starts = [
            np.array([segment.start for segment in encoded_prompt.segments]) for encoded_prompt in self.encoded_prompts
        ]
        return read_only(
            np.array([starts[at][segment] for at, segment in zip(self.document, self.segment)]) + self.position
        )

    @cached_property
    def read(self) -> tuple[tuple[Segment, ...], ...]:
        """What is read of each document: its segments up to that of its last row, and no token behind the question."""
        last = np.full(len(self.encoded_prompts), -1)
        np.maximum.at(last, self.document, self.segment)
        return tuple(
            tuple(_up_to(segment, one.question.stop) for segment in one.segments[: at + 1])
            for one, at in zip(self.encoded_prompts, last)
        )

    @cached_property
    def pieces(self) -> dict[tuple[int, int], slice]:
        """The rows of each segment that has some, by document and segment."""
        new = np.flatnonzero(np.diff(self.document, prepend=-1) | np.diff(self.segment, prepend=-1))
        return {
            (int(self.document[start]), int(self.segment[start])): slice(int(start), int(stop))
            for start, stop in zip(new, [*new[1:], len(self)])
        }

    @cached_property
    def vocabulary(self) -> Int[np.ndarray, "token"]:
        """Ids of the tokens that are read, in order."""
        return np.unique([token for segments in self.read for segment in segments for token in segment.ids])

    @cached_property
    def worlds(self) -> tuple[tuple[World, ...], ...]:
        """Of each document, what is known after each of its statements."""
        return tuple(track(encoded_prompt.prompt.statements) for encoded_prompt in self.encoded_prompts)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every person, place and object that a statement names."""
        return names(encoded_prompt.prompt for encoded_prompt in self.encoded_prompts)

    def label(self, target: "Target") -> "Labels":
        """What a target says of each row. Raises ValueError for one that these documents do not hold."""
        return target.label(self)

    def table(self) -> pd.DataFrame:
        """A row per example, in order. A file of own labels counts rows as the column `row` does."""
        ids = [encoded_prompt.prompt.group for encoded_prompt in self.encoded_prompts]
        return pd.DataFrame(
            {
                "row": np.arange(len(self)),
                "document": self.document,
                "story": [ids[at] for at in self.document],
                "group": self.groups,
                "segment": self.segment,
                "position": self.position,
                "fact_distance": self.fact_distance,
                "token": [self.encoded_prompts[at].tokens.shown[place] for at, place in zip(self.document, self.place)],
                "statement": self.kind,
                "moment": self.moment.value,
                "policy": POLICY,
                "checkpoint": self.digest,
            }
        )


def _columns(encoded: EncodedPrompt, moment: RowPosition) -> tuple[np.ndarray, ...]:
    """Segment, position, token, told, fact_distance and kind of one document's rows."""
    places = np.array(moment.places(encoded), dtype=int)
    ends, starts = (np.array([getattr(segment, name) for segment in encoded.segments]) for name in ("end", "start"))
    segment = np.searchsorted(ends, places, side="right")
    told = np.searchsorted([span[-1] for span in encoded.statements], places, side="right")
    distance = np.full(len(places), -1)
    if encoded.facts:
        last = max(encoded.prompt.support)
        distance = np.where(told > last, segment - encoded.segment_of(encoded.statements[last][-1]), -1)
    kinds = np.array(["", *encoded.prompt.statements])
    return segment, places - starts[segment], np.array(encoded.tokens.ids)[places], told, distance, kinds[told]


def _up_to(segment: Segment, stop: int) -> Segment:
    """A segment without the tokens from place `stop` on."""
    return (
        segment
        if segment.end <= stop
        else Segment(index=segment.index, start=segment.start, ids=segment.ids[: stop - segment.start])
    )
