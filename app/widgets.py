"""Widgets bound to the selection: each shows one field, changes it, and returns its value."""

import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from app import state


def _valid(field: str, options: Sequence[Any], fallback: Any) -> Any:
    """The field's value, or `fallback` where the present options do not have it."""
    value = getattr(state.current(), field)
    if value in options:
        return value
    state.update(**{field: fallback})
    return fallback


def select(label: str, field: str, options: Sequence[Any], *, show: Callable[[Any], str] = str, help: str | None = None) -> Any:
    key = state.widget_key(field, _valid(field, options, options[0]))
    return st.selectbox(label, options, key=key, format_func=show, help=help, on_change=state.take, args=(field,))


def buttons(label: str, field: str, options: Sequence[Any], *, show: Callable[[Any], str] = str, help: str | None = None) -> Any:
    """A row of buttons; exactly one is on."""
    key = state.widget_key(field, _valid(field, options, options[0]))
    return st.segmented_control(
        label, options, required=True, key=key, format_func=show, help=help, on_change=state.take, args=(field,)
    )


def number(label: str, field: str, lowest: int, highest: int, *, help: str | None = None) -> int:
    value = min(max(getattr(state.current(), field), lowest), highest)
    state.update(**{field: value})
    key = state.widget_key(field, value)
    return st.number_input(label, lowest, highest, key=key, step=1, help=help, on_change=state.take, args=(field,))


def choice_of_number(label: str, field: str, count: int, *, help: str) -> int | None:
    """One of 0 to count - 1, or none of them: an empty box."""
    value = state.choice(field, count)
    state.update(**{field: value})
    key = state.widget_key(field, value)
    return st.number_input(
        label, 0, count - 1, value=None, key=key, step=1, placeholder="none", help=help, on_change=state.take, args=(field,)
    )


def slider(label: str, field: str, lowest: int, highest: int, *, help: str | None = None) -> int:
    value = min(max(getattr(state.current(), field), lowest), highest)
    state.update(**{field: value})
    key = state.widget_key(field, value)
    return st.slider(label, lowest, highest, key=key, help=help, on_change=state.take, args=(field,))


def known_or_typed(label: str, field: str, known: Sequence[str], *, help: str) -> str:
    """One of the known names, or anything else that is typed."""
    value = getattr(state.current(), field)
    key = state.widget_key(field, value)
    options = [*known, *([] if value in known else [value])]
    return st.selectbox(label, options, key=key, help=help, accept_new_options=True, on_change=state.take, args=(field,))


def line(label: str, field: str, *, help: str | None = None) -> str:
    key = state.widget_key(field, getattr(state.current(), field))
    return st.text_input(label, key=key, help=help, on_change=state.take, args=(field,)).strip()


def area(label: str, field: str, *, help: str | None = None, placeholder: str = "") -> str:
    key = state.widget_key(field, getattr(state.current(), field))
    return st.text_area(label, key=key, height=160, help=help, placeholder=placeholder, on_change=state.take, args=(field,))


def upload(label: str, field: str, kind: str, read: Callable[[bytes], str], *, help: str) -> None:
    """A file that becomes a field once, when it arrives; one that `read` refuses changes nothing and is explained."""
    key, explanation = f"upload_{field}", f"upload_{field}_error"

    def take() -> None:
        arrived = st.session_state[key]
        st.session_state.pop(explanation, None)
        if arrived is not None:
            try:
                state.update(**{field: read(arrived.getvalue())})
            except (ValueError, OSError, zipfile.BadZipFile) as error:
                st.session_state[explanation] = f"{arrived.name} was not taken: {error}."

    st.file_uploader(label, type=kind, key=key, help=help, on_change=take)
    if explanation in st.session_state:
        st.error(st.session_state[explanation])


def block(config: "LM2Config") -> int:  # noqa: F821
    """Choose a block that has a memory."""
    layers = sorted(config.memory_layers)
    if state.current().layer not in layers:
        state.update(layer=layers[-1])
    return buttons("Block", "layer", layers, help="A block of the decoder; each reads the bank and writes to it.")


def head(config: "LM2Config") -> str:  # noqa: F821
    """Choose a memory head, or the mean or largest over heads."""
    options = ["mean", "max", *map(str, range(config.memory_heads))]
    return buttons("Head", "head", options, help="A head of the memory's attention; mean and max are taken over heads, cell by cell.")
