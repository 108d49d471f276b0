"""How figures look on the screen, in light and dark."""

from dataclasses import dataclass

import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours of one appearance. Categories are Okabe and Ito's, which colour-blind readers can tell apart."""

    text: str
    grid: str
    categories: tuple[str, ...]
    diverging: tuple[str, ...]
    """Blue below the middle, orange above, evenly spaced; the same as in the components' common.js and in print."""
    sequential: str = "Viridis"


LIGHT = Theme(
    text="#31333F",
    grid="rgba(49,51,63,0.15)",
    categories=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555"),
    diverging=("#08519c", "#3182bd", "#6baed6", "#bdd7e7", "#f7f7f7", "#fdd0a2", "#fd8d3c", "#e6550d", "#a63603"),
)
DARK = Theme(
    text="#FAFAFA",
    grid="rgba(250,250,250,0.18)",
    categories=("#56B4E9", "#E69F00", "#2FC79A", "#E0A3C4", "#4C8FD6", "#F0E442", "#BBBBBB"),
    diverging=("#9ecae1", "#5aa2cf", "#2f78b5", "#1f4a73", "#20242c", "#6b3410", "#b5540f", "#ee8733", "#fdc692"),
)


def style(figure: go.Figure, theme: Theme, height: int) -> go.Figure:
    """Give a figure the theme's text, grid and margins, on a transparent ground."""
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": 20, "t": 28, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": theme.text, "size": 12},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        hoverlabel={"namelength": -1},
    )
    figure.update_xaxes(gridcolor=theme.grid, zeroline=False, title_standoff=8, automargin=True)
    figure.update_yaxes(gridcolor=theme.grid, zeroline=False, title_standoff=8, automargin=True)
    return figure
