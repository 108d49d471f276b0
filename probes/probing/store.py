"""A probe's results by source: in memory, or in a folder with one sealed file per source."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lm2.sealed import DamagedError, read_arrays, write_arrays
from probes.claims import Claim
from probes.features.sources import Source
from probes.probing.result import Reading
from probes.store import Resumable

Shapes = Sequence[Mapping[str, tuple[int, ...]]]
"""The shape of each array by name, for each reading of a source."""


class ProbeStore(Resumable[Source, tuple[Reading, ...], Shapes]):
    """A probe's readings by source."""

    kind = "probe"

    def _read(self, claim: Claim, name: Source, shapes: Shapes) -> tuple[Reading, ...]:
        path = _path(claim, name)
        header, arrays = read_arrays(path, _identity(claim, name))
        if isinstance(header, dict) != claim.sealed:
            raise DamagedError(f"{path} is damaged: its seal is missing")
        headers = header["readings"] if claim.sealed else header
        arrays_of = [{name: arrays[f"{i}.{name}"] for name in header["arrays"]} for i, header in enumerate(headers)]
        if [{name: array.shape for name, array in own.items()} for own in arrays_of] != list(shapes):
            raise DamagedError(f"{path} is damaged: its arrays are not those of this source")
        return tuple(map(Reading.unpack, headers, arrays_of))

    def _write(self, claim: Claim, name: Source, values: tuple[Reading, ...]) -> None:
        packed = [reading.pack() for reading in values]
        arrays = {f"{i}.{name}": array for i, (_, own) in enumerate(packed) for name, array in own.items()}
        headers = [header | {"arrays": sorted(own)} for header, own in packed]
        write_arrays(_path(claim, name), {"readings": headers}, arrays, _identity(claim, name))


def _identity(claim: Claim, source: Source) -> dict[str, str]:
    return {"key": claim.key, "source": source.stem}


def _path(claim: Claim, source: Source) -> Path:
    return claim.folder / "readings" / f"{source.stem}.npz"
