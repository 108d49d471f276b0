"""What a sweep has done so far: one sealed file a document, in a folder or nowhere."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm2.checkpoint import Checkpoint
from lm2.files import read_json
from lm2.sealed import read_sealed, write_sealed
from probes.claims import claim

_LOG = logging.getLogger(__name__)


class Store:
    """Results by name. With a folder, each is a file that is written whole or not at all, and believed only as it was written."""

    def __init__(self, folder: Path | None, key: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        """`key`: everything that the results depend on. Raises ValueError as `claim` does, for a folder with results of another one."""
        self._folder, self._held = folder, {}
        self._claim = None if folder is None else claim(folder / "sweep.json", key, "sweep", checkpoint)

    def get(self, name: str) -> Any:
        """None where it is not there, or damaged, which is logged. Raises ValueError where it then could not be put."""
        if self._claim is None:
            return self._held.get(name)
        found = self._read(name)
        if found is None:
            self._claim.check_writable()
        return found

    def _read(self, name: str) -> Any:
        path = self._path(name)
        try:
            if self._claim.sealed:
                return read_sealed(path, self._of(name), ("values",))["values"]
            return read_json(path) if path.exists() else None
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


def _written(values: Any) -> Any:
    """Numbers that JSON does not have as texts, which numpy reads as those numbers again."""
    if isinstance(values, dict):
        return {name: _written(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_written(value) for value in values]
    return str(values) if isinstance(values, float) and not math.isfinite(values) else values
