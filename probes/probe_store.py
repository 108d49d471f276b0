"""What a probe has done so far: one file a source, in a folder or nowhere."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lm2.files import replace_file
from probes.probe_result import Reading
from probes.sources import Source
from probes.sweep_store import claim


class ProbeStore:
    """Readings by source. With a folder, each source has a file that is written whole or not at all."""

    def __init__(self, folder: Path | None, key: Mapping[str, Any]) -> None:
        """`key`: everything that readings depend on. Raises ValueError for a folder with results of another one."""
        self._folder, self._held = folder, {}
        if folder is not None:
            claim(folder / "probe.json", key, "probe")

    def get(self, source: Source) -> tuple[Reading, ...] | None:
        """None where they are not there, or not whole."""
        if self._folder is None:
            return self._held.get(source)
        try:
            with np.load(self._path(source), allow_pickle=False) as arrays:
                headers = json.loads(arrays["header"].tobytes())
                return tuple(Reading.unpack(header, {name: arrays[f"{at}.{name}"] for name in header["arrays"]}) for at, header in enumerate(headers))
        except (FileNotFoundError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
            return None

    def put(self, source: Source, readings: tuple[Reading, ...]) -> None:
        if self._folder is None:
            self._held[source] = readings
            return
        packed = [reading.pack() for reading in readings]
        arrays = {f"{at}.{name}": array for at, (_, own) in enumerate(packed) for name, array in own.items()}
        headers = [header | {"arrays": sorted(own)} for header, own in packed]
        with replace_file(self._path(source)) as aside, aside.open("wb") as file:
            np.savez_compressed(file, header=np.frombuffer(json.dumps(headers).encode(), dtype=np.uint8), **arrays)

    def _path(self, source: Source) -> Path:
        return self._folder / "readings" / f"{source.stem}.npz"
