"""What a probe has done so far: one sealed file a source, in a folder or nowhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lm2.sealed import DamagedError, read_arrays, write_arrays
from probes.claims import Claim
from probes.features.sources import Source
from probes.probing.result import Reading
from probes.store import Resumable

Forms = Sequence[Mapping[str, tuple[int, ...]]]
"""The shape of each of the arrays, by name, of one reading after the other."""


class ProbeStore(Resumable[Source, tuple[Reading, ...], Forms]):
    """A probe's readings by source."""

    what = "probe"

    def _read(self, claim: Claim, name: Source, forms: Forms) -> tuple[Reading, ...]:
        path = _path(claim, name)
        header, arrays = read_arrays(path, _of(claim, name))
        if isinstance(header, dict) != claim.sealed:
            raise DamagedError(f"{path} is damaged: its seal is missing")
        headers = header["readings"] if claim.sealed else header
        packed = [(one, {name: arrays[f"{at}.{name}"] for name in one["arrays"]}) for at, one in enumerate(headers)]
        if [{name: array.shape for name, array in own.items()} for _, own in packed] != list(forms):
            raise DamagedError(f"{path} is damaged: its arrays are not those of this source")
        return tuple(Reading.unpack(*one) for one in packed)

    def _write(self, claim: Claim, name: Source, values: tuple[Reading, ...]) -> None:
        packed = [reading.pack() for reading in values]
        arrays = {f"{at}.{name}": array for at, (_, own) in enumerate(packed) for name, array in own.items()}
        headers = [header | {"arrays": sorted(own)} for header, own in packed]
        write_arrays(_path(claim, name), {"readings": headers}, arrays, _of(claim, name))


def _of(claim: Claim, source: Source) -> dict[str, str]:
    return {"key": claim.key, "source": source.stem}


def _path(claim: Claim, source: Source) -> Path:
    return claim.folder / "readings" / f"{source.stem}.npz"
