"""Words on paper: which characters can be printed, how wide a text is, where it breaks, and which labels fit an
axis."""

from __future__ import annotations

import os.path
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from app.figures.print.fonts import families, has
from app.views.numbers import View
from app.views.seen import code_point
from app.views.texts import shortened, with_texts

LEADING = 1.25
"""Height of a line divided by its type size."""

_LEFT_TO_RIGHT = "\N{LEFT-TO-RIGHT MARK}"
_NUMBERED = re.compile(r"(\d+): ")
_MOST_LETTERS = 300
"""Of any text."""
_MOST_IN_A_LINE = 120
"""Letters; no page is wider."""
_MOST_BELOW = 14
"""Letters of a vertical label below its axis."""
_MOST_BESIDE = 28
"""Letters of a row's label."""
MOST_LINES = 12
TITLE = 3
"""Lines of an axis title; more would leave the data no room."""


def printable(text: str) -> str:
    """The text with the code, such as U+1F642, of every character that is invisible or in no font.

    Right-to-left characters keep their direction; the text as a whole runs from left to right.
    """
    printed = "".join(
        char if char == "\n" or (unicodedata.category(char)[0] != "C" and has(char)) else code_point(char)
        for char in text
    )
    for i, char in enumerate(printed):
        if unicodedata.bidirectional(char) in ("R", "AL"):
            return printed[:i] + _LEFT_TO_RIGHT + printed[i:]
    return printed


def view_shortened(view: View) -> View:
    """The view with texts short enough for a page."""
    short = partial(shortened, letters=_MOST_LETTERS)
    return with_texts(view, short, short)


@lru_cache(maxsize=10_000)
def width(text: str, size: float) -> float:
    """Points that a text takes in one line, as it is printed."""
    printed = printable(text.replace(_LEFT_TO_RIGHT, "").replace("\n", " "))  # a mark takes no room
    if not printed:
        return 0.0
    font = FontProperties(family=families((printed,)), size=size)
    return text_to_path.get_text_width_height_descent(printed, font, False)[0]


def wrapped(text: str, size: float, room: float, most: int = MOST_LINES) -> str:
    """The text broken at blanks, and within long words, into lines of at most `room` points. If there are more than
    `most` lines, the last ends with an ellipsis."""
    lines = [""]
    for word in shortened(text, most * _MOST_IN_A_LINE).split():
        longer = f"{lines[-1]} {word}".lstrip()
        if width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines[-1:] = [*filter(None, lines[-1:]), *_broken(word, size, room)]
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1][:-1]}…"]
    return "\n".join(lines)


def _broken(word: str, size: float, room: float) -> list[str]:
    """Pieces of at most `room` points, of one letter at least."""
    pieces, most = [], max(1, int(4 * room / size) + 2)  # few letters are narrower than a quarter of their type size
    while len(word) > 1 and (word_width := width(word[:most], size)) > room:
        letters = max(1, min(len(word) - 1, int(min(len(word), most) * room / word_width)))
        while letters > 1 and width(word[:letters], size) > room:
            letters -= 1
        pieces.append(word[:letters])
        word = word[letters:]
    return [*pieces, word]


@dataclass(frozen=True, kw_only=True)
class Ticks:
    """The labels of an axis that are printed."""

    places: tuple[int, ...]
    labels: tuple[str, ...]
    upright: bool = False
    """Whether they are turned by 90 degrees."""


def bare(labels: Sequence[str], title: str) -> tuple[str, ...]:
    """Labels without the words that they share with the axis title: "slot 3" is 3 on an axis of slots."""
    start = common_start(labels)
    if not start or not title.startswith(start):
        return tuple(labels)
    return tuple(label.removeprefix(f"{start} ") for label in labels)


def beside(labels: Sequence[str], title: str) -> tuple[str, ...]:
    """Labels of rows as they are printed."""
    return tuple(shortened(printable(label), _MOST_BESIDE) for label in bare(labels, title))


def down(labels: Sequence[str], title: str, size: float, room: float) -> Ticks:
    """Labels beside rows, as many as fit `room` points."""
    return _thinned(bare(labels, title), _MOST_BESIDE, lambda _: size * LEADING, room)


def along(labels: Sequence[str], title: str, size: float, room: float) -> Ticks:
    """Labels below columns: all of them side by side, else all of them upright, else some. Numbers are thinned rather
    than turned, and tokens that are thinned are named by their numbers."""
    words = bare(labels, title)
    if len(words) * size * LEADING > room and all(map(_NUMBERED.match, words)):
        words = tuple(_NUMBERED.match(word)[1] for word in words)
    level = _thinned(words, _MOST_BELOW, lambda printed: _spacing(printed, size), room)
    if len(level.places) == len(words) or all(word.isdigit() for word in words):
        return level
    return replace(_thinned(words, _MOST_BELOW, lambda _: size * LEADING, room), upright=True)


def _spacing(words: Sequence[str], size: float) -> float:
    """Least distance between the middles of neighbours."""
    widths = [width(word, size) for word in words]
    return max(((left + right) / 2 for left, right in pairwise(widths)), default=0.0) + 0.5 * size


def _thinned(words: tuple[str, ...], letters: int, spacing: Callable[[Sequence[str]], float], room: float) -> Ticks:
    """Every word, or every 2nd, 5th, 10th ..., so that all fit `room` points at their spacing."""
    for step in (scale * step for scale in (10**power for power in range(7)) for step in (1, 2, 5)):
        count = -(-len(words) // step)
        if count > room:  # less than a point each; measuring a hundred thousand tokens would take too long
            continue
        labels = tuple(shortened(printable(word), letters) for word in words[::step])
        if count * spacing(labels) <= room or count == 1:
            return Ticks(places=tuple(range(0, len(words), step)), labels=labels)
    raise AssertionError(f"no step thins {len(words)} labels")


def common_start(labels: Sequence[str]) -> str:
    """The words with which all labels begin, other than a label's last word."""
    return " ".join(os.path.commonprefix([label.split()[:-1] for label in labels]))
