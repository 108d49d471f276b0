"""Figure -> an interactive web page, which needs no network and sends nothing."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from app.figures.palettes import Stretch, ink, text_shades
from app.figures.print.page import Panel, letters
from app.figures.print.strip import grounds
from app.figures.pseudo_html import spelled
from app.figures.screen import draw
from app.figures.theme import LIGHT
from app.views.kinds import Heatmap, Strip
from app.views.seen import seen

if TYPE_CHECKING:
    from app.figures.print.figure import PrintFigure
    from app.views.numbers import View

_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud"],
    "responsive": True,
    "typesetMath": False,
}
_STYLE = (
    "body{font:14px sans-serif;margin:24px;color:#31333f}main{display:grid;gap:24px}figure{margin:0;min-width:0}"
    "figcaption{font-weight:600;margin-bottom:4px}.text{line-height:1.9;white-space:pre-wrap}"
    ".text span{unicode-bidi:isolate}.mark{border-bottom:2px solid #d74f03}"
)


def interactive(drawn: PrintFigure) -> str:
    """The figure's panels and annotations, placed as on its page, in the light theme."""
    panels = map(_panel, range(len(drawn.views)), drawn.views, drawn.page.panels, letters(drawn.page))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta'
        f' charset="utf-8"><title>{_shown(drawn.title)}</title><style>{_STYLE}'
        f"main{{grid-template-columns:repeat({drawn.page.across},minmax(0,1fr))}}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><main>{''.join(panels)}</main></body></html>"
    )


def _panel(number: int, view: View, panel: Panel, letter: str) -> str:
    head = " ".join(filter(None, (f"({letter})" if letter else "", view.titled(panel.title))))
    if isinstance(view, Strip):
        body = _text(view, panel)
    else:
        options = {"config": _CONFIG, "include_plotlyjs": False, "full_html": False, "div_id": f"figure-{number}"}
        body = to_html(_figure(view, panel), **options)
    return f'<figure aria-label="{_shown(view.alt)}"><figcaption>{_shown(head)}</figcaption>{body}</figure>'


def _figure(view: View, panel: Panel) -> go.Figure:
    if isinstance(view, Heatmap) and panel.x_title:
        view = replace(view, column_title=panel.x_title)  # to which drawing adds what each cell stands for
    figure = draw.figure(view, LIGHT, stretch=panel.stretch, colours=panel.colours)
    if panel.x_title and not isinstance(view, Heatmap):
        figure.update_xaxes(title=spelled(panel.x_title))
    if panel.y_title:
        figure.update_yaxes(title=spelled(panel.y_title))
    for annotation in panel.annotations:
        figure.add_annotation(
            x=annotation.x,
            y=annotation.y,
            text=spelled(annotation.text),
            showarrow=False,
            bgcolor="rgba(255,255,255,0.9)",
            bordercolor=LIGHT.text,
        )
    return figure


def _text(view: Strip, panel: Panel) -> str:
    """The text, a line for each segment, coloured as on paper."""
    shades = grounds(view, panel.colours, panel.stretch)
    inks = ink(np.nan_to_num(shades, nan=1.0))
    words = []
    for i, piece in enumerate(view.pieces):
        if i and view.segment_of[i] != view.segment_of[i - 1]:
            words.append("<br>")
        look = f"background:{to_hex(shades[i])};color:{inks[i]}" if np.isfinite(shades[i, 0]) else ""
        mark = next((word for first, stop, word in view.marks if first <= i < stop), "")
        notes = " · ".join(filter(None, (view.notes[i] if view.notes else "", mark)))
        words.append(
            f'<span class="{"mark" if mark else ""}" style="{look}" title="{_shown(notes)}">{_shown(piece)}</span>'
        )
    return f'<div class="text">{"".join(words)}</div><small>{_scale(view, panel)}{_shown(view.legend)}</small>'


def _shown(text: str) -> str:
    """A text for the page or an attribute."""
    return escape(seen(text))


def _scale(view: Strip, panel: Panel) -> str:
    """The colour scale with the numbers at its ends."""
    if view.weights is None:
        return ""
    stops = ",".join(map(to_hex, text_shades(np.linspace(0, 1, 17), panel.colours)))
    spread = "" if panel.stretch is Stretch.LINEAR else f", {panel.stretch.value} colours"
    bar = (
        f'<span style="display:inline-block;width:8em;height:.8em;background:linear-gradient(to right,{stops})"></span>'
    )
    return f"{view.low:.3g} {bar} {view.high:.3g}{spread} · "
