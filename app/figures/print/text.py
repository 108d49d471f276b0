"""Words on paper: what the font can print, how wide it is, where it breaks, and which labels of an axis there is room
for."""

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
"""Height of a line over the size of its type."""

_LEFT_TO_RIGHT = "\N{LEFT-TO-RIGHT MARK}"
_NUMBERED = re.compile(r"(\d+): ")
_MOST_LETTERS = 14
"""Of a label that stands upright below its axis."""
_MOST = 300
"""Letters of any text."""
MOST_LINES = 12
_MOST_IN_A_LINE = 120
"""Letters: no page is wider."""
TITLE = 3
"""Lines of an axis' title: more would leave the data no room."""
_MOST_BESIDE = 28
"""Letters of a row's label."""


def printable(text: str) -> str:
    """The text with characters by their code (U+1F642) that no font has or that are no characters to see.

    What is written from right to left is so within the text, whose order stays from left to right.
    """
    shown = "".join(
        char if char == "\n" or (unicodedata.category(char)[0] != "C" and has(char)) else code_point(char)
        for char in text
    )
    turned = next((at for at, char in enumerate(shown) if unicodedata.bidirectional(char) in ("R", "AL")), None)
    return shown if turned is None else shown[:turned] + _LEFT_TO_RIGHT + shown[turned:]


def view_shortened(view: View) -> View:
    """A view with texts that a page has room for."""
    short = partial(shortened, letters=_MOST)
    return with_texts(view, short, short)


@lru_cache(maxsize=10_000)
def width(text: str, size: float) -> float:
    """Points that a text takes in one line, as it is printed."""
    shown = printable(text.replace(_LEFT_TO_RIGHT, "").replace("\n", " "))  # a mark takes no room
    return (
        text_to_path.get_text_width_height_descent(shown, FontProperties(family=families((shown,)), size=size), False)[
            0
        ]
        if shown
        else 0.0
    )


def wrapped(text: str, size: float, room: float, most: int = MOST_LINES) -> str:
    """The text broken at blanks into lines of at most `room` points; a longer word is broken too. An ellipsis ends the
    last of `most` lines."""
    lines = [""]
    for word in shortened(text, most * _MOST_IN_A_LINE).split():  # what is beyond need not be measured
        longer = f"{lines[-1]} {word}".lstrip()
        lines[-1:] = (
            [longer] if width(longer, size) <= room else [*filter(None, lines[-1:]), *_broken(word, size, room)]
        )
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1][:-1]}…"]
    return "\n".join(lines)


def _broken(word: str, size: float, room: float) -> list[str]:
    parts, most = [], int(4 * room / size) + 2  # letters, of which few are narrower than a quarter of their type
    while len(word) > 1 and (wide := width(word[:most], size)) > room:
        letters = max(1, min(len(word) - 1, int(min(len(word), most) * room / wide)))
        while letters > 1 and width(word[:letters], size) > room:
            letters -= 1
        parts.append(word[:letters])
        word = word[letters:]
    return [*parts, word]


@dataclass(frozen=True, kw_only=True)
class Ticks:
    """The labels of an axis that are shown."""

    places: tuple[int, ...]
    labels: tuple[str, ...]
    upright: bool = False
    """Whether they are turned by 90 degrees."""


def bare(labels: Sequence[str], title: str) -> tuple[str, ...]:
    """Labels without what the axis' title begins with too: "slot 3" is 3 on an axis of slots."""
    start = common_start(labels)
    return (
        tuple(label.removeprefix(f"{start} ") for label in labels)
        if start and title.startswith(start)
        else tuple(labels)
    )


def beside(labels: Sequence[str], title: str) -> tuple[str, ...]:
    """Labels of rows as they are printed."""
    return tuple(shortened(printable(label), _MOST_BESIDE) for label in bare(labels, title))


def down(labels: Sequence[str], title: str, size: float, room: float) -> Ticks:
    """Labels beside rows, as many as `room` points hold."""
    return _thinned(bare(labels, title), _MOST_BESIDE, lambda _: size * LEADING, room)


def along(labels: Sequence[str], title: str, size: float, room: float) -> Ticks:
    """Labels below columns: side by side, else all of them upright, else some. Of numbers some are better than all
    upright, and tokens of which some are left out go by number."""
    words = bare(labels, title)
    if len(words) * size * LEADING > room and all(map(_NUMBERED.match, words)):
        words = tuple(_NUMBERED.match(word)[1] for word in words)
    level = _thinned(words, _MOST_LETTERS, lambda some: _side_by_side(some, size), room)
    if len(level.places) == len(words) or all(word.isdigit() for word in words):
        return level
    return replace(_thinned(words, _MOST_LETTERS, lambda _: size * LEADING, room), upright=True)


def _side_by_side(words: Sequence[str], size: float) -> float:
    """Least distance between neighbours' middles."""
    widths = [width(word, size) for word in words]
    return max(((one + other) / 2 for one, other in pairwise(widths)), default=0.0) + 0.5 * size


def _thinned(words: tuple[str, ...], letters: int, takes: Callable[[Sequence[str]], float], room: float) -> Ticks:
    """Every 2nd, 5th, 10th ... word, so that each has the room that it takes."""
    for step in (scale * step for scale in (10**power for power in range(7)) for step in (1, 2, 5)):
        count = -(-len(words) // step)
        if count > room:  # less than a point for each: of a hundred thousand tokens not all need be measured
            continue
        labels = tuple(shortened(printable(word), letters) for word in words[::step])
        if count * takes(labels) <= room or count == 1:
            return Ticks(places=tuple(range(0, len(words), step)), labels=labels)
    raise AssertionError(f"no step thins {len(words)} labels")


def common_start(labels: Sequence[str]) -> str:
    """The words that all labels begin with, each going on behind them."""
    return " ".join(os.path.commonprefix([label.split()[:-1] for label in labels]))
