"""Files: reading text, JSON and tables, and writing so that no reader ever sees half a file."""

import errno
import hashlib
import json
import lzma
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pandas import DataFrame

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
MOST_BYTES = 1024**3
"""Larger files are not read as a whole."""


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """All bytes of a regular file. Raises ValueError with the path for any other, or one of more than `most` bytes."""
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} is no file's name: it has a character 0")
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}, not a file to read")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > most:
        raise ValueError(f"{path} has more than the {most:,} bytes that are read")
    return content


def decode_text(content: bytes, name: str) -> str:
    """UTF-8 text without byte order mark, with line ends as "\\n".

    `name` is what errors call the file. Raises ValueError naming the byte that is not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not readable as text: byte {error.start:,} is not UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file, unpacked if its name ends in .xz.

    Raises ValueError with the path for a file that is missing, is no text, or has more than `most` bytes.
    """
    if path.suffix != ".xz":
        return decode_text(read_bytes(path, most), str(path))
    read_bytes(path, most)
    try:
        with lzma.open(path) as file:
            content = file.read(most + 1)
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path} is not readable as text compressed with xz: {error}") from error
    if len(content) > most:
        raise ValueError(f"{path} unpacks to more than the {most:,} bytes that are read")
    return decode_text(content, str(path))


def parse_json(text: str | bytes, name: str) -> Any:
    """The values of a JSON document, which errors call `name`.

    Raises ValueError for anything that is not JSON (NaN and Infinity are not), for repeated names in an object, and for
    values nested too deeply.
    """
    if isinstance(text, bytes):
        text = decode_text(text, name)
    try:
        return _JSON.decode(text)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply to be read") from None
    except ValueError as error:  # also for numbers with thousands of digits
        raise ValueError(f"{name} is not JSON: {error}") from error


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """The values of a JSON file. Raises ValueError with the path, as `read_bytes` and `parse_json` do."""
    return parse_json(read_bytes(path, most), str(path))


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"a table has the name {twice[:80]!r} twice")
    return table


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


_JSON = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_table)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


State = tuple[tuple[str, int, int, int, int], ...]


def state(*paths: Path) -> State:
    """Name, modification time, change time, size and inode of each file, and of the files in each folder. Missing ones
    are left out.

    Caches have it in their keys: replaced files have another state. Copying may keep the modification time, but nobody
    can set the change time.
    """
    states = []
    for file in (file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])):
        with suppress(OSError, ValueError):  # ValueError: a name that no file can have
            stat = file.stat()
            if not S_ISDIR(stat.st_mode):
                states.append((str(file), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))
    return tuple(states)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary path, which replaces `path` when the block ends and is removed when it fails.

    Concurrent writers each have their own; the last one to finish wins. Raises ValueError where `path` is a folder.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, and a file is to be written there")
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    aside = _aside(path, "part")
    try:
        yield aside
        _to_disk(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def create_file(path: Path, text: str) -> bool:
    """Write a file unless it exists; whether it was written. Of concurrent writers only one succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path, "part")
    try:
        aside.write_text(text, encoding="utf-8")
        _to_disk(aside)
        try:
            os.link(aside, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    return True


def spreadsheet_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: an apostrophe is put before one that begins with = + - or @ and
    is no number.

    Apostrophes in front of such a sign get another one, so that `spreadsheet_text` can take the first one off again.
    """
    if not _FORMULA.match(text):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def spreadsheet_text(cell: str) -> str:
    """The text that `spreadsheet_cell` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_text(table: "DataFrame") -> str:
    """A table as CSV in which no spreadsheet finds a formula, and missing numbers are "nan"."""
    texts = table.select_dtypes(exclude="number")
    safe = table.assign(**texts.map(lambda cell: spreadsheet_cell(cell) if isinstance(cell, str) else cell))
    return safe.rename(columns=spreadsheet_cell).to_csv(index=False, na_rep="nan")


def write_table(table: "DataFrame", folder: Path, name: str) -> None:
    """Write a table as CSV and as Parquet."""
    with replace_file(folder / f"{name}.csv") as aside:
        aside.write_text(csv_text(table), encoding="utf-8", newline="")
    with replace_file(folder / f"{name}.parquet") as aside:
        table.to_parquet(aside, index=False)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """A temporary folder, which replaces `path` when the block ends and is removed when it fails.

    This takes two renames. If the process is killed between them, `path` is missing until `restore_folder` brings it
    back. Raises ValueError where `path` is a file.
    """
    if path.is_file():
        raise ValueError(f"{path} is a file, and a folder is to be written there")
    path.parent.mkdir(parents=True, exist_ok=True)
    restore_folder(path)
    _clear(path)
    aside = _aside(path, "part")
    aside.mkdir()
    try:
        yield aside
        for file in aside.rglob("*"):
            _to_disk(file)
        _put_in_place(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Bring back a missing folder whose writer was killed while replacing it."""
    if path.exists() or not path.parent.is_dir():
        return
    old = [
        folder
        for folder in path.parent.iterdir()
        if folder.name.startswith(f".{path.name}.") and folder.suffix == ".old" and folder.is_dir()
    ]
    if old:
        with suppress(OSError):  # another process was faster
            max(old, key=lambda folder: folder.stat().st_mtime_ns).rename(path)


def _put_in_place(aside: Path, path: Path) -> None:
    """Replace a folder that others may replace or restore at the same time."""
    while True:
        old = _aside(path, "old")
        try:
            with suppress(FileNotFoundError):
                path.rename(old)
            aside.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # with these, another process was faster
                raise
        finally:
            with suppress(OSError):
                if old.exists() and not path.exists():
                    old.rename(path)
            shutil.rmtree(old, ignore_errors=True)


def _machine() -> str:
    """Part of temporary names: in a shared folder, process numbers may be another machine's."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _aside(path: Path, ending: str) -> Path:
    """A temporary name that no other process, thread or machine uses."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(6)}.{ending}")


def _clear(path: Path) -> None:
    """Remove the temporary files and folders of `path` that dead processes of this machine have left."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(?:(?:{_machine()}-)?(\d+)(?:-[0-9a-f]+)?)\.(?:part|old)")
    for entry in path.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match and not _alive(int(match[1])):
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether a process of this machine runs; True where that is unknown."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _to_disk(path: Path) -> None:
    """Flush a file before it is renamed: if the machine stopped in between, its name would lead to an empty file."""
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
