"""The texts of a view, each made what the language that it goes to needs."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from app.views.kinds import Line
from app.views.numbers import View


def with_texts(view: View, title: Callable[[str], str], label: Callable[[str], str]) -> View:
    """The view with `title` of each of its titles, and `label` of each of the texts that stand beside others: ticks,
    tokens, names of lines."""
    return replace(view, **{field.name: _changed(getattr(view, field.name), title, label) for field in fields(view)})


def _changed(value: Any, title: Callable[[str], str], label: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return title(value)
    if isinstance(value, Line):
        return replace(value, name=label(value.name))
    if isinstance(value, tuple):
        return tuple(_changed(part, label, label) for part in value)
    return value


def shortened(text: str, letters: int) -> str:
    """At most so many letters; where some are left out, the last is an ellipsis."""
    return text if len(text) <= letters else text[: letters - 1] + "…"
