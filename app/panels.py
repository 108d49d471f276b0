"""Views drawn on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import session, state, widgets
from app.components.heatmap import Cell, Scale, heatmap
from app.components.token_strip import token_strip
from app.figures import draw
from app.figures.page import Paper
from app.figures.venues import MEASURES, Columns, Venue
from app.views.kinds import Bars, Heatmap, Lines, Strip, Table
from app.views.latex import decimals

if TYPE_CHECKING:
    from app.figure_spec import FigureSpec
    from app.session import Opened

_BAR = {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d"]}


def strip(view: Strip, key: str, selected: int | None) -> int | None:
    """The text; returns the token clicked on."""
    return token_strip(
        key=key, pieces=view.pieces, weights=view.weights, segment_of=view.segment_of, selected=selected, marks=view.marks,
        notes=view.notes, legend=view.legend, alt=view.alt,
    )  # fmt: skip


def map_to_click(view: Heatmap, key: str, row: int | None, column: int | None, scale: Scale, height: int) -> Cell | None:
    """A heatmap; returns the cell clicked on."""
    return heatmap(
        key=key, values=view.values, low=view.low, high=view.high, row_labels=view.row_labels, column_labels=view.column_labels,
        row_title=view.row_title, column_title=view.column_title, value_title=view.value_title, boundaries=view.boundaries,
        segment_labels=view.segment_labels, masked=view.masked, selected_row=row, selected_column=column, diverging=view.diverging,
        scale=scale, height=height, alt=view.alt,
    )  # fmt: skip


@st.fragment
def export(panels: Mapping[str, FigureSpec], opened: Opened) -> None:
    """What hands out a screen's panels, by their titles, for print: the figure, its numbers, and how to make it again."""
    from app.export import bundle  # noqa: PLC0415 - see app/cache.py
    from app.figures.paper import draw as printed  # noqa: PLC0415
    from app.sidecar import sidecar  # noqa: PLC0415

    with st.expander("For a paper", icon=":material/print:", key="for_a_paper", on_change="rerun") as room:
        if not room.open:  # closed, it costs the screen nothing
            return
        left, middle, right = st.columns([2, 2, 1])
        with left:
            title = widgets.buttons("Panel", "printed", list(panels))
        with middle:
            venue = Venue(widgets.select("Venue", "venue", [venue.value for venue in Venue], show=lambda value: MEASURES[Venue(value)].name))
        with right:
            spans = [one.value for one in Columns if one is Columns.SINGLE or MEASURES[venue].double is not None]
            columns = Columns(widgets.buttons("Columns", "columns", spans))
        spec = replace(panels[title], page=Paper(venue=venue, columns=columns, title=title))

        def made() -> bytes:
            view = spec.view(opened.checkpoint, opened.trace)
            return bundle(printed(view, spec.page), sidecar(spec, opened.checkpoint, view), spec.digest)

        name = f"{spec.shown.value.replace(' ', '-')}-{spec.digest[:10]}.zip"
        widgets.download(f"{title}: PDF, SVG, PNG, numbers, caption (.zip)", made, name, "application/zip")
        st.caption(
            f"{spec.page.width:g} in wide, as {MEASURES[venue].name}'s template has it; colours run linearly. sidecar.json in it makes the figure "
            "again: `lm2 figure sidecar.json -o fig.pdf`."
        )
    state.publish()


def figure(view: Heatmap | Lines | Bars, key: str, height: int | None = None) -> None:
    """A figure to look at."""
    drawn = _DRAW[type(view)](view, session.theme(), **({} if height is None else {"height": height}))
    st.plotly_chart(drawn, key=key, theme=None, config=_BAR, alt=view.alt)


_DRAW = {Heatmap: draw.heatmap, Lines: draw.lines, Bars: draw.bars}


def table(view: Table, key: str, height: int | str = "content") -> None:
    st.dataframe(view.as_columns(), key=key, hide_index=True, column_config=_formats(view), height=height, placeholder="")


def table_to_choose(view: Table, key: str, take: Callable[[int], None]) -> None:
    """A table; `take` hears of the row that is ticked."""

    def ticked() -> None:
        for row in st.session_state[key].selection.rows:
            take(row)

    st.dataframe(
        view.as_columns(), key=key, hide_index=True, column_config=_formats(view), height="content", on_select=ticked, selection_mode="single-row"
    )


def _formats(view: Table) -> dict[str, Any]:
    """Numbers with as many decimals as their column can do with; the ends of an interval with those of what stands before them."""
    formats, places = {}, 3
    for name, values in view.as_columns().items():
        if name.strip() not in ("low", "high"):
            places = decimals(name)
        if values and isinstance(values[0], float):
            formats[name] = st.column_config.NumberColumn(format=f"%.{places}f")
    return formats
