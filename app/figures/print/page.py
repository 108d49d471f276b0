"""How figures are to be printed: plain values, unchanged by a round trip through JSON."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase

from app.figures.palettes import Colours, Stretch
from app.figures.print.venues import MEASURES, Columns, Measures, Venue
from lm2.serialize import Plain, build, not_empty

TALLEST = 9.0
"""Inches: room for a caption is left on a page of every venue."""
MOST_PANELS = 26
"""As many as there are letters."""


@dataclass(frozen=True, kw_only=True)
class Annotation(Plain):
    """A text at data coordinates: columns and rows of a heatmap from 0, points and values of lines and bars."""

    x: float
    y: float
    text: str

    def __post_init__(self) -> None:
        super().__post_init__()
        not_empty("text", self.text)


@dataclass(frozen=True, kw_only=True)
class Panel(Plain):
    """How one view is drawn; an empty text keeps the view's own."""

    title: str = ""
    x_title: str = ""
    y_title: str = ""
    letter: str = ""
    colours: Colours | None = None
    """Of heatmaps and strips; None for those that suit the view."""
    stretch: Stretch = Stretch.LINEAR
    annotations: tuple[Annotation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Page(Plain):
    """Where a figure is printed, and its size."""

    venue: Venue
    columns: Columns = Columns.SINGLE
    height: float | None = None
    """Inches."""
    aspect: float | None = None
    """Height divided by width. Without height and aspect, the height suits the views."""

    def __post_init__(self) -> None:
        super().__post_init__()
        width = self.measures.width(self.columns)
        if self.height is not None and self.aspect is not None:
            raise ValueError(f"a figure takes a height or an aspect, not both ({self.height} and {self.aspect})")
        for name, size, unit in (("height", self.height, 1.0), ("aspect", self.aspect, width)):
            if size is not None and not 0.5 <= size * unit <= TALLEST:
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
        """A Paper or a Grid. Raises ValueError for unknown kinds and fields, and for wrong values."""
        return build("page", {"Paper": Paper, "Grid": Grid}, values)


@dataclass(frozen=True, kw_only=True)
class Paper(Page, Panel):
    """A figure of one view."""

    across = 1
    shared_scale = False

    @property
    def panels(self) -> tuple[Panel, ...]:
        return (self,)


@dataclass(frozen=True, kw_only=True)
class Grid(Page):
    """A figure of several views, row by row. Panels without a letter of their own get a, b, c ..."""

    panels: tuple[Panel, ...]
    across: int
    """Panels in a row."""
    shared_scale: bool = False
    """Whether all heatmaps share one colour scale."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.panels) <= MOST_PANELS or not 1 <= self.across <= len(self.panels):
            raise ValueError(
                f"a grid has 1 to {MOST_PANELS} panels with 1 to all of them in a row, not {len(self.panels)} with"
                f" {self.across}"
            )


def letters(page: Paper | Grid) -> tuple[str, ...]:
    """Each panel's letter; a single panel has only the letter that it names."""
    if len(page.panels) == 1:
        return (page.panels[0].letter,)
    return tuple(panel.letter or letter for panel, letter in zip(page.panels, ascii_lowercase))
