"""Results of a sweep or probe that can be resumed: in memory, or in a folder with one sealed file per result."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from lm2.files import read_json
from lm2.sealed import DamagedError, read_sealed, write_sealed
from lm2.weights.checkpoint import Checkpoint
from probes.claims import Claim, claim

_LOG = logging.getLogger(__name__)

Shapes = tuple[int, ...] | Mapping[str, tuple[int, ...]]
"""The shape of a document's values, or of each array by name."""

Name = TypeVar("Name", bound=Hashable)
Values = TypeVar("Values")
Expected = TypeVar("Expected")


class Resumable(ABC, Generic[Name, Values, Expected]):
    """Results by name. With a folder, each is a file that is written whole or not at all; a changed file is not
    used."""

    kind: ClassVar[str]
    """Whose results: "sweep" or "probe". The folder's header file is named after it."""

    def __init__(self, folder: Path | None, key: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        """`key`: everything that the results depend on. Raises ValueError as `claim` does."""
        self._held: dict[Name, Values] = {}
        self._claim = None if folder is None else claim(folder / f"{self.kind}.json", key, self.kind, checkpoint)

    def get(self, name: Name, shapes: Expected) -> Values | None:
        """The result whose arrays have these shapes; None if it is missing or damaged, which is logged.

        Raises ValueError if it then could not be written.
        """
        if self._claim is None:
            return self._held.get(name)
        try:
            return self._read(self._claim, name, shapes)
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:  # files without a seal may lack names
            _LOG.warning("%s: it is computed again", error)
        self._claim.check_writable()
        return None

    def put(self, name: Name, values: Values) -> None:
        if self._claim is None:
            self._held[name] = values
        else:
            self._write(self._claim, name, values)

    @abstractmethod
    def _read(self, claim: Claim, name: Name, shapes: Expected) -> Values:
        """Raises FileNotFoundError if there is no file."""

    @abstractmethod
    def _write(self, claim: Claim, name: Name, values: Values) -> None: ...


class SweepStore(Resumable[str, Any, Shapes]):
    """A sweep's values by document."""

    kind = "sweep"

    def _read(self, claim: Claim, name: str, shapes: Shapes) -> Any:
        path = _path(claim, name)
        if claim.sealed:
            return read_sealed(path, _identity(claim, name), ("values",))["values"]
        if not path.exists():
            raise FileNotFoundError(path)
        values = read_json(path)
        if _shapes(values) != shapes:
            raise DamagedError(f"{path} is damaged: its values are not those of a document of this sweep")
        return values

    def _write(self, claim: Claim, name: str, values: Any) -> None:
        write_sealed(_path(claim, name), {"values": _to_json(values)}, _identity(claim, name))


def _identity(claim: Claim, name: str) -> dict[str, str]:
    return {"key": claim.key, "name": name}


def _path(claim: Claim, name: str) -> Path:
    return claim.folder / "documents" / f"{name}.json"


def _shapes(values: Any) -> Shapes | None:
    """None if they are not arrays of numbers."""
    try:
        if isinstance(values, dict):
            return {name: np.array(value, float).shape for name, value in values.items()}
        return np.array(values, float).shape
    except (TypeError, ValueError):
        return None


def _to_json(values: Any) -> Any:
    """NaN and infinity become texts, which numpy reads as numbers again."""
    if isinstance(values, dict):
        return {name: _to_json(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_to_json(value) for value in values]
    return str(values) if isinstance(values, float) and not math.isfinite(values) else values
