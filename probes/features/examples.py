"""Examples: the rows of probes, which are tokens of documents, and the group of each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from lm2.runs.trace import read_only
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompts
from lm2.tasks.world import World, track
from lm2.text.segments import Segment
from lm2.weights.checkpoint import Checkpoint
from probes.features.documents import Document, Documents, check_babi, names
from probes.stats.splits import groups

POLICY = "a fresh bank for every document"
"""The memory at the start of a document: nothing is carried over from another document."""


class RowPosition(Enum):
    """Which tokens of a document are rows. A row's bank is the one that its segment starts with, unless a member says
    otherwise."""

    SEGMENT = "segment"
    """The last token of every segment before the question's. The bank is the one that the segment passes on."""
    STATEMENT = "statement"
    """The last token of every statement."""
    QUESTION = "question"
    """The last token of the question."""
    TOKEN = "token"
    """Every token of every statement."""

    @property
    def ends(self) -> bool:
        """Whether rows are the last tokens read of their segments, so that what the segment writes depends on no later
        token."""
        return self in (RowPosition.SEGMENT, RowPosition.QUESTION)

    def places(self, encoded: EncodedPrompt) -> list[int]:
        """The places of a document's rows, in order."""
        if self is RowPosition.SEGMENT:
            return [segment.end - 1 for segment in encoded.segments[: encoded.segment]]
        if self is RowPosition.STATEMENT:
            return [span[-1] for span in encoded.statements]
        if self is RowPosition.QUESTION:
            return [encoded.question[-1]]
        return [place for span in encoded.statements for place in span]


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Rows of documents, in the documents' order, shared by every source of features and every target.

    Raises ValueError for rows without a group, and without rows.
    """

    encoded_prompts: tuple[EncodedPrompt, ...]
    """The documents, which are read up to the question's last token: no row sees an answer."""
    moment: RowPosition
    digest: str
    """The checkpoint's, whose tokenizer and segments these are."""
    slots: int
    """Slots of that model's bank."""
    document: Int[np.ndarray, "row"]
    segment: Int[np.ndarray, "row"]
    position: Int[np.ndarray, "row"]
    """Of the token in its segment, from 0."""
    token: Int[np.ndarray, "row"]
    """Token id."""
    statements: Int[np.ndarray, "row"]
    """How many statements end at the token or before it."""
    fact_distance: Int[np.ndarray, "row"]
    """Segments since the last supporting fact of the coming question; -1 before it, and if no fact is named."""
    last_statement: Shaped[np.ndarray, "row"]
    """Its text, "" before the first: the row's type in the control task of Hewitt and Liang (2019)."""
    groups: Shaped[np.ndarray, "row"]
    """Rows of one group stay on one side of every split."""
    skipped: tuple[str, ...] = ()
    """The documents that the tokenizer cannot take, and why."""
    changes: Float[np.ndarray, "row slot"] | None = None
    """Change of each slot in the row's segment, over the slot's norm before; None unless `probes.features.collect`
    measured it."""

    def __post_init__(self) -> None:
        if len(self.groups) != len(self.document) or not all(self.groups):
            raise ValueError(
                f"every row needs a group; {sum(map(bool, self.groups))} of {len(self.document)} rows have one"
            )
        if not len(self.document):
            raise ValueError(
                f"none of {len(self.encoded_prompts)} documents has a row where the moment is {self.moment.value}"
            )

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, documents: Documents, moment: RowPosition, segment_length: int | None = None
    ) -> "Examples":
        """The rows of a choice of documents, as a checkpoint reads them. Raises ValueError as `Documents.load` and
        `encode_prompts` do."""
        return cls.among(checkpoint, documents.load(checkpoint.tokenizer), moment, segment_length)

    @classmethod
    def among(
        cls,
        checkpoint: Checkpoint,
        documents: Sequence[Document],
        moment: RowPosition,
        segment_length: int | None = None,
    ) -> "Examples":
        """The rows of these documents. Those that share a story, a passage or a template are one group."""
        encoded_prompts, skipped = encode_prompts(
            checkpoint, [document.prompt for document in documents], segment_length
        )
        asked = {encoded.prompt for encoded in encoded_prompts}
        shared = [document.shared for document in documents if document.prompt in asked]
        tables = [_columns(encoded, moment) for encoded in encoded_prompts]
        document = np.repeat(np.arange(len(tables)), [len(table["segment"]) for table in tables])
        arrays = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
        arrays |= {"document": document, "groups": groups(*zip(*shared))[document]}
        return cls(
            encoded_prompts=tuple(encoded_prompts),
            skipped=tuple(skipped),
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
        segments = [encoded.segments for encoded in self.encoded_prompts]
        starts = [segments[document][segment].start for document, segment in zip(self.document, self.segment)]
        return read_only(np.array(starts) + self.position)

    @cached_property
    def read_segments(self) -> tuple[tuple[Segment, ...], ...]:
        """The segments of each document up to that of its last row, without tokens after the question."""
        last = np.full(len(self.encoded_prompts), -1)
        np.maximum.at(last, self.document, self.segment)
        return tuple(
            tuple(
                replace(segment, ids=segment.ids[: encoded.question.stop - segment.start])
                for segment in encoded.segments[: index + 1]
            )
            for encoded, index in zip(self.encoded_prompts, last)
        )

    @cached_property
    def segment_rows(self) -> dict[tuple[int, int], slice]:
        """The rows of each segment that has any, by document and segment."""
        new = np.flatnonzero(np.diff(self.document, prepend=-1) | np.diff(self.segment, prepend=-1))
        return {
            (int(self.document[start]), int(self.segment[start])): slice(int(start), int(stop))
            for start, stop in zip(new, [*new[1:], len(self)])
        }

    @cached_property
    def vocabulary(self) -> Int[np.ndarray, "token"]:
        """Ids of the tokens that are read, ascending."""
        return np.unique([token for segments in self.read_segments for segment in segments for token in segment.ids])

    @cached_property
    def worlds(self) -> tuple[tuple[World, ...], ...]:
        """What is known in each document after each of its statements. Raises ValueError as `check_babi` does."""
        check_babi([encoded.prompt for encoded in self.encoded_prompts])
        return tuple(track(encoded.prompt.statements) for encoded in self.encoded_prompts)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every person, place and object that a statement names. Raises ValueError as `check_babi` does."""
        return names([encoded.prompt for encoded in self.encoded_prompts])

    def table(self) -> pd.DataFrame:
        """A row per example, in order; label files refer to the column `row`."""
        documents = [self.encoded_prompts[document] for document in self.document]
        return pd.DataFrame(
            {
                "row": np.arange(len(self)),
                "document": self.document,
                "story": [encoded.prompt.group for encoded in documents],
                "group": self.groups,
                "segment": self.segment,
                "position": self.position,
                "fact_distance": self.fact_distance,
                "token": [encoded.tokens.shown[place] for encoded, place in zip(documents, self.place)],
                "statement": self.last_statement,
                "moment": self.moment.value,
                "policy": POLICY,
                "checkpoint": self.digest,
            }
        )


def _columns(encoded: EncodedPrompt, moment: RowPosition) -> dict[str, np.ndarray]:
    """The columns of one document's rows."""
    places = np.array(moment.places(encoded), dtype=int)
    ends, starts = (np.array([getattr(segment, name) for segment in encoded.segments]) for name in ("end", "start"))
    segment = np.searchsorted(ends, places, side="right")
    statements = np.searchsorted([span[-1] for span in encoded.statements], places, side="right")
    distance = np.full(len(places), -1)
    if encoded.facts:
        last = max(encoded.prompt.support)
        distance = np.where(statements > last, segment - encoded.segment_of(encoded.statements[last][-1]), -1)
    texts = np.array(["", *encoded.prompt.statements])
    return {
        "segment": segment,
        "position": places - starts[segment],
        "token": np.array(encoded.tokens.ids)[places],
        "statements": statements,
        "fact_distance": distance,
        "last_statement": texts[statements],
    }
