"""Sizes of a figure's parts, estimated before the layout is computed."""

from __future__ import annotations

import math

from app.figures.print import forest, lines as paper_curves, strip, text
from app.figures.print.page import Grid, Panel, Paper, letters
from app.figures.print.venues import small
from app.views.kinds import Bars, Forest, Heatmap, Lines, Strip
from app.views.numbers import View

_ASPECT = 0.62
_BAR = 6.5
"""Width of a colour scale with its ticks and title, in multiples of their type size."""
PAD = 2.0
"""Points around the figure, and between panels side by side."""


def row_heights(views: tuple[View, ...], page: Paper | Grid) -> list[float]:
    """Preferred height of each row in inches; of texts, the least that they need."""
    size, column, width = small(page.measures.size), page.width / page.across, axes_width(views, page)
    heights = []
    for view, panel, letter in zip(views, page.panels, letters(page)):
        above = points_above(view, panel, letter, page, width)
        if isinstance(view, Strip):
            heights.append(strip.height(view, 72 * column - 2 * PAD, size) / 72)
        elif isinstance(view, Forest):
            heights.append(forest.height(view, size) / 72 + above / 72)
        else:
            heights.append(max(1.5, _ASPECT * column) + max(0.0, above - 2 * size) / 72)
    return [max(heights[first : first + page.across]) for first in range(0, len(views), page.across)]


def points_above(view: View, panel: Panel, letter: str, page: Paper | Grid, width: float) -> float:
    """About how many points stand above axes of a width: letter and title, and the legend of lines."""
    title, size = view.titled(panel.title), page.measures.size
    lines = min(text.MOST_LINES, math.ceil(text.width(text.printable(title), size) / width)) if title else 1
    head = 1.5 * size * lines if letter or title else 0.0
    if not isinstance(view, (Lines, Forest)):
        return head
    return head + paper_curves.legend_height(view.lines, width, small(size))


def axes_width(views: tuple[View, ...], page: Paper | Grid) -> float:
    """About how many points wide the axes will be, which are equal in all columns."""
    margins = sum(max(_margin(view, page) for view in views[column :: page.across]) for column in range(page.across))
    scale = _BAR * small(page.measures.size) if page.shared_scale else 0.0
    return max(40.0, (72 * page.width - margins - scale) / page.across - 4 * PAD)


def _margin(view: View, page: Paper | Grid) -> float:
    """Points beside the axes: an axis title, ticks, and of heatmaps the colour scale."""
    base, size = page.measures.size, small(page.measures.size)
    if isinstance(view, Strip):
        return 0.0
    if isinstance(view, Forest):
        return forest.margin(view, size) + size + (base * text.LEADING if view.y_title else 0.0)
    title = axis_titles(view)[1]
    title_width = base * text.LEADING * (1 if text.width(title, base) < 10 * base else 2)
    if not isinstance(view, Heatmap):
        return title_width + 3.5 * size
    labels = [text.width(label, size) for label in text.beside(view.row_labels, view.row_title)]
    return title_width + max(labels, default=0.0) + size + (0 if page.shared_scale else _BAR * size)


def axis_titles(view: Heatmap | Lines | Bars | Forest) -> tuple[str, str]:
    return (view.column_title, view.row_title) if isinstance(view, Heatmap) else (view.x_title, view.y_title)
