"""Trace: what one run left behind. Read-only numpy, no batch axis, addressed by coordinate."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lm2.files import replace_file
from lm2.capture import Capture, Coordinate, Reduction
from lm2.segments import Segment
from lm2.sites import Axis, Site
from lm2.spec import RunSpec
from lm2.tokens import TokenSequence


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The record of one run on one text."""

    spec: RunSpec
    checkpoint_digest: str
    """SHA-256 of the weights that ran."""
    device: str
    dtype: str
    tokens: TokenSequence
    segments: tuple[Segment, ...]
    logits: Float[np.ndarray, "token d_vocab"]
    """Row t predicts token t + 1."""
    bank: Float[np.ndarray, "slot slot_dim"] | None
    """The bank after the last segment; None for a model without memory."""
    records: Mapping[tuple[Capture, Coordinate], np.ndarray]

    def at(self, site: Site, *, segment: int, layer: int | None = None, reduction: Reduction | None = None) -> np.ndarray:
        """What was kept of a site at one place, its axes as in the capture.

        `reduction` is needed only where the site was captured in several ways. Raises KeyError saying what was kept.
        """
        place = Coordinate(segment, layer)
        found = [
            value
            for (capture, at), value in self.records.items()
            if capture.site is site and at == place and reduction in (None, capture.reduction)
        ]
        if len(found) == 1:
            return found[0]
        kept = sorted({f"{capture.site.name} {capture.reduction}" for capture, _ in self.records})
        what = f"{site.name} at segment {segment}, layer {layer}" + (f", {reduction}" if reduction else "")
        raise KeyError(f"{'several captures hold' if found else 'no capture holds'} {what}; kept: {', '.join(kept) or 'nothing'}")

    def across(self, site: Site, *, layer: int | None = None, reduction: Reduction | None = None) -> np.ndarray:
        """A site over the whole context: joined along its token axis, or stacked as [segment, ...] where it has none."""
        parts = [self.at(site, segment=s.index, layer=layer, reduction=reduction) for s in self.segments]
        axes = next(c for c, _ in self.records if c.site is site and reduction in (None, c.reduction)).axes
        return np.concatenate(parts, axes.index(Axis.TOKEN)) if Axis.TOKEN in axes else np.stack(parts)

    @property
    def bytes(self) -> int:
        """Bytes held in arrays."""
        return sum(v.nbytes for v in self.records.values()) + self.logits.nbytes + (0 if self.bank is None else self.bank.nbytes)

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
            "format": 1,
            "spec": self.spec.to_json(),
            "checkpoint_digest": self.checkpoint_digest,
            "device": self.device,
            "dtype": self.dtype,
            "tokens": vars(self.tokens),
            "segments": [vars(segment) for segment in self.segments],
            "records": places,
        }
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        with replace_file(path) as aside, aside.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Raises ValueError with the path when the file is no trace."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls._of(json.loads(arrays["header"].tobytes()), arrays)
        except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is not a trace written by this program: {error}") from error

    @classmethod
    def _of(cls, header: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> "Trace":
        tokens = header["tokens"]
        tokens = TokenSequence(
            text=tokens["text"], ids=tuple(tokens["ids"]), pieces=tuple(tokens["pieces"]),
            spans=tuple((a, b) for a, b in tokens["spans"]), breaks=tuple(tokens["breaks"]),
        )  # fmt: skip
        records = {
            (Capture.from_json(capture), Coordinate(segment, layer)): read_only(arrays[f"record{number}"])
            for number, (capture, segment, layer) in enumerate(header["records"])
        }
        return cls(
            spec=RunSpec.from_json(header["spec"]),
            checkpoint_digest=header["checkpoint_digest"],
            device=header["device"],
            dtype=header["dtype"],
            tokens=tokens,
            segments=tuple(Segment(index=s["index"], start=s["start"], ids=tuple(s["ids"])) for s in header["segments"]),
            logits=read_only(arrays["logits"]),
            bank=read_only(arrays["bank"]) if "bank" in arrays else None,
            records=records,
        )


def read_only(array: np.ndarray) -> np.ndarray:
    """The same array, which nobody can write to any more."""
    array.setflags(write=False)
    return array
