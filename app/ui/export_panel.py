"""What hands out a screen's panels for a paper: the figure or table, its numbers, and how to make it again."""

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
"""CSS pixels to an inch: at this width an image on the screen has its printed size."""
_COLOURS = {None: "as on the screen", **{colour: colour.value for colour in Colours}}
_MOST_BUTTONS = 4


@dataclass(frozen=True, kw_only=True)
class PlacedPanel:
    """A chart in a panel of the figure that is being composed."""

    made: ComputedChart
    panel: Panel


@st.fragment
def hand_out(made: Mapping[str, ComputedChart], stretch: Stretch = Stretch.LINEAR) -> None:
    """A screen's panels and tables by their titles. `stretch`: of its heatmaps' colours on the screen."""
    with st.expander("For a paper", icon=":material/print:", key="for_a_paper", on_change="rerun") as room:
        if room.open:  # closed, it costs the screen nothing
            _choose(made, stretch)


def _choose(made: Mapping[str, ComputedChart], stretch: Stretch) -> None:
    if len(made) <= _MOST_BUTTONS:
        title = widgets.buttons("Panel", "print.panel", list(made))
    else:
        title = widgets.select("Panel", "print.panel", list(made), at=st.columns([2, 3])[0])
    if isinstance(made[title].view, Table):
        _table(title, made[title])
    else:
        _figure(title, made[title], stretch)
    state.publish()


def _table(title: str, made: ComputedChart) -> None:
    from app.export.files import table_bundle
    from app.export.sidecar import sidecar

    spec, name = FigureSpec(charts=(made.chart,)), _name(made)
    form = st.segmented_control("As", ["LaTeX", "Markdown"], default="LaTeX", key=f"written_{title}", required=True)
    st.code(latex(made.view) if form == "LaTeX" else markdown(made.view), language=form.lower())
    label = say.words("{}: LaTeX, Markdown, numbers (.zip)", title)
    widgets.download(label, lambda: table_bundle(made.view, sidecar(spec, [made])), f"{name}.zip", "application/zip")
    st.caption(
        "With booktabs. sidecar.json in the archive reproduces the table: `lm2 figure sidecar.json -o table.tex`."
    )


def _figure(title: str, made: ComputedChart, stretch: Stretch) -> None:
    left, right = st.columns([2, 5])  # the right one holds two columns of any venue's template at their size
    with left:
        page = page_of("handout")
        shown = _windowed(title, made)
        panel = _panel(title, shown, stretch)
    spec = FigureSpec(charts=(shown.chart,), page=Paper(**page, **vars(panel)))
    try:
        drawn = spec.drawn([shown])
    except ValueError as error:
        right.info(say.words("This does not fit: {}.", error), icon=":material/info:")
        return
    with right:
        preview(drawn)
    with st.container(horizontal=True):
        files(spec, [shown], drawn, _name(shown))
        full = len(state.kept("figure")) >= MOST_PANELS
        said = f"The Figure screen combines up to {MOST_PANELS} panels."
        # One button for all panels: a press while another panel is being drawn is not lost.
        icon = ":material/add_photo_alternate:"
        if st.button("Add to the figure", icon=icon, key="add_panel", help=said, disabled=full):
            state.kept("figure").append(PlacedPanel(made=shown, panel=panel))
            st.toast(say.words("{} is panel {} of the figure.", title, len(state.kept("figure"))), icon=icon)
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


def files(spec: FigureSpec, made: Sequence[ComputedChart], drawn: PrintFigure, name: str) -> None:
    """Buttons that hand out the figure's files."""
    from app.export.files import FileFormat, bundle, render
    from app.export.sidecar import sidecar
    from app.figures.screen.html import interactive

    widgets.download(
        "Everything (.zip)", lambda: bundle(drawn, sidecar(spec, made), spec.digest), f"{name}.zip", "application/zip"
    )
    widgets.download("PDF", lambda: render(drawn, FileFormat.PDF, spec.digest), f"{name}.pdf", "application/pdf")
    widgets.download("Interactive page (.html)", lambda: interactive(drawn), f"{name}.html", "text/html")


def page_of(key: str) -> dict[str, Any]:
    """Choose where a figure is printed, across how many columns, and how high."""
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


def _panel(title: str, made: ComputedChart, stretch: Stretch) -> Panel:
    """How the view is drawn."""
    view, colours = made.view, None
    if isinstance(view, (Heatmap, Strip)):
        two_sided = isinstance(view, Heatmap) and view.diverging
        fitting = [colour for colour in _COLOURS if colour is None or not colour.diverging or two_sided]
        colours = st.selectbox("Colours", fitting, format_func=_COLOURS.__getitem__, key=f"colours_{title}")
    spread = Stretch.LINEAR
    if (isinstance(view, Heatmap) and not view.counts) or (isinstance(view, Strip) and view.weights is not None):
        spread = st.segmented_control(
            "Spread",
            list(Stretch),
            default=stretch,
            format_func=lambda one: one.value,
            key=f"spread_{title}",
            required=True,
            help="How values map to colours: sqrt makes small ones visible.",
        )
    return Panel(title=st.text_input("Title", title, key=f"title_{title}"), colours=colours, stretch=spread)


def _windowed(title: str, made: ComputedChart) -> ComputedChart:
    """The chart from one token to another."""
    count = tokens(made.view) if hasattr(made.chart, "window") else None
    if count is None or count < 2:
        return made
    begin = 0 if made.chart.window is None else made.chart.window[0]
    end = begin + count - 1
    first, last = st.slider("Tokens", begin, end, (begin, end), key=f"window_{title}_{begin}_{count}")
    if (first, last) == (begin, end):
        return made
    part = window(made.view, first - begin, last + 1 - begin)
    return replace(made, chart=replace(made.chart, window=(first, last + 1)), view=part)


def _name(made: ComputedChart) -> str:
    return f"{made.chart.words.replace(' ', '-').replace(',', '')}-{made.chart.digest[:10]}"
