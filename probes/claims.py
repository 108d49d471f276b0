"""A results folder belongs to one sweep or one probe, computed by one version of the code on one kind of device."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm2.files import create_file, read_json
from lm2.origin import differing, made_by
from lm2.sealed import SEAL, is_sealed, seal, unseal
from lm2.serialize import digest_of
from lm2.weights.checkpoint import Checkpoint

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A folder whose results may be read and, unless it is `foreign`, added to."""

    folder: Path
    kind: str
    """Whose results: "sweep" or "probe"."""
    key: str
    """Digest of everything that the results depend on: part of the seal of each of them."""
    foreign: str
    """How its origin differs from ours, in words; empty if it does not."""
    sealed: bool
    """Whether results carry seals; those of an earlier version do not."""

    def check_writable(self) -> None:
        """Raises ValueError if the folder is foreign: results of different origins must not be mixed."""
        if self.foreign:
            raise ValueError(
                f"{self.folder} was begun {self.foreign}: its results can be read, but a {self.kind} that lacks results"
                " cannot go on there; give this one a folder of its own"
            )


def claim(header: Path, key: Mapping[str, Any], kind: str, checkpoint: Checkpoint) -> Claim:
    """Claim a folder for one sweep or probe by creating its `header` file, or check the one that is there. Of several
    processes that try at once, one creates it.

    Raises ValueError if the folder belongs to another one, or the header is damaged.
    """
    origin, own = made_by(checkpoint.device, checkpoint.dtype), json.loads(json.dumps(key))
    new = {**own, "made": origin}
    stored = new if create_file(header, json.dumps(seal(new, kind), indent=1)) else _read(header, kind)
    sealed = "made" in stored
    if sealed:
        expected, changed = own, differing(stored["made"], origin)
        foreign = f"where {', '.join(changed)} differed" if changed else ""
    else:  # earlier versions stored less, and knew a checkpoint by its weights alone
        expected = {name: own.get(name) for name in stored} | {"checkpoint_digest": checkpoint.weights_digest}
        foreign = "by an earlier version, which did not keep what made it"
    others = sorted(name for name in {*stored, *expected} - {"made"} if stored.get(name) != expected.get(name))
    if others:
        raise ValueError(
            f"{header.parent} holds the results of another {kind}: its {', '.join(others)} differ; give this one a"
            " folder of its own"
        )
    if foreign:
        _LOG.warning("%s was begun %s: its results are read as they are", header.parent, foreign)
    return Claim(folder=header.parent, kind=kind, key=digest_of(own), foreign=foreign, sealed=sealed)


def _read(header: Path, kind: str) -> dict[str, Any]:
    """The header's values, without its seal. Only earlier versions' lack both a seal and "made"."""
    damaged = (
        f"{header} is broken: expected the spec of the {kind} whose results are in {header.parent}; give this one a"
        " folder of its own"
    )
    try:
        values = read_json(header)
        stored = unseal(values, kind, set(values) - {SEAL}, str(header)) if is_sealed(values) else values
    except ValueError as error:
        raise ValueError(damaged) from error
    if (
        not isinstance(stored, dict)
        or not {"spec", "checkpoint_digest"} <= set(stored)
        or is_sealed(values) != ("made" in stored)
    ):
        raise ValueError(damaged)
    return stored
