"""What a probe has done so far: one sealed file a source, in a folder or nowhere."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm2.sealed import DamagedError, read_arrays, write_arrays
from lm2.weights.checkpoint import Checkpoint
from probes.claims import claim
from probes.features.sources import Source
from probes.probing.result import Reading

_LOG = logging.getLogger(__name__)


class ProbeStore:
    """Readings by source. With a folder, each source has a file that is written whole or not at all, and believed only
    as it was written."""

    def __init__(self, folder: Path | None, key: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        """`key`: everything that readings depend on. Raises ValueError as `claim` does, for a folder with results of
        another one."""
        self._folder, self._held = folder, {}
        self._claim = None if folder is None else claim(folder / "probe.json", key, "probe", checkpoint)

    def get(self, source: Source, forms: Sequence[Mapping[str, tuple[int, ...]]]) -> tuple[Reading, ...] | None:
        """None where they are not there, or damaged, which is logged. Raises ValueError where they then could not be
        put.

        `forms`: the shape of each of the arrays, by name, of one reading after the other.
        """
        if self._claim is None:
            return self._held.get(source)
        found = self._read(source, forms)
        if found is None:
            self._claim.check_writable()
        return found

    def _read(self, source: Source, forms: Sequence[Mapping[str, tuple[int, ...]]]) -> tuple[Reading, ...] | None:
        path = self._path(source)
        try:
            header, arrays = read_arrays(path, self._of(source))
            if isinstance(header, dict) != self._claim.sealed:
                raise DamagedError(f"{path} is damaged: its seal is missing")
            headers = header["readings"] if self._claim.sealed else header
            packed = [(one, {name: arrays[f"{at}.{name}"] for name in one["arrays"]}) for at, one in enumerate(headers)]
            if [{name: array.shape for name, array in own.items()} for _, own in packed] != list(forms):
                raise DamagedError(f"{path} is damaged: its arrays are not those of this source")
            return tuple(Reading.unpack(*one) for one in packed)
        except FileNotFoundError:
            return None
        except (DamagedError, KeyError, TypeError) as error:  # of an earlier version's, nothing vouches for the names
            _LOG.warning("%s: it is computed again", error)
            return None

    def put(self, source: Source, readings: tuple[Reading, ...]) -> None:
        if self._claim is None:
            self._held[source] = readings
            return
        packed = [reading.pack() for reading in readings]
        arrays = {f"{at}.{name}": array for at, (_, own) in enumerate(packed) for name, array in own.items()}
        headers = [header | {"arrays": sorted(own)} for header, own in packed]
        write_arrays(self._path(source), {"readings": headers}, arrays, self._of(source))

    def _of(self, source: Source) -> dict[str, str]:
        return {"key": self._claim.key, "source": source.stem}

    def _path(self, source: Source) -> Path:
        return self._folder / "readings" / f"{source.stem}.npz"
