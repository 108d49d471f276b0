"""Widgets bound to the selection: each shows one of its fields, changes it, and returns its value.

A field is named by its place, "text.task"; `at` is the column or container that the widget stands in. Where no options
and no bounds are passed, they are those that the field declares.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import streamlit as st

from app.choices.ranges import numbers
from app.choices.selection import CHOICES
from app.ui import say, state
from lm2.shown import ranges

Show = Callable[[Any], str]
Options = Sequence[Any] | None
Bound = int | None
Help = str | None

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


def _bound(
    widget: Callable[..., Any],
    label: str,
    field: str,
    shown: Any,
    *bounds: Any,
    take: Callable[[str], None] = state.take,
    **options: Any,
) -> Any:
    """A widget that shows a field's value, and tells `take` of the field once it has been moved."""
    key = state.widget_key(field, shown)
    return widget(label, *bounds, key=key, on_change=take, args=(field,), **options)


def select(
    label: str, field: str, options: Options = None, *, show: Show = str, help: Help = None, at: Any = st
) -> Any:
    there = _options(field, options)
    return _bound(at.selectbox, label, field, _valid(field, there), there, format_func=show, help=help)


def buttons(
    label: str, field: str, options: Options = None, *, show: Show = str, help: Help = None, at: Any = st
) -> Any:
    """A row of buttons; exactly one is on."""
    there, named = _options(field, options), _as_text(show)
    shown = _valid(field, there)
    return _bound(at.segmented_control, label, field, shown, there, required=True, format_func=named, help=help)


def _as_text(show: Show) -> Show:
    return lambda option: say.words("{}", show(option))


def parts(label: str, field: str, contents: Mapping[str, Callable[[], None]]) -> None:
    """Contents by their names; only the chosen one is drawn, so that the others cost a rerun nothing.

    Buttons, not `st.tabs`, which cost each rerun 0.1 s in the browser.
    """
    contents[buttons(label, field, list(contents))]()


def _bounded(field: str, lowest: Bound, highest: Bound) -> tuple[int, int, int]:
    """The field's value, which takes the nearest one that there is, and its bounds."""
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


def choice_of_number(label: str, field: str, count: int, *, help: str, at: Any = st) -> int | None:
    """One of 0 to count - 1, or none of them: an empty box."""
    box = {"value": None, "step": 1, "placeholder": "none"}
    return _bound(at.number_input, label, field, state.choice(field, count), 0, count - 1, **box, help=help)


def places(
    label: str, field: str, options: Sequence[int], *, show: Show = str, help: Help = None, at: Any = st
) -> None:
    """Any of some numbers, or none. What a link names besides is left alone until something is chosen here."""
    if len(options) > _MOST_PILLS:
        _written_places(label, field, help, at)
        return
    shown, looks = _there(field, options), {"selection_mode": "multi", "wrap": True, "format_func": _as_text(show)}
    _bound(at.pills, label, field, shown, options, take=_take_places, help=help, **looks)


def _there(field: str, options: Sequence[int]) -> list[int]:
    return [number for number in state.value(field) if number in options]


def _take_places(field: str) -> None:
    state.put(field, tuple(sorted(state.taken(field))))


def _written_places(label: str, field: str, help: str | None, at: Any) -> None:
    explanation = f"{field}_error"

    def take(field: str) -> None:
        st.session_state.pop(explanation, None)
        try:
            state.put(field, numbers(state.taken(field)))
        except ValueError as error:
            st.session_state[explanation] = error

    written = ranges(state.value(field))
    _bound(at.text_input, label, field, written, take=take, help=help, placeholder="such as 0,3-5")
    if explanation in st.session_state:
        at.error(say.words("Not taken: {}.", st.session_state[explanation]))


def several(
    label: str, field: str, options: Sequence[int], *, show: Show, placeholder: str, help: Help = None, at: Any = st
) -> None:
    """As `places`, where each has a longer name: found by typing a part of it."""
    shown, named = _there(field, options), {"format_func": show, "placeholder": placeholder}
    _bound(at.multiselect, label, field, shown, options, take=_take_places, help=help, **named)


def texts(label: str, field: str, options: Sequence[str], *, help: Help = None, at: Any = st) -> None:
    """Any of some texts, and others that are typed. The field holds them as `state.texts` reads them."""

    def take(field: str) -> None:
        state.put(field, ", ".join(state.taken(field)))

    chosen = list(dict.fromkeys(state.texts(field)))
    there, typed = list(dict.fromkeys((*options, *chosen))), "choose, or type one"
    _bound(
        at.multiselect, label, field, chosen, there, take=take, help=help, accept_new_options=True, placeholder=typed
    )


def share(label: str, field: str, *, help: Help = None, at: Any = st) -> None:
    """A number from 0 to 1, or none: an empty box."""

    def take(field: str) -> None:
        number = state.taken(field)
        state.put(field, "" if number is None else f"{number:g}")

    try:
        value = float(state.value(field) or "nan")
    except ValueError:
        value = float("nan")
    shown, box = value if 0 <= value <= 1 else None, {"value": None, "step": 0.25, "placeholder": "as it is"}
    _bound(at.number_input, label, field, shown, 0.0, 1.0, take=take, help=help, **box)


def known_or_typed(label: str, field: str, known: Sequence[str], *, help: str) -> str:
    """One of the known names, or anything else that is typed."""
    chosen = state.value(field)
    options = list(dict.fromkeys((*known, chosen)))
    return _bound(st.selectbox, label, field, chosen, options, help=help, accept_new_options=True)


def line(label: str, field: str, *, help: Help = None, at: Any = st) -> str:
    return _bound(at.text_input, label, field, state.value(field), help=help).strip()


def area(label: str, field: str, *, placeholder: str) -> str:
    return _bound(st.text_area, label, field, state.value(field), height=160, placeholder=placeholder)


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
        "Block", "run.layer", layers, help="A block of the decoder; each block reads and writes the bank.", at=at
    )


def head(config: "LM2Config", at: Any = st) -> str:
    """Choose a memory head, or the mean or largest over heads."""
    options = ["mean", "max", *map(str, range(config.memory_heads))]
    explained = "A head of the memory's attention; mean and max pool over heads, cell by cell."
    return buttons("Head", "run.head", options, help=explained, at=at)
