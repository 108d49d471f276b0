"""What a sweep or a probe has done so far, in a folder or nowhere: one sealed file a document, or a source."""

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

Form = tuple[int, ...] | Mapping[str, tuple[int, ...]]
"""The shape of a document's values, or that of each by name."""


Name = TypeVar("Name", bound=Hashable)
Values = TypeVar("Values")
Forms = TypeVar("Forms")


class Resumable(ABC, Generic[Name, Values, Forms]):
    """Results by name. With a folder, each is a file that is written whole or not at all, and believed only as it was
    written."""

    what: ClassVar[str]
    """Whose results: also the name of the file in the folder that says it."""

    def __init__(self, folder: Path | None, key: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        """`key`: everything that the results depend on. Raises ValueError as `claim` does, for a folder with results of
        another one."""
        self._held: dict[Name, Values] = {}
        self._claim = None if folder is None else claim(folder / f"{self.what}.json", key, self.what, checkpoint)

    def get(self, name: Name, forms: Forms) -> Values | None:
        """None where it is not there, or damaged, which is logged. Raises ValueError where it then could not be put.

        `forms`: the shapes that its arrays must have.
        """
        if self._claim is None:
            return self._held.get(name)
        try:
            return self._read(self._claim, name, forms)
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:  # of an earlier version's, nothing vouches for the names
            _LOG.warning("%s: it is computed again", error)
        self._claim.check_writable()
        return None

    def put(self, name: Name, values: Values) -> None:
        if self._claim is None:
            self._held[name] = values
        else:
            self._write(self._claim, name, values)

    @abstractmethod
    def _read(self, claim: Claim, name: Name, forms: Forms) -> Values:
        """Raises FileNotFoundError where there is no file."""

    @abstractmethod
    def _write(self, claim: Claim, name: Name, values: Values) -> None: ...


class Store(Resumable[str, Any, Form]):
    """A sweep's values by document."""

    what = "sweep"

    def _read(self, claim: Claim, name: str, forms: Form) -> Any:
        path = _path(claim, name)
        if claim.sealed:
            return read_sealed(path, _of(claim, name), ("values",))["values"]
        if not path.exists():
            raise FileNotFoundError(path)
        return _formed(read_json(path), forms, path)

    def _write(self, claim: Claim, name: str, values: Any) -> None:
        write_sealed(_path(claim, name), {"values": _written(values)}, _of(claim, name))


def _of(claim: Claim, name: str) -> dict[str, str]:
    return {"key": claim.key, "name": name}


def _path(claim: Claim, name: str) -> Path:
    return claim.folder / "documents" / f"{name}.json"


def _formed(values: Any, form: Form, path: Path) -> Any:
    """The values of a file without a seal. Raises DamagedError for others than a document of this sweep has."""
    try:
        there = (
            {name: np.array(value, float).shape for name, value in values.items()}
            if isinstance(values, dict)
            else np.array(values, float).shape
        )
    except (TypeError, ValueError):
        there = None
    if there != form:
        raise DamagedError(f"{path} is damaged: its values are not those of a document of this sweep")
    return values


def _written(values: Any) -> Any:
    """Numbers that JSON does not have as texts, which numpy reads as those numbers again."""
    if isinstance(values, dict):
        return {name: _written(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_written(value) for value in values]
    return str(values) if isinstance(values, float) and not math.isfinite(values) else values
