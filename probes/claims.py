"""Whose results a folder holds: one sweep's or one probe's, as one code computes it on one kind of device, and nobody
else's."""

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
    """A folder that is ours to read, and unless it is `foreign` to write."""

    folder: Path
    what: str
    key: str
    """Digest of everything that the results depend on: part of the seal of each of them."""
    foreign: str
    """By whom it was begun, in words; empty where it was as we would do it."""
    sealed: bool
    """Whether results carry seals; those of an earlier version do not."""

    def check_writable(self) -> None:
        """Raises ValueError where other results than ours would then stand beside ours."""
        if self.foreign:
            raise ValueError(
                f"{self.folder} was begun {self.foreign}: what is in it can be read, but a {self.what} that lacks"
                " results cannot go on there; give this one a folder of its own"
            )


def claim(head: Path, key: Mapping[str, Any], what: str, checkpoint: Checkpoint) -> Claim:
    """Make a folder that of one sweep or probe: `head` in it says of which, and what made it. Of several who try at
    once one does.

    Raises ValueError where it is another's already, and where `head` is damaged.
    """
    made, own = made_by(checkpoint.device, checkpoint.dtype), json.loads(json.dumps(key))
    ours = {**own, "made": made}
    there = ours if create_file(head, json.dumps(seal(ours, what), indent=1)) else _read(head, what)
    sealed = "made" in there
    # Earlier versions knew a checkpoint by its weights alone, and said less.
    expected = (
        own if sealed else {name: own.get(name) for name in there} | {"checkpoint_digest": checkpoint.weights_digest}
    )
    others = sorted(name for name in {*there, *expected} - {"made"} if there.get(name) != expected.get(name))
    if others:
        raise ValueError(
            f"{head.parent} holds the results of another {what}: its {', '.join(others)} differ; give this one a folder"
            " of its own"
        )
    changed = differing(there["made"], made) if sealed else []
    foreign = (
        f"where {', '.join(changed)} differed"
        if changed
        else ""
        if sealed
        else "by an earlier version, which did not keep what made it"
    )
    if foreign:
        _LOG.warning("%s was begun %s: what is in it is read as it is", head.parent, foreign)
    return Claim(folder=head.parent, what=what, key=digest_of(own), foreign=foreign, sealed=sealed)


def _read(head: Path, what: str) -> dict[str, Any]:
    """Its values, with "made" where it is not of an earlier version."""
    broken = (
        f"{head} is broken: expected the spec of the {what} whose results are in {head.parent}; give this one a folder"
        " of its own"
    )
    try:
        values = read_json(head)
        there = unseal(values, what, set(values) - {SEAL}, str(head)) if is_sealed(values) else values
    except ValueError as error:
        raise ValueError(broken) from error
    if (
        not isinstance(there, dict)
        or not {"spec", "checkpoint_digest"} <= set(there)
        or is_sealed(values) != ("made" in there)
    ):
        raise ValueError(broken)
    return there
