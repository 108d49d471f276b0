"""The text on paper, token by token: a line or more for each segment, coloured by weight, marks underlined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float
from matplotlib.patches import Rectangle

from app.figures.palettes import Colours, Stretch, ink, mark, segment_shades, text_shades
from app.figures.print import text as paper_text
from app.figures.print.panel import EDGE, PanelBox, PendingPanel
from app.views.kinds import Strip

_LINE = 1.9
"""Height of a line over the size of its type: underlines stand between."""
_GAP = 6.0
"""Points between a segment's number and its tokens."""
_SAMPLE = 4.6
"""Room for a sample of the colours, in sizes of the type."""


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
                text = text.lstrip(" ") or text if left == margin else text
                wide = paper_text.width(text, size)
                if left + wide > width and left > margin:  # a word that is longer than a line
                    line, left = line + 1, margin
                tokens.append(PlacedText(token=token, text=text, line=line, left=left, width=wide))
                left += wide
    return Flow(tokens=tuple(tokens), numbers=tuple(numbers), lines=line + 1)


def _words(view: Strip, tokens: list[int]) -> list[list[int]]:
    """Tokens that stand together: a new word begins with a blank."""
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
    return max(1, flow(view, width, size).lines + _legend_lines(view, width, size)) * size * _LINE


def lacks(view: Strip, room: PanelBox) -> float:
    """Inches by which the axes are too low for the text."""
    wide, high = room.inches()
    missing = height(view, 72 * wide, room.small) / 72 - high
    return missing if missing > 0.01 else 0.0


def _legend_lines(view: Strip, width: float, size: float) -> int:
    return bool(view.marks) + (
        0 if view.weights is None else 1 + _legend_words(view, Stretch.SQRT, width, size).count("\n")
    )


def _ends(view: Strip) -> tuple[str, str]:
    """The numbers at the ends of the colours."""
    return f"{view.low:.3g}", f"{view.high:.3g}"


def _sample(view: Strip, size: float) -> float:
    """Points that the sample of the colours takes with the numbers at its ends."""
    return _SAMPLE * size + sum(paper_text.width(end, size) + 0.4 * size for end in _ends(view))


def _legend_words(view: Strip, stretch: Stretch, width: float, size: float) -> str:
    words = view.legend + ("" if stretch is Stretch.LINEAR else f"; {stretch.value} colours")
    return paper_text.wrapped(paper_text.printable(words), size, width - _sample(view, size))


def strip(view: Strip, room: PanelBox, colours: Colours | None, stretch: Stretch) -> PendingPanel:
    room.axes.set_axis_off()

    def settle() -> tuple[str, ...]:
        wide, high = (72 * inches for inches in room.inches())
        missing = lacks(view, room)
        if missing:
            raise ValueError(
                f"the text takes {missing:.2f} in more height than the {high / 72:.2f} that it has: choose fewer tokens"
                " or a taller figure"
            )
        room.axes.set(xlim=(0, wide), ylim=(high, 0))
        placed = flow(view, wide, room.small)
        _tokens(view, room, placed, grounds(view, colours, stretch))
        _marks(view, room, placed)
        _legend(view, room, placed.lines, wide, colours, stretch)
        return ()

    return PendingPanel(settle=settle)


def _middle(room: PanelBox, line: int) -> float:
    return (line + 0.5) * room.small * _LINE


def grounds(view: Strip, colours: Colours | None, stretch: Stretch) -> Float[np.ndarray, "token 3"]:
    """The colour behind each token, NaN for a plain one: by weight; without weights by segment, where colours are the
    screen's."""
    if view.weights is None:
        return segment_shades(view.segment_of) if colours is None else np.full((len(view.pieces), 3), np.nan)
    linear = np.clip((view.weights - view.low) / max(view.high - view.low, 1e-30), 0, 1)
    shades = text_shades(stretch.place(np.nan_to_num(linear), diverging=False), colours)
    return np.where(np.isfinite(linear)[:, None], shades, np.nan)


def _tokens(view: Strip, room: PanelBox, placed: Flow, shades: Float[np.ndarray, "token 3"]) -> None:
    axes, size = room.axes, room.small
    coloured = np.isfinite(shades[:, 0])
    words = ink(np.nan_to_num(shades, nan=1.0))
    for line, segment in placed.numbers:
        axes.text(0, _middle(room, line), str(segment), fontsize=size, color="#5f626c", va="center_baseline")
    for token in placed.tokens:
        if coloured[token.token]:
            axes.add_patch(
                Rectangle(
                    (token.left, _middle(room, token.line) - 0.62 * size),
                    token.width,
                    1.24 * size,
                    facecolor=shades[token.token],
                    linewidth=0,
                )
            )
        axes.text(
            token.left,
            _middle(room, token.line),
            token.text,
            fontsize=size,
            color=words[token.token],
            va="center_baseline",
        )


def _marks(view: Strip, room: PanelBox, placed: Flow) -> None:
    kinds = list(dict.fromkeys(word for _, _, word in view.marks))
    for first, end, word in view.marks:
        style = mark(kinds.index(word) + 1)
        for line, left, right in _runs(placed, first, end, room.small):
            below = _middle(room, line) + 0.82 * room.small
            room.axes.plot(
                (left, right),
                (below, below),
                color=style.colour,
                linestyle=style.dash,
                linewidth=1.0,
                solid_capstyle="butt",
            )


def _runs(placed: Flow, first: int, end: int, size: float) -> Iterator[tuple[int, float, float]]:
    """(line, left, right) of tokens that stand together, without the blank before them."""
    for line, members in groupby(
        (token for token in placed.tokens if first <= token.token < end), key=lambda one: one.line
    ):
        found = list(members)
        blank = len(found[0].text) - len(found[0].text.lstrip(" "))
        yield line, found[0].left + paper_text.width(" " * blank, size), found[-1].left + found[-1].width


def _legend(view: Strip, room: PanelBox, line: int, width: float, colours: Colours | None, stretch: Stretch) -> None:
    axes, size = room.axes, room.small
    if view.marks:
        left = 0.0
        for number, word in enumerate(dict.fromkeys(word for _, _, word in view.marks)):
            style, middle = mark(number + 1), _middle(room, line)
            axes.plot(
                (left, left + 2.6 * size), (middle, middle), color=style.colour, linestyle=style.dash, linewidth=1.0
            )
            axes.text(
                left + 3 * size, middle, paper_text.printable(word), fontsize=size, va="center_baseline", color=EDGE
            )
            left += 4.5 * size + paper_text.width(word, size)
        line += 1
    if view.weights is not None:  # without them the legend speaks of segments, which have numbers
        middle, bottom = _middle(room, line), axes.get_ylim()[0]
        low, high = _ends(view)
        axes.text(0, middle, low, fontsize=size, va="center_baseline", color=EDGE)
        left = paper_text.width(low, size) + 0.4 * size
        shades = text_shades(np.linspace(0, 1, 64), colours)[None]
        axes.imshow(
            shades,
            extent=(left, left + 4 * size, middle + 0.4 * size, middle - 0.4 * size),
            aspect="auto",
            interpolation="nearest",
        )
        axes.set(xlim=(0, width), ylim=(bottom, 0))  # as before the image
        axes.text(left + 4.4 * size, middle, high, fontsize=size, va="center_baseline", color=EDGE)
        words = _legend_words(view, stretch, width, size)
        axes.text(
            _sample(view, size),
            middle - 0.5 * size,
            words,
            fontsize=size,
            va="top",
            color=EDGE,
            linespacing=paper_text.LEADING,
        )
