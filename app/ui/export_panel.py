"""For a paper: a screen's panels as figures or tables, with their numbers, and how to make them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.export.figure_spec import FigureSpec
from app.figures.palettes import Colours, Stretch
from app.figures.print.page import MOST_PANELS, TALLEST, Panel, Paper
from app.figures.print.venues import MEASURES, Columns, Venue
from app.ui import say, state, widgets
from app.views.kinds import Heatmap, Strip, Table
from app.views.latex import latex, markdown
from app.views.windows import tokens, window

if TYPE_CHECKING:
    from app.charts import ComputedChart
    from app.figures.print.figure import PrintFigure

_DOTS = 96
"""CSS pixels per inch: at this width an image on the screen has its printed size."""
_COLOURS = {None: "as on the screen", **{colour: colour.value for colour in Colours}}
_MOST_BUTTONS = 4


@dataclass(frozen=True, kw_only=True)
class PlacedPanel:
    """A chart in a panel of the figure that is being composed."""

    made: ComputedChart
    panel: Panel


@st.fragment
def render(panels: Mapping[str, ComputedChart], stretch: Stretch = Stretch.LINEAR) -> None:
    """A screen's panels and tables by their titles. `stretch`: of its heatmaps' colours on the screen."""
    with st.expander("For a paper", icon=":material/print:", key="for_a_paper", on_change="rerun") as expander:
        if expander.open:  # closed, it costs the screen nothing
            _choose(panels, stretch)


def _choose(panels: Mapping[str, ComputedChart], stretch: Stretch) -> None:
    if len(panels) <= _MOST_BUTTONS:
        title = widgets.buttons("Panel", "print.panel", list(panels))
    else:
        title = widgets.select("Panel", "print.panel", list(panels), at=st.columns([2, 3])[0])
    if isinstance(panels[title].view, Table):
        _table(title, panels[title])
    else:
        _figure(title, panels[title], stretch)
    state.publish()


def _table(title: str, chart: ComputedChart) -> None:
    from app.export.files import table_bundle
    from app.export.sidecar import sidecar

    spec, file = FigureSpec(charts=(chart.chart,)), f"{_name(chart)}.zip"
    form = st.segmented_control("As", ["LaTeX", "Markdown"], default="LaTeX", key=f"written_{title}", required=True)
    st.code(latex(chart.view) if form == "LaTeX" else markdown(chart.view), language=form.lower())
    label = say.words("{}: LaTeX, Markdown, numbers (.zip)", title)
    widgets.download(label, lambda: table_bundle(chart.view, sidecar(spec, [chart])), file, "application/zip")
    st.caption(
        "With booktabs. sidecar.json in the archive reproduces the table: `lm2 figure sidecar.json -o table.tex`."
    )


def _figure(title: str, chart: ComputedChart, stretch: Stretch) -> None:
    left, right = st.columns([2, 5])  # the right one holds two columns of any venue's template at their size
    with left:
        page = choose_page("handout")
        chart = _windowed(title, chart)
        panel = _panel(title, chart, stretch)
    spec = FigureSpec(charts=(chart.chart,), page=Paper(**page, **vars(panel)))
    try:
        drawn = spec.draw([chart])
    except ValueError as error:
        right.info(say.words("This does not fit: {}.", error), icon=":material/info:")
        return
    with right:
        preview(drawn)
    with st.container(horizontal=True):
        download_buttons(spec, [chart], drawn, _name(chart))
        placed = state.session_list("figure")
        help = f"The Figure screen combines up to {MOST_PANELS} panels."
        full, icon = len(placed) >= MOST_PANELS, ":material/add_photo_alternate:"
        # One button for all panels: a press while another panel is being drawn is not lost.
        if st.button("Add to the figure", icon=icon, key="add_panel", help=help, disabled=full):
            placed.append(PlacedPanel(made=chart, panel=panel))
            st.toast(say.words("{} is panel {} of the figure.", title, len(placed)), icon=icon)
    st.caption(
        "The archive has PDF, SVG, PNG, the numbers, a draft caption, LaTeX lines, and sidecar.json,"
        " which reproduces the figure: `lm2 figure sidecar.json -o fig.pdf`."
    )


def preview(drawn: PrintFigure) -> None:
    """The figure at its printed size."""
    from app.export.files import FileFormat, render

    page = drawn.page
    st.image(render(drawn, FileFormat.PNG_300), width=round(_DOTS * page.width))
    say.caption("At its printed size: {:g} in wide, as in {}'s template.", page.width, page.measures.name)


def download_buttons(spec: FigureSpec, charts: Sequence[ComputedChart], drawn: PrintFigure, name: str) -> None:
    """A button for each of the figure's files."""
    from app.export.files import FileFormat, bundle, render
    from app.export.sidecar import sidecar
    from app.figures.screen.html import interactive

    widgets.download(
        "Everything (.zip)", lambda: bundle(drawn, sidecar(spec, charts), spec.digest), f"{name}.zip", "application/zip"
    )
    widgets.download("PDF", lambda: render(drawn, FileFormat.PDF, spec.digest), f"{name}.pdf", "application/pdf")
    widgets.download("Interactive page (.html)", lambda: interactive(drawn), f"{name}.html", "text/html")


def choose_page(key: str) -> dict[str, Any]:
    """Choose the venue of a figure, how many columns it spans, and its height."""
    venue = Venue(widgets.select("Venue", "print.venue", show=lambda value: MEASURES[Venue(value)].name))
    spans = [column.value for column in Columns if column is Columns.SINGLE or MEASURES[venue].double is not None]
    columns = Columns(widgets.buttons("Columns", "print.columns", spans))
    height = st.number_input(
        "Height (in)",
        0.5,
        TALLEST,
        value=None,
        step=0.25,
        key=f"{key}_height",
        placeholder="automatic",
        help="Leave empty for a height that suits the panels.",
    )
    return {"venue": venue, "columns": columns, "height": height}


def _panel(title: str, chart: ComputedChart, stretch: Stretch) -> Panel:
    """Choose how a chart is drawn."""
    view, colours = chart.view, None
    if isinstance(view, (Heatmap, Strip)):
        two_sided = isinstance(view, Heatmap) and view.diverging
        options = [colour for colour in _COLOURS if colour is None or not colour.diverging or two_sided]
        colours = st.selectbox("Colours", options, format_func=_COLOURS.__getitem__, key=f"colours_{title}")
    spread = Stretch.LINEAR
    if (isinstance(view, Heatmap) and not view.counts) or (isinstance(view, Strip) and view.weights is not None):
        spread = st.segmented_control(
            "Spread",
            list(Stretch),
            default=stretch,
            format_func=lambda stretch: stretch.value,
            key=f"spread_{title}",
            required=True,
            help="How values map to colours: sqrt makes small ones visible.",
        )
    return Panel(title=st.text_input("Title", title, key=f"title_{title}"), colours=colours, stretch=spread)


def _windowed(title: str, chart: ComputedChart) -> ComputedChart:
    """Choose the first and last token of a chart."""
    count = tokens(chart.view) if hasattr(chart.chart, "window") else None
    if count is None or count < 2:
        return chart
    begin = 0 if chart.chart.window is None else chart.chart.window[0]
    end = begin + count - 1
    first, last = st.slider("Tokens", begin, end, (begin, end), key=f"window_{title}_{begin}_{count}")
    if (first, last) == (begin, end):
        return chart
    view = window(chart.view, first - begin, last + 1 - begin)
    return replace(chart, chart=replace(chart.chart, window=(first, last + 1)), view=view)


def _name(chart: ComputedChart) -> str:
    return f"{chart.chart.words.replace(' ', '-').replace(',', '')}-{chart.chart.digest[:10]}"
