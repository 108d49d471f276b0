"""Widgets bound to the selection: each shows one of its fields, changes it, and returns its value.

A field is named by its path, "text.task"; `at` is the column or container that the widget stands in. Options and bounds
that are not passed are those that the field declares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.choices.ranges import numbers
from app.choices.selection import CHOICES
from app.ui import say, state
from lm2.shown import ranges

if TYPE_CHECKING:
    from lm2.model.config import LM2Config

Show = Callable[[Any], str]
Options = Sequence[Any] | None
Bound = int | None
Help = str | None

_MOST_PILLS = 64
"""With more options than this, the chosen ones are typed, not clicked."""


def _options(field: str, options: Options) -> list[Any]:
    default = CHOICES[field].default
    allowed = list(type(default)) if isinstance(default, Enum) else CHOICES[field].allowed
    return list(allowed if options is None else options)


def _valid(field: str, options: Sequence[Any]) -> Any:
    """The field's value; the first option if it is none of them."""
    if state.value(field) not in options:
        state.settle(field, options[0])
    return state.value(field)


def _bound(
    widget: Callable[..., Any],
    label: str,
    field: str,
    shown: Any,
    *bounds: Any,
    take: Callable[[str], None] = state.take,
    **options: Any,
) -> Any:
    """A widget that shows a field's value, and calls `take` with the field once it has been changed."""
    key = state.widget_key(field, shown)
    return widget(label, *bounds, key=key, on_change=take, args=(field,), **options)


def select(
    label: str, field: str, options: Options = None, *, show: Show = str, help: Help = None, at: Any = st
) -> Any:
    options = _options(field, options)
    return _bound(at.selectbox, label, field, _valid(field, options), options, format_func=show, help=help)


def buttons(
    label: str, field: str, options: Options = None, *, show: Show = str, help: Help = None, at: Any = st
) -> Any:
    """A row of buttons, of which exactly one is on."""
    options = _options(field, options)
    looks = {"required": True, "format_func": _as_text(show), "help": help}
    return _bound(at.segmented_control, label, field, _valid(field, options), options, **looks)


def _as_text(show: Show) -> Show:
    return lambda option: say.words("{}", show(option))


def tabs(label: str, field: str, contents: Mapping[str, Callable[[], None]]) -> None:
    """Contents by name, of which only the chosen one is drawn.

    Buttons, not `st.tabs`, which cost each rerun 0.1 s in the browser.
    """
    contents[buttons(label, field, list(contents))]()


def _bounded(field: str, lowest: Bound, highest: Bound) -> tuple[int, int, int]:
    """The field's value, moved within its bounds, and the bounds."""
    allowed = CHOICES[field].allowed
    lowest, highest = allowed[0] if lowest is None else lowest, allowed[-1] if highest is None else highest
    value = min(max(state.value(field), lowest), highest)
    state.settle(field, value)
    return value, lowest, highest


def number(
    label: str, field: str, lowest: Bound = None, highest: Bound = None, *, help: Help = None, at: Any = st
) -> int:
    return _bound(at.number_input, label, field, *_bounded(field, lowest, highest), step=1, help=help)


def slider(
    label: str, field: str, lowest: Bound = None, highest: Bound = None, *, help: Help = None, at: Any = st
) -> int:
    return _bound(at.slider, label, field, *_bounded(field, lowest, highest), help=help)


def optional_number(label: str, field: str, count: int, *, help: str, at: Any = st) -> int | None:
    """One of 0 to count - 1, or None: an empty box."""
    box = {"value": None, "step": 1, "placeholder": "none"}
    return _bound(at.number_input, label, field, state.choice(field, count), 0, count - 1, **box, help=help)


def pills(label: str, field: str, options: Sequence[int], *, show: Show = str, help: Help = None, at: Any = st) -> None:
    """Any of some numbers, or none. Other numbers in a link are left alone until something is chosen here."""
    if len(options) > _MOST_PILLS:
        _typed_numbers(label, field, help, at)
        return
    looks = {"selection_mode": "multi", "wrap": True, "format_func": _as_text(show)}
    _bound(at.pills, label, field, _chosen(field, options), options, take=_take_numbers, help=help, **looks)


def _chosen(field: str, options: Sequence[int]) -> list[int]:
    return [number for number in state.value(field) if number in options]


def _take_numbers(field: str) -> None:
    state.put(field, tuple(sorted(state.widget_value(field))))


def _typed_numbers(label: str, field: str, help: Help, at: Any) -> None:
    error_key = f"{field}_error"

    def take(field: str) -> None:
        st.session_state.pop(error_key, None)
        try:
            state.put(field, numbers(state.widget_value(field)))
        except ValueError as error:
            st.session_state[error_key] = error

    looks = {"help": help, "placeholder": "such as 0,3-5"}
    _bound(at.text_input, label, field, ranges(state.value(field)), take=take, **looks)
    if error_key in st.session_state:
        at.error(say.words("Not taken: {}.", st.session_state[error_key]))


def multiselect(
    label: str, field: str, options: Sequence[int], *, show: Show, placeholder: str, help: Help = None, at: Any = st
) -> None:
    """As `pills`, for options with longer names, which are found by typing a part of them."""
    looks = {"format_func": show, "placeholder": placeholder, "help": help}
    _bound(at.multiselect, label, field, _chosen(field, options), options, take=_take_numbers, **looks)


def texts(
    label: str, field: str, options: Sequence[str], *, separator: str = ", ", help: Help = None, at: Any = st
) -> None:
    """Any of some texts, and others that are typed. The field holds them as `state.texts` reads them."""

    def take(field: str) -> None:
        state.put(field, separator.join(state.widget_value(field)))

    chosen = list(dict.fromkeys(state.texts(field, separator)))
    looks = {"help": help, "accept_new_options": True, "placeholder": "choose, or type one"}
    _bound(at.multiselect, label, field, chosen, list(dict.fromkeys((*options, *chosen))), take=take, **looks)


def fraction(label: str, field: str, *, help: Help = None, at: Any = st) -> None:
    """A number from 0 to 1, or none: an empty box. The field holds it as text."""

    def take(field: str) -> None:
        number = state.widget_value(field)
        state.put(field, "" if number is None else f"{number:g}")

    try:
        value = float(state.value(field) or "nan")
    except ValueError:
        value = float("nan")
    box = {"value": None, "step": 0.25, "placeholder": "as it is", "help": help}
    _bound(at.number_input, label, field, value if 0 <= value <= 1 else None, 0.0, 1.0, take=take, **box)


def select_or_type(label: str, field: str, names: Sequence[str], *, help: str) -> str:
    """One of the names, or anything else that is typed."""
    value = state.value(field)
    options = list(dict.fromkeys((*names, value)))
    return _bound(st.selectbox, label, field, value, options, help=help, accept_new_options=True)


def text_input(label: str, field: str, *, help: Help = None, at: Any = st) -> str:
    return _bound(at.text_input, label, field, state.value(field), help=help).strip()


def text_area(label: str, field: str, *, placeholder: str) -> str:
    return _bound(st.text_area, label, field, state.value(field), height=160, placeholder=placeholder)


def upload(label: str, field: str, kind: str, read: Callable[[bytes], str], *, help: str) -> None:
    """A file that becomes the value of a field. If `read` refuses it, the field stays and the reason is shown."""
    key = f"upload_{CHOICES[field].link}"
    error_key = f"{key}_error"

    def take() -> None:
        file = st.session_state[key]
        st.session_state.pop(error_key, None)
        if file is not None:
            try:
                state.put(field, read(file.getvalue()))
            except ValueError as error:
                st.session_state[error_key] = file.name, error

    st.file_uploader(label, type=kind, key=key, help=help, on_change=take)
    if error_key in st.session_state:
        st.error(say.words("{} was not taken: {}.", *st.session_state[error_key]))


def download(label: str, data: str | Callable[[], str | bytes], file: str, mime: str) -> None:
    """A button that hands out a file; a function makes its content when it is pressed."""
    st.download_button(label, data, file, mime, icon=":material/download:", on_click="ignore")


def block(config: LM2Config, at: Any = st) -> int:
    """Choose a block that has a memory."""
    layers = sorted(config.memory_layers)
    if state.value("run.layer") not in layers:
        state.settle("run.layer", layers[-1])
    help = "A block of the decoder; each block reads and writes the bank."
    return buttons("Block", "run.layer", layers, help=help, at=at)


def head(config: LM2Config, at: Any = st) -> str:
    """Choose a memory head, or the mean or largest over heads."""
    options = ["mean", "max", *map(str, range(config.memory_heads))]
    help = "A head of the memory's attention; mean and max pool over heads, cell by cell."
    return buttons("Head", "run.head", options, help=help, at=at)
