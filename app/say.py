"""What is said on the page. The words are ours, as Markdown; the values put into them are shown as the text that they are."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app.views.markdown import code, plain
from app.views.texts import shortened

_MOST = 1000
"""Letters of a value."""


@dataclass(frozen=True)
class Code:
    """A value that is shown as code: a command, a name to type."""

    text: str


class _Words(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, Code):
            return code(shortened(value.text, _MOST))
        return plain(shortened(super().format_field(value, format_spec), _MOST))


def words(template: str, *values: object) -> str:
    """Markdown: `template`, with a value for each {} as in `str.format`. For labels too, which Streamlit reads as Markdown."""
    return _Words().format(template, *values)


def caption(template: str, *values: object) -> None:
    st.caption(words(template, *values))


def markdown(template: str, *values: object) -> None:
    st.markdown(words(template, *values))


def subheader(template: str, *values: object) -> None:
    st.subheader(words(template, *values))


def info(template: str, *values: object) -> None:
    st.info(words(template, *values), icon=":material/info:")


def warning(template: str, *values: object) -> None:
    st.warning(words(template, *values), icon=":material/warning:")


def error(template: str, *values: object) -> None:
    st.error(words(template, *values))
