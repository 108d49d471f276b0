"""View -> matplotlib Figure, for print: the same on every machine, whatever matplotlib's settings there are."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.figures.print import fonts as paper_fonts, forest, heatmap, lines as paper_curves, strip, text
from app.figures.print.heatmap import PRINTED
from app.figures.print.page import TALLEST, Grid, Panel, Paper, letters
from app.figures.print.panel import PanelBox, PendingPanel
from app.figures.print.venues import small
from app.views.kinds import Bars, Forest, Heatmap, Lines, Strip
from app.views.numbers import View

RASTER = 600
"""Dots to an inch of images within PDF and SVG."""
_ASPECT = 0.62
_OVER = 1.25
"""How far an upright title may reach beyond its axes: there is room above and below."""
_BAR = 6.5
"""Width of a colour scale with its ticks and title, in sizes of their type."""
_PAD = 2.0
"""Points around the figure, and between what stands side by side."""

_SETTINGS = {
    "text.parse_math": False,
    "text.usetex": False,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "figure",
}
"""Text in SVG becomes paths: it looks alike where the font is not installed, and where a browser would take another for
it."""
_LOCK = threading.Lock()


@contextmanager
def printing(fonts: Sequence[str] = (paper_fonts.FONT,)) -> Iterator[None]:
    """matplotlib's settings are global: figures are made and saved under its defaults and ours, one at a time.

    `fonts`: their names; each character is printed in the first that has it.
    """
    with _LOCK:
        # Only what somebody has changed: setting all of them takes as long as a tenth of a figure. To ask for the
        # backend imports one.
        changed = {
            name: value
            for name, value in matplotlib.rcParamsDefault.items()
            if name != "backend" and matplotlib.rcParams[name] != value
        }
        with matplotlib.rc_context({**changed, **_SETTINGS, "font.family": list(fonts)}):
            yield


@dataclass(frozen=True, kw_only=True, eq=False)
class PrintFigure:
    """A figure, and what it was made of."""

    figure: Figure
    views: tuple[View, ...]
    page: Paper | Grid
    notes: tuple[tuple[str, ...], ...]
    """Of each view, what a caption must say: cells that were pooled, what dots and hatching mean, what was left out."""
    fonts: tuple[str, ...]
    """Names of those that its texts are printed in."""

    @property
    def title(self) -> str:
        """The panels' titles; without any, what the first view is of."""
        titles = [view.titled(panel.title) for panel, view in zip(self.page.panels, self.views)]
        return "; ".join(filter(None, titles)) or self.views[0].summary.split(":")[0].split(";")[0]


def draw(view: View, paper: Paper) -> PrintFigure:
    """A figure of one view. Raises ValueError for what does not fit the page, and for annotations beside the axes."""
    return compose((view,), paper)


def compose(views: Sequence[View], page: Paper | Grid) -> PrintFigure:
    """A figure of a view in each panel. Raises ValueError as `draw` does, and for views that are more or fewer than the
    panels."""
    if len(views) != len(page.panels):
        raise ValueError(f"a page of {len(page.panels)} panels takes as many views, not {len(views)}")
    short = tuple(map(text.view_shortened, views))
    fonts = paper_fonts.families(_texts((short, page)))
    with printing(fonts):
        return replace(_compose(short, page, _row_heights(short, page), fonts), views=tuple(views))


def _texts(value: object) -> Iterator[str]:
    """All texts within views and pages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _texts(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _texts(getattr(value, field.name))


def _compose(views: tuple[View, ...], page: Paper | Grid, rows: list[float], fonts: tuple[str, ...]) -> PrintFigure:
    """`rows`: inches that suit each row of panels."""
    across = _across(page)
    height = round(_height(page, sum(rows)) * PRINTED) / PRINTED
    figure = Figure(figsize=(page.width, height), dpi=PRINTED, layout="constrained")
    figure.get_layout_engine().set(w_pad=_PAD / 72, h_pad=_PAD / 72, wspace=0.03, hspace=0.03)
    cells = figure.subplots(len(rows), across, squeeze=False, height_ratios=rows).ravel()
    for unused in cells[len(views) :]:
        unused.remove()
    shared = _shared_scale(views, page)
    common = heatmap.in_common([view for view in views if isinstance(view, Heatmap)]) if shared else ()
    rooms = [
        _room(cell, at, views, page, height * rows[at // across] / sum(rows))
        for at, cell in enumerate(cells[: len(views)])
    ]
    laid = [_panel(view, panel, room, shared) for view, panel, room in zip(views, page.panels, rooms)]
    for view, panel, letter, room, one in zip(views, page.panels, letters(page), rooms, laid):
        # Under one scale a map is told from the others by what its title has of its own.
        own = (
            [part for part in view.value_title.split(", ") if part not in common]
            if shared and isinstance(view, Heatmap)
            else []
        )
        _head(view.titled(panel.title or ", ".join(own)), letter, room, one.lift)
    if shared is not None:
        maps = [room for view, room in zip(views, rooms) if isinstance(view, Heatmap)]
        heatmap.colour_bar([room.axes for room in maps], shared, ", ".join(common), maps[0])
    figure.get_layout_engine().execute(figure)
    renamed = [_name_axes(view, panel, room, *room.inches()) for view, panel, room in zip(views, page.panels, rooms)]
    if any(renamed):
        figure.get_layout_engine().execute(figure)  # titles had to be broken anew
    figure.set_layout_engine("none")  # at another resolution it would find slightly other places
    for view, panel, room in zip(views, page.panels, rooms):
        _snap(room.axes)
        _name_axes(view, panel, room, *room.inches())  # the cells of a map are those that the axes now have room for
    if page.height is None and page.aspect is None:  # how wide a text has become, and so how high it is, is known now
        lacks = [strip.lacks(view, room) if isinstance(view, Strip) else 0.0 for view, room in zip(views, rooms)]
        if any(lacks):
            return _compose(
                views, page, [row + max(lacks[at * across : (at + 1) * across]) for at, row in enumerate(rows)], fonts
            )
    notes = tuple(one.settle() for one in laid)
    for panel, cell in zip(page.panels, cells):
        _annotate(panel, cell, small(page.measures.size))
    return PrintFigure(figure=figure, views=views, page=page, notes=notes, fonts=fonts)


def _height(page: Paper | Grid, suits: float) -> float:
    """Inches; `suits`: what suits the views."""
    if page.height is not None:
        return page.height
    if page.aspect is not None:
        return page.aspect * page.width
    if suits > TALLEST:
        raise ValueError(
            f"the figure takes {suits:.1f} in of height, and a page has {TALLEST:g}: choose fewer tokens or panels, or"
            " a height"
        )
    return suits


def _across(page: Paper | Grid) -> int:
    return page.across if isinstance(page, Grid) else 1


def _row_heights(views: tuple[View, ...], page: Paper | Grid) -> list[float]:
    """Inches that suit the views of each row; of texts, the least that they can do with."""
    across, size = _across(page), small(page.measures.size)
    wide = page.width / across

    def suits(at: int) -> float:
        if isinstance(views[at], Strip):
            return strip.height(views[at], 72 * wide - 2 * _PAD, size) / 72
        if isinstance(views[at], Forest):
            return forest.height(views[at], size) / 72 + _above(at, views, page) / 72
        return max(1.5, _ASPECT * wide) + max(0.0, _above(at, views, page) - 2 * size) / 72

    return [max(map(suits, range(at, min(at + across, len(views))))) for at in range(0, len(views), across)]


def _above(at: int, views: tuple[View, ...], page: Paper | Grid) -> float:
    """About how many points stand above the axes of a panel: its letter and title, and of lines their legend."""
    title, size = views[at].titled(page.panels[at].title), page.measures.size
    wide = text.width(text.printable(title), size) / _axes_width(views, page)
    lines = min(text.MOST_LINES, math.ceil(wide)) if title else 1
    head = 1.5 * size * lines if letters(page)[at] or title else 0.0
    if not isinstance(views[at], (Lines, Forest)):
        return head
    return head + paper_curves.legend_height(views[at].lines, _axes_width(views, page), small(size))


def _room(axes: Axes, at: int, views: tuple[View, ...], page: Paper | Grid, height: float) -> PanelBox:
    """Of the panel at a place, in a row of `height` inches."""
    size = page.measures.size
    high = max(30.0, 72 * height - _above(at, views, page) - 5 * size)
    return PanelBox(axes=axes, width=_axes_width(views, page), height=high, base=size, small=small(size))


def _axes_width(views: tuple[View, ...], page: Paper | Grid) -> float:
    """About how many points wide the axes will be, which are equal in all columns."""
    across = _across(page)
    margins = sum(max(_margin(view, page) for view in views[at::across]) for at in range(across))
    scale = _BAR * small(page.measures.size) if _shares(page) else 0.0
    return max(40.0, (72 * page.width - margins - scale) / across - 4 * _PAD)


def _margin(view: View, page: Paper | Grid) -> float:
    """Points beside the axes: an axis title, ticks, and of heatmaps the colour scale."""
    base, size = page.measures.size, small(page.measures.size)
    if isinstance(view, Strip):
        return 0.0
    if isinstance(view, Forest):
        return forest.margin(view, size) + size + (base * text.LEADING if view.y_title else 0.0)
    title = view.row_title if isinstance(view, Heatmap) else view.y_title
    titled = base * text.LEADING * (1 if text.width(title, base) < 10 * base else 2)
    if not isinstance(view, Heatmap):
        return titled + 3.5 * size
    labels = text.beside(view.row_labels, view.row_title)
    return (
        titled
        + max((text.width(label, size) for label in labels), default=0.0)
        + size
        + (0 if _shares(page) else _BAR * size)
    )


def _shares(page: Paper | Grid) -> bool:
    return isinstance(page, Grid) and page.shared_scale


def _shared_scale(views: tuple[View, ...], page: Paper | Grid) -> heatmap.ColourScale | None:
    maps = [(view, panel) for view, panel in zip(views, page.panels) if isinstance(view, Heatmap)]
    if not _shares(page) or not maps:
        return None
    chosen, stretches = {panel.colours for _, panel in maps}, {panel.stretch for _, panel in maps}
    if len(chosen) > 1 or len(stretches) > 1:
        told = [one.value if one else "none" for one in (*chosen, *stretches)]
        raise ValueError(
            f"a shared scale has one choice of colours and how they are spread, not {', '.join(sorted(told))}"
        )
    return heatmap.ColourScale.of([view for view, _ in maps], chosen.pop(), stretches.pop())


def _panel(view: View, panel: Panel, room: PanelBox, shared: heatmap.ColourScale | None) -> PendingPanel:
    if isinstance(view, Heatmap):
        scale = shared or heatmap.ColourScale.of([view], panel.colours, panel.stretch)
        laid = heatmap.heatmap(view, room, scale)
        if shared is None:
            heatmap.colour_bar(room.axes, scale, view.value_title, room)
    elif isinstance(view, Lines):
        laid = paper_curves.lines(view, room)
    elif isinstance(view, Bars):
        laid = paper_curves.bars(view, room)
    elif isinstance(view, Forest):
        laid = forest.forest(view, room)
    else:
        laid = strip.strip(view, room, panel.colours, panel.stretch)
    _name_axes(view, panel, room, room.width / 72, room.height / 72)
    return laid


def _name_axes(view: View, panel: Panel, room: PanelBox, wide: float, high: float) -> bool:
    """Titles of axes that are so many inches wide and high; whether they have changed."""
    if isinstance(view, Strip):
        given = (panel.x_title, panel.y_title, *(annotation.text for annotation in panel.annotations))
        if any(given):
            raise ValueError(f"a text has no axes for {next(filter(None, given))!r}")
        return False
    axes, before = room.axes, (room.axes.get_xlabel(), room.axes.get_ylabel())
    x_title, y_title = (own or title for own, title in zip((panel.x_title, panel.y_title), _titles(view)))
    if isinstance(view, Heatmap):
        x_title = heatmap.column_title(view, x_title, wide, high)
    for write, title, inches in ((axes.set_xlabel, x_title, wide), (axes.set_ylabel, y_title, _OVER * high)):
        write(text.wrapped(text.printable(title), room.base, 72 * inches, text.TITLE), fontsize=room.base, labelpad=2)
    return (axes.get_xlabel(), axes.get_ylabel()) != before


def _titles(view: Heatmap | Lines | Bars | Forest) -> tuple[str, str]:
    if isinstance(view, Heatmap):
        return view.column_title, view.row_title
    return view.x_title, view.y_title


def _head(title: str, letter: str, room: PanelBox, lift: float) -> None:
    """Letter and title above the axes, and above what stands there already."""
    if not letter and not title:
        return
    mark = f"({text.printable(letter)})" if letter else " "
    words = text.wrapped(text.printable(title), room.base, room.width - 3 * room.base)
    place = {"textcoords": "offset points", "va": "bottom", "fontsize": room.base}
    # The letter keeps the height of both; the title may stand above the scale beside the axes, which does not make them
    # narrower.
    kept = room.axes.annotate(
        mark + "\n " * words.count("\n"), (0, 1), (0, lift + 3), xycoords="axes fraction", **place
    )
    beside = room.axes.annotate(
        words, (1, 0) if letter else (0, 0), (room.base / 2 if letter else 0, 0), xycoords=kept, **place
    )
    beside.set_in_layout(False)


def _snap(axes: Axes) -> None:
    """Move the edges of axes onto whole dots, so that viewers draw the cells of an image crisply."""
    box, (wide, high) = axes.get_position(), axes.figure.get_size_inches()
    left, right = (round(edge * wide * PRINTED) / PRINTED / wide for edge in (box.x0, box.x1))
    low, top = (round(edge * high * PRINTED) / PRINTED / high for edge in (box.y0, box.y1))
    axes.set_position((left, low, right - left, top - low))


def _annotate(panel: Panel, axes: Axes, size: float) -> None:
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    for annotation in panel.annotations:
        if not (left <= annotation.x <= right and low <= annotation.y <= high):
            raise ValueError(
                f"the annotation {annotation.text!r} at ({annotation.x:g}, {annotation.y:g}) is outside the axes, "
                f"which go from {left:g} to {right:g} and {low:g} to {high:g}"
            )
        # So that it does not reach over an edge that is near.
        third = min(2, int(3 * (annotation.x - left) / (right - left)))
        axes.annotate(
            text.printable(annotation.text),
            (annotation.x, annotation.y),
            fontsize=size,
            ha=("left", "center", "right")[third],
            va="center",
            zorder=5,
            bbox={
                "boxstyle": "round,pad=0.2",
                "facecolor": "#ffffff",
                "edgecolor": "#31333f",
                "linewidth": 0.4,
                "alpha": 0.9,
            },
        )
