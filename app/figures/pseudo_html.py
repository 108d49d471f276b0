"""Names and tokens in Plotly, which reads texts as a kind of HTML: after this they are read as what they are."""

from dataclasses import fields, replace
from html import escape
from typing import Any

from app.views.kinds import Line
from app.views.numbers import View
from app.views.seen import in_a_line

_MOST_LETTERS = 300
"""Of a title; a longer one ends with an ellipsis."""
_MOST_OF_A_LABEL = 120
"""Of a label beside others."""


def spelled(text: str, most: int = _MOST_LETTERS) -> str:
    """A text of at most so many letters as Plotly shows it: tags and entities are what they are, in one line."""
    shown = text if len(text) <= most else text[: most - 1] + "…"
    return escape(in_a_line(shown), quote=False)


def view_spelled(view: View) -> View:
    """A view with all of its texts spelled for Plotly."""
    return replace(view, **{field.name: _spelled(getattr(view, field.name)) for field in fields(view)})


def _spelled(value: Any) -> Any:
    if isinstance(value, str):
        return spelled(value)
    if isinstance(value, tuple):
        return tuple(_label(part) for part in value)
    return value


def _label(part: Any) -> Any:
    if isinstance(part, str):
        return spelled(part, _MOST_OF_A_LABEL)
    return replace(part, name=spelled(part.name, _MOST_OF_A_LABEL)) if isinstance(part, Line) else part
