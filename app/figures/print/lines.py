"""Lines and bars on paper. Lines differ in colour, dash and marker, each of which is enough to tell them apart."""

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
"""Most points of an axis whose intervals are drawn as bars; of more points they are bands."""
_APART = 6.0
"""Least points between lines where segments begin."""
_MARKERS = 9
"""Markers on a line of many points."""
_SAMPLE = 2.6
"""Length of a legend's line, in multiples of its type size."""


def lines(view: Lines, box: PanelBox) -> PendingPanel:
    axes, points = box.axes, len(view.ticks)
    handles = [_line(axes, line, number, len(view.lines)) for number, line in enumerate(view.lines)]
    frame(box, "y")
    _name_columns(box, view.ticks, view.x_title)
    edges = [edge for edge in view.boundaries if 0 < edge < points]
    notes = ("Thin lines with small points are single seeds.",) if any(line.seeds for line in view.lines) else ()
    if len(edges) * _APART > box.width:
        notes = (*notes, f"Where the {len(view.boundaries)} segments begin is too close together to be shown.")
    else:
        for edge in edges:
            axes.axvline(edge - 0.5, color=FAINT, linewidth=0.6, zorder=0)
    side = 0.5 if points <= _FEW else points / 50
    axes.set_xlim(-side, max(points, 1) - 1 + side)
    if view.y_range is not None:
        axes.set_ylim(padded(view.y_range))
    return PendingPanel(lift=legend(view.lines, box, handles), settle=lambda: notes)


def _line(axes: Axes, line: Line, number: int, count: int) -> Line2D:
    style, points = mark(number), len(line.values)
    x = np.arange(points, dtype=float)
    if line.low is not None and line.high is not None:
        if points <= _FEW:
            # Side by side, or intervals would hide each other.
            x += 0.12 * (number - (count - 1) / 2) / max(1, count - 1)
            axes.errorbar(
                x, *intervals(line), fmt="none", ecolor=style.colour, elinewidth=0.8, capsize=1.8, capthick=0.8
            )
        else:
            axes.fill_between(x, line.low, line.high, color=style.colour, alpha=0.18, linewidth=0)
            for edge in (line.low, line.high):
                axes.plot(x, edge, color=style.colour, linewidth=0.4, linestyle=style.dash)
    for seed in line.seeds:
        faint = {"marker": style.marker, "markersize": 2, "markeredgewidth": 0, "alpha": 0.6}
        axes.plot(x, seed.values, color=style.colour, linewidth=0.4, linestyle=style.dash, **faint)
    every = max(1, points // _MARKERS)
    (handle,) = axes.plot(
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
    return handle


def intervals(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half width of each interval, which need not contain the value."""
    return (line.high + line.low) / 2, (line.high - line.low) / 2


def padded(ends: tuple[float, float]) -> tuple[float, float]:
    """Ends of an axis with room for half a marker."""
    low, high = ends
    return low - 0.02 * (high - low), high + 0.02 * (high - low)


def _names(lines: Sequence[Line], width: float, size: float) -> tuple[list[str], int]:
    """The legend's names, broken into lines, and in how many columns they fit."""
    if len(lines) < 2 and all(line.low is None for line in lines):
        return [], 1  # the axis title names the line
    names = [text.wrapped(text.printable(line.name), size, width - (_SAMPLE + 1) * size) for line in lines]
    longest = max(text.width(part, size) for name in names for part in name.split("\n"))
    return names, max(1, min(len(names), int(width // (longest + (_SAMPLE + 2.2) * size))))


def legend_height(lines: Sequence[Line], width: float, size: float) -> float:
    """Points that the legend takes above axes of a width."""
    names, columns = _names(lines, width, size)
    most_lines = max((name.count("\n") + 1 for name in names), default=0)
    return most_lines * -(-len(names) // columns) * size * text.LEADING


def legend(lines: Sequence[Line], box: PanelBox, handles: list[Line2D]) -> float:
    """Write the lines' names above the axes; returns the points that they take."""
    names, columns = _names(lines, box.width, box.small)
    if names:
        box.axes.legend(
            handles,
            names,
            ncols=columns,
            fontsize=box.small,
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
    return legend_height(lines, box.width, box.small)


def bars(view: Bars, box: PanelBox) -> PendingPanel:
    axes, x = box.axes, np.arange(len(view.values))
    axes.bar(x, view.values, width=1.0 if len(x) > box.width / 4 else 0.8, color=mark(0).colour, linewidth=0)
    notes = ()
    if view.marked is not None:
        foot = {"transform": axes.get_xaxis_transform(), "clip_on": False, "zorder": 4}
        axes.plot(view.marked, 0, marker="^", markersize=5, color=mark(1).colour, **foot)
        notes = (f"The triangle marks {view.labels[view.marked]}.",)
    frame(box, "y")
    _name_columns(box, view.labels, view.x_title)
    axes.axhline(0, color=EDGE, linewidth=0.6)
    axes.set_xlim(-0.7, max(len(x), 1) - 0.3)
    return PendingPanel(settle=lambda: notes)


def frame(box: PanelBox, values: str) -> None:
    """Spines, ticks and grid of axes; `values`: "x" or "y", the axis of numbers."""
    axes = box.axes
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=values, color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=2, pad=2, labelsize=box.small)
    most = box.width // (box.small * 5) if values == "x" else box.height // (box.small * 3)
    getattr(axes, f"{values}axis").set_major_locator(MaxNLocator(max(3, min(6, int(most))), steps=(1, 2, 2.5, 5, 10)))


def _name_columns(box: PanelBox, labels: tuple[str, ...], title: str) -> None:
    ticks = text.along(labels, title, box.small, box.width)
    box.axes.set_xticks(ticks.places, ticks.labels, rotation=90 if ticks.upright else 0)
