"""View -> matplotlib Figure, for print: the same on every machine, whatever matplotlib's settings there are."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.figures.print import estimates, fonts as paper_fonts, forest, heatmap, lines as paper_curves, strip, text
from app.figures.print.heatmap import PRINTED
from app.figures.print.page import TALLEST, Grid, Panel, Paper, letters
from app.figures.print.panel import EDGE, PanelBox, PendingPanel
from app.figures.print.venues import small
from app.views.kinds import Bars, Forest, Heatmap, Lines, Strip
from app.views.numbers import View

RASTER = 600
"""Dots per inch of images within PDF and SVG."""
_OVERHANG = 1.25
"""How long a vertical title may be, in heights of its axes: there is room above and below."""

_SETTINGS = {
    "text.parse_math": False,
    "text.usetex": False,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.4,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",  # text looks alike where the font is not installed
    "svg.hashsalt": "figure",
}
_LOCK = threading.Lock()


@contextmanager
def printing(fonts: Sequence[str] = (paper_fonts.FONT,)) -> Iterator[None]:
    """Make or save figures under matplotlib's defaults and our settings, one at a time, because settings are global.

    `fonts`: names; each character is printed in the first font that has it.
    """
    with _LOCK:
        # Setting every default would take a tenth of a figure's time, and asking for the backend would import one.
        changed = {
            name: value
            for name, value in matplotlib.rcParamsDefault.items()
            if name != "backend" and matplotlib.rcParams[name] != value
        }
        with matplotlib.rc_context({**changed, **_SETTINGS, "font.family": list(fonts)}):
            yield


@dataclass(frozen=True, kw_only=True, eq=False)
class PrintFigure:
    """A figure with the views, page and fonts that it was made from."""

    figure: Figure
    views: tuple[View, ...]
    page: Paper | Grid
    notes: tuple[tuple[str, ...], ...]
    """For each view, what a caption must say: cells that were pooled, what dots and hatching mean, what was left
    out."""
    fonts: tuple[str, ...]

    @property
    def title(self) -> str:
        """The panels' titles; without any, the subject of the first view."""
        titles = [view.titled(panel.title) for panel, view in zip(self.page.panels, self.views)]
        return "; ".join(filter(None, titles)) or self.views[0].summary.split(":")[0].split(";")[0]


def draw(view: View, paper: Paper) -> PrintFigure:
    """A figure of one view. Raises ValueError for content that does not fit the page, and for annotations outside the
    axes."""
    return compose((view,), paper)


def compose(views: Sequence[View], page: Paper | Grid) -> PrintFigure:
    """A figure with a view in each panel. Raises ValueError as `draw` does, and unless there is a view for each
    panel."""
    if len(views) != len(page.panels):
        raise ValueError(f"a page of {len(page.panels)} panels takes as many views, not {len(views)}")
    short = tuple(map(text.view_shortened, views))
    fonts = paper_fonts.families(_texts((short, page)))
    with printing(fonts):
        figure, notes = _compose(short, page, estimates.row_heights(short, page))
    return PrintFigure(figure=figure, views=tuple(views), page=page, notes=notes, fonts=fonts)


def _texts(value: object) -> Iterator[str]:
    """All strings within views and pages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _texts(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _texts(getattr(value, field.name))


def _compose(
    views: tuple[View, ...], page: Paper | Grid, rows: list[float]
) -> tuple[Figure, tuple[tuple[str, ...], ...]]:
    """The figure and each view's notes. `rows`: preferred height of each row of panels, in inches."""
    height = round(_height(page, sum(rows)) * PRINTED) / PRINTED
    figure = Figure(figsize=(page.width, height), dpi=PRINTED, layout="constrained")
    layout = figure.get_layout_engine()
    layout.set(w_pad=estimates.PAD / 72, h_pad=estimates.PAD / 72, wspace=0.03, hspace=0.03)
    cells = figure.subplots(len(rows), page.across, squeeze=False, height_ratios=rows).ravel()
    for unused in cells[len(views) :]:
        unused.remove()
    shared = _shared_scale(views, page)
    maps = [view for view in views if isinstance(view, Heatmap)]
    common = heatmap.in_common(maps) if shared else ()
    width, size = estimates.axes_width(views, page), page.measures.size
    boxes = []
    for axes, view, panel, letter, row in zip(cells, views, page.panels, letters(page), np.repeat(rows, page.across)):
        above = estimates.points_above(view, panel, letter, page, width)
        room = max(30.0, 72 * height * row / sum(rows) - above - 5 * size)
        boxes.append(PanelBox(axes=axes, width=width, height=room, base=size, small=small(size)))
    panels = list(zip(views, page.panels, boxes))
    pending = [_panel(*panel, shared) for panel in panels]
    for (view, panel, box), letter, drawn in zip(panels, letters(page), pending):
        title = panel.title
        if not title and shared and isinstance(view, Heatmap):  # what tells this map from the others
            title = ", ".join(part for part in view.value_title.split(", ") if part not in common)
        _head(view.titled(title), letter, box, drawn.lift)
    if shared:
        map_boxes = [box for view, _, box in panels if isinstance(view, Heatmap)]
        heatmap.colour_bar([box.axes for box in map_boxes], shared, ", ".join(common), map_boxes[0])
    layout.execute(figure)
    changed = [_name_axes(*panel, *panel[-1].inches()) for panel in panels]
    if any(changed):
        layout.execute(figure)  # titles are broken into other lines now
    figure.set_layout_engine("none")  # at another resolution it would find slightly other places
    for panel in panels:
        _snap(panel[-1].axes)
        _name_axes(*panel, *panel[-1].inches())  # now that it is known how many of a map's cells are drawn as one
    if page.height is None and page.aspect is None:  # a text's height follows from the width that it has now
        missing = np.zeros(len(cells))
        missing[: len(views)] = [strip.missing(view, box) if isinstance(view, Strip) else 0 for view, _, box in panels]
        if missing.any():
            return _compose(views, page, [*(rows + missing.reshape(-1, page.across).max(1))])
    notes = tuple(drawn.settle() for drawn in pending)
    for panel, axes in zip(page.panels, cells):
        _annotate(panel, axes, small(size))
    return figure, notes


def _height(page: Paper | Grid, preferred: float) -> float:
    """The page's height in inches; `preferred`, where it names none."""
    if page.height is not None:
        return page.height
    if page.aspect is not None:
        return page.aspect * page.width
    if preferred > TALLEST:
        raise ValueError(
            f"the figure takes {preferred:.1f} in of height, and a page has {TALLEST:g}: choose fewer tokens or panels,"
            " or a height"
        )
    return preferred


def _shared_scale(views: tuple[View, ...], page: Paper | Grid) -> heatmap.ColourScale | None:
    maps = [(view, panel) for view, panel in zip(views, page.panels) if isinstance(view, Heatmap)]
    if not page.shared_scale or not maps:
        return None
    colours, stretches = {panel.colours for _, panel in maps}, {panel.stretch for _, panel in maps}
    if len(colours) > 1 or len(stretches) > 1:
        names = sorted(choice.value if choice else "none" for choice in (*colours, *stretches))
        raise ValueError(f"a shared scale has one choice of colours and how they are spread, not {', '.join(names)}")
    return heatmap.ColourScale.of([view for view, _ in maps], colours.pop(), stretches.pop())


def _panel(view: View, panel: Panel, box: PanelBox, shared: heatmap.ColourScale | None) -> PendingPanel:
    if isinstance(view, Heatmap):
        scale = shared or heatmap.ColourScale.of([view], panel.colours, panel.stretch)
        pending = heatmap.heatmap(view, box, scale)
        if not shared:
            heatmap.colour_bar(box.axes, scale, view.value_title, box)
    elif isinstance(view, Strip):
        pending = strip.strip(view, box, panel.colours, panel.stretch)
    else:
        pending = {Lines: paper_curves.lines, Bars: paper_curves.bars, Forest: forest.forest}[type(view)](view, box)
    _name_axes(view, panel, box, box.width / 72, box.height / 72)
    return pending


def _name_axes(view: View, panel: Panel, box: PanelBox, width: float, height: float) -> bool:
    """Write the titles of axes of a size in inches; returns whether they have changed."""
    if isinstance(view, Strip):
        texts = (panel.x_title, panel.y_title, *(annotation.text for annotation in panel.annotations))
        if any(texts):
            raise ValueError(f"a text has no axes for {next(filter(None, texts))!r}")
        return False
    axes, before = box.axes, (box.axes.get_xlabel(), box.axes.get_ylabel())
    x_title, y_title = estimates.axis_titles(view)
    x_title = panel.x_title or x_title
    if isinstance(view, Heatmap):
        x_title = heatmap.column_title(view, x_title, width, height)
    for write, title, inches in (
        (axes.set_xlabel, x_title, width),
        (axes.set_ylabel, panel.y_title or y_title, _OVERHANG * height),
    ):
        write(text.wrapped(text.printable(title), box.base, 72 * inches, text.TITLE), fontsize=box.base, labelpad=2)
    return (axes.get_xlabel(), axes.get_ylabel()) != before


def _head(title: str, letter: str, box: PanelBox, lift: float) -> None:
    """Write letter and title `lift` points above the axes."""
    if not letter and not title:
        return
    mark = f"({text.printable(letter)})" if letter else " "
    words = text.wrapped(text.printable(title), box.base, box.width - 3 * box.base)
    style = {"textcoords": "offset points", "va": "bottom", "fontsize": box.base}
    # The letter reserves the height of both; the title may reach over the colour scale without narrowing the axes.
    anchor = box.axes.annotate(
        mark + "\n " * words.count("\n"), (0, 1), (0, lift + 3), xycoords="axes fraction", **style
    )
    place, indent = ((1, 0), box.base / 2) if letter else ((0, 0), 0)
    box.axes.annotate(words, place, (indent, 0), xycoords=anchor, **style).set_in_layout(False)


def _snap(axes: Axes) -> None:
    """Move the edges of axes onto whole dots, so that viewers draw the cells of an image crisply."""
    size = axes.figure.get_size_inches()
    low, high = np.round(axes.get_position().get_points() * size * PRINTED) / PRINTED / size
    axes.set_position((*low, *(high - low)))


def _annotate(panel: Panel, axes: Axes, size: float) -> None:
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    border = {"boxstyle": "round,pad=0.2", "facecolor": "#ffffff", "edgecolor": EDGE, "linewidth": 0.4, "alpha": 0.9}
    for annotation in panel.annotations:
        if not (left <= annotation.x <= right and low <= annotation.y <= high):
            raise ValueError(
                f"the annotation {annotation.text!r} at ({annotation.x:g}, {annotation.y:g}) is outside the axes, "
                f"which go from {left:g} to {right:g} and {low:g} to {high:g}"
            )
        third = min(2, int(3 * (annotation.x - left) / (right - left)))  # it extends away from the nearest edge
        axes.annotate(
            text.printable(annotation.text),
            (annotation.x, annotation.y),
            fontsize=size,
            ha=("left", "center", "right")[third],
            va="center",
            zorder=5,
            bbox=border,
        )
