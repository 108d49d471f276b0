"""Intervals on paper: a row for each thing, a mark for each kind of number, told apart by colour and marker."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from app.figures.palettes import mark
from app.figures.print import text
from app.figures.print.lines import legend, legend_height
from app.figures.print.panel import FAINT, PanelBox, PendingPanel
from app.views.kinds import Forest

_BETWEEN = 1.9
"""Height of a row with one mark, in sizes of its type; each further mark adds `_MORE`."""
_MORE = 0.7


_WIDE = 17.0
"""Width of a label's lines, in sizes of their type."""


def labels(view: Forest, size: float) -> tuple[str, ...]:
    """The rows' labels, broken into lines."""
    return tuple(text.wrapped(text.printable(label), size, _WIDE * size, 5) for label in view.labels)


def margin(view: Forest, size: float) -> float:
    """Points that the labels take beside the axes."""
    return max((text.width(line, size) for label in labels(view, size) for line in label.split("\n")), default=0.0)


def height(view: Forest, size: float) -> float:
    """Points that suit the rows, with the axis below them."""
    lines = max((label.count("\n") + 1 for label in labels(view, size)), default=1)
    row = max(_BETWEEN + _MORE * (len(view.lines) - 1), lines * text.LEADING + 0.4)
    return max(1, len(view.labels)) * size * row + 4.5 * size


def forest(view: Forest, room: PanelBox) -> PendingPanel:
    axes, rows = room.axes, np.arange(len(view.labels), dtype=float)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=2, pad=2, labelsize=room.small)
    drawn = []
    for number, line in enumerate(view.lines):
        style = mark(number)
        y = rows + 0.26 * (number - (len(view.lines) - 1) / 2)  # side by side, or intervals would hide each other
        if line.low is not None and line.high is not None:
            middle, half = (line.high + line.low) / 2, (line.high - line.low) / 2  # an interval need not hold the value
            axes.errorbar(
                middle, y, xerr=half, fmt="none", ecolor=style.colour, elinewidth=0.9, capsize=1.8, capthick=0.9
            )
        drawn += axes.plot(
            line.values, y, linestyle="", color=style.colour, marker=style.marker, markersize=3.4, markeredgewidth=0
        )
    axes.set_yticks(rows, labels(view, room.small))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if view.x_range is not None:
        low, high = view.x_range
        # Or half a mark would be cut off at its ends.
        axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    else:
        axes.axvline(0, color=FAINT, linewidth=0.9, zorder=0)
    axes.xaxis.set_major_locator(
        MaxNLocator(max(3, min(6, int(room.width // (room.small * 5)))), steps=(1, 2, 2.5, 5, 10))
    )
    legend(view.lines if len(view.lines) > 1 else (), room, drawn)
    lift = legend_height(view.lines, room.width, room.small) if len(view.lines) > 1 else 0.0
    return PendingPanel(lift=lift, settle=tuple)
