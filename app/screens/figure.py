"""Figure: panels of all screens, combined for a paper at their printed size, and saved by name."""

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
        for index in range(len(placed)):
            _panel(placed, index)
    with right:
        _preview(placed, grid)


def _open(placed: list[PlacedPanel]) -> None:
    """Open or delete saved figures. An opened one replaces what is being composed."""
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
            _compute(opening, pressed, placed)


def _compute(name: str, pressed: float, placed: list[PlacedPanel]) -> None:
    """Compute the panels of a saved figure in the background, again each time that it is opened."""
    try:
        spec = FigureSpec.from_json(workspace.read(name).get("figure", {}))
        for file in {file for chart in spec.charts for file in chart.files}:
            owner.allowed_path(file)
    except ValueError as error:
        say.info("{}.", error)
        return
    model = state.current().model

    def work(job: Job) -> list[ComputedChart]:
        return list(
            spec.compute(
                lambda name: cache.checkpoint(name, model.device, model.dtype),
                lambda chart, checkpoint: results.compute(chart, checkpoint, job),
            )
        )

    made = job_panel.result(
        ("figure", spec.digest, model.device, model.dtype, pressed),
        work,
        f"Compute its {len(spec.charts)} panel{'s' if len(spec.charts) > 1 else ''}",
        "step",
    )
    if made is None:
        return
    placed[:] = [PlacedPanel(made=chart, panel=panel) for chart, panel in zip(made, spec.page.panels)]
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
    """Choose the layout of the figure."""
    page = choose_page("figure")
    across = widgets.number("Panels in a row", "print.across", 1, len(placed)) if len(placed) > 1 else 1
    shared = widgets.buttons("One colour scale for all maps", "print.shared", ["off", "on"]) == "on"
    return Grid(**page, panels=tuple(item.panel for item in placed), across=across, shared_scale=shared)


def _panel(placed: list[PlacedPanel], index: int) -> None:
    """One panel's title, axes, annotations and place."""
    panel, chart, view = placed[index].panel, placed[index].made.chart, placed[index].made.view
    # A figure that is opened brings its own texts.
    key = f"{st.session_state.get('figure_epoch', 0)}_{index}_{chart.digest[:10]}"
    title, model = panel.title or chart.words, chart.checkpoint or "evaluation"
    with st.expander(say.words("{}: {} ({})", chr(ord("a") + index), title, model)):
        changes = {"title": st.text_input("Title", panel.title, key=f"figure_title_{key}")}
        if not isinstance(view, Strip):  # a text has no axes
            for axis, label in (("x_title", "Axis along"), ("y_title", "Axis up")):
                changes[axis] = st.text_input(
                    label, getattr(panel, axis), key=f"figure_{axis}_{key}", placeholder="as on the screen"
                )
            changes["annotations"] = _annotations(panel, key)
        with st.container(horizontal=True):
            for step, icon, help in ((-1, "upward", "Earlier"), (1, "downward", "Later")):
                other, icon = index + step, f":material/arrow_{icon}:"
                disabled = other not in range(len(placed))
                if st.button("", icon=icon, help=help, disabled=disabled, key=f"figure_{help}_{key}"):
                    placed[other], placed[index] = placed[index], placed[other]
                    st.rerun()
            if st.button("", icon=":material/delete:", help="Remove", key=f"figure_out_{key}"):
                del placed[index]
                st.rerun()
    placed[index] = replace(placed[index], panel=replace(panel, **changes))


def _annotations(panel: Panel, key: str) -> tuple[Annotation, ...]:
    """Edit a panel's annotations; incomplete rows are left out."""
    # The editor keeps the changes itself and applies them to its first value, which must stay the same.
    first = st.session_state.setdefault(f"figure_begun_{key}", panel.annotations)
    rows = pd.DataFrame([vars(annotation) for annotation in first], columns=["x", "y", "text"]).astype(
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

    made = [item.made for item in placed]
    grid = replace(grid, panels=tuple(item.panel for item in placed))
    spec = FigureSpec(charts=tuple(chart.chart for chart in made), page=grid)
    try:
        drawn = spec.draw(made)
    except ValueError as error:
        say.info("This does not fit: {}.", error)
        return
    preview(drawn)
    with st.container(horizontal=True):
        download_buttons(spec, made, drawn, f"figure-{spec.digest[:10]}")
    with st.expander("Draft caption"):
        st.write(say.words("{}", caption(drawn)))
    left, right = st.columns([5, 2], vertical_alignment="bottom")
    name = left.text_input("Name", key="figure_name", placeholder="reads-and-writes", help=_KEPT).strip()
    label = "Replace" if name in workspace.names() else "Save"
    if right.button(label, icon=":material/save:", type="primary", disabled=not name, width="stretch"):
        try:
            path = workspace.save(name, sidecar(spec, made))
        except (ValueError, OSError) as error:
            say.info("{}.", error)
        else:
            command = say.CodeText(f"lm2 figure {shlex.quote(path.name)} -o fig.pdf")
            st.success(
                say.words("Saved. {}, in the workspace's folder of figures, reproduces it.", command),
                icon=":material/check:",
            )
