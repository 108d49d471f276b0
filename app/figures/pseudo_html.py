"""Texts for Plotly, which reads them as a kind of HTML: escaped, they are shown as they are."""

from functools import partial
from html import escape

from app.views.numbers import View
from app.views.seen import in_a_line
from app.views.texts import shortened, with_texts

_MOST = 300
"""Letters of a title."""
_MOST_OF_A_LABEL = 120


def spelled(text: str, most: int = _MOST) -> str:
    """A text of at most `most` letters, in one line, with tags and entities escaped."""
    return escape(in_a_line(shortened(text, most)), quote=False)


def view_spelled(view: View) -> View:
    """The view with all of its texts spelled for Plotly."""
    return with_texts(view, spelled, partial(spelled, most=_MOST_OF_A_LABEL))
