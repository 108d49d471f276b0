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
from app.views.numbers import unmasked
from app.views.pooling import Cells, pooled

PRINTED = 300
"""Dots to an inch of the coarsest raster. Cells have whole dots, one at least: a finer map is pooled."""
_FINER = 2
"""Dots of an image along each of these: viewers blur an image where they enlarge it less than four times."""
_INSET = 0.01
"""Dots by which an image is smaller than its axes on each side: poppler gives an edge that is on a dot's edge one dot
more."""
_WIDE = 4.0
"""Points: from here on there is room for a line between two cells, or for a dot in one."""
_NOTICED = 0.01
"""Of the scale's half: what is nearer to its middle than this has no dot."""


@dataclass(frozen=True, kw_only=True)
class ColourScale:
    """What a colour means."""

    low: float
    high: float
    colours: Colours
    diverging: bool
    counts: bool = False
    """Whether it holds whole numbers alone."""
    stretch: Stretch = Stretch.LINEAR

    @classmethod
    def of(cls, views: Sequence[Heatmap], colours: Colours | None, stretch: Stretch = Stretch.LINEAR) -> ColourScale:
        """One that holds all views. Raises ValueError for colours that do not go with them, and for views that do not
        go together."""
        diverging = {view.diverging for view in views}
        if len(diverging) > 1:
            raise ValueError(
                f"a shared scale needs heatmaps of one kind, but {sum(view.diverging for view in views)} of"
                f" {len(views)} are diverging"
            )
        both = diverging == {True}
        chosen = colours or (Colours.BLUE_ORANGE if both else Colours.VIRIDIS)
        if chosen.diverging and not both:
            others = ", ".join(colour.value for colour in Colours if not colour.diverging)
            raise ValueError(f"{chosen.value} has a middle, and {views[0].value_title!r} has none: choose {others}")
        low, high = min(view.low for view in views), max(view.high for view in views)
        return cls(
            low=low,
            high=high,
            colours=chosen,
            diverging=both,
            counts=all(view.counts for view in views),
            stretch=stretch,
        )

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    @property
    def _wide(self) -> float:
        return max(self.high - self.low, 1e-30)

    @property
    def norm(self) -> Normalize:
        """The same for a colour bar."""
        if self.stretch is Stretch.LINEAR:
            return Normalize(self.low, self.high)
        return FuncNorm((self.place, self._undo), vmin=self.low, vmax=self.high)

    def place(self, values: np.ndarray) -> np.ndarray:
        """Where values' colours are, from 0 to 1."""
        return self.stretch.place(np.clip((values - self.low) / self._wide, 0, 1), diverging=self.diverging)

    def _undo(self, places: np.ndarray) -> np.ndarray:
        return self.low + self._wide * self.stretch.undo(np.clip(places, 0, 1), diverging=self.diverging)

    @property
    def dotted(self) -> bool:
        """Whether cells below the middle need a mark of their own, because both ends of the scale are as dark."""
        return self.colours.diverging

    def shades(self, values: Float[np.ndarray, "row column"]) -> UInt8[np.ndarray, "row column 4"]:
        """Colours with their opacity: 0 where there is no value."""
        places = self.place(values)
        shades = colour_map(self.colours)(np.nan_to_num(places), bytes=True)
        shades[..., 3] = np.where(np.isfinite(values), 255, 0)
        return shades


def heatmap(view: Heatmap, room: PanelBox, scale: ColourScale) -> PendingPanel:
    axes, values = room.axes, unmasked(view)
    if not values.size:
        axes.set(xticks=(), yticks=())
        return PendingPanel(settle=lambda: ("There is nothing to show.",))
    rows, columns = values.shape
    hidden = not np.isfinite(values).all()
    if hidden:  # the ground shows through where the image has nothing
        axes.patch.set(facecolor="#e4e5e9", edgecolor="#a9acb4", hatch="///////", linewidth=0)
    image = axes.imshow(
        np.zeros((1, 1, 4), np.uint8),
        interpolation="none",
        aspect="auto",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
    )
    for spine in axes.spines.values():
        spine.set_position(("outward", spine.get_linewidth() / 2))  # or its inner half would hide the outermost cells,
        spine.set_zorder(-1)  # and so would the dot that it is rounded up by
    axes.tick_params(length=2, pad=2, labelsize=room.small)
    down = text.down(view.row_labels, view.row_title, room.small, room.height)
    axes.set_yticks(down.places, down.labels)
    _name_columns(view, room, cells(view, room.width / 72, room.height / 72)[1])
    if view.segment_labels:  # keeps the room for their names
        axes.annotate(
            text.common_start(view.segment_labels) or " ",
            (0, 1),
            (-3, 2),
            xycoords="axes fraction",
            ha="right",
            **_above(room),
        )

    def settle() -> tuple[str, ...]:
        wide, high = room.inches()
        down, along = cells(view, wide, high)
        dots = round(high * PRINTED), round(wide * PRINTED)
        at_row, at_column = (axis.dots(count).repeat(_FINER) for axis, count in zip((down, along), dots))
        drawn = pooled(values, down, along, view.pooling, scale.middle)
        image.set_data(scale.shades(drawn)[at_row][:, at_column, : 4 if hidden else 3])
        beside, above = _INSET * columns / dots[1], _INSET * rows / dots[0]
        image.set_extent((-0.5 + beside, columns - 0.5 - beside, rows - 0.5 - above, -0.5 + above))
        _name_columns(view, room, along)
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
        cell = 72 * wide / columns, 72 * high / rows
        if cell[0] >= _WIDE:
            for edge in view.boundaries:
                if 0 < edge < columns:
                    axes.axvline(edge - 0.5, color="#ffffff", linewidth=1.1)
                    axes.axvline(edge - 0.5, color="#000000", linewidth=0.5)
        words = view.pooled_words(down, along)
        notes = [f"Each cell is the {words}."] if words else []
        notes += ["Values of hatched cells are not shown."] if hidden else []
        notes += _write_counts(room, values, scale, *cell) if view.counts else ()
        return (*notes, *_segments(view, room, 72 * wide), *_tell_signs(axes, values, scale, min(cell)))

    return PendingPanel(settle=settle, lift=room.small * text.LEADING + 1 if view.segment_labels else 0.0)


def _name_columns(view: Heatmap, room: PanelBox, along: Cells) -> None:
    """Ticks below the columns; where a cell gathers columns from between others, below the cells."""
    names = view.ticks or view.column_labels
    gathered = not along.whole and bool((np.diff(along.owner) < 0).any())
    firsts, edges = along.order[along.edges[:-1]], along.edges
    found = text.along([names[at] for at in firsts] if gathered else names, view.column_title, room.small, room.width)
    places = [(edges[cell] + edges[cell + 1] - 1) / 2 for cell in found.places] if gathered else found.places
    room.axes.set_xticks(places, found.labels, rotation=90 if found.upright else 0)


def cells(view: Heatmap, wide: float, high: float) -> tuple[Cells, Cells]:
    """The rows and the columns as they are drawn on so many inches: a dot at least for each cell."""
    return view.down(max(1, round(high * PRINTED))), view.along(max(1, round(wide * PRINTED)))


def column_title(view: Heatmap, title: str, wide: float, high: float) -> str:
    """The title below the columns, with what each cell stands for on so many inches."""
    words = view.pooled_words(*cells(view, wide, high))
    return f"{title} (each cell the {words})" if words else title


def _above(room: PanelBox) -> dict[str, object]:
    return {"textcoords": "offset points", "va": "bottom", "fontsize": room.small}


def _segments(view: Heatmap, room: PanelBox, width: float) -> tuple[str, ...]:
    """Where segments begin, and above it their names, as far as there is room in `width` points; says what is left
    out."""
    axes, columns, notes = room.axes, view.values.shape[1], []
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
    point, free = columns / width, -math.inf
    for word, first, end in zip(words, view.boundaries, (*view.boundaries[1:], columns)):
        middle, half = (first + end) / 2 - 0.5, text.width(word, room.small) / 2 * point
        if middle - half >= free:
            axes.annotate(word, (middle, 1), (0, 2), xycoords=axes.get_xaxis_transform(), ha="center", **_above(room))
            free = middle + half + room.small / 2 * point
        elif not start:
            notes = [f"Segments from left to right: {', '.join(words)}."]
    return tuple(notes)


def _write_counts(room: PanelBox, values: np.ndarray, scale: ColourScale, wide: float, high: float) -> tuple[str, ...]:
    """Whole numbers in cells of so many points."""
    there = [(at, f"{values[at]:.0f}") for at in zip(*np.nonzero(np.isfinite(values)))]
    if room.small > high or max((text.width(words, room.small) for _, words in there), default=0.0) + 2 > wide:
        return ("Cells are too small for their numbers.",)
    inks = ink(scale.shades(values)[np.isfinite(values)][:, :3] / 255)
    for ((row, column), words), colour in zip(there, inks):
        room.axes.text(column, row, words, fontsize=room.small, color=colour, ha="center", va="center_baseline")
    return ()


def _tell_signs(axes: Axes, values: np.ndarray, scale: ColourScale, cell: float) -> tuple[str, ...]:
    """Dots in cells below the middle of a scale whose ends are equally dark."""
    if not scale.dotted:
        return ()
    if cell < _WIDE:
        return (f"Signs are told by colour alone, not in greyscale: for that, choose {Colours.CIVIDIS.value}.",)
    at_row, at_column = np.nonzero(values < scale.middle - _NOTICED * (scale.high - scale.low) / 2)
    grounds = scale.shades(values)[at_row, at_column, :3] / 255
    axes.scatter(at_column, at_row, s=min(1.6, cell / 4) ** 2, c=ink(grounds) if len(grounds) else [], linewidths=0)
    return (f"Dots: below {scale.middle:g}.",)


def colour_bar(axes: Axes | Sequence[Axes], scale: ColourScale, title: str, room: PanelBox) -> None:
    """The scale beside one heatmap, or beside all that share it."""
    bar = room.axes.figure.colorbar(
        ScalarMappable(scale.norm, colour_map(scale.colours)), ax=axes, pad=0.02, aspect=max(8.0, room.height / 7)
    )
    bar.solids.set_rasterized(True)  # as vectors, its steps would have seams between them
    bar.outline.set_linewidth(0)
    bar.ax.tick_params(length=2, pad=2, labelsize=room.small)
    if scale.stretch is not Stretch.LINEAR:
        title += f"; {scale.stretch.value} colours"
    bar.set_ticks(_ticks(scale, 1.3 * room.small / room.height))
    bar.set_label(
        text.wrapped(text.printable(title), room.small, room.height, text.TITLE), fontsize=room.small, labelpad=3
    )
    if scale.dotted:
        places = np.linspace(scale.low, scale.middle, 8)[1:-1]
        shades = scale.shades(places[:, None])[:, 0, :3] / 255
        bar.ax.scatter([0.5] * len(places), places, s=1.6**2, c=ink(shades), linewidths=0, zorder=3)


def _ticks(scale: ColourScale, apart: float) -> list[float]:
    """Round values whose places on the bar are at least so far `apart`, of its length."""
    found: list[float] = []
    for value in MaxNLocator(5, steps=(1, 2, 2.5, 5, 10), integer=scale.counts).tick_values(scale.low, scale.high):
        place = scale.place(np.array(value))
        if scale.low <= value <= scale.high and (not found or place - scale.place(np.array(found[-1])) >= apart):
            found.append(float(value))
    return found


def in_common(views: Sequence[Heatmap]) -> tuple[str, ...]:
    """What all heatmaps' cells hold: the parts, between commas, that the titles of their values have in common."""
    titles = [view.value_title.split(", ") for view in views]
    return tuple(part for part in titles[0] if all(part in other for other in titles))
