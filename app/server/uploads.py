"""Checkpoints that visitors upload: zip files, unpacked into a folder that is deleted when the server ends."""

import hashlib
import io
import shutil
import stat
import struct
import tempfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

from lm2.weights.bundled import recorded_base

PREFIX = "upload:"
"""How the names of uploads begin in links and specs, which do not show paths of this machine."""
_LARGEST = 2 * 1024**3
"""Bytes that one upload may unpack to."""
_MOST_FILES = 1_000
_DEEPEST, _LONGEST_NAME = 8, 200
_BLOCK = 1024**2
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError, RuntimeError,
    UnicodeError,
)  # fmt: skip
"""What Python's zipfile raises for damaged and malicious files."""


class Uploads:
    """Unpacked uploads by name. The least recently used are deleted first, and all when the server ends."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._root = tempfile.TemporaryDirectory(prefix="lm2-workbench-")  # new, and only readable for this user
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, data: bytes) -> str:
        """Unpack a zip file and return its name; the same file has the same name.

        Raises ValueError if it is no zip file of a checkpoint, and leaves nothing.
        """
        name = f"{PREFIX}{hashlib.sha256(data).hexdigest()[:16]}"
        with self._lock:
            if name not in self._sizes:
                folder = self._folder(name)
                try:
                    self._sizes[name] = self._unpack(data, folder)
                    base = recorded_base(_checkpoint_in(folder))
                    if base is not None and not base.resolve().is_relative_to(folder.resolve()):
                        raise ValueError("it is an adapter whose base is not in it: put both into one zip file")
                except ValueError:
                    self._delete(name)
                    raise
            self._sizes.move_to_end(name)
        return name

    def path(self, name: str) -> Path:
        """The checkpoint's folder, or its .pt or .gguf file. Raises ValueError if the upload has been deleted."""
        with self._lock:
            if name not in self._sizes:
                raise ValueError(f"{name[:80]!r} is not on this server any more: upload the checkpoint again")
            self._sizes.move_to_end(name)
            return _checkpoint_in(self._folder(name))

    def _folder(self, name: str) -> Path:
        return Path(self._root.name) / name.removeprefix(PREFIX)

    def _delete(self, name: str) -> None:
        self._sizes.pop(name, None)
        shutil.rmtree(self._folder(name), ignore_errors=True)

    def _unpack(self, data: bytes, folder: Path) -> int:
        """Write the files; returns their size in bytes."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = _checked(archive)
                size = sum(member.file_size for member in members)
                while self._sizes and sum(self._sizes.values()) + size > self._limit:
                    self._delete(next(iter(self._sizes)))
                for member in members:
                    _write(archive, member, folder / member.filename)
        except _BROKEN as error:
            raise ValueError(
                f"it is no zip file that can be unpacked: {' '.join(str(error).split())[:120] or type(error).__name__}"
            ) from error
        except OSError as error:  # its message names paths of this machine
            raise ValueError(f"it cannot be unpacked here: {error.strerror or type(error).__name__}") from error
        return size


def _checked(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files in an archive. Raises ValueError for one that could not come from an ordinary folder."""
    members = [member for member in archive.infolist() if not member.orig_filename.endswith("/")]
    size = sum(member.file_size for member in members)
    if len(members) > _MOST_FILES or size > _LARGEST:
        raise ValueError(
            f"it unpacks to {len(members):,} files of {size:,} bytes; at most {_MOST_FILES:,} of {_LARGEST:,} are taken"
        )
    names: set[str] = set()
    for member in members:
        fault = _fault(member) or ("is in it twice" if member.filename.casefold() in names else "")
        if fault:
            raise ValueError(f"{member.orig_filename[:80]!r} {fault}")
        names.add(member.filename.casefold())
    return members


def _fault(member: zipfile.ZipInfo) -> str:
    """Why a file is not unpacked; empty if it is."""
    name = member.orig_filename  # as in the archive; zipfile cuts it at a NUL
    parts = name.split("/")
    if any(ord(letter) < 32 or letter in "\\:" for letter in name) or any(part in ("", ".", "..") for part in parts):
        return "is no name of a file inside a folder"
    if len(parts) > _DEEPEST or len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        return f"lies deeper than {_DEEPEST} folders, or has a name of more than {_LONGEST_NAME} bytes"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link to another file, which is not followed"
    if member.flag_bits & 1:
        return "is encrypted: upload a zip file without a password"
    if member.compress_type not in _METHODS:
        return (
            f"is compressed by a method (number {member.compress_type}) that is not read here: upload an ordinary zip"
            " file"
        )
    return ""


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Unpack one file; zipfile reads no more than the declared size, and checks it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as packed, path.open("xb") as file:
        shutil.copyfileobj(packed, file, _BLOCK)


def _checkpoint_in(folder: Path) -> Path:
    for pattern in ("config.json", "*.pt", "*.gguf"):
        paths = sorted(folder.rglob(pattern))
        if paths:
            return paths[0].parent if pattern == "config.json" else paths[0]
    raise ValueError("it holds neither config.json nor a .pt or .gguf file")
