"""Trace: the record of one run. Read-only numpy without a batch axis, addressed by coordinate."""

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lm2.model.sites import AnySite, Axis
from lm2.runs.capture import Capture, Coordinate, Reduction
from lm2.runs.spec import RunSpec
from lm2.sealed import read_arrays, write_arrays
from lm2.text.segments import Segment
from lm2.text.sequence import TokenSequence

_ROWS = 1024
"""Rows of logits that are converted to float64 at a time."""
_MOST_IN_MEMORY = 256 * 1024**2
"""Bytes of logits beyond which they are kept in a temporary file, from which pages are read as they are looked at."""
_FORMAT = 2
"""1 had no seal."""
_KIND = "trace"
_ORIGIN = ("checkpoint_digest", "weights_digest", "device", "dtype", "processor", "threads")


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The record of one run on one text."""

    spec: RunSpec
    checkpoint_digest: str
    """Of the checkpoint that ran; in a file of an earlier version, that of its weights."""
    weights_digest: str = ""
    """SHA-256 of the weights' files."""
    device: str
    dtype: str
    processor: str = ""
    """As `lm2.origin` names it. Like the number of threads it decides the last bits; empty and 0 where not recorded."""
    threads: int = 0
    tokens: TokenSequence
    segments: tuple[Segment, ...]
    logits: Float[np.ndarray, "token d_vocab"]
    """Row t predicts token t + 1. Those of long texts are mapped from a file, not held in memory."""
    bank: Float[np.ndarray, "slot slot_dim"] | None
    """The bank after the last segment; None for a model without memory."""
    records: Mapping[tuple[Capture, Coordinate], np.ndarray]

    def at(
        self, site: AnySite, *, segment: int, layer: int | None = None, reduction: Reduction | None = None
    ) -> np.ndarray:
        """What was kept of a site at one place, its axes as in the capture.

        `reduction` is needed only where the site was captured in several ways. Raises KeyError saying what was kept.
        """
        records = self._index.get((site, Coordinate(segment, layer)), ())
        values = [value for capture, value in records if reduction in (None, capture.reduction)]
        if len(values) == 1:
            return values[0]
        kept = sorted({f"{capture.site.name} {capture.reduction}" for capture, _ in self.records})
        what = f"{site.name} at segment {segment}, layer {layer}" + (f", {reduction}" if reduction else "")
        raise KeyError(
            f"{'several captures hold' if values else 'no capture holds'} {what}; kept: {', '.join(kept) or 'nothing'}"
        )

    def across(self, site: AnySite, *, layer: int | None = None, reduction: Reduction | None = None) -> np.ndarray:
        """A site over all segments: joined along its token axis, or stacked as [segment, ...] where it has none."""
        values = [self.at(site, segment=s.index, layer=layer, reduction=reduction) for s in self.segments]
        first = self._index[site, Coordinate(self.segments[0].index, layer)]
        axes = next(capture for capture, _ in first if reduction in (None, capture.reduction)).axes
        return np.concatenate(values, axes.index(Axis.TOKEN)) if Axis.TOKEN in axes else np.stack(values)

    @cached_property
    def _index(self) -> Mapping[tuple[AnySite, Coordinate], list[tuple[Capture, np.ndarray]]]:
        """The records by place: a long text has tens of thousands, and each place is looked up."""
        records: dict[tuple[AnySite, Coordinate], list[tuple[Capture, np.ndarray]]] = defaultdict(list)
        for (capture, place), value in self.records.items():
            records[capture.site, place].append((capture, value))
        return dict(records)

    @property
    def bytes(self) -> int:
        """Bytes of the arrays that are held in memory."""
        logits = 0 if isinstance(self.logits, np.memmap) else self.logits.nbytes
        return sum(v.nbytes for v in self.records.values()) + logits + (0 if self.bank is None else self.bank.nbytes)

    @cached_property
    def surprisal(self) -> Float[np.ndarray, "token"]:
        """Bits of each token given the ones before it, in float64; NaN for the first of the text.

        The first token of a later segment is predicted by the last of the segment before.
        """
        ids = np.array(self.tokens.ids)
        bits = np.full(len(ids), np.nan)
        for start in range(0, len(ids) - 1, _ROWS):
            logits = self.logits[start : min(start + _ROWS, len(ids) - 1)].astype(np.float64)
            top = logits.max(-1, keepdims=True)
            log_total = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
            rows = np.arange(len(logits))
            bits[start + 1 + rows] = (log_total - logits[rows, ids[start + 1 + rows]]) / np.log(2)
        return read_only(bits)

    def save(self, path: Path) -> None:
        """Write a .npz without pickle. An existing file is replaced in one step."""
        arrays: dict[str, np.ndarray] = {"logits": self.logits}
        if self.bank is not None:
            arrays["bank"] = self.bank
        places = []
        for number, ((capture, place), value) in enumerate(self.records.items()):
            arrays[f"record{number}"] = value
            places.append([capture.to_json(), place.segment, place.layer])
        header = {
            "format": _FORMAT,
            "spec": self.spec.to_json(),
            **{name: getattr(self, name) for name in _ORIGIN},
            "tokens": {
                field.name: getattr(self.tokens, field.name)
                for field in fields(self.tokens)
                if field.name != "bos" or self.tokens.bos
            },
            "segments": [vars(segment) for segment in self.segments],
            "records": places,
        }
        write_arrays(path, header, arrays, of=_KIND)

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Read what `save` wrote. Raises ValueError with the path when the file is no trace, or damaged."""
        try:
            return cls._of(*read_arrays(path, of=_KIND))
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a trace written by this program: {error}") from error

    @classmethod
    def _of(cls, header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> "Trace":
        if header["format"] not in (1, _FORMAT):
            raise ValueError(f"its format is {header['format']!r}, and known are 1 and {_FORMAT}")
        tokens = header["tokens"]
        tokens = TokenSequence(
            text=tokens["text"],
            ids=tuple(tokens["ids"]),
            pieces=tuple(tokens["pieces"]),
            spans=tuple((start, end) for start, end in tokens["spans"]),
            breaks=tuple(tokens["breaks"]),
            bos=tokens.get("bos", False),
        )
        records = {
            (Capture.from_json(capture), Coordinate(segment, layer)): read_only(arrays[f"record{number}"])
            for number, (capture, segment, layer) in enumerate(header["records"])
        }
        return cls(
            spec=RunSpec.from_json(header["spec"]),
            **{"weights_digest": header["checkpoint_digest"]}
            | {name: header[name] for name in _ORIGIN if name in header},
            tokens=tokens,
            segments=tuple(
                Segment(index=s["index"], start=s["start"], ids=tuple(s["ids"])) for s in header["segments"]
            ),
            logits=read_only(arrays["logits"]),
            bank=read_only(arrays["bank"]) if "bank" in arrays else None,
            records=records,
        )


def read_only(array: np.ndarray) -> np.ndarray:
    """The same array, made read-only."""
    array.setflags(write=False)
    return array


class GrowingLogits:
    """The logits of a run, added row by row: held in memory or, for a long text, in a temporary file without a name."""

    def __init__(self, tokens: int, d_vocab: int) -> None:
        """Raises OSError where the system's temporary folder (TMPDIR) cannot be written to."""
        self._shape, self._rows = (tokens, d_vocab), 0
        in_memory = 4 * tokens * d_vocab <= _MOST_IN_MEMORY
        self._file = None if in_memory else tempfile.TemporaryFile(prefix="lm2-logits-")  # noqa: SIM115 - it goes with the array
        self._values = np.empty(self._shape if in_memory else 0, np.float32)

    def add(self, rows: Float[np.ndarray, "token d_vocab"]) -> None:
        """Raises OSError where the disk is full."""
        if self._file is None:
            self._values[self._rows : self._rows + len(rows)] = rows
            self._rows += len(rows)
        else:
            self._file.write(rows.tobytes())  # a map that is written to would end the process on a full disk

    def array(self) -> Float[np.ndarray, "token d_vocab"]:
        """All rows, read-only, once each has been added. A file is deleted with the array."""
        if self._file is not None:
            with self._file:
                self._file.flush()
                self._values = np.memmap(self._file, np.float32, "r", shape=self._shape)
        return read_only(self._values)
