"""How figures are to be printed: plain values, the same after a way through JSON. `app.figures.print.figure` draws by
them."""

from __future__ import annotations

from dataclasses import dataclass

from app.figures.palettes import Colours, Stretch
from app.figures.print.venues import MEASURES, Columns, Measures, Venue
from lm2.serialize import Plain, build, not_empty

TALLEST = 9.0
"""Inches: what a page of any of the venues holds with a caption below."""
MOST_PANELS = 26
"""Of a figure: as many as there are letters."""


@dataclass(frozen=True, kw_only=True)
class Annotation(Plain):
    """A text at a place of the data: columns and rows of a heatmap from 0, points and values of lines and bars."""

    x: float
    y: float
    text: str

    def __post_init__(self) -> None:
        super().__post_init__()
        not_empty("text", self.text)


@dataclass(frozen=True, kw_only=True)
class Panel(Plain):
    """How one view is drawn; empty texts leave what the view says."""

    title: str = ""
    x_title: str = ""
    y_title: str = ""
    letter: str = ""
    colours: Colours | None = None
    """Of heatmaps and strips; None, those that go with the view."""
    stretch: Stretch = Stretch.LINEAR
    """How values are spread over them."""
    annotations: tuple[Annotation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Page(Plain):
    """Where a figure is printed, and how large."""

    venue: Venue
    columns: Columns = Columns.SINGLE
    height: float | None = None
    """Inches."""
    aspect: float | None = None
    """Height over width, where no height is given; with neither, what suits the views."""

    def __post_init__(self) -> None:
        super().__post_init__()
        width = self.measures.width(self.columns)
        if self.height is not None and self.aspect is not None:
            raise ValueError(f"a figure takes a height or an aspect, not both ({self.height} and {self.aspect})")
        for name, unit in (("height", 1.0), ("aspect", width)):
            if getattr(self, name) is not None:
                size = getattr(self, name)
                if not 0.5 <= size * unit <= TALLEST:
                    raise ValueError(f"a figure is 0.5 to {TALLEST:g} in high, not {size * unit:g} ({name} {size:g})")

    @property
    def measures(self) -> Measures:
        return MEASURES[self.venue]

    @property
    def width(self) -> float:
        """Inches."""
        return self.measures.width(self.columns)

    @staticmethod
    def from_json(values: object) -> Page:
        """A Paper or a Grid. Raises ValueError for a kind or field that does not exist, and for values that make no
        sense."""
        return build("page", {"Paper": Paper, "Grid": Grid}, values)


@dataclass(frozen=True, kw_only=True)
class Paper(Page, Panel):
    """A figure of one view."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        return (self,)


@dataclass(frozen=True, kw_only=True)
class Grid(Page):
    """A figure of several views, row by row. Panels have the letters a, b, c ... where they name none."""

    panels: tuple[Panel, ...]
    across: int
    """Panels in a row."""
    shared_scale: bool = False
    """Whether all heatmaps have one colour scale."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.panels) <= MOST_PANELS or not 1 <= self.across <= len(self.panels):
            raise ValueError(
                f"a grid has 1 to {MOST_PANELS} panels with 1 to all of them in a row, not {len(self.panels)} with"
                f" {self.across}"
            )


def letters(page: Paper | Grid) -> tuple[str, ...]:
    """Each panel's letter; a figure of one panel has the one it names."""
    if len(page.panels) == 1:
        return (page.panels[0].letter,)
    return tuple(panel.letter or chr(ord("a") + at) for at, panel in enumerate(page.panels))
