"""What a sweep has done so far: one sealed file a document, in a folder or nowhere."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lm2.files import read_json
from lm2.sealed import DamagedError, read_sealed, write_sealed
from lm2.weights.checkpoint import Checkpoint
from probes.claims import claim

_LOG = logging.getLogger(__name__)

Form = tuple[int, ...] | Mapping[str, tuple[int, ...]]
"""The shape of a document's values, or that of each by name."""


class Store:
    """Results by name. With a folder, each is a file that is written whole or not at all, and believed only as it was
    written."""

    def __init__(self, folder: Path | None, key: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        """`key`: everything that the results depend on. Raises ValueError as `claim` does, for a folder with results of
        another one."""
        self._folder, self._held = folder, {}
        self._claim = None if folder is None else claim(folder / "sweep.json", key, "sweep", checkpoint)

    def get(self, name: str, form: Form) -> Any:
        """None where it is not there, or damaged, which is logged. Raises ValueError where it then could not be put."""
        if self._claim is None:
            return self._held.get(name)
        found = self._read(name, form)
        if found is None:
            self._claim.check_writable()
        return found

    def _read(self, name: str, form: Form) -> Any:
        path = self._path(name)
        try:
            if self._claim.sealed:
                return read_sealed(path, self._of(name), ("values",))["values"]
            return _formed(read_json(path), form, path) if path.exists() else None
        except FileNotFoundError:
            return None
        except ValueError as error:
            _LOG.warning("%s: it is computed again", error)
            return None

    def put(self, name: str, values: Any) -> None:
        if self._claim is None:
            self._held[name] = values
            return
        write_sealed(self._path(name), {"values": _written(values)}, self._of(name))

    def _of(self, name: str) -> dict[str, str]:
        return {"key": self._claim.key, "name": name}

    def _path(self, name: str) -> Path:
        return self._folder / "documents" / f"{name}.json"


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
