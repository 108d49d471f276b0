"""FigureSpec: everything that a figure depends on. It drives the panels on the screen, the file and the command
line."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.charts import Chart, ComputedChart
from app.figures.print.page import Grid, Paper
from app.figures.print.venues import Venue
from app.views.kinds import Table
from lm2.serialize import Spec

if TYPE_CHECKING:
    from app.figures.print.figure import PrintFigure
    from lm2.weights.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class FigureSpec(Spec):
    """A chart in each panel of a page. Plain JSON both ways.

    Raises ValueError for more or fewer charts than panels.
    """

    charts: tuple[Chart, ...]
    page: Paper | Grid = Paper(venue=Venue.ICML)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.charts) != len(self.page.panels):
            raise ValueError(f"a page of {len(self.page.panels)} panels takes as many charts, not {len(self.charts)}")

    def made(
        self,
        open_model: Callable[[str], Checkpoint],
        result_of: Callable[[Chart, Checkpoint | None], Any],
        found: dict[Hashable, Any] | None = None,
    ) -> Iterator[ComputedChart]:
        """Every chart with its view; what several of them show is computed once. `found` keeps results for other
        figures. Raises ValueError."""
        found = {} if found is None else found
        for chart in self.charts:
            checkpoint = None if chart.checkpoint is None else open_model(chart.checkpoint)
            if chart.result_key not in found:
                found[chart.result_key] = result_of(chart, checkpoint)
            yield chart.made(checkpoint, found[chart.result_key])

    def drawn(self, made: Sequence[ComputedChart]) -> PrintFigure:
        """The figure. Raises ValueError for what does not fit the page, and for tables, which are written and not
        drawn."""
        from app.figures.print.figure import compose

        tables = [computed_chart.chart.words for computed_chart in made if isinstance(computed_chart.view, Table)]
        if tables:
            raise ValueError(f"a table is written as .tex or .md, and not drawn: {', '.join(tables)}")
        return compose([computed_chart.view for computed_chart in made], self.page)
