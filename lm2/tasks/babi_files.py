"""bAbI files, read and written in the official format.

The format (bAbI v1.2, Weston et al., arXiv 1502.05698) is one line a statement or question:

    ID text
    ID question<TAB>answer<TAB>supporting line IDs, separated by spaces

IDs rise; an ID of 1 starts a new story. A question may use every statement above it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from lm2.files import read_bytes, replace_file
from lm2.shown import shown
from lm2.tasks.babi import Question, Statement, Story
from lm2.text.archives import MOST_MEMBER_BYTES, read_members
from lm2.text.tokens import BREAK

_Item = TypeVar("_Item")


_TASK_FILE = re.compile(r"qa(\d+)_.*\.txt")


_ARCHIVES = (".tar.xz", ".tar.gz")


_LONGEST_LINE = 10_000
"""Characters: a longer one is no line of bAbI, and would take hours to read as one."""


class BabiError(ValueError):
    """A file is not readable as bAbI; the message says where (file:line), what, and what was expected."""


class NoSuchTaskError(BabiError):
    """A folder or archive is readable and has no file of the task that was asked for."""


def read(path: str | Path, *, task: int | None = None, folder: str | None = None) -> tuple[Story, ...]:
    """The stories of a .txt file, of a folder, or of a .tar.xz/.tar.gz archive in the official layout.

    `task` picks the files named qaN_*.txt of that N; `folder` ("en", "en-10k") picks those with a
    path component of exactly that name. Files come by task number, then path. Training and test files of
    one folder are both read. An archive is read in memory; nothing is unpacked. Raises BabiError.
    """
    path = Path(path)
    if path.is_dir():
        named = ((PurePosixPath(path.name, f.relative_to(path).as_posix()), f) for f in path.rglob("qa*.txt"))
        files = [(str(f), f.stem, _bytes(f)) for _, f in _picked(named, task, folder) if f.is_file()]
    elif not path.is_file():
        raise BabiError(f"{path}: there is no such file or folder; expected a bAbI .txt file, folder or archive")
    elif path.name.endswith(_ARCHIVES):
        files = _archive_files(path, task, folder)
    elif path.suffix == ".txt":
        if task is not None and _task_of(path.stem) != task:
            raise BabiError(f"{path}: the file is not of task {task}; expected a name like qa{task}_....txt")
        files = [(str(path), path.stem, _bytes(path))]
    else:
        raise BabiError(f"{path}: expected a .txt file, a folder, or an archive ending in .tar.xz or .tar.gz")
    if not files:
        wanted = f"qa{'N' if task is None else task}_*.txt"
        raise NoSuchTaskError(f"{path}: no file {wanted}" + ("" if folder is None else f" in a folder {folder!r}"))
    first_with: dict[str, str] = {}
    for where, stem, _ in files:
        # Story ids would collide, and the same task of two sets would be mixed unseen.
        if first_with.setdefault(stem, where) != where:
            raise BabiError(f"{where}: same name as {first_with[stem]}; expected one set, pick it with folder")
    return tuple(story for where, stem, data in files for story in _parse(data, where, stem))


def _picked(
    named: Iterator[tuple[PurePosixPath, _Item]], task: int | None, folder: str | None
) -> list[tuple[PurePosixPath, _Item]]:
    """The official task files among `found` that match, ordered by task number, then path."""
    kept = []
    for name, item in named:
        match = _TASK_FILE.fullmatch(name.name)
        if match is None or (folder is not None and folder not in name.parent.parts):
            continue
        if task is None or int(match[1]) == task:
            kept.append((int(match[1]), name, item))
    kept.sort(key=lambda entry: entry[:2])
    return [(name, item) for _, name, item in kept]


def _archive_files(path: Path, task: int | None, folder: str | None) -> list[tuple[str, str, bytes]]:
    """(where, stem, bytes) of the picked members of an archive."""
    try:
        members = read_members(path, lambda name: bool(_picked(iter([(name, None)]), task, folder)))
    except ValueError as error:
        raise BabiError(str(error)) from error
    return [(f"{path}/{name}", name.stem, data) for name, data in _picked(iter(members), task, folder)]


def _bytes(path: Path) -> bytes:
    try:
        return read_bytes(path, MOST_MEMBER_BYTES)
    except ValueError as error:
        raise BabiError(str(error)) from error


def _task_of(stem: str) -> int | None:
    """The N of qaN_..., None for other names."""
    match = re.match(r"qa(\d+)_", stem)
    return int(match[1]) if match else None


def _parse(data: bytes, where: str, stem: str) -> tuple[Story, ...]:
    """The stories of one file's bytes; `where` names the file in errors, `stem` goes into the ids."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BabiError(f"{where}:{line}: byte {data[error.start]:#04x} is not UTF-8; expected UTF-8 text") from error
    stories: list[list[Statement | Question]] = []
    rows = text.split("\n")
    if rows[-1] == "":
        rows.pop()
    for number, row in enumerate(rows, start=1):
        at = f"{where}:{number}"
        if len(row) > _LONGEST_LINE:
            raise BabiError(f"{at}: {len(row):,} characters; expected a line of at most {_LONGEST_LINE:,}")
        digits, _, rest = row.removesuffix("\r").partition(" ")
        # isascii too: isdigit alone lets superscripts through, which int() then refuses.
        if not (digits.isascii() and digits.isdigit() and int(digits[:9]) > 0) or len(digits) > 9:
            raise BabiError(f"{at}: bad line number {digits[:40]!r}; expected a whole number from 1, a blank, and text")
        line_id = int(digits)
        if line_id == 1:
            stories.append([])
        elif not stories:
            raise BabiError(f"{at}: the first line has number {line_id}; expected 1, which starts a story")
        elif line_id <= stories[-1][-1].line:
            last = stories[-1][-1].line
            raise BabiError(f"{at}: line number {line_id} after {last}; expected numbers that rise, or 1")
        stories[-1].append(_line(line_id, rest, stories[-1], at))
    if not stories:
        raise BabiError(f"{where}:1: no stories; expected at least one line like '1 Mary moved to the bathroom.'")
    task = _task_of(stem)
    return tuple(Story(id=f"{stem}:{i}", task=task, lines=tuple(lines)) for i, lines in enumerate(stories))


def _line(line_id: int, rest: str, above: list[Statement | Question], at: str) -> Statement | Question:
    """One line after its number; a TAB makes it a question."""
    text, *fields = rest.split("\t")
    text = text.strip()
    if not text or BREAK in text:
        raise BabiError(f"{at}: text {shown(text)}; expected a sentence without form feeds")
    if not fields and not text.endswith("?"):
        return Statement(line=line_id, text=text)
    if len(fields) != 2 or not fields[0].strip():
        raise BabiError(
            f"{at}: question {shown(text)} has {len(fields)} TAB fields; expected TAB answer TAB line numbers"
        )
    support = []
    for word in fields[1].split():
        if not any(isinstance(line, Statement) and str(line.line) == word for line in above):
            raise BabiError(
                f"{at}: supporting line {shown(word)}; expected the number of a statement above in this story"
            )
        support.append(int(word))
    return Question(line=line_id, text=text, answer=fields[0].strip(), support=tuple(support))


def write(stories: Sequence[Story], path: str | Path) -> None:
    """Write `stories` in the official format, replacing `path` in one step.

    Reading the file back gives the same lines; ids and task then come from the file's name. ValueError,
    with nothing written, for stories whose lines the format cannot hold.
    """
    path = Path(path)
    rows = []
    for line in (line for story in stories for line in story.lines):
        if isinstance(line, Question):
            rows.append(f"{line.line} {line.text} \t{line.answer}\t{' '.join(map(str, line.support))}\n")
        else:
            rows.append(f"{line.line} {line.text}\n")
    data = "".join(rows).encode("utf-8")
    # Reading it back before it is written: a TAB or line break inside a text would change the lines.
    if [s.lines for s in _parse(data, str(path), path.stem)] != [s.lines for s in stories]:
        raise ValueError(f"{path}: a text holds a TAB, line break or outer blank; expected plain sentences")
    with replace_file(path) as aside:
        aside.write_bytes(data)
