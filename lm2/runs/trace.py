"""Trace: what one run left behind. Read-only numpy, no batch axis, addressed by coordinate."""

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
"""Rows of logits that are worked on at a time: a long text's are not held in float64 all at once."""
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
    """Its kind, as `lm2.origin` tells it, and how many threads: the last bits are theirs. Empty and 0 where it was not
    recorded."""
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
        there = self._index.get((site, Coordinate(segment, layer)), ())
        found = [value for capture, value in there if reduction in (None, capture.reduction)]
        if len(found) == 1:
            return found[0]
        kept = sorted({f"{capture.site.name} {capture.reduction}" for capture, _ in self.records})
        what = f"{site.name} at segment {segment}, layer {layer}" + (f", {reduction}" if reduction else "")
        raise KeyError(
            f"{'several captures hold' if found else 'no capture holds'} {what}; kept: {', '.join(kept) or 'nothing'}"
        )

    def across(self, site: AnySite, *, layer: int | None = None, reduction: Reduction | None = None) -> np.ndarray:
        """A site over the whole context: joined along its token axis, or stacked as [segment, ...] where it has
        none."""
        parts = [self.at(site, segment=s.index, layer=layer, reduction=reduction) for s in self.segments]
        first = self._index[site, Coordinate(self.segments[0].index, layer)]
        axes = next(capture for capture, _ in first if reduction in (None, capture.reduction)).axes
        return np.concatenate(parts, axes.index(Axis.TOKEN)) if Axis.TOKEN in axes else np.stack(parts)

    @cached_property
    def _index(self) -> Mapping[tuple[AnySite, Coordinate], list[tuple[Capture, np.ndarray]]]:
        """The records by their places: a long text has tens of thousands, and each place is asked for."""
        found: dict[tuple[AnySite, Coordinate], list[tuple[Capture, np.ndarray]]] = defaultdict(list)
        for (capture, at), value in self.records.items():
            found[capture.site, at].append((capture, value))
        return dict(found)

    @property
    def bytes(self) -> int:
        """Bytes held in memory, in arrays."""
        logits = 0 if isinstance(self.logits, np.memmap) else self.logits.nbytes
        return sum(v.nbytes for v in self.records.values()) + logits + (0 if self.bank is None else self.bank.nbytes)

    @cached_property
    def surprisal(self) -> Float[np.ndarray, "token"]:
        """Bits of each token given the ones before it; NaN for the first of the text, which nothing predicts.

        The first token of a later segment is predicted by the last of the segment before. Computed in float64.
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
        """Write a .npz without pickle; `load` gives it back. An existing file is replaced in one step."""
        arrays: dict[str, np.ndarray] = {"logits": self.logits}
        if self.bank is not None:
            arrays["bank"] = self.bank
        places = []
        for number, ((capture, at), value) in enumerate(self.records.items()):
            arrays[f"record{number}"] = value
            places.append([capture.to_json(), at.segment, at.layer])
        header = {
            "format": _FORMAT,
            "spec": self.spec.to_json(),
            **{name: getattr(self, name) for name in _ORIGIN},
            "tokens": {field.name: getattr(self.tokens, field.name) for field in fields(self.tokens)},
            "segments": [vars(segment) for segment in self.segments],
            "records": places,
        }
        write_arrays(path, header, arrays, of=_KIND)

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Raises ValueError with the path when the file is no trace, or not as it was written."""
        try:
            header, arrays = read_arrays(path, of=_KIND)
            return cls._of(header, arrays)
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
            spans=tuple((a, b) for a, b in tokens["spans"]),
            breaks=tuple(tokens["breaks"]),
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
    """The same array, which nobody can write to any more."""
    array.setflags(write=False)
    return array
