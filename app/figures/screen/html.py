"""Figure -> a web page of its own to point at and zoom in, which needs no network and sends nothing anywhere."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
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
    """The figure's panels as they stand on its page, in the light theme; annotations stay at their places."""
    across = getattr(drawn.page, "across", 1)
    marks = letters(drawn.page)
    parts = [
        _panel(at, view, panel, mark)
        for at, (view, panel, mark) in enumerate(zip(drawn.views, drawn.page.panels, marks))
    ]
    return (
        '<!DOCTYPE html><html lang="en"><head><meta'
        f' charset="utf-8"><title>{_shown(drawn.title)}</title><style>{_STYLE}'
        f"main{{grid-template-columns:repeat({across},minmax(0,1fr))}}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><main>{''.join(parts)}</main></body></html>"
    )


def _panel(at: int, view: View, panel: Panel, mark: str) -> str:
    head = " ".join(part for part in (f"({mark})" if mark else "", view.titled(panel.title)) if part)
    body = (
        _text(view, panel)
        if isinstance(view, Strip)
        else to_html(
            _figure(view, panel), config=_CONFIG, include_plotlyjs=False, full_html=False, div_id=f"figure-{at}"
        )
    )
    return f'<figure aria-label="{_shown(view.alt)}"><figcaption>{_shown(head)}</figcaption>{body}</figure>'


def _figure(view: View, panel: Panel) -> go.Figure:
    if isinstance(view, Heatmap) and panel.x_title:
        view = replace(view, column_title=panel.x_title)  # with what its cells stand for behind it
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
    for at, piece in enumerate(view.pieces):
        if at and view.segment_of[at] != view.segment_of[at - 1]:
            words.append("<br>")
        look = f"background:{_hex(shades[at])};color:{inks[at]}" if np.isfinite(shades[at, 0]) else ""
        named = next((word for first, stop, word in view.marks if first <= at < stop), "")
        notes = " · ".join(part for part in (view.notes[at] if view.notes else "", named) if part)
        words.append(
            f'<span class="{"mark" if named else ""}" style="{look}" title="{_shown(notes)}">{_shown(piece)}</span>'
        )
    return f'<div class="text">{"".join(words)}</div><small>{_scale(view, panel)}{_shown(view.legend)}</small>'


def _shown(text: str) -> str:
    """A text in the page, and in its attributes."""
    return escape(seen(text))


def _scale(view: Strip, panel: Panel) -> str:
    """The colours with the numbers at their ends."""
    if view.weights is None:
        return ""
    stops = ",".join(map(_hex, text_shades(np.linspace(0, 1, 17), panel.colours)))
    spread = "" if panel.stretch is Stretch.LINEAR else f", {panel.stretch.value} colours"
    bar = (
        f'<span style="display:inline-block;width:8em;height:.8em;background:linear-gradient(to right,{stops})"></span>'
    )
    return f"{view.low:.3g} {bar} {view.high:.3g}{spread} · "


def _hex(shade: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in shade)
