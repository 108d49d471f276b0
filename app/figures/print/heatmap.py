"""Heatmaps on paper: an image of cells, pooled to what can be printed, with segments above and the colour scale
beside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import FuncNorm, Normalize
from matplotlib.markers import TICKUP
from matplotlib.ticker import MaxNLocator

from app.figures.palettes import Colours, Stretch, colour_map, ink
from app.figures.print import text
from app.figures.print.panel import EDGE, PanelBox, PendingPanel
from app.views.kinds import Heatmap
from app.views.pooling import Cells, pooled

PRINTED = 300
"""Dots per inch of the coarsest raster. Each cell has at least one whole dot: a finer map is pooled."""
_FINER = 2
"""Dots of an image per printed dot, because viewers blur an image that they enlarge less than four times."""
_INSET = 0.01
"""Dots by which an image is smaller than its axes on each side: poppler adds a dot where both edges coincide."""
_ROOMY = 4.0
"""Points of the smallest cells that have room for a line between them, or for a dot in each."""
_NEAR = 0.01
"""Values nearer to the scale's middle than this share of half the scale have no dot."""


@dataclass(frozen=True, kw_only=True)
class ColourScale:
    """Which colour each value has."""

    low: float
    high: float
    colours: Colours
    diverging: bool
    counts: bool
    """Whether all values are whole numbers."""
    stretch: Stretch

    @classmethod
    def of(cls, views: Sequence[Heatmap], colours: Colours | None, stretch: Stretch = Stretch.LINEAR) -> ColourScale:
        """A scale for all views. Raises ValueError for colours that do not suit them, and where only some diverge."""
        diverging = [view.diverging for view in views]
        if len(set(diverging)) > 1:
            raise ValueError(
                f"a shared scale needs heatmaps of one kind, but {sum(diverging)} of {len(views)} are diverging"
            )
        chosen = colours or (Colours.BLUE_ORANGE if diverging[0] else Colours.VIRIDIS)
        if chosen.diverging and not diverging[0]:
            others = ", ".join(colour.value for colour in Colours if not colour.diverging)
            raise ValueError(f"{chosen.value} has a middle, and {views[0].value_title!r} has none: choose {others}")
        return cls(
            low=min(view.low for view in views),
            high=max(view.high for view in views),
            colours=chosen,
            diverging=diverging[0],
            counts=all(view.counts for view in views),
            stretch=stretch,
        )

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    @property
    def _span(self) -> float:
        return max(self.high - self.low, 1e-30)

    @property
    def norm(self) -> Normalize:
        """The scale of a colour bar."""
        if self.stretch is Stretch.LINEAR:
            return Normalize(self.low, self.high)
        return FuncNorm((self.place, self._undo), vmin=self.low, vmax=self.high)

    def place(self, values: np.ndarray) -> np.ndarray:
        """Places of the values' colours, from 0 to 1."""
        return self.stretch.place(np.clip((values - self.low) / self._span, 0, 1), diverging=self.diverging)

    def _undo(self, places: np.ndarray) -> np.ndarray:
        return self.low + self._span * self.stretch.undo(np.clip(places, 0, 1), diverging=self.diverging)

    def shades(self, values: Float[np.ndarray, "row column"]) -> UInt8[np.ndarray, "row column 4"]:
        """RGBA, transparent where there is no value."""
        places = self.place(values)
        shades = colour_map(self.colours)(np.nan_to_num(places), bytes=True)
        shades[..., 3] = np.where(np.isfinite(values), 255, 0)
        return shades


def heatmap(view: Heatmap, box: PanelBox, scale: ColourScale) -> PendingPanel:
    axes, values = box.axes, view.unmasked
    if not values.size:
        axes.set(xticks=(), yticks=())
        return PendingPanel(settle=lambda: ("There is nothing to show.",))
    rows, columns = values.shape
    hidden = not np.isfinite(values).all()
    if hidden:  # seen through the transparent cells of the image
        axes.patch.set(facecolor="#e4e5e9", edgecolor="#a9acb4", hatch="///////", linewidth=0)
    image = axes.imshow(
        np.zeros((1, 1, 4), np.uint8),
        interpolation="none",
        aspect="auto",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
    )
    for spine in axes.spines.values():
        spine.set_position(("outward", spine.get_linewidth() / 2))  # or its inner half would hide the outermost cells,
        spine.set_zorder(-1)  # and so would the dot by which its width is rounded up
    axes.tick_params(length=2, pad=2, labelsize=box.small)
    ticks = text.down(view.row_labels, view.row_title, box.small, box.height)
    axes.set_yticks(ticks.places, ticks.labels)
    _name_columns(view, box, cells(view, box.width / 72, box.height / 72)[1])
    if view.segment_labels:  # reserves the room for their names
        start = text.common_start(view.segment_labels) or " "
        axes.annotate(start, (0, 1), (-3, 2), xycoords="axes fraction", ha="right", **_above(box))

    def settle() -> tuple[str, ...]:
        width, height = box.inches()
        down, along = cells(view, width, height)
        dots = round(height * PRINTED), round(width * PRINTED)
        row_of, column_of = (axis.dots(count).repeat(_FINER) for axis, count in zip((down, along), dots))
        cell_values = pooled(values, down, along, view.pooling, scale.middle)
        image.set_data(scale.shades(cell_values)[row_of][:, column_of, : 4 if hidden else 3])
        inset_x, inset_y = _INSET * columns / dots[1], _INSET * rows / dots[0]
        image.set_extent((inset_x - 0.5, columns - 0.5 - inset_x, rows - 0.5 - inset_y, inset_y - 0.5))
        _name_columns(view, box, along)
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
        cell = 72 * width / columns, 72 * height / rows
        if cell[0] >= _ROOMY:
            for edge in view.boundaries:
                if 0 < edge < columns:
                    axes.axvline(edge - 0.5, color="#ffffff", linewidth=1.1)
                    axes.axvline(edge - 0.5, color="#000000", linewidth=0.5)
        words = view.pooled_words(down, along)
        notes = [f"Each cell is the {words}."] if words else []
        notes += ["Values of hatched cells are not shown."] if hidden else []
        notes += _write_counts(box, values, scale, *cell) if view.counts else []
        notes += _segments(view, box, 72 * width)
        return (*notes, *(_dots(axes, values, scale, min(cell)) if scale.colours.diverging else ()))

    return PendingPanel(settle=settle, lift=box.small * text.LEADING + 1 if view.segment_labels else 0.0)


def _name_columns(view: Heatmap, box: PanelBox, along: Cells) -> None:
    """Label the columns, or the cells where these pool columns that are not neighbours."""
    names = view.ticks or view.column_labels
    gathered = not along.whole and bool((np.diff(along.owner) < 0).any())
    firsts, edges = along.order[along.edges[:-1]], along.edges
    labels = [names[column] for column in firsts] if gathered else names
    ticks = text.along(labels, view.column_title, box.small, box.width)
    places = [(edges[cell] + edges[cell + 1] - 1) / 2 for cell in ticks.places] if gathered else ticks.places
    box.axes.set_xticks(places, ticks.labels, rotation=90 if ticks.upright else 0)


def cells(view: Heatmap, width: float, height: float) -> tuple[Cells, Cells]:
    """Rows and columns as they are drawn on a size in inches: each cell has a dot at least."""
    return view.down(max(1, round(height * PRINTED))), view.along(max(1, round(width * PRINTED)))


def column_title(view: Heatmap, title: str, width: float, height: float) -> str:
    """The title below the columns, with what each cell stands for on a size in inches."""
    words = view.pooled_words(*cells(view, width, height))
    return f"{title} (each cell the {words})" if words else title


def _above(box: PanelBox) -> dict[str, object]:
    return {"textcoords": "offset points", "va": "bottom", "fontsize": box.small}


def _segments(view: Heatmap, box: PanelBox, width: float) -> list[str]:
    """Mark where segments begin and name them above, as far as `width` points allow; returns notes of what is left
    out."""
    axes, columns, notes = box.axes, view.values.shape[1], []
    edges = [edge for edge in view.boundaries if 0 < edge < columns]
    if len(edges) * 2 > width:
        notes.append(f"Where the {len(view.boundaries)} segments begin is too close together to be shown.")
    else:
        axes.plot(
            [edge - 0.5 for edge in edges],
            [1] * len(edges),
            transform=axes.get_xaxis_transform(),
            linestyle="",
            marker=TICKUP,
            markersize=3,
            markeredgewidth=0.5,
            color=EDGE,
            clip_on=False,
        )
    start = text.common_start(view.segment_labels)
    words = [text.printable(label.removeprefix(f"{start} ")) for label in view.segment_labels]
    point, free = columns / width, -math.inf  # columns per point; the first place after the last name
    for word, first, end in zip(words, view.boundaries, (*view.boundaries[1:], columns)):
        middle, half = (first + end) / 2 - 0.5, text.width(word, box.small) / 2 * point
        if middle - half >= free:
            axes.annotate(word, (middle, 1), (0, 2), xycoords=axes.get_xaxis_transform(), ha="center", **_above(box))
            free = middle + half + box.small / 2 * point
        elif not start:
            notes = [f"Segments from left to right: {', '.join(words)}."]
    return notes


def _write_counts(box: PanelBox, values: np.ndarray, scale: ColourScale, width: float, height: float) -> list[str]:
    """Write the whole numbers in cells of a size in points; a note says where they do not fit."""
    finite = np.isfinite(values)
    words = [f"{value:.0f}" for value in values[finite]]
    if box.small > height or max((text.width(word, box.small) for word in words), default=0.0) + 2 > width:
        return ["Cells are too small for their numbers."]
    for row, column, word, colour in zip(*np.nonzero(finite), words, ink(scale.shades(values)[finite][:, :3] / 255)):
        box.axes.text(column, row, word, fontsize=box.small, color=colour, ha="center", va="center_baseline")
    return []


def _dots(axes: Axes, values: np.ndarray, scale: ColourScale, cell: float) -> tuple[str, ...]:
    """Put dots in cells below the middle of a scale whose ends are equally dark; `cell`: points of a cell's side."""
    if cell < _ROOMY:
        return (f"Signs are told by colour alone, not in greyscale: for that, choose {Colours.CIVIDIS.value}.",)
    rows, columns = np.nonzero(values < scale.middle - _NEAR * (scale.high - scale.low) / 2)
    grounds = scale.shades(values)[rows, columns, :3] / 255
    axes.scatter(columns, rows, s=min(1.6, cell / 4) ** 2, c=ink(grounds) if len(grounds) else [], linewidths=0)
    return (f"Dots: below {scale.middle:g}.",)


def colour_bar(axes: Axes | Sequence[Axes], scale: ColourScale, title: str, box: PanelBox) -> None:
    """The scale beside one heatmap, or beside all that share it."""
    bar = box.axes.figure.colorbar(
        ScalarMappable(scale.norm, colour_map(scale.colours)), ax=axes, pad=0.02, aspect=max(8.0, box.height / 7)
    )
    bar.solids.set_rasterized(True)  # as vectors, its steps would have seams between them
    bar.outline.set_linewidth(0)
    bar.ax.tick_params(length=2, pad=2, labelsize=box.small)
    if scale.stretch is not Stretch.LINEAR:
        title += f"; {scale.stretch.value} colours"
    bar.set_ticks(_ticks(scale, 1.3 * box.small / box.height))
    title = text.wrapped(text.printable(title), box.small, box.height, text.TITLE)
    bar.set_label(title, fontsize=box.small, labelpad=3)
    if scale.colours.diverging:
        values = np.linspace(scale.low, scale.middle, 8)[1:-1]
        shades = scale.shades(values[:, None])[:, 0, :3] / 255
        bar.ax.scatter([0.5] * len(values), values, s=1.6**2, c=ink(shades), linewidths=0, zorder=3)


def _ticks(scale: ColourScale, apart: float) -> list[float]:
    """Round values at least `apart` on the bar, as a share of its length."""
    ticks: list[float] = []
    for value in MaxNLocator(5, steps=(1, 2, 2.5, 5, 10), integer=scale.counts).tick_values(scale.low, scale.high):
        if scale.low <= value <= scale.high and (
            not ticks or scale.place(np.array(value)) - scale.place(np.array(ticks[-1])) >= apart
        ):
            ticks.append(float(value))
    return ticks


def in_common(views: Sequence[Heatmap]) -> tuple[str, ...]:
    """The parts, between commas, that are in the value titles of all heatmaps."""
    first, *others = (view.value_title.split(", ") for view in views)
    return tuple(part for part in first if all(part in other for other in others))
