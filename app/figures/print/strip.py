"""The text on paper, token by token: segments begin on new lines, colours show weights, and marks are underlined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
from jaxtyping import Float
from matplotlib.patches import Rectangle

from app.figures.palettes import Colours, Stretch, ink, mark, segment_shades, text_shades
from app.figures.print import text as paper_text
from app.figures.print.panel import EDGE, PanelBox, PendingPanel
from app.views.kinds import Strip

_LINE = 1.9
"""Height of a line divided by its type size; underlines stand between lines."""
_GAP = 6.0
"""Points between a segment's number and its tokens."""
_SAMPLE = 4.6
"""Room for a sample of the colours, in multiples of the type size."""


@dataclass(frozen=True, kw_only=True)
class PlacedText:
    """A token on its line; points from the left."""

    token: int
    text: str
    line: int
    left: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A text in lines."""

    tokens: tuple[PlacedText, ...]
    numbers: tuple[tuple[int, int], ...]
    """(line, segment that begins there)"""
    lines: int


def flow(view: Strip, width: float, size: float) -> Flow:
    """Break the text at blanks so that it fits `width` points."""
    margin = paper_text.width(str(max(view.segment_of, default=0)), size) + _GAP
    tokens, numbers, line = [], [], -1
    for segment, members in groupby(range(len(view.pieces)), key=lambda token: view.segment_of[token]):
        line, left = line + 1, margin
        numbers.append((line, segment))
        for word in _words(view, list(members)):
            if left + sum(paper_text.width(_piece(view, token), size) for token in word) > width and left > margin:
                line, left = line + 1, margin
            for token in word:
                text = _piece(view, token)
                if left == margin:
                    text = text.lstrip(" ") or text
                text_width = paper_text.width(text, size)
                if left + text_width > width and left > margin:  # a word that is longer than a line
                    line, left = line + 1, margin
                tokens.append(PlacedText(token=token, text=text, line=line, left=left, width=text_width))
                left += text_width
    return Flow(tokens=tuple(tokens), numbers=tuple(numbers), lines=line + 1)


def _words(view: Strip, tokens: list[int]) -> list[list[int]]:
    """Tokens by word: a new word begins with a blank."""
    words: list[list[int]] = []
    for token in tokens:
        if not words or view.pieces[token][:1].isspace():
            words.append([])
        words[-1].append(token)
    return words


def _piece(view: Strip, token: int) -> str:
    return paper_text.printable(view.pieces[token].replace("\n", "⏎").replace("\t", "⇥"))


def height(view: Strip, width: float, size: float) -> float:
    """Points that the text takes with its legend, `width` points wide."""
    lines = flow(view, width, size).lines + bool(view.marks)
    if view.weights is not None:
        lines += 1 + _legend_words(view, Stretch.SQRT, width, size).count("\n")
    return max(1, lines) * size * _LINE


def missing(view: Strip, box: PanelBox) -> float:
    """Inches by which the axes are too low for the text."""
    width, available = box.inches()
    inches = height(view, 72 * width, box.small) / 72 - available
    return inches if inches > 0.01 else 0.0


def _ends(view: Strip) -> tuple[str, str]:
    """The numbers at the ends of the colours."""
    return f"{view.low:.3g}", f"{view.high:.3g}"


def _sample_width(view: Strip, size: float) -> float:
    """Points that the sample of the colours takes with the numbers at its ends."""
    return _SAMPLE * size + sum(paper_text.width(end, size) + 0.4 * size for end in _ends(view))


def _legend_words(view: Strip, stretch: Stretch, width: float, size: float) -> str:
    words = view.legend + ("" if stretch is Stretch.LINEAR else f"; {stretch.value} colours")
    return paper_text.wrapped(paper_text.printable(words), size, width - _sample_width(view, size))


def strip(view: Strip, box: PanelBox, colours: Colours | None, stretch: Stretch) -> PendingPanel:
    box.axes.set_axis_off()

    def settle() -> tuple[str, ...]:
        width, available = (72 * inches for inches in box.inches())
        if inches := missing(view, box):
            raise ValueError(
                f"the text takes {inches:.2f} in more height than the {available / 72:.2f} that it has: choose fewer"
                " tokens or a taller figure"
            )
        box.axes.set(xlim=(0, width), ylim=(available, 0))
        placed = flow(view, width, box.small)
        _tokens(box, placed, grounds(view, colours, stretch))
        _underline(view, box, placed)
        _legend(view, box, placed.lines, width, colours, stretch)
        return ()

    return PendingPanel(settle=settle)


def _middle(box: PanelBox, line: int) -> float:
    return (line + 0.5) * box.small * _LINE


def grounds(view: Strip, colours: Colours | None, stretch: Stretch) -> Float[np.ndarray, "token 3"]:
    """The colour behind each token, NaN for none: by weight; without weights by segment, in the screen's colours
    only."""
    if view.weights is None:
        return segment_shades(view.segment_of) if colours is None else np.full((len(view.pieces), 3), np.nan)
    linear = np.clip((view.weights - view.low) / max(view.high - view.low, 1e-30), 0, 1)
    shades = text_shades(stretch.place(np.nan_to_num(linear), diverging=False), colours)
    return np.where(np.isfinite(linear)[:, None], shades, np.nan)


def _tokens(box: PanelBox, placed: Flow, shades: Float[np.ndarray, "token 3"]) -> None:
    write = partial(box.axes.text, fontsize=box.small, va="center_baseline")
    inks = ink(np.nan_to_num(shades, nan=1.0))
    for line, segment in placed.numbers:
        write(0, _middle(box, line), str(segment), color="#5f626c")
    for token in placed.tokens:
        middle, shade = _middle(box, token.line), shades[token.token]
        if np.isfinite(shade[0]):
            corner = token.left, middle - 0.62 * box.small
            box.axes.add_patch(Rectangle(corner, token.width, 1.24 * box.small, facecolor=shade, linewidth=0))
        write(token.left, middle, token.text, color=inks[token.token])


def _underline(view: Strip, box: PanelBox, placed: Flow) -> None:
    kinds = list(dict.fromkeys(word for _, _, word in view.marks))
    for first, end, word in view.marks:
        style = mark(kinds.index(word) + 1)
        for line, left, right in _runs(placed, first, end, box.small):
            y = _middle(box, line) + 0.82 * box.small
            look = {"color": style.colour, "linestyle": style.dash, "linewidth": 1.0, "solid_capstyle": "butt"}
            box.axes.plot((left, right), (y, y), **look)


def _runs(placed: Flow, first: int, end: int, size: float) -> Iterator[tuple[int, float, float]]:
    """(line, left, right) of the tokens from `first` to `end`, without the blank before them."""
    chosen = (token for token in placed.tokens if first <= token.token < end)
    for line, members in groupby(chosen, key=lambda token: token.line):
        start, *_, last = [*members] * 2
        blanks = len(start.text) - len(start.text.lstrip(" "))
        yield line, start.left + paper_text.width(" " * blanks, size), last.left + last.width


def _legend(view: Strip, box: PanelBox, line: int, width: float, colours: Colours | None, stretch: Stretch) -> None:
    axes, size = box.axes, box.small
    write = partial(axes.text, fontsize=size, va="center_baseline", color=EDGE)
    if view.marks:
        left, middle = 0.0, _middle(box, line)
        for number, word in enumerate(dict.fromkeys(word for _, _, word in view.marks)):
            style = mark(number + 1)
            axes.plot(
                (left, left + 2.6 * size), (middle, middle), color=style.colour, linestyle=style.dash, linewidth=1.0
            )
            write(left + 3 * size, middle, paper_text.printable(word))
            left += 4.5 * size + paper_text.width(word, size)
        line += 1
    if view.weights is not None:  # without weights the legend would name the segments, which have their numbers
        middle, bottom = _middle(box, line), axes.get_ylim()[0]
        low, high = _ends(view)
        write(0, middle, low)
        left = paper_text.width(low, size) + 0.4 * size
        axes.imshow(
            text_shades(np.linspace(0, 1, 64), colours)[None],
            extent=(left, left + 4 * size, middle + 0.4 * size, middle - 0.4 * size),
            aspect="auto",
            interpolation="nearest",
        )
        axes.set(xlim=(0, width), ylim=(bottom, 0))  # the image has changed them
        write(left + 4.4 * size, middle, high)
        words = _legend_words(view, stretch, width, size)
        write(_sample_width(view, size), middle - 0.5 * size, words, va="top", linespacing=paper_text.LEADING)
