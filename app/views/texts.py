"""Changes to the texts of a view, such as escapes for the language that it is drawn in."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from app.views.kinds import Line
from app.views.numbers import View


def with_texts(view: View, title: Callable[[str], str], label: Callable[[str], str]) -> View:
    """The view with its titles changed by `title`, and its ticks, tokens and names of lines by `label`."""
    return replace(view, **{field.name: _changed(getattr(view, field.name), title, label) for field in fields(view)})


def _changed(value: Any, title: Callable[[str], str], label: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return title(value)
    if isinstance(value, Line):
        return replace(value, name=label(value.name), seeds=_changed(value.seeds, label, label))
    if isinstance(value, tuple):
        return tuple(_changed(entry, label, label) for entry in value)
    return value


def shortened(text: str, letters: int) -> str:
    """The text, cut to at most so many letters with an ellipsis at the end."""
    return text if len(text) <= letters else text[: letters - 1] + "…"
