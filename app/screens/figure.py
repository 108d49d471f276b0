"""Figure: panels of all screens put together for a paper, at their printed size, and kept by name."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from app.export import workspace
from app.export.figure_spec import FigureSpec
from app.figures.print.page import Annotation, Grid, Panel
from app.server import cache, owner, results
from app.ui import job_panel, say, state, widgets
from app.ui.export_panel import PlacedPanel, choose_page, download_buttons, preview
from app.views.kinds import Strip

if TYPE_CHECKING:
    from app.charts import ComputedChart
    from app.server.jobs import Job

_KEPT = (
    f"Kept in the server's workspace, {workspace.MOST} figures at most. Every visitor may open, replace or delete it."
)
_MARKS = (
    "Texts at positions in the data: columns and rows of a map, counted from 0, or points and values"
    " of curves and bars."
)


def render() -> None:
    st.header("Figure")
    st.write("Panels of the other screens, combined for a paper: in a grid, with letters, at their printed size.")
    placed: list[PlacedPanel] = state.session_list("figure")
    _open(placed)
    if not placed:
        st.info(
            "The figure is empty. On any screen, open **For a paper** below the panels, choose a panel, and"
            " press **Add to the figure**.",
            icon=":material/info:",
        )
        return
    left, right = st.columns([2, 5])  # the right one holds two columns of any venue's template at their size
    with left:
        grid = _page(placed)
        for at in range(len(placed)):
            _panel(placed, at)
    with right:
        _preview(placed, grid)


def _open(placed: list[PlacedPanel]) -> None:
    """Figures that were saved; one takes the place of what is being composed."""
    names = workspace.names()
    if not names:
        return
    with st.container(border=True):
        left, middle, right = st.columns([6, 1, 1], vertical_alignment="bottom")
        name = left.selectbox("Saved figures", names, index=None, placeholder="choose one", key="figure_saved")
        if right.button("Delete", icon=":material/delete:", disabled=name is None, width="stretch"):
            workspace.delete(name)
            st.rerun()
        if middle.button("Open", icon=":material/folder_open:", disabled=name is None, width="stretch"):
            st.session_state["figure_opening"] = name, time.monotonic()
        opening, pressed = st.session_state.get("figure_opening", (None, 0.0))
        if opening is not None and opening == name:
            _opened(opening, pressed, placed)


def _opened(name: str, pressed: float, placed: list[PlacedPanel]) -> None:
    """Draw a saved figure's panels anew: what they show is computed again, in the background, each time that it is
    opened."""
    try:
        told = workspace.read(name)
        spec = FigureSpec.from_json(told.get("figure", {}))
        for file in {file for chart in spec.charts for file in chart.files}:
            owner.allowed_path(file)
    except ValueError as error:
        say.info("{}.", error)
        return
    chosen = state.current().model

    def work(job: Job) -> list[ComputedChart]:
        return list(
            spec.made(
                lambda model: cache.checkpoint(model, chosen.device, chosen.dtype),
                lambda chart, checkpoint: results.compute(chart, checkpoint, job),
            )
        )

    made = job_panel.result(
        ("figure", spec.digest, chosen.device, chosen.dtype, pressed),
        work,
        f"Compute its {len(spec.charts)} panel{'s' if len(spec.charts) > 1 else ''}",
        "step",
    )
    if made is None:
        return
    placed[:] = [PlacedPanel(made=one, panel=panel) for one, panel in zip(made, spec.page.panels)]
    page = spec.page
    state.update(
        "print",
        venue=page.venue.value,
        columns=page.columns.value,
        across=getattr(page, "across", 1),
        shared="on" if getattr(page, "shared_scale", False) else "off",
    )
    st.session_state["figure_name"], st.session_state["figure_height"] = name, page.height
    st.session_state["figure_epoch"] = st.session_state.get("figure_epoch", 0) + 1
    del st.session_state["figure_opening"]
    st.rerun()


def _page(placed: list[PlacedPanel]) -> Grid:
    """The whole figure's choices."""
    page = choose_page("figure")
    across = widgets.number("Panels in a row", "print.across", 1, len(placed)) if len(placed) > 1 else 1
    shared = widgets.buttons("One colour scale for all maps", "print.shared", ["off", "on"]) == "on"
    return Grid(**page, panels=tuple(placed_panel.panel for placed_panel in placed), across=across, shared_scale=shared)


def _panel(placed: list[PlacedPanel], at: int) -> None:
    """One panel's title, axes and annotations, and its place."""
    one = placed[at]
    # A figure that is opened brings its own texts.
    key = f"{st.session_state.get('figure_epoch', 0)}_{at}_{one.made.chart.digest[:10]}"
    named, model = one.panel.title or one.made.chart.words, one.made.chart.checkpoint or "evaluation"
    with st.expander(say.words("{}: {} ({})", chr(ord("a") + at), named, model)):
        changes = {"title": st.text_input("Title", one.panel.title, key=f"figure_title_{key}")}
        if not isinstance(one.made.view, Strip):  # a text has no axes
            for axis, label in (("x", "Axis along"), ("y", "Axis up")):
                said = getattr(one.panel, f"{axis}_title")
                asked = st.text_input(label, said, key=f"figure_{axis}_{key}", placeholder="as on the screen")
                changes[f"{axis}_title"] = asked
            changes["annotations"] = _annotations(one.panel, key)
        with st.container(horizontal=True):
            for name, icon, about, to in (("up", "upward", "Earlier", at - 1), ("down", "downward", "Later", at + 1)):
                nowhere, icon = to not in range(len(placed)), f":material/arrow_{icon}:"
                if st.button("", icon=icon, help=about, disabled=nowhere, key=f"figure_{name}_{key}"):
                    placed[to], placed[at] = one, placed[to]
                    st.rerun()
            if st.button("", icon=":material/delete:", help="Remove", key=f"figure_out_{key}"):
                del placed[at]
                st.rerun()
    placed[at] = replace(one, panel=replace(one.panel, **changes))


def _annotations(panel: Panel, key: str) -> tuple[Annotation, ...]:
    """Rows with something missing are not there yet."""
    # The editor keeps what is typed by itself, on top of what it began with, which must stay the same.
    begun = st.session_state.setdefault(f"figure_begun_{key}", panel.annotations)
    rows = pd.DataFrame([vars(one) for one in begun], columns=["x", "y", "text"]).astype(
        {"x": float, "y": float, "text": "string"}
    )
    columns = {"text": st.column_config.TextColumn("text", width="large")}
    edited = st.data_editor(
        rows, num_rows="dynamic", column_config=columns, key=f"figure_marks_{key}", hide_index=True, height="content"
    )
    st.caption(_MARKS)
    return tuple(Annotation(x=row.x, y=row.y, text=row.text) for row in edited.dropna().itertuples() if row.text)


def _preview(placed: list[PlacedPanel], grid: Grid) -> None:
    """The figure at its printed size, its files, and its name."""
    from app.export.files import caption
    from app.export.sidecar import sidecar

    made = [placed_panel.made for placed_panel in placed]
    grid = replace(grid, panels=tuple(placed_panel.panel for placed_panel in placed))
    spec = FigureSpec(charts=tuple(one.chart for one in made), page=grid)
    try:
        drawn = spec.drawn(made)
    except ValueError as error:
        say.info("This does not fit: {}.", error)
        return
    preview(drawn)
    with st.container(horizontal=True):
        download_buttons(spec, made, drawn, f"figure-{spec.digest[:10]}")
    with st.expander("Draft caption"):
        st.write(say.words("{}", caption(drawn)))
    left, right = st.columns([5, 2], vertical_alignment="bottom")
    named = left.text_input("Name", key="figure_name", placeholder="reads-and-writes", help=_KEPT).strip()
    label = "Replace" if named in workspace.names() else "Save"
    if right.button(label, icon=":material/save:", type="primary", disabled=not named, width="stretch"):
        try:
            path = workspace.save(named, sidecar(spec, made))
        except (ValueError, OSError) as error:
            say.info("{}.", error)
        else:
            command = say.CodeText(f"lm2 figure {shlex.quote(path.name)} -o fig.pdf")
            st.success(
                say.words("Saved. {}, in the workspace's folder of figures, reproduces it.", command),
                icon=":material/check:",
            )
