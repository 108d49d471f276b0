"""Intervals on paper: a row for each thing, and a mark for each kind of number, distinct in colour and shape."""

from __future__ import annotations

import numpy as np

from app.figures.palettes import mark
from app.figures.print import text
from app.figures.print.lines import frame, intervals, legend, padded
from app.figures.print.panel import FAINT, PanelBox, PendingPanel
from app.views.kinds import Forest

_ROW = 1.9
"""Height of a row with one mark, in multiples of its type size; each further mark adds `_MORE`."""
_MORE = 0.7
_LABEL = 17.0
"""Width of a label's lines, in multiples of their type size."""


def labels(view: Forest, size: float) -> tuple[str, ...]:
    """The rows' labels, broken into lines."""
    return tuple(text.wrapped(text.printable(label), size, _LABEL * size, 5) for label in view.labels)


def margin(view: Forest, size: float) -> float:
    """Points that the labels take beside the axes."""
    return max((text.width(line, size) for label in labels(view, size) for line in label.split("\n")), default=0.0)


def height(view: Forest, size: float) -> float:
    """Points that suit the rows and the axis below them."""
    lines = max((label.count("\n") + 1 for label in labels(view, size)), default=1)
    row = max(_ROW + _MORE * (len(view.lines) - 1), lines * text.LEADING + 0.4)
    return max(1, len(view.labels)) * size * row + 4.5 * size


def forest(view: Forest, box: PanelBox) -> PendingPanel:
    axes, rows = box.axes, np.arange(len(view.labels), dtype=float)
    frame(box, "x")
    handles = []
    for number, line in enumerate(view.lines):
        style = mark(number)
        y = rows + 0.26 * (number - (len(view.lines) - 1) / 2)  # side by side, or intervals would hide each other
        if line.low is not None and line.high is not None:
            middle, half = intervals(line)
            axes.errorbar(
                middle, y, xerr=half, fmt="none", ecolor=style.colour, elinewidth=0.9, capsize=1.8, capthick=0.9
            )
        handles += axes.plot(
            line.values, y, linestyle="", color=style.colour, marker=style.marker, markersize=3.4, markeredgewidth=0
        )
    axes.set_yticks(rows, labels(view, box.small))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if view.x_range is not None:
        axes.set_xlim(padded(view.x_range))
    else:
        axes.axvline(0, color=FAINT, linewidth=0.9, zorder=0)
    return PendingPanel(lift=legend(view.lines if len(view.lines) > 1 else (), box, handles), settle=tuple)
