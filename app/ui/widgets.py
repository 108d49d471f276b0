"""Widgets bound to the selection: each shows one field, changes it, and returns its value."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from app.choices.toggles import numbers, ranges
from app.ui import say, state

_MOST_PILLS = 64
"""Of more things than this, the chosen ones are written, not clicked."""


def _valid(field: str, options: Sequence[Any], fallback: Any) -> Any:
    """The field's value, or `fallback` where the present options do not have it."""
    value = getattr(state.current(), field)
    if value in options:
        return value
    state.settle(field, fallback)
    return fallback


def select(
    label: str, field: str, options: Sequence[Any], *, show: Callable[[Any], str] = str, help: str | None = None
) -> Any:
    key = state.widget_key(field, _valid(field, options, options[0]))
    return st.selectbox(label, options, key=key, format_func=show, help=help, on_change=state.take, args=(field,))


def buttons(
    label: str, field: str, options: Sequence[Any], *, show: Callable[[Any], str] = str, help: str | None = None
) -> Any:
    """A row of buttons; exactly one is on."""
    key = state.widget_key(field, _valid(field, options, options[0]))
    return st.segmented_control(
        label, options, required=True, key=key, format_func=lambda option: say.words("{}", show(option)), help=help,
        on_change=state.take, args=(field,),
    )  # fmt: skip


def parts(label: str, field: str, contents: Mapping[str, Callable[[], None]]) -> None:
    """Contents by their names; only the chosen one is drawn, so that the others cost a rerun nothing.

    Buttons, not `st.tabs`, which cost each rerun 0.1 s in the browser.
    """
    contents[buttons(label, field, list(contents))]()


def number(label: str, field: str, lowest: int, highest: int, *, help: str | None = None) -> int:
    value = min(max(getattr(state.current(), field), lowest), highest)
    state.settle(field, value)
    key = state.widget_key(field, value)
    return st.number_input(label, lowest, highest, key=key, step=1, help=help, on_change=state.take, args=(field,))


def choice_of_number(label: str, field: str, count: int, *, help: str) -> int | None:
    """One of 0 to count - 1, or none of them: an empty box."""
    value = state.choice(field, count)
    key = state.widget_key(field, value)
    return st.number_input(
        label,
        0,
        count - 1,
        value=None,
        key=key,
        step=1,
        placeholder="none",
        help=help,
        on_change=state.take,
        args=(field,),
    )


def places(
    label: str, field: str, options: Sequence[int], *, show: Callable[[int], str] = str, help: str | None = None
) -> None:
    """Any of some numbers, or none. What a link names besides is left alone until something is chosen here."""
    chosen = getattr(state.current(), field)
    if len(options) > _MOST_PILLS:
        _written_places(label, field, chosen, help)
        return
    key = state.widget_key(field, [number for number in chosen if number in options])
    st.pills(
        label, options, selection_mode="multi", key=key, format_func=lambda option: say.words("{}", show(option)),
        help=help,
        on_change=_take_places, args=(field,), wrap=True,
    )  # fmt: skip


def _take_places(field: str) -> None:
    state.update(**{field: tuple(sorted(st.session_state[f"widget_{field}"]))})


def _written_places(label: str, field: str, chosen: tuple[int, ...], help: str | None) -> None:
    key, explanation = state.widget_key(field, ranges(chosen)), f"{field}_error"

    def take() -> None:
        st.session_state.pop(explanation, None)
        try:
            state.update(**{field: numbers(st.session_state[key])})
        except ValueError as error:
            st.session_state[explanation] = error

    st.text_input(label, key=key, help=help, placeholder="such as 0,3-5", on_change=take)
    if explanation in st.session_state:
        st.error(say.words("Not taken: {}.", st.session_state[explanation]))


def several(
    label: str,
    field: str,
    options: Sequence[int],
    *,
    show: Callable[[int], str],
    placeholder: str,
    help: str | None = None,
) -> None:
    """As `places`, where each has a longer name: found by typing a part of it."""
    key = state.widget_key(field, [number for number in getattr(state.current(), field) if number in options])
    st.multiselect(
        label,
        options,
        key=key,
        format_func=show,
        placeholder=placeholder,
        help=help,
        on_change=_take_places,
        args=(field,),
    )


def texts(label: str, field: str, options: Sequence[str], *, help: str | None = None) -> None:
    """Any of some texts, and others that are typed. The field holds them as `state.texts` reads them."""
    chosen = state.texts(field)
    key = state.widget_key(field, list(dict.fromkeys(chosen)))

    def take() -> None:
        state.update(**{field: ", ".join(st.session_state[key])})

    shown = list(dict.fromkeys((*options, *chosen)))
    st.multiselect(
        label, shown, key=key, help=help, accept_new_options=True, placeholder="choose, or type one", on_change=take
    )


def share(label: str, field: str, *, help: str | None = None) -> None:
    """A number from 0 to 1, or none: an empty box."""
    try:
        value = float(getattr(state.current(), field) or "nan")
    except ValueError:
        value = float("nan")
    key = state.widget_key(field, value if 0 <= value <= 1 else None)

    def take() -> None:
        taken = st.session_state[key]
        state.update(**{field: "" if taken is None else f"{taken:g}"})

    st.number_input(label, 0.0, 1.0, value=None, key=key, step=0.25, placeholder="as it is", help=help, on_change=take)


def slider(label: str, field: str, lowest: int, highest: int, *, help: str | None = None) -> int:
    value = min(max(getattr(state.current(), field), lowest), highest)
    state.settle(field, value)
    key = state.widget_key(field, value)
    return st.slider(label, lowest, highest, key=key, help=help, on_change=state.take, args=(field,))


def known_or_typed(label: str, field: str, known: Sequence[str], *, help: str) -> str:
    """One of the known names, or anything else that is typed."""
    value = getattr(state.current(), field)
    key = state.widget_key(field, value)
    options = [*known, *([] if value in known else [value])]
    return st.selectbox(
        label, options, key=key, help=help, accept_new_options=True, on_change=state.take, args=(field,)
    )


def line(label: str, field: str, *, help: str | None = None) -> str:
    key = state.widget_key(field, getattr(state.current(), field))
    return st.text_input(label, key=key, help=help, on_change=state.take, args=(field,)).strip()


def area(label: str, field: str, *, help: str | None = None, placeholder: str = "") -> str:
    key = state.widget_key(field, getattr(state.current(), field))
    return st.text_area(
        label, key=key, height=160, help=help, placeholder=placeholder, on_change=state.take, args=(field,)
    )


def upload(label: str, field: str, kind: str, read: Callable[[bytes], str], *, help: str) -> None:
    """A file that becomes a field once, when it arrives; one that `read` refuses changes nothing and is explained."""
    key, explanation = f"upload_{field}", f"upload_{field}_error"

    def take() -> None:
        arrived = st.session_state[key]
        st.session_state.pop(explanation, None)
        if arrived is not None:
            try:
                state.update(**{field: read(arrived.getvalue())})
            except ValueError as error:
                st.session_state[explanation] = arrived.name, error

    st.file_uploader(label, type=kind, key=key, help=help, on_change=take)
    if explanation in st.session_state:
        st.error(say.words("{} was not taken: {}.", *st.session_state[explanation]))


def download(label: str, data: str | Callable[[], str | bytes], file: str, mime: str) -> None:
    """A button that hands out a file, made when it is asked for where `data` makes it."""
    st.download_button(label, data, file, mime, icon=":material/download:", on_click="ignore")


def block(config: "LM2Config") -> int:  # noqa: F821
    """Choose a block that has a memory."""
    layers = sorted(config.memory_layers)
    if state.current().layer not in layers:
        state.settle("layer", layers[-1])
    return buttons("Block", "layer", layers, help="A block of the decoder; each reads the bank and writes to it.")


def head(config: "LM2Config") -> str:  # noqa: F821
    """Choose a memory head, or the mean or largest over heads."""
    options = ["mean", "max", *map(str, range(config.memory_heads))]
    return buttons(
        "Head",
        "head",
        options,
        help="A head of the memory's attention; mean and max are taken over heads, cell by cell.",
    )
