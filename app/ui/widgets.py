"""Widgets bound to the selection: each shows one of its fields, changes it, and returns its value.

A field is named by its place, "text.task"; `at` is the column or container that the widget stands in. Where no options
and no bounds are passed, they are those that the field declares.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import streamlit as st

from app.choices.ranges import numbers, ranges
from app.choices.selection import CHOICES
from app.ui import say, state

_MOST_PILLS = 64
"""Of more things than this, the chosen ones are written, not clicked."""


def _options(field: str, options: Sequence[Any] | None) -> list[Any]:
    default = CHOICES[field].default
    allowed = list(type(default)) if isinstance(default, Enum) else CHOICES[field].allowed
    return list(allowed if options is None else options)


def _valid(field: str, options: Sequence[Any]) -> Any:
    """The field's value, or the first option where it is none of them."""
    if state.value(field) not in options:
        state.settle(field, options[0])
    return state.value(field)


def select(
    label: str,
    field: str,
    options: Sequence[Any] | None = None,
    *,
    show: Callable[[Any], str] = str,
    help: str | None = None,
    at: Any = st,
) -> Any:
    there = _options(field, options)
    key = state.widget_key(field, _valid(field, there))
    return at.selectbox(label, there, key=key, format_func=show, help=help, on_change=state.take, args=(field,))


def buttons(
    label: str,
    field: str,
    options: Sequence[Any] | None = None,
    *,
    show: Callable[[Any], str] = str,
    help: str | None = None,
    at: Any = st,
) -> Any:
    """A row of buttons; exactly one is on."""
    there = _options(field, options)
    key = state.widget_key(field, _valid(field, there))
    return at.segmented_control(
        label, there, required=True, key=key, format_func=lambda option: say.words("{}", show(option)), help=help,
        on_change=state.take, args=(field,),
    )  # fmt: skip


def parts(label: str, field: str, contents: Mapping[str, Callable[[], None]]) -> None:
    """Contents by their names; only the chosen one is drawn, so that the others cost a rerun nothing.

    Buttons, not `st.tabs`, which cost each rerun 0.1 s in the browser.
    """
    contents[buttons(label, field, list(contents))]()


def _bounded(field: str, lowest: int | None, highest: int | None) -> tuple[int, int, int]:
    """The field's value, which takes the nearest one that there is, and its bounds."""
    allowed = CHOICES[field].allowed
    lowest, highest = allowed[0] if lowest is None else lowest, allowed[-1] if highest is None else highest
    value = min(max(state.value(field), lowest), highest)
    state.settle(field, value)
    return value, lowest, highest


def number(
    label: str, field: str, lowest: int | None = None, highest: int | None = None, *, help: str | None = None,
    at: Any = st,
) -> int:  # fmt: skip
    value, lowest, highest = _bounded(field, lowest, highest)
    key = state.widget_key(field, value)
    return at.number_input(label, lowest, highest, key=key, step=1, help=help, on_change=state.take, args=(field,))


def slider(
    label: str, field: str, lowest: int | None = None, highest: int | None = None, *, help: str | None = None,
    at: Any = st,
) -> int:  # fmt: skip
    value, lowest, highest = _bounded(field, lowest, highest)
    key = state.widget_key(field, value)
    return at.slider(label, lowest, highest, key=key, help=help, on_change=state.take, args=(field,))


def choice_of_number(label: str, field: str, count: int, *, help: str, at: Any = st) -> int | None:
    """One of 0 to count - 1, or none of them: an empty box."""
    key = state.widget_key(field, state.choice(field, count))
    return at.number_input(
        label, 0, count - 1, value=None, key=key, step=1, placeholder="none", help=help, on_change=state.take,
        args=(field,),
    )  # fmt: skip


def places(
    label: str,
    field: str,
    options: Sequence[int],
    *,
    show: Callable[[int], str] = str,
    help: str | None = None,
    at: Any = st,
) -> None:
    """Any of some numbers, or none. What a link names besides is left alone until something is chosen here."""
    chosen = state.value(field)
    if len(options) > _MOST_PILLS:
        _written_places(label, field, chosen, help, at)
        return
    key = state.widget_key(field, [number for number in chosen if number in options])
    at.pills(
        label, options, selection_mode="multi", key=key, format_func=lambda option: say.words("{}", show(option)),
        help=help, on_change=_take_places, args=(field,), wrap=True,
    )  # fmt: skip


def _take_places(field: str) -> None:
    state.put(field, tuple(sorted(state.taken(field))))


def _written_places(label: str, field: str, chosen: tuple[int, ...], help: str | None, at: Any) -> None:
    key, explanation = state.widget_key(field, ranges(chosen)), f"{field}_error"

    def take() -> None:
        st.session_state.pop(explanation, None)
        try:
            state.put(field, numbers(state.taken(field)))
        except ValueError as error:
            st.session_state[explanation] = error

    at.text_input(label, key=key, help=help, placeholder="such as 0,3-5", on_change=take)
    if explanation in st.session_state:
        at.error(say.words("Not taken: {}.", st.session_state[explanation]))


def several(
    label: str,
    field: str,
    options: Sequence[int],
    *,
    show: Callable[[int], str],
    placeholder: str,
    help: str | None = None,
    at: Any = st,
) -> None:
    """As `places`, where each has a longer name: found by typing a part of it."""
    key = state.widget_key(field, [number for number in state.value(field) if number in options])
    at.multiselect(
        label, options, key=key, format_func=show, placeholder=placeholder, help=help, on_change=_take_places,
        args=(field,),
    )  # fmt: skip


def texts(label: str, field: str, options: Sequence[str], *, help: str | None = None, at: Any = st) -> None:
    """Any of some texts, and others that are typed. The field holds them as `state.texts` reads them."""
    chosen = state.texts(field)
    key = state.widget_key(field, list(dict.fromkeys(chosen)))
    at.multiselect(
        label, list(dict.fromkeys((*options, *chosen))), key=key, help=help, accept_new_options=True,
        placeholder="choose, or type one", on_change=lambda: state.put(field, ", ".join(state.taken(field))),
    )  # fmt: skip


def share(label: str, field: str, *, help: str | None = None, at: Any = st) -> None:
    """A number from 0 to 1, or none: an empty box."""
    try:
        value = float(state.value(field) or "nan")
    except ValueError:
        value = float("nan")
    key = state.widget_key(field, value if 0 <= value <= 1 else None)

    def take() -> None:
        number = state.taken(field)
        state.put(field, "" if number is None else f"{number:g}")

    at.number_input(label, 0.0, 1.0, value=None, key=key, step=0.25, placeholder="as it is", help=help, on_change=take)


def known_or_typed(label: str, field: str, known: Sequence[str], *, help: str) -> str:
    """One of the known names, or anything else that is typed."""
    key = state.widget_key(field, state.value(field))
    options = list(dict.fromkeys((*known, state.value(field))))
    return st.selectbox(
        label, options, key=key, help=help, accept_new_options=True, on_change=state.take, args=(field,)
    )


def line(label: str, field: str, *, help: str | None = None, at: Any = st) -> str:
    key = state.widget_key(field, state.value(field))
    return at.text_input(label, key=key, help=help, on_change=state.take, args=(field,)).strip()


def area(label: str, field: str, *, placeholder: str, at: Any = st) -> str:
    key = state.widget_key(field, state.value(field))
    return at.text_area(label, key=key, height=160, placeholder=placeholder, on_change=state.take, args=(field,))


def upload(label: str, field: str, kind: str, read: Callable[[bytes], str], *, help: str) -> None:
    """A file that becomes a field once, when it arrives; one that `read` refuses changes nothing and is explained."""
    key = f"upload_{CHOICES[field].link}"
    explanation = f"{key}_error"

    def take() -> None:
        arrived = st.session_state[key]
        st.session_state.pop(explanation, None)
        if arrived is not None:
            try:
                state.put(field, read(arrived.getvalue()))
            except ValueError as error:
                st.session_state[explanation] = arrived.name, error

    st.file_uploader(label, type=kind, key=key, help=help, on_change=take)
    if explanation in st.session_state:
        st.error(say.words("{} was not taken: {}.", *st.session_state[explanation]))


def download(label: str, data: str | Callable[[], str | bytes], file: str, mime: str) -> None:
    """A button that hands out a file, made when it is asked for where `data` makes it."""
    st.download_button(label, data, file, mime, icon=":material/download:", on_click="ignore")


def block(config: "LM2Config", at: Any = st) -> int:
    """Choose a block that has a memory."""
    layers = sorted(config.memory_layers)
    if state.value("run.layer") not in layers:
        state.settle("run.layer", layers[-1])
    return buttons(
        "Block", "run.layer", layers, help="A block of the decoder; each reads the bank and writes to it.", at=at
    )


def head(config: "LM2Config", at: Any = st) -> str:
    """Choose a memory head, or the mean or largest over heads."""
    options = ["mean", "max", *map(str, range(config.memory_heads))]
    explained = "A head of the memory's attention; mean and max are taken over heads, cell by cell."
    return buttons("Head", "run.head", options, help=explained, at=at)
