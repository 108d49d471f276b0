"""View -> Plotly figure. Heatmaps whose tokens can be clicked are drawn by the browser component instead."""

from collections.abc import Sequence
from html import unescape
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go

from app.figures.palettes import Colours, Stretch, steps
from app.figures.pseudo_html import spelled, view_spelled
from app.figures.theme import Theme, style
from app.views.kinds import Bars, Forest, Heatmap, Lines
from app.views.numbers import View
from app.views.pooling import Cells, pooled

MOST_CELLS = 512
"""Cells along an axis that Plotly draws well; of more, neighbours are pooled, and the axis title says so."""
_MOST_TICKS = 24
_MOST_LINES = 64
"""Segments whose beginnings are marked by lines."""
_MOST_NAMES = 8
"""Segments whose names stand above a map."""


def figure(
    view: View,
    theme: Theme,
    height: int | None = None,
    *,
    stretch: Stretch = Stretch.LINEAR,
    colours: Colours | None = None,
) -> go.Figure:
    """Any view other than a text. `stretch` and `colours` apply to heatmaps; None for the theme's colours."""
    size = {} if height is None else {"height": height}
    if isinstance(view, Heatmap):
        return heatmap(view, theme, **size, stretch=stretch, colours=colours)
    return {Lines: lines, Bars: bars, Forest: forest}[type(view)](view, theme, **size)


def heatmap(
    view: Heatmap, theme: Theme, height: int = 340, *, stretch: Stretch = Stretch.LINEAR, colours: Colours | None = None
) -> go.Figure:
    down, along = view.down(MOST_CELLS), view.along(MOST_CELLS)
    view = view_spelled(view)
    values = pooled(view.unmasked, down, along, view.pooling, view.middle)
    rows, columns = down.labels(view.row_labels), along.labels(view.column_labels)
    scale = list(theme.diverging) if view.diverging else theme.sequential
    figure = go.Figure(
        go.Heatmap(
            **_coloured(view, values, stretch, height),
            **{name: axis.edges - 0.5 for name, axis in (("x", along), ("y", down)) if not axis.whole},
            colorscale=scale if colours is None else steps(colours),
            customdata=np.dstack([np.array(columns, object)[None, :].repeat(len(rows), 0), values.astype(np.float32)]),
            text=np.array(rows)[:, None].repeat(len(columns), 1),
            hovertemplate="%{text}<br>%{customdata[0]}<br>%{customdata[1]:"
            + ("d" if view.counts else ".3f")
            + "}<extra></extra>",
            texttemplate="%{z:d}" if view.counts else None,
            xgap=1 if len(columns) <= 64 else 0,
            ygap=1 if len(rows) <= 64 else 0,
        )
    )
    _segments(figure, view, along, theme)
    words = view.pooled_words(down, along)
    figure.update_xaxes(
        title=view.column_title + (f" (each cell the {words})" if words else ""),
        showgrid=False,
        **_cell_ticks(view.ticks or view.column_labels, along),
    )
    figure.update_yaxes(
        title=view.row_title,
        showgrid=False,
        autorange="reversed",
        **_cell_ticks([label.removeprefix("slot ") for label in view.row_labels], down),
    )
    return style(figure, theme, height)


def _segments(figure: go.Figure, view: Heatmap, along: Cells, theme: Theme) -> None:
    """Name segments where they begin, with lines unless these would hide cells or cut through some."""
    edges, names = view.boundaries, list(zip(view.boundaries, view.segment_labels))
    if len(edges) <= _MOST_LINES and set(edges) <= set(along.edges):
        figure.layout.shapes = _edges([edge for edge in edges if edge], theme.text, 1.5)
    for edge, name in names[:: -(-len(names) // _MOST_NAMES) or 1]:
        figure.add_annotation(
            x=edge - 0.5, y=1, yref="paper", xanchor="left", yanchor="bottom", showarrow=False, text=name
        )


def _edges(columns: Sequence[int], colour: str, width: float) -> list[dict]:
    """Lines before columns. They are set all at once, because add_vline takes longer with every shape there is."""
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"color": colour, "width": width}}
    return [line | {"x0": column - 0.5, "x1": column - 0.5} for column in columns]


def lines(view: Lines, theme: Theme, height: int = 340) -> go.Figure:
    view, figure = view_spelled(view), go.Figure()
    x = np.arange(len(view.ticks))
    for number, line in enumerate(view.lines):
        colour = theme.categories[number % len(theme.categories)]
        if line.low is not None and line.high is not None:
            band = {"x": x, "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip", "mode": "lines"}
            figure.add_scatter(y=line.high, **band)
            figure.add_scatter(y=line.low, fill="tonexty", fillcolor=_faint(colour), **band)
        for seed in line.seeds:
            figure.add_scatter(
                x=x,
                y=seed.values,
                name=seed.name,
                mode="lines+markers",
                line={"color": colour, "width": 0.7},
                marker={"size": 4},
                opacity=0.6,
                showlegend=False,
                customdata=view.ticks,
                hovertemplate="%{customdata}<br>%{y:.3f}<extra>%{fullData.name}</extra>",
            )
        figure.add_scatter(
            x=x,
            y=line.values,
            name=line.name,
            mode="lines+markers" if len(x) <= 64 else "lines",
            line={"color": colour, "width": 2},
            customdata=view.ticks,
            hovertemplate="%{customdata}<br>%{y:.3f}<extra>%{fullData.name}</extra>",
        )
    figure.layout.shapes = _edges(view.boundaries[1:], theme.grid, 1)
    figure.update_xaxes(title=view.x_title, **_ticks(view.ticks))
    figure.update_yaxes(title=_upright(view.y_title, height), range=view.y_range)
    return style(figure, theme, height)


def bars(view: Bars, theme: Theme, height: int = 220) -> go.Figure:
    view = view_spelled(view)
    colours = [theme.categories[i == view.marked] for i in range(len(view.values))]
    figure = go.Figure(
        go.Bar(
            x=np.arange(len(view.values)),
            y=view.values,
            marker={"color": colours, "line": {"width": 0}},
            hovertemplate="%{x}: %{y:.3f}<extra></extra>",
        )
    )
    figure.update_xaxes(title=view.x_title, showgrid=False, **_ticks(view.labels))
    figure.update_yaxes(title=_upright(view.y_title, height), rangemode="tozero")
    return style(figure, theme, height)


def forest(view: Forest, theme: Theme, height: int | None = None) -> go.Figure:
    """A row for each label, the first on top."""
    view, figure, rows = view_spelled(view), go.Figure(), np.arange(len(view.labels), dtype=float)
    for number, line in enumerate(view.lines):
        colour = theme.categories[number % len(theme.categories)]
        words = [f"{label}<br>{value:.3g}" for label, value in zip(view.labels, line.values)]
        error = None
        if line.low is not None and line.high is not None:
            error = {"array": line.high - line.values, "arrayminus": line.values - line.low}
            error |= {"color": colour, "thickness": 1.5, "width": 4}
            words = [f"{word} ({low:.3g} to {high:.3g})" for word, low, high in zip(words, line.low, line.high)]
        figure.add_scatter(
            x=line.values,
            y=rows + 0.24 * (number - (len(view.lines) - 1) / 2),
            name=line.name,
            mode="markers",
            marker={"color": colour, "size": 8},
            text=words,
            hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            showlegend=len(view.lines) > 1,
            error_x=error,
        )
    figure.update_xaxes(
        title=view.x_title, range=None if view.x_range is None else [view.x_range[0] - 1, view.x_range[1] + 2]
    )
    figure.update_yaxes(
        title=view.y_title,
        tickmode="array",
        tickvals=rows,
        ticktext=view.labels,
        range=[len(rows) - 0.4, -0.6],
        showgrid=False,
    )
    return style(figure, theme, height or 26 * len(view.labels) + 18 * len(view.lines) + 80)


def _coloured(view: Heatmap, values: np.ndarray, stretch: Stretch, height: int) -> dict:
    """A heatmap's values, their range and colour bar; stretched here, as Plotly's own scale is linear."""
    title = {"text": _upright(view.value_title, height), "side": "right"}
    bar = {"thickness": 12, "len": 1.0, "outlinewidth": 0, "title": title}
    if stretch is Stretch.LINEAR:
        return {"z": values.astype(np.float32), "zmin": view.low, "zmax": view.high, "colorbar": bar}
    ticks, span = np.linspace(0, 1, 6), max(view.high - view.low, 1e-30)
    words = [f"{view.low + span * place:.3g}" for place in stretch.undo(ticks, diverging=view.diverging)]
    places = stretch.place(np.clip((values - view.low) / span, 0, 1), diverging=view.diverging)
    bar |= {"tickmode": "array", "tickvals": ticks, "ticktext": words}
    return {"z": places.astype(np.float32), "zmin": 0, "zmax": 1, "colorbar": bar}


def _upright(title: str, height: int) -> str:
    """A vertical title, broken into lines that fit a figure `height` pixels high."""
    return "<br>".join(map(spelled, wrap(unescape(title), max(20, (height - 80) // 7)))) or title


def _ticks(labels: Sequence[str]) -> dict:
    step = max(1, -(-len(labels) // _MOST_TICKS))
    return {"tickmode": "array", "tickvals": list(range(0, len(labels), step)), "ticktext": labels[::step]}


def _cell_ticks(labels: Sequence[str], axis: Cells) -> dict:
    """Ticks at the middles of an axis' cells."""
    edges, firsts = axis.edges, axis.order[axis.edges[:-1]]
    ticks = _ticks([labels[first] for first in firsts])
    return ticks | {"tickvals": [(edges[cell] + edges[cell + 1] - 1) / 2 for cell in ticks["tickvals"]]}


def _faint(colour: str) -> str:
    return "rgba({},{},{},0.2)".format(*bytes.fromhex(colour[1:]))
