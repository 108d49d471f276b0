"""The choice of a question set: a built-in one with its options, or a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import streamlit as st

from app.server import sets
from app.ui import say, state
from lm2.tasks import mmlu, stories
from lm2.tasks.sets.built_in import BUILT_IN, BuiltIn
from lm2.tasks.sets.question_set import file_of, parse

_FILE = "file"
_KINDS = {
    "babi": "bAbI, held out",
    "simulated": "bAbI, simulated",
    "babilong": "bAbI in books (BABILong)",
    "mmlu": "Multiple choice (MMLU)",
    "pairs": "Pairs (associative recall)",
    "passkey": "Passkey in a long text",
    _FILE: "Your own file",
}
_TASKS = {
    1: "one fact",
    2: "two facts",
    3: "three facts",
    4: "two-argument relations",
    5: "three-argument relations",
    6: "yes/no",
    7: "counting",
    8: "lists",
    9: "negation",
    10: "indefinite knowledge",
}
_LABELS = {
    "task": ("bAbI task", None),
    "length": ("Length", "In tokens of the bundled tokenizer, such as 0k, 4k or 1M; 0k is facts alone."),
    "subject": ("Subject", None),
    "part": ("Part", None),
    "n": ("Pairs", "How many things have a colour before one is asked for."),
    "depth": ("Depth", "Where in the text it is told, from 0 to 1; empty, everywhere in turn."),
    "seed": ("Seed of the set", "Another seed, other documents."),
    "statements": ("Statements", "Empty: as many as bAbI's stories have."),
    "people": ("People", "Names with commas between; empty, bAbI's."),
    "places": ("Places", "With commas between; empty, bAbI's."),
    "objects": ("Objects", "With commas between; empty, bAbI's."),
    "books": ("Books", "A text or a folder of texts, if the server's owner allows it; empty, the data folder's."),
    "path": ("MMLU's folder", "A path, if the server's owner allows it; empty, the data folder's."),
    "text": ("Around it", "books, filler (five sentences again and again), or the path of a text."),
}
_MOST = 2**31 - 1
_FORMATS = "JSONL, CSV or Parquet; a row is a question with context, question and answer. The documentation tells more."
_PATH = "Or a path on the server: such a file or a folder of `datasets`, if the server's owner allows it."


def task_name(task: int) -> str:
    return f"qa{task}: {_TASKS[task]}"


def _subject_name(subject: str) -> str:
    return subject.replace("_", " ") or "all"


def choose() -> None:
    """Draw the widgets; a choice becomes the set that is asked everywhere."""
    name = state.current().questions.set
    try:
        source = parse(name)
    except ValueError:  # the screens say what is wrong with it
        built_in = BUILT_IN.get(name.partition(":")[0])
        source = None if built_in is None else built_in()
    kind = source.kind if isinstance(source, BuiltIn) else _FILE
    if st.session_state.get("set_wanted") == _FILE:
        kind = _FILE
    key = state.shown_key("set_kind", kind)
    st.selectbox(
        "Question set", list(_KINDS), key=key, format_func=_KINDS.__getitem__, on_change=_take_kind, args=(key,)
    )
    if kind != _FILE and isinstance(source, BuiltIn):
        _options(source)
    else:
        _file(file_of(name) if isinstance(source, Path) else None)
    if refusal := st.session_state.get("set_refused"):
        st.error(say.words("Not taken: {}.", refusal))


def _take(choose: Callable[[], str]) -> None:
    """Take a set's name, or keep why it cannot be taken."""
    st.session_state.pop("set_refused", None)
    try:
        state.choose_set(sets.checked(choose()))
    except ValueError as error:
        st.session_state["set_refused"] = error
    else:
        st.session_state.pop("set_wanted", None)


def _take_kind(key: str) -> None:
    kind = st.session_state[key]
    st.session_state.pop("set_refused", None)
    if kind == _FILE:
        st.session_state["set_wanted"] = _FILE
    else:
        state.choose_set(BUILT_IN[kind]().name)
        st.session_state.pop("set_wanted", None)


def _options(source: BuiltIn) -> None:
    """A widget for each option of a built-in set, its form by the type of the option."""
    names = [field.name for field in fields(source)]
    first = [name for name in names if name in (*source.written, "n", "length", "depth", "part", "text")]
    for name in first:
        _option(source, name, st)
    rest = [name for name in names if name not in first]
    if rest:
        with st.expander("More", icon=":material/tune:"):
            for name in rest:
                _option(source, name, st)


def _option(source: BuiltIn, name: str, at: Any) -> None:
    value, (label, help) = getattr(source, name), _LABELS[name]
    annotation = str(next(field.type for field in fields(source) if field.name == name)).removesuffix(" | None")
    shown = value
    if annotation.startswith("tuple"):
        shown = ", ".join(value or ())
    elif annotation == "str":
        shown = value or ""
    key = state.shown_key(f"set_{name}", shown)

    def take() -> None:
        entered = st.session_state[key]
        if annotation.startswith("tuple"):
            entered = tuple(filter(None, (part.strip() for part in entered.split(",")))) or None
        elif annotation == "str":
            entered = entered.strip() or next(field.default for field in fields(source) if field.name == name)
        _take(lambda: replace(source, **{name: entered}).name)

    looks = {"key": key, "on_change": take, "help": help}
    match name:
        case "task":
            at.selectbox(label, stories.TASKS, format_func=task_name, **looks)
        case "subject":
            at.selectbox(label, ["", *mmlu.SUBJECTS], format_func=_subject_name, **looks)
        case "part":
            at.selectbox(label, [part.value for part in mmlu.Split], **looks)
        case "statements":
            at.number_input(label, 1, 1000, value=None, step=1, placeholder="as usual", **looks)
        case _ if annotation == "int":
            at.number_input(label, 0, _MOST, step=1, **looks)
        case "depth":
            at.number_input(label, 0.0, 1.0, value=None, step=0.1, placeholder="everywhere", **looks)
        case _:
            at.text_input(label, **looks)


def _file(path: str | None) -> None:
    """An upload, or a path."""

    def take_upload() -> None:
        file = st.session_state["set_upload"]
        if file is not None:
            _take(lambda: sets.uploaded().add(file.name, file.getvalue()))

    st.file_uploader(
        "A file of questions", ["jsonl", "csv", "parquet"], key="set_upload", on_change=take_upload, help=_FORMATS
    )
    key = state.shown_key("set_path", path or "")

    def take_path() -> None:
        if path := st.session_state[key].strip():
            _take(lambda: path)

    if path is None:
        say.caption("Until there is a file, {} is asked.", state.current().questions.set)
    st.text_input("File", key=key, on_change=take_path, placeholder="none yet", help=_PATH)
