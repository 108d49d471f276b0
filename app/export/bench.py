"""How long a figure for print takes: a large heatmap as PDF, and matplotlib's own imshow of the same numbers."""

import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.export.files import FileFormat, render
from app.figures.print.figure import draw, printing
from app.figures.print.page import Paper
from app.figures.print.venues import Venue
from app.views.kinds import Heatmap, slot_labels

SIDE = 512
"""Rows and columns of the map."""
_REPEATS = 7


@dataclass(frozen=True, kw_only=True)
class FigureBench:
    """Wall-clock seconds of one figure: median of `_REPEATS`, after a warm-up."""

    width: float
    """Inches."""
    own_seconds: float
    plain_seconds: float

    @property
    def ratio(self) -> float:
        """Our time divided by imshow's."""
        return self.own_seconds / self.plain_seconds

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "ratio": self.ratio}


def bench_figure(on_step: Callable[[int, int], None] = lambda done, total: None) -> FigureBench:
    view, page = _view(), Paper(venue=Venue.ICML)
    own = _median(lambda: render(draw(view, page), FileFormat.PDF), lambda done: on_step(done, 2 * _REPEATS))
    plain = _median(lambda: _plain(view, page.width), lambda done: on_step(_REPEATS + done, 2 * _REPEATS))
    return FigureBench(width=page.width, own_seconds=own, plain_seconds=plain)


def _view() -> Heatmap:
    values = np.random.default_rng(0).random((SIDE, SIDE)).astype(np.float32)
    return Heatmap(
        values=values,
        row_labels=slot_labels(SIDE),
        column_labels=tuple(map(str, range(SIDE))),
        row_title="slot",
        column_title="token",
        value_title="read weight",
        low=0.0,
        high=1.0,
        boundaries=tuple(range(0, SIDE, 64)),
        segment_labels=tuple(f"segment {i}" for i in range(SIDE // 64)),
    )


def _median(make: Callable[[], bytes], on_step: Callable[[int], None]) -> float:
    make()
    seconds = []
    for done in range(1, _REPEATS + 1):
        start = time.perf_counter()
        make()
        seconds.append(time.perf_counter() - start)
        on_step(done)
    return statistics.median(seconds)


def _plain(view: Heatmap, width: float) -> bytes:
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with printing():
        figure = Figure(figsize=(width, width * 0.62), layout="constrained")
        axes = figure.subplots()
        figure.colorbar(axes.imshow(view.values, vmin=view.low, vmax=view.high, aspect="auto"), label=view.value_title)
        axes.set(xlabel=view.column_title, ylabel=view.row_title)
        figure.savefig(file, format="pdf", dpi=600)
    return file.getvalue()
