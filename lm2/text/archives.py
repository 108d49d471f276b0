"""Tar archives of texts, plain or compressed with xz, gzip or bzip2, read in memory and within limits."""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

MOST_MEMBERS = 100_000
MOST_MEMBER_BYTES = 64 * 1024**2
"""Largest member that is read; the largest official file of bAbI has 5.3 MB."""
MOST_BYTES = 2 * 1024**3
"""Largest size of a whole archive, unpacked."""

_UNPACKERS: dict[bytes, Callable[[Path], Any]] = {
    b"\xfd7zXZ": lzma.LZMAFile,
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
}
"""Readers of compressed files by the files' first bytes."""


def read_members(path: Path, wanted: Callable[[PurePosixPath], bool]) -> list[tuple[PurePosixPath, bytes]]:
    """The names and contents of an archive's files with wanted names, in its order.

    Raises ValueError with the path for other files, and for more or larger members than the limits.
    """
    try:
        with path.open("rb") as file:
            first = file.read(6)
        unpackers = [unpack for magic, unpack in _UNPACKERS.items() if first.startswith(magic)]
        with (
            unpackers[0](path) if unpackers else path.open("rb") as stream,
            tarfile.open(fileobj=_Bounded(stream, path), mode="r:") as archive,
        ):
            return _members(archive, path, wanted)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: not readable as an archive: {error}; expected tar, plain or in xz, gzip or bzip2"
        ) from error


def _members(
    archive: tarfile.TarFile, path: Path, wanted: Callable[[PurePosixPath], bool]
) -> list[tuple[PurePosixPath, bytes]]:
    files = []
    for number, member in enumerate(archive, start=1):
        if number > MOST_MEMBERS:
            raise ValueError(f"{path}: more than {MOST_MEMBERS:,} members; expected an archive of texts")
        name = PurePosixPath(member.name)
        if not member.isfile() or not wanted(name):
            continue
        if member.size > MOST_MEMBER_BYTES:
            raise ValueError(f"{path}/{name}: {member.size:,} bytes; expected at most {MOST_MEMBER_BYTES:,}")
        content = archive.extractfile(member)
        assert content is not None, "it is a file"
        files.append((name, content.read()))
    return files


class _Bounded(io.BufferedIOBase):
    """A stream that stops at the limits, whatever sizes an archive's headers claim."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path

    def read(self, size: int | None = -1, /) -> bytes:
        size = MOST_BYTES if size is None or size < 0 else size
        if size > MOST_MEMBER_BYTES:
            raise ValueError(f"{self._path}: a header of {size:,} bytes; expected an archive of texts")
        self._check(self.tell() + size)
        return self._stream.read(size)

    def seek(self, place: int, whence: int = io.SEEK_SET, /) -> int:
        self._check(place)
        return self._stream.seek(place, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, place: int) -> None:
        if place > MOST_BYTES:
            raise ValueError(f"{self._path}: unpacks to more than {MOST_BYTES:,} bytes; expected an archive of texts")
