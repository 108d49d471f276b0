"""The door to session state and to the URL.

A Selection is everything that decides what is on the screen. It is read from the URL when a session starts and
written back after each run of the script, so that a copied link opens the same view.
"""

import base64
import dataclasses
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import Any

import streamlit as st

_LONGEST_TEXT_IN_URL = 6_000
_NOTHING = object()


class Source(Enum):
    """Where the text comes from."""

    STORY = "story"
    SIMULATED = "simulated"
    PASTED = "text"
    FILE = "file"


class Kind(Enum):
    """How a question of a story is put to the model."""

    OWN_SEGMENT = "own segment"
    SAME_TEXT = "same text"
    WHOLE_STORY = "whole story"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """One view of the workbench. Field names are the names in the URL."""

    checkpoint: str = "babi-lm2-qa1"
    device: str = "auto"
    dtype: str = "float32"
    length: int = 0
    """Segment length in tokens; 0, the checkpoint's own."""
    source: Source = Source.STORY
    task: int = 1
    index: int = 0
    question: int = -1
    """Which question of the story; -1, the last."""
    asked: Kind = Kind.OWN_SEGMENT
    seed: int = 0
    statements: int = 10
    text: str = ""
    layer: int = -1
    """Block; -1, the last that has a memory."""
    head: str = "mean"
    """A memory head's number, "mean" or "max"."""
    token: int | None = None
    slot: int | None = None
    scale: str = "sqrt"
    """Of the maps' colours: "linear" or "sqrt"."""
    side: str = "read"
    """Whether the text is coloured by who "read" or who "wrote" the chosen slot."""
    gate: str = "forget"
    segment: int = -1
    """-1, the last."""
    results: str = ""
    """Folder of an evaluation; empty, the bundled one."""
    metric: str = "official"
    shown: str = "mean"
    """Task of the benchmark's curves: "mean" over tasks, or "qa1" ..."""
    at: str = "0k"
    """Length of the benchmark's table of tasks."""
    rival: str = ""
    """Two models whose difference is shown, as "A - B"; empty, the first two."""


_FIELDS = {field.name: field for field in dataclasses.fields(Selection)}


def current() -> Selection:
    """This session's selection; what the URL says when the session begins."""
    if "selection" not in st.session_state:
        st.session_state["selection"] = _from_url(dict(st.query_params))
    return st.session_state["selection"]


def update(**changes: Any) -> Selection:
    """Replace fields of the selection."""
    st.session_state["selection"] = dataclasses.replace(current(), **changes)
    return st.session_state["selection"]


def choice(field: str, count: int) -> int | None:
    """A field that chooses one of `count` things; None where it chooses none, or one that is not there."""
    chosen = getattr(current(), field)
    return chosen if chosen is not None and 0 <= chosen < count else None


def publish() -> None:
    """Write the selection to the URL, leaving out what is at its default."""
    values = {name: _write(getattr(current(), name)) for name in _FIELDS if getattr(current(), name) != _FIELDS[name].default}
    if len(values.get("text", "")) > _LONGEST_TEXT_IN_URL:
        del values["text"]
    if dict(st.query_params) != values:
        st.query_params.from_dict(values)


def text_fits_url() -> bool:
    """Whether the pasted text is short enough to be part of a link."""
    return len(_write(current().text)) <= _LONGEST_TEXT_IN_URL


def widget_key(field: str, value: Any) -> str:
    """The session key of a field's widget, which will show `value`; pass `take` as the widget's on_change."""
    key = f"widget_{field}"
    if st.session_state.get(key, _NOTHING) != value:
        st.session_state[key] = value
    return key


def take(field: str) -> None:
    """The user has moved a field's widget: the selection follows."""
    update(**{field: st.session_state[f"widget_{field}"]})


def _write(value: Any) -> str:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str) and len(value) > 40:
        return "~" + base64.urlsafe_b64encode(zlib.compress(value.encode(), 9)).decode()
    return str(value)


def _from_url(values: dict[str, str]) -> Selection:
    """A link's selection; fields that do not make sense keep their defaults, and `problems` tells of them."""
    read: dict[str, Any] = {}
    for name, written in values.items():
        if name in _FIELDS:
            try:
                read[name] = _read(written, _FIELDS[name].default)
            except (ValueError, zlib.error):
                st.session_state.setdefault("link_problems", []).append(f"{name}={written[:40]}")
    return Selection(**read)


def link_problems() -> list[str]:
    """Parts of the link that made no sense; told once."""
    return st.session_state.pop("link_problems", [])


def _read(written: str, default: Any) -> Any:
    if isinstance(default, Enum):
        return type(default)(written)
    if default is None or isinstance(default, int):
        return int(written)
    if written.startswith("~"):
        # Bounded: a few kB of zlib can otherwise unpack to gigabytes.
        return zlib.decompressobj().decompress(base64.urlsafe_b64decode(written[1:]), 1_000_000).decode()
    return written
