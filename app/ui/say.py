"""Texts of the page: our own words are Markdown, and the values put into them are shown as plain text."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app.server import owner
from app.views.markdown import code, plain
from app.views.texts import shortened

_MOST = 1000
"""Characters of a value."""


@dataclass(frozen=True)
class CodeText:
    """A value that is shown as code: a command, a name to type."""

    text: str


def words(template: str, *values: object) -> str:
    """Markdown for a text or a label of the page: `template`, with a value for each {} as in `str.format`.

    An error is shown as its message, without the full stop and without folders of this machine.
    """
    return _Words().format(template, *values)


def subheader(template: str, *values: object) -> None:
    st.subheader(words(template, *values))


def caption(template: str, *values: object) -> None:
    st.caption(words(template, *values))


def markdown(template: str, *values: object) -> None:
    st.markdown(words(template, *values))


def info(template: str, *values: object) -> None:
    """A box that says why something cannot be shown."""
    st.info(words(template, *values), icon=":material/info:")


def warning(template: str, *values: object) -> None:
    st.warning(words(template, *values), icon=":material/warning:")


class _Words(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, Exception):
            value = owner.without_folders(str(value)).removesuffix(".")
        if isinstance(value, CodeText):
            return code(shortened(value.text, _MOST))
        return plain(shortened(super().format_field(value, format_spec), _MOST))
