"""Views drawn on the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app.components.heatmap import HeatmapCell, heatmap
from app.components.token_strip import token_strip
from app.figures.palettes import Stretch
from app.figures.screen import draw
from app.figures.theme import DARK, LIGHT
from app.ui import say
from app.views.kinds import Heatmap, Strip, Table
from app.views.latex import decimals
from app.views.numbers import View
from app.views.seen import seen
from app.views.windows import window
from probes.findings import Tabular

MOST_TOKENS = 10_000
"""Tokens that a browser is sent at a time, however long the text is."""

_BAR = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"],
    "typesetMath": False,
}


def choose_window(count: int, token: int | None, key: str) -> tuple[int, int] | None:
    """Choose which part of a text of `count` tokens is drawn, at first that of `token`: its first token, and the one
    after its last. None for all of a text that a browser draws at once."""
    if count <= MOST_TOKENS:
        return None
    default = (token or 0) // MOST_TOKENS
    starts = range(0, count, MOST_TOKENS)
    index = st.select_slider(
        "Part of the text",
        range(len(starts)),
        default,
        format_func=lambda index: f"tokens {starts[index]:,} to {min(count, starts[index] + MOST_TOKENS) - 1:,}",
        key=f"part_{key}_{count}_{default}",
        help=f"At most {MOST_TOKENS:,} of the {count:,} tokens are shown at a time. Choosing a token goes to its part.",
    )
    return starts[index], min(count, starts[index] + MOST_TOKENS)


def strip(view: Strip, key: str, selected: int | None, stretch: Stretch = Stretch.LINEAR) -> int | None:
    """The text; returns the token clicked on. `stretch`: of the map beside it."""
    bounds = choose_window(len(view.pieces), selected, key)
    view = view if bounds is None else window(view, *bounds)
    selected = _within(view.first, len(view.pieces), selected)
    clicked = token_strip(view, key=key, selected=selected, stretch=stretch)
    return None if clicked is None else view.first + clicked


def _within(first: int, count: int, place: int | None) -> int | None:
    """A place counted from `first`; None if it is not among the `count` shown."""
    return None if place is None or not first <= place < first + count else place - first


def clickable_map(
    view: Heatmap, key: str, row: int | None, column: int | None, stretch: Stretch, height: int
) -> HeatmapCell | None:
    """A heatmap; returns the cell clicked on. `height`: CSS pixels, more if rows of different kinds need a pixel
    each."""
    if len(set(view.row_kinds)) > 1:
        height = max(height, len(view.row_kinds) + 130)
    column = _within(view.first, len(view.column_labels), column)
    cell = heatmap(view, key=key, selected_row=row, selected_column=column, stretch=stretch, height=height)
    return None if cell is None else HeatmapCell(cell.row, view.first + cell.column)


def height_of(slots: int) -> int:
    """CSS pixels for a map with a row for each slot."""
    return min(720, max(280, 16 * slots + 100))


def figure(view: View, key: str, height: int | None = None) -> None:
    theme = DARK if st.context.theme.type == "dark" else LIGHT
    st.plotly_chart(draw.figure(view, theme, height), key=key, theme=None, config=_BAR, alt=view.alt)


def panel(view: View | Table, key: str, title: str, note: str = "", *, at: Any = st, height: int | None = None) -> None:
    """A figure or table below its title, with a note below it."""
    with at.container():
        say.subheader("{}", title)
        if isinstance(view, Table):
            table(view, key, height or "content")
        else:
            figure(view, key, height)
        if note:
            say.caption("{}", note)


def table(view: Tabular, key: str, height: int | str = "content") -> None:
    st.dataframe(_cells(view), key=key, hide_index=True, column_config=_formats(view), height=height, placeholder="")


def selectable_table(view: Tabular, key: str, take: Callable[[int], None], height: int | str = "content") -> None:
    """A table; `take` is called with the row that is ticked."""

    def ticked() -> None:
        for row in st.session_state[key].selection.rows:
            take(row)

    st.dataframe(
        _cells(view),
        key=key,
        hide_index=True,
        column_config=_formats(view),
        height=height,
        on_select=ticked,
        selection_mode="single-row",
    )


def _cells(view: Tabular) -> dict[str, list[str | int | float]]:
    """The table's columns, without invisible characters."""
    return {
        seen(series.name): [seen(cell) if isinstance(cell, str) else cell for cell in series.values]
        for series in view.series
    }


def _formats(view: Tabular) -> dict[str, Any]:
    """How many decimals the numbers of each column have, and the ends of their intervals."""
    return {
        seen(series.name): st.column_config.NumberColumn(seen(series.label), format=f"%.{decimals(column)}f")
        for column in view.columns
        for series in column.series()
        if series.values and isinstance(series.values[0], float)
    }
