"""FigureSpec: everything that a figure depends on. Screen, file and command line make figures from it."""

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
    """A chart in each panel of a page. Raises ValueError unless there is a chart for each panel."""

    charts: tuple[Chart, ...]
    page: Paper | Grid = Paper(venue=Venue.ICML)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.charts) != len(self.page.panels):
            raise ValueError(f"a page of {len(self.page.panels)} panels takes as many charts, not {len(self.charts)}")

    def compute(
        self,
        open_model: Callable[[str], Checkpoint],
        result_of: Callable[[Chart, Checkpoint | None], Any],
        results: dict[Hashable, Any] | None = None,
    ) -> Iterator[ComputedChart]:
        """Every chart with its view. A result that charts share is computed once; `results` keeps them for other
        figures. Raises ValueError."""
        results = {} if results is None else results
        for chart in self.charts:
            checkpoint = None if chart.checkpoint is None else open_model(chart.checkpoint)
            if chart.result_key not in results:
                results[chart.result_key] = result_of(chart, checkpoint)
            yield chart.computed(checkpoint, results[chart.result_key])

    def draw(self, made: Sequence[ComputedChart]) -> PrintFigure:
        """The figure. Raises ValueError for content that does not fit the page, and for tables."""
        from app.figures.print.figure import compose

        tables = [computed.chart.words for computed in made if isinstance(computed.view, Table)]
        if tables:
            raise ValueError(f"a table is written as .tex or .md, and not drawn: {', '.join(tables)}")
        return compose([computed.view for computed in made], self.page)
