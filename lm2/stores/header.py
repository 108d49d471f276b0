"""The files of a store beside its arrays: what was run, on which text, by which numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lm2.model.config import LM2Config
from lm2.origin import made_by
from lm2.runs.spec import RunSpec
from lm2.sealed import DamagedError, read_arrays, read_sealed, write_arrays, write_sealed
from lm2.stores.layout import FILE, StoreLayout, is_store
from lm2.text.segments import Segment, as_segments
from lm2.text.sequence import TokenSequence
from lm2.weights.checkpoint import Checkpoint

_TEXT = "text.npz"
_FIELDS = ("format", "spec", "config", "origin", "tokens", "segments", "first_level")
_FORMAT = 1
_KIND = "store"


@dataclass(frozen=True, kw_only=True)
class Header:
    """What was run, and what is kept of it."""

    spec: RunSpec
    origin: dict[str, Any]
    """Digests of checkpoint and weights, and what `lm2.origin.made_by` records."""
    layout: StoreLayout

    @classmethod
    def of(cls, checkpoint: Checkpoint, spec: RunSpec, tokens: int, segments: int, first_level: int) -> "Header":
        origin = {
            "checkpoint_digest": checkpoint.digest,
            "weights_digest": checkpoint.weights_digest,
            **made_by(checkpoint.device, checkpoint.dtype),
        }
        layout = StoreLayout.of(checkpoint, spec, tokens, segments, first_level)
        return cls(spec=spec, origin=origin, layout=layout)

    def to_json(self) -> dict[str, Any]:
        layout = self.layout
        return {
            "format": _FORMAT,
            "spec": self.spec.to_json(),
            "config": layout.config.to_json(),
            "origin": self.origin,
            "tokens": layout.tokens,
            "segments": layout.segments,
            "first_level": layout.first_level,
        }

    def write(self, folder: Path) -> None:
        write_sealed(folder / FILE, self.to_json(), _KIND)

    @classmethod
    def read(cls, folder: Path) -> "Header":
        """Raises ValueError for a folder that is no store, DamagedError for a header that has changed."""
        if not is_store(folder):
            raise ValueError(f"{folder} is no store: it has no {FILE}")
        values = read_sealed(folder / FILE, _KIND, _FIELDS)
        if values["format"] != _FORMAT:
            raise ValueError(f"{folder} has format {values['format']!r}, and known is {_FORMAT}")
        spec = RunSpec.from_json(values["spec"])
        layout = StoreLayout(
            config=LM2Config.from_json(values["config"]),
            spec=spec,
            dtype=values["origin"]["dtype"],
            tokens=values["tokens"],
            segments=values["segments"],
            first_level=values["first_level"],
        )
        return cls(spec=spec, origin=values["origin"], layout=layout)


def write_text(folder: Path, tokens: TokenSequence, segments: Sequence[Segment], of: object) -> None:
    """Tokens and segments. `of`: the header that they belong to."""
    header = {"text": tokens.text, "pieces": tokens.pieces, "bos": tokens.bos}
    arrays = {
        "ids": np.array(tokens.ids, np.int64),
        "spans": np.array(tokens.spans, np.int64).reshape(-1, 2),
        "breaks": np.array(tokens.breaks, np.int64),
        "starts": np.array([segment.start for segment in segments], np.int64),
    }
    write_arrays(folder / _TEXT, header, arrays, of)


def read_text(folder: Path, of: object) -> tuple[TokenSequence, tuple[Segment, ...]]:
    """Raises DamagedError for a file that is missing or has changed."""
    try:
        header, arrays = read_arrays(folder / _TEXT, of)
    except FileNotFoundError as error:
        raise DamagedError(f"{folder} is damaged: {_TEXT} is missing") from error
    ids = tuple(arrays["ids"].tolist())
    tokens = TokenSequence(
        text=header["text"],
        ids=ids,
        pieces=tuple(header["pieces"]),
        spans=tuple(map(tuple, arrays["spans"].tolist())),
        breaks=tuple(arrays["breaks"].tolist()),
        bos=header["bos"],
    )
    starts = arrays["starts"].tolist()
    return tokens, as_segments([ids[start:end] for start, end in zip(starts, [*starts[1:], len(ids)])])
