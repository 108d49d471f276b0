"""Lines and bars on paper: told apart by colour, dash and marker, each of which is enough."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from app.figures.palettes import mark
from app.figures.print import text
from app.figures.print.panel import EDGE, FAINT, PanelBox, PendingPanel
from app.views.kinds import Bars, Line, Lines

_FEW = 12
"""Points of an axis up to which intervals are drawn as bars, beyond it as bands."""
_APART = 6.0
"""Least points between lines where segments begin."""
_MARKERS = 9
"""Markers on a line of many points."""
_SAMPLE = 2.6
"""Length of a legend's line, in sizes of its type."""


def lines(view: Lines, room: PanelBox) -> PendingPanel:
    axes, points = room.axes, len(view.ticks)
    drawn = [_line(axes, line, number, len(view.lines)) for number, line in enumerate(view.lines)]
    _frame(room, view.ticks, view.x_title)
    edges = [edge for edge in view.boundaries if 0 < edge < points]
    notes = []
    if len(edges) * _APART > room.width:
        notes.append(f"Where the {len(view.boundaries)} segments begin is too close together to be shown.")
    else:
        for edge in edges:
            axes.axvline(edge - 0.5, color=FAINT, linewidth=0.6, zorder=0)
    side = 0.5 if points <= _FEW else points / 50
    axes.set_xlim(-side, max(points, 1) - 1 + side)
    if view.y_range is not None:
        low, high = view.y_range
        # Or half a marker would be cut off at its ends.
        axes.set_ylim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    legend(view.lines, room, drawn)
    return PendingPanel(lift=legend_height(view.lines, room.width, room.small), settle=lambda: tuple(notes))


def _line(axes: Axes, line: Line, number: int, count: int) -> Line2D:
    style, points = mark(number), len(line.values)
    x = np.arange(points, dtype=float)
    if line.low is not None and line.high is not None:
        if points <= _FEW:
            # Side by side, or intervals would hide each other.
            x += 0.12 * (number - (count - 1) / 2) / max(1, count - 1)
            middle, half = (line.high + line.low) / 2, (line.high - line.low) / 2  # an interval need not hold the value
            axes.errorbar(x, middle, half, fmt="none", ecolor=style.colour, elinewidth=0.8, capsize=1.8, capthick=0.8)
        else:
            axes.fill_between(x, line.low, line.high, color=style.colour, alpha=0.18, linewidth=0)
            for edge in (line.low, line.high):
                axes.plot(x, edge, color=style.colour, linewidth=0.4, linestyle=style.dash)
    every = max(1, points // _MARKERS)
    (drawn,) = axes.plot(
        x,
        line.values,
        color=style.colour,
        linewidth=1.2,
        linestyle=style.dash,
        marker=style.marker,
        markersize=3.2,
        markeredgewidth=0,
        markevery=(number * every // max(1, count), every) if every > 1 else None,
    )
    return drawn


def _names(lines: Sequence[Line], width: float, size: float) -> tuple[list[str], int]:
    """The legend's names, broken into lines, and in how many columns they fit."""
    if len(lines) < 2 and all(line.low is None for line in lines):
        return [], 1  # the axis says what the line is
    names = [text.wrapped(text.printable(line.name), size, width - (_SAMPLE + 1) * size) for line in lines]
    longest = max(text.width(part, size) for name in names for part in name.split("\n"))
    return names, max(1, min(len(names), int(width // (longest + (_SAMPLE + 2.2) * size))))


def legend_height(lines: Sequence[Line], width: float, size: float) -> float:
    """Points that the legend takes above axes of a width."""
    names, columns = _names(lines, width, size)
    high = max((name.count("\n") + 1 for name in names), default=0)
    return high * -(-len(names) // columns) * size * text.LEADING


def legend(lines: Sequence[Line], room: PanelBox, drawn: list[Line2D]) -> None:
    """Names above the axes."""
    names, columns = _names(lines, room.width, room.small)
    if names:
        room.axes.legend(
            drawn,
            names,
            ncols=columns,
            fontsize=room.small,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=0.2,
            borderpad=0,
            frameon=False,
            handlelength=_SAMPLE,
            handletextpad=0.6,
            columnspacing=1.4,
            labelspacing=0.25,
        )


def bars(view: Bars, room: PanelBox) -> PendingPanel:
    places = np.arange(len(view.values))
    room.axes.bar(
        places, view.values, width=1.0 if len(places) > room.width / 4 else 0.8, color=mark(0).colour, linewidth=0
    )
    if view.marked is not None:
        at_foot = {"transform": room.axes.get_xaxis_transform(), "clip_on": False, "zorder": 4}
        room.axes.plot(view.marked, 0, marker="^", markersize=5, color=mark(1).colour, **at_foot)
    _frame(room, view.labels, view.x_title)
    room.axes.axhline(0, color=EDGE, linewidth=0.6)
    room.axes.set_xlim(-0.7, max(len(places), 1) - 0.3)
    return PendingPanel(
        settle=lambda: () if view.marked is None else (f"The triangle marks {view.labels[view.marked]}.",)
    )


def _frame(room: PanelBox, labels: tuple[str, ...], x_title: str) -> None:
    axes = room.axes
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=2, pad=2, labelsize=room.small)
    axes.yaxis.set_major_locator(
        MaxNLocator(max(3, min(6, int(room.height // (room.small * 3)))), steps=(1, 2, 2.5, 5, 10))
    )
    along = text.along(labels, x_title, room.small, room.width)
    axes.set_xticks(along.places, along.labels, rotation=90 if along.upright else 0)
