"""The question sets of this server's visitors: built-in sets, files that they upload, and those that they may open."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import streamlit as st

from app.server import owner
from lm2.shown import shown
from lm2.tasks import stories
from lm2.tasks.sets import files, question_set
from lm2.tasks.sets.files import QuestionFile
from lm2.tasks.sets.question_set import QuestionSet

if TYPE_CHECKING:
    from lm2.files import State
    from lm2.tasks.encoded_prompt import EncodedPrompt
    from lm2.tasks.sets.description import Description
    from lm2.weights.checkpoint import Checkpoint

_BYTES = 2 * 1024**3
"""What all uploaded files may take on the disk."""
_LONGEST_NAME = 200
ANSWERED = 64
"""Questions whose answers stand against each other."""
_LOOKED_AT = 20
"""Documents in which targets are looked for."""


class EncodedSet(NamedTuple):
    """A set's questions as one checkpoint reads them."""

    description: Description
    items: tuple[EncodedPrompt | None, ...]
    """None for a question that it cannot be asked."""


class UploadedSets:
    """Uploaded files by the names of their sets. The least recently uploaded are deleted first, and all when the server
    ends."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._root = tempfile.TemporaryDirectory(prefix="lm2-questions-")  # new, and only readable for this user
        self._files: OrderedDict[str, Path] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, file: str, content: bytes) -> str:
        """Keep a file, and return its set's name; the same file has the same name.

        Raises ValueError for a file that is larger than all may be, and for a name that none should have.
        """
        if len(content) > self._limit:
            raise ValueError(f"it has {len(content):,} bytes; at most {self._limit:,} are taken")
        plain = file.strip(".") and file == Path(file).name == file.strip() and file.isprintable()
        if not plain or len(file.encode()) > _LONGEST_NAME:
            raise ValueError(f"{shown(file)} is no name of at most {_LONGEST_NAME} bytes, all visible: rename it")
        with self._lock:
            path = Path(self._root.name) / hashlib.sha256(content).hexdigest() / file
            try:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            except OSError as error:  # its message names paths of this machine
                raise ValueError(f"it cannot be kept here: {error.strerror or type(error).__name__}") from error
            name = question_set.provide(path, file)
            self._files[name] = path
            self._files.move_to_end(name)
            while sum(path.stat().st_size for path in self._files.values()) > self._limit:
                self._files.popitem(last=False)[1].unlink()
        return name


@st.cache_resource(show_spinner=False)
def uploaded() -> UploadedSets:
    """The question sets that visitors of this server have uploaded."""
    return UploadedSets(_BYTES)


def checked(name: str) -> str:
    """A set's name in one spelling, with the digest of its file.

    Raises ValueError for a name that is none, for a file that this server does not have, or another than was named, and
    for a path that its owner does not open to visitors.
    """
    if question_set.is_provided(name):
        return name
    path, source = question_set.path_read(name), question_set.parse(name)
    if path is not None:
        owner.allowed_path(path)
    if isinstance(source, Path) and not source.exists():
        _, _, digest = name.partition("?sha256=")
        which = f" (the one whose SHA-256 begins with {digest})" if digest else ""
        raise ValueError(
            f"{question_set.file_of(name)}{which} is not on this server: upload that file under Questions in the"
            " sidebar, or choose another set"
        )
    return question_set.pinned(name)


def questions(name: str, count: int) -> QuestionSet:
    """`lm2.tasks.sets.question_set.questions`, collected once: thousands of long stories take half a minute.

    Raises ValueError as it and `checked` do.
    """
    return _questions(checked(name), count, stories.origin())


@st.cache_resource(max_entries=16, show_spinner="Collecting the questions ...")
def _questions(name: str, count: int, origin: State) -> QuestionSet:
    return question_set.questions(name, count)


def first(name: str, most: int) -> QuestionSet:
    """The first `most` questions, or as many as there are. Raises ValueError as `questions` does."""
    return _first(checked(name), most, stories.origin())


@st.cache_resource(max_entries=16, show_spinner="Collecting the questions ...")
def _first(name: str, most: int, origin: State) -> QuestionSet:
    return question_set.questions(name, most, fewer=True)


def answers(name: str) -> tuple[str, ...]:
    """The answers of a set's first questions, each once. Raises ValueError as `questions` does."""
    return tuple(sorted({prompt.answer for prompt in first(name, ANSWERED).prompts}))


def file_read(name: str) -> QuestionFile | None:
    """What the file of a set holds, with its mistakes; None for a set without a file. Raises ValueError as `checked`
    does."""
    name = checked(name)
    return None if question_set.file_of(name) is None else _file(name)


@st.cache_resource(max_entries=4, show_spinner="Reading the file ...")
def _file(name: str) -> QuestionFile:
    path = question_set.parse(name)
    assert isinstance(path, Path), "a set with a file"
    return files.read(path)


def encoded(checkpoint: Checkpoint, questions: QuestionSet, segment_length: int | None) -> EncodedSet:
    """Questions as the checkpoint reads them. Raises ValueError if it can be asked none."""
    return _encoded(checkpoint.digest, questions.digest, segment_length, checkpoint, questions)


@st.cache_resource(max_entries=2, show_spinner="Reading the questions ...")
def _encoded(
    model: str, asked: str, segment_length: int | None, _checkpoint: Checkpoint, _questions: QuestionSet
) -> EncodedSet:
    from lm2.tasks.encoded_prompt import encode_prompts
    from lm2.tasks.sets.description import describe_encoded

    items, skipped = encode_prompts(_checkpoint, _questions.prompts, segment_length)
    by_prompt = {id(item.prompt): item for item in items}
    return EncodedSet(
        description=describe_encoded(items, skipped),
        items=tuple(by_prompt.get(id(prompt)) for prompt in _questions.prompts),
    )


def targets(checkpoint: Checkpoint, name: str, pattern: str) -> tuple[str, ...]:
    """The probe targets that a pattern with "*" stands for in the first documents of a set; there may be none. Raises
    ValueError as `checked` does."""
    return _targets(checkpoint.digest, stories.origin(), checked(name), pattern, checkpoint)


@st.cache_data(show_spinner=False)
def _targets(digest: str, origin: State, name: str, pattern: str, _checkpoint: Checkpoint) -> tuple[str, ...]:
    from probes.features.documents import Documents
    from probes.features.examples import Examples, RowPosition
    from probes.features.target_names import expand

    try:
        documents = Documents(questions=(name,), count=len(first(name, _LOOKED_AT)))
        return tuple(map(str, expand((pattern,), Examples.of(_checkpoint, documents, RowPosition.QUESTION))))
    except ValueError:
        return ()
