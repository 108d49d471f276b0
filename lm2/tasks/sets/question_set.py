"""A question set: questions of any origin as one value, named by one string.

A name is `kind:what?option=value&option=value` for a set that is built in ("babi:qa1", "pairs:?n=16",
"simulated:qa1?people=Anna,Paul"), or the path of a file or folder ("mine.jsonl"). A path's name may carry the digest of
what it held ("mine.jsonl?sha256=1f2e3d4c5b6a"): then nothing else is read from it. So may the name of a built-in set
that names a path ("mmlu:?path=mine&sha256=1f2e3d4c5b6a").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

from lm2.files import State
from lm2.serialize import Spec, as_int, within
from lm2.shown import shown
from lm2.tasks import stories
from lm2.tasks.prompt import Prompt
from lm2.tasks.sets import files
from lm2.tasks.sets.built_in import BUILT_IN, DEFAULT_COUNT, Babi, BuiltIn

_PROVIDED: dict[str, Path] = {}
"""Where the files are that programs provide, by their names with digests."""
_PINNED = "sha256"
_DIGITS = 12
"""Of a file's SHA-256, in a name."""


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """Questions with their answers, and the name by which they are had again."""

    name: str
    """As `pinned` writes it."""
    about: str
    """Where they are from, in words."""
    prompts: tuple[Prompt, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that is asked and known of it."""
        every, encoder = hashlib.sha256(), json.JSONEncoder(sort_keys=True)
        for prompt in self.prompts:
            every.update(encoder.encode(files.record(prompt)).encode())
        return every.hexdigest()

    @property
    def groups(self) -> int:
        """How many groups there are: as many count where an interval is made."""
        return len({prompt.group for prompt in self.prompts})


def questions(name: str, count: int | None = None, *, fewer: bool = False) -> QuestionSet:
    """The first `count` questions of the set that is called `name`; None, all of a file's, and of a built-in set 64. If
    `fewer`, a set that has not so many gives all that it has.

    Raises ValueError for a name that is none, for options that its kind has not, for a file that is not readable or
    holds mistakes, for one that has changed since its name was pinned, and for more questions than there are.
    """
    if count is not None and not 1 <= count <= stories.MOST_SIMULATED:
        raise ValueError(f"1 to {stories.MOST_SIMULATED:,} questions are asked of a set, not {shown(count)}")
    name = pinned(name)
    source = parse(name)
    if isinstance(source, BuiltIn):
        count = count or DEFAULT_COUNT
        prompts = tuple(islice(source.prompts(count), count))
        if len(prompts) < count and not fewer:
            raise ValueError(f"{name} has {len(prompts):,} questions, not {count:,}")
        return QuestionSet(name=name, about=source.about, prompts=prompts)
    read = _from_file(source, stories.files_state(source))
    if count is not None and count > len(read) and not fewer:
        raise ValueError(f"{source} holds {len(read):,} questions, not {count:,}")
    return QuestionSet(name=name, about=read.about, prompts=read.prompts[:count])


def parse(name: str) -> BuiltIn | Path:
    """What a name stands for: a built-in set with its options, or a path. Nothing is read.

    Raises ValueError for an empty name, and for what and options that a kind does not have.
    """
    if not name.strip():
        raise ValueError(f"a question set is {', '.join(f'{kind}:...' for kind in BUILT_IN)} or a path, not {name!r}")
    bare, digest = _without_digest(name)
    kind, colon, rest = bare.partition(":")
    if not colon or kind not in BUILT_IN:
        return _PROVIDED.get(name) or Path(bare)
    what, _, options = rest.partition("?")
    source = BUILT_IN[kind].of(what, _options(bare, options, BUILT_IN[kind]))
    if digest is not None and source.own_path is None:
        raise ValueError(f"{shown(name)}: {_PINNED} is the digest of a path, and the set is read from none of yours")
    return source


def spelled(name: str) -> str:
    """The name in one spelling, with the digest that it carries. Raises ValueError as `parse` does."""
    source = parse(name)
    if not isinstance(source, BuiltIn):
        return name
    digest = _without_digest(name)[1]
    return source.name if digest is None else f"{source.name}&{_PINNED}={digest}"


def pinned(name: str) -> str:
    """The name in one spelling; if a path is read, with the digest of what is there now, or checked against it.

    Raises ValueError as `parse` does, for a path that is not there, and where it holds something else by now.
    """
    source = parse(name)
    bare, digest = _without_digest(spelled(name))
    path, joint = (source.own_path, "&") if isinstance(source, BuiltIn) else (str(source), "?")
    if path is None:
        return bare
    there = files.digest_of(Path(path))[:_DIGITS]
    if digest is not None and digest != there:
        raise ValueError(
            f"{path_read(name) or bare} holds something else than when it was named: its digest is {there} and not"
            f" {shown(digest)}; open the file as it was, or choose it again"
        )
    return f"{bare}{joint}{_PINNED}={there}"


def provide(path: Path, file: str) -> str:
    """From now on, the set that is called `file`, with the digest of what `path` holds, is read from there: of somebody
    else's file, whose own place is another machine. Returns its name.

    Raises ValueError for a name that is one of a built-in set's, and for a path that is not there.
    """
    if file.partition(":")[0] in BUILT_IN and ":" in file:
        raise ValueError(f"{shown(file)} begins as the name of a built-in set: give the file another name")
    name = f"{file}?{_PINNED}={files.digest_of(path)[:_DIGITS]}"
    _PROVIDED[name] = path
    return name


def is_provided(name: str) -> bool:
    """Whether a set's file has been provided, and is still there."""
    return name in _PROVIDED and _PROVIDED[name].exists()


def file_of(name: str) -> str | None:
    """The path that a name stands for, as it is written; None for a built-in set."""
    return None if isinstance(parse(name), BuiltIn) else _without_digest(name)[0]


def path_read(name: str) -> str | None:
    """The user's file or folder that a set is read from; None for one that reads nothing but the data folder or what
    has been provided."""
    if name in _PROVIDED:
        return None
    source = parse(name)
    return source.own_path if isinstance(source, BuiltIn) else file_of(name)


def _without_digest(name: str) -> tuple[str, str | None]:
    """A name without its digest, and the digest."""
    bare, mark, digest = name.rpartition(f"{_PINNED}=")
    joints = ("?", "&") if name.partition(":")[0] in BUILT_IN else "?"
    return (bare[:-1], digest) if mark and bare.endswith(joints) else (name, None)


def _options(name: str, text: str, kind: type[BuiltIn]) -> dict[str, str]:
    pairs = parse_qsl(text, keep_blank_values=True)
    known = kind.options()
    for option, _ in pairs:
        if option not in known:
            has = f"has {', '.join(known)}" if known else "has none"
            raise ValueError(f"{shown(name)}: no option is called {shown(option)}; {kind.kind}: {has}")
    if len(dict(pairs)) < len(pairs) or (text and not pairs):
        raise ValueError(f"{shown(name)}: options are written option=value, each once, with & between them")
    return dict(pairs)


@lru_cache(maxsize=4)
def _from_file(path: Path, state: State) -> QuestionSet:
    read = files.read(path)
    if read.mistakes:
        first, more = read.mistakes[0], len(read.mistakes) - 1
        raise ValueError(
            f"{first}" + (f" (and {more:,} more mistakes: `lm2 questions check` tells them all)" if more else "")
        )
    return QuestionSet(name=str(path), about=f"{len(read.prompts):,} questions of {path.name}", prompts=read.prompts)


@dataclass(frozen=True, kw_only=True)
class AsksQuestions(Spec):
    """A specification of something that asks the questions of a set."""

    questions: str = "babi:qa1"
    """The set's name, as the function `questions` takes it."""
    count: int | None = None
    """Questions, from the first on; None, all of a file's, and of a built-in set 64."""

    def __post_init__(self) -> None:
        super().__post_init__()
        source = parse(self.questions)
        if isinstance(source, BuiltIn):
            self.freeze(questions=spelled(self.questions), count=DEFAULT_COUNT if self.count is None else self.count)
        if self.count is not None:
            within("count", self.count, 1, stories.MOST_SIMULATED)

    @property
    def task(self) -> int | None:
        """bAbI's task, if the questions are of one."""
        return getattr(parse(self.questions), "task", None)

    @property
    def files(self) -> tuple[str, ...]:
        """The paths that the set is read from, apart from the data folder."""
        path = path_read(self.questions)
        return () if path is None else (path,)

    @property
    def asked(self) -> str:
        """The questions in words."""
        source = parse(self.questions)
        if isinstance(source, Babi):
            return f"{self.count} held-out questions of {source.what}"
        return f"{self.count or 'all'} questions of {source.name}"  # of a path, its last part

    def question_set(self) -> QuestionSet:
        """Raises ValueError as `questions` does."""
        return questions(self.questions, self.count)

    def to_json(self) -> dict[str, Any]:
        """bAbI's held-out questions are written by their task, as they were before there were other sets: what was
        computed of them keeps its digest."""
        values = super().to_json()
        source = parse(self.questions)
        if isinstance(source, Babi):
            del values["count"]
            values |= {"task": source.task, "questions": self.count}
        return values

    @classmethod
    def from_json(cls, values: object) -> Self:
        if isinstance(values, Mapping) and ("task" in values or isinstance(values.get("questions"), int)):
            by_name = {name: value for name, value in values.items() if name not in ("task", "questions")}
            task = as_int("task", values.get("task", 1))
            count = as_int("questions", values.get("questions", DEFAULT_COUNT))
            values = {**by_name, "questions": Babi(task=task).name, "count": count}
        return super().from_json(values)


def write(prompts: Sequence[Prompt], path: Path) -> None:
    """Write questions as a file that `questions` reads: .jsonl, .csv or .parquet by its ending.

    Raises ValueError for another ending.
    """
    files.write(prompts, path)
