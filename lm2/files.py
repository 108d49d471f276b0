"""Files: read in one way by every door, and written so that a reader never meets half of one."""

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
    """All bytes of a regular file. Raises ValueError with the path for anything else, and for more than `most`
    bytes."""
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
    """A text file's text: UTF-8, its byte order mark left out, line ends as "\\n".

    `name`: what an error calls the file. Raises ValueError naming the byte that is not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not readable as text: byte {error.start:,} is not UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file, as `decode_text` reads it; of one that ends in .xz, what is compressed in it.

    Raises ValueError with the path for a file that is not there, is no text, or has more than `most` bytes.
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
    """A JSON document's values. `name`: what an error calls it.

    Raises ValueError for what is not JSON, NaN and Infinity among it, which JSON does not have, for a table that has a
    name twice, and for one that is nested too deeply.
    """
    if isinstance(text, bytes):
        text = decode_text(text, name)
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_table)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply to be read") from None
    except ValueError as error:  # of numbers with thousands of digits, too
        raise ValueError(f"{name} is not JSON: {error}") from error


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """A JSON file's values. Raises ValueError with the path, as `read_bytes` and `parse_json` do."""
    return parse_json(read_bytes(path, most), str(path))


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        twice = next(name for at, (name, _) in enumerate(pairs) if name in dict(pairs[:at]))
        raise ValueError(f"a table has the name {twice[:80]!r} twice")
    return table


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


State = tuple[tuple[str, int, int, int, int], ...]


def state(*paths: Path) -> State:
    """Name, times of the last change, size and inode of files; of folders, of the files that lie in them. What is not
    there is left out.

    It is part of the key under which what was read is remembered: other files in their place have another state. The
    first of the times is kept by tools that copy over a file; the second nobody can set.
    """
    files = (file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path]))
    return tuple(
        (str(file), found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
        for file in files
        if (found := _stat(file)) is not None
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    return None if S_ISDIR(found.st_mode) else found


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends well and vanishes when it does not.

    Whoever else writes the same file has a path of their own; the last one to end stays. Raises ValueError where `path`
    is a folder.
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
    """Write a file whole where there is none; False, and nothing is written, where there is one already, another
    writer's a moment ago too."""
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
    """A text that a spreadsheet takes for a text: what begins as a formula does (= + - @), and is no number, has an
    apostrophe before it.

    So has what begins with apostrophes before such a sign: `spreadsheet_text` takes the first one off again.
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
    """A table as CSV; its texts and names are none of a spreadsheet's formulas, and "nan" is a number that is
    missing."""
    texts = table.select_dtypes(exclude="number").columns
    safe = table.assign(
        **{
            name: table[name].map(lambda cell: spreadsheet_cell(cell) if isinstance(cell, str) else cell)
            for name in texts
        }
    )
    return safe.rename(columns=spreadsheet_cell).to_csv(index=False, na_rep="nan")


def write_table(table: "DataFrame", folder: Path, name: str) -> None:
    """A table as CSV and as Parquet."""
    with replace_file(folder / f"{name}.csv") as aside:
        aside.write_text(csv_text(table), encoding="utf-8", newline="")
    with replace_file(folder / f"{name}.parquet") as aside:
        table.to_parquet(aside, index=False)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """A fresh folder to write into, which takes the place of `path` when the block ends well.

    Two renames make the change. Where a writer was killed between them, `path` is not there; `restore_folder` brings it
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
    """Bring back the folder that a writer had put aside as it was killed; nothing happens where `path` is there, or was
    never written."""
    if path.exists() or not path.parent.is_dir():
        return
    there = [
        one
        for one in path.parent.iterdir()
        if one.name.startswith(f".{path.name}.") and one.suffix == ".old" and one.is_dir()
    ]
    if there:
        with suppress(OSError):  # somebody else was faster
            max(there, key=lambda one: one.stat().st_mtime_ns).rename(path)


def _put_in_place(aside: Path, path: Path) -> None:
    """Others may write the same folder, or restore it, at any moment: whoever is last stays."""
    while True:
        old = _aside(path, "old")
        try:
            with suppress(FileNotFoundError):
                path.rename(old)
            aside.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # which say that somebody was faster
                raise
        finally:
            with suppress(OSError):
                if old.exists() and not path.exists():
                    old.rename(path)
            shutil.rmtree(old, ignore_errors=True)


def _machine() -> str:
    """Folders may be shared: process numbers of another machine say nothing of ours."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _aside(path: Path, ending: str) -> Path:
    """A name that nobody else has: of another process, thread or machine neither."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(6)}.{ending}")


def _clear(path: Path) -> None:
    """Remove what processes of this machine that are no more have left aside of `path`."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(?:(?:{_machine()}-)?(\d+)(?:-[0-9a-f]+)?)\.(?:part|old)")
    for one in path.parent.iterdir():
        made = pattern.fullmatch(one.name)
        if made and not _alive(int(made[1])):
            shutil.rmtree(one, ignore_errors=True) if one.is_dir() else one.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether a process of this machine runs; True where that cannot be told."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _to_disk(path: Path) -> None:
    """A name must not reach the disk before its content: a machine that stops would leave an empty file under it."""
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
