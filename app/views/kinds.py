"""Views: arrays with labels and units, ready to draw."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from app.views import pooling
from app.views.pooling import Cells, Pooling
from probes.findings import Tabular


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a view shows, in words; empty where it is not known."""

    model: str = ""
    item: str = ""
    """The text or questions that the model read."""
    changes: tuple[str, ...] = ()
    """The interventions."""

    @property
    def words(self) -> str:
        """A sentence, or an empty text."""
        subject = " on ".join(filter(None, (self.model, self.item)))
        changed = f"changed: {'; '.join(self.changes)}" if self.changes else ""
        words = "; ".join(filter(None, (subject, changed)))
        return f"Of {words}." if words else ""

    @property
    def title(self) -> str:
        """The changes, short enough for a title."""
        more = len(self.changes) - _TITLED
        return "; ".join((*self.changes[:_TITLED], *([f"{more} more changes"] if more > 0 else [])))


_TITLED = 2
"""Changes that a title names."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A figure or table with its provenance."""

    provenance: Provenance = Provenance()

    def titled(self, title: str) -> str:
        """The title with the changes added, unless it names them already."""
        changed = self.provenance.title
        if not changed or changed in title:
            return title
        return f"{title} ({changed})" if title else changed


class Drawable(Shown, ABC):
    """A view that can be drawn."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """What is shown, in words, with the most important numbers."""

    @property
    def alt(self) -> str:
        """The summary with the provenance."""
        words = self.provenance.words
        return f"{self.summary.removesuffix('.')}. {words}" if words else self.summary


@dataclass(frozen=True, kw_only=True)
class Heatmap(Drawable):
    """A matrix with labelled axes."""

    values: Float[np.ndarray, "row column"]
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    row_title: str
    column_title: str
    value_title: str
    """The quantity in a cell, with its unit and what it is pooled over."""
    low: float = 0.0
    high: float = 1.0
    """Ends of the colour scale."""
    boundaries: tuple[int, ...] = ()
    """First columns of the segments."""
    segment_labels: tuple[str, ...] = ()
    masked: np.ndarray | None = None
    """Cells that have no value."""
    diverging: bool = False
    ticks: tuple[str, ...] = ()
    """Short labels for the columns' axis; empty, the labels."""
    counts: bool = False
    """Whether the values are counts, which are written in the cells."""
    least: bool = False
    """Whether cells are pooled by their least value instead of the largest."""
    row_noun: str = "row"
    """What a row is called in words about pooling."""
    column_noun: str = "column"
    row_kinds: tuple[Hashable, ...] = ()
    """The kind of each row, if there are several: rows of different kinds are never pooled."""
    column_kinds: tuple[Hashable, ...] = ()
    first: int = 0
    """Number of the first column, if the map is a part of a longer one."""

    def __post_init__(self) -> None:
        rows, columns = len(self.row_labels), len(self.column_labels)
        if self.values.shape != (rows, columns):
            raise ValueError(f"a heatmap of {self.values.shape} has {rows} row and {columns} column labels")

    @property
    def pooling(self) -> Pooling:
        """Which value is drawn for a cell that stands for several."""
        if self.diverging:
            return Pooling.EXTREME
        return Pooling.LEAST if self.least else Pooling.LARGEST

    @property
    def unmasked(self) -> Float[np.ndarray, "row column"]:
        """The values, NaN where they are masked."""
        return self.values if self.masked is None else np.where(self.masked, np.nan, self.values)

    @property
    def middle(self) -> float:
        """The middle of the colour scale."""
        return (self.low + self.high) / 2

    def down(self, most: int) -> Cells:
        """The rows as at most `most` cells, or one for each kind."""
        return pooling.cells(len(self.row_labels), most, (), self.row_kinds)

    def along(self, most: int) -> Cells:
        """The columns as at most `most` cells, or one for each kind."""
        return pooling.cells(len(self.column_labels), most, self.boundaries, self.column_kinds)

    def pooled_words(self, down: Cells, along: Cells) -> str:
        """What a cell shows, such as "least of up to 3 tokens"; empty if nothing is pooled."""
        return pooling.words(self.pooling, (down, self.row_noun), (along, self.column_noun))

    @property
    def summary(self) -> str:
        values = self.unmasked
        if not np.isfinite(values).any():
            return f"{self.value_title}: nothing to show."
        match self.pooling:
            case Pooling.LARGEST:
                peak = np.nanargmax(values)
            case Pooling.LEAST:
                peak = np.nanargmin(values)
            case Pooling.EXTREME:
                peak = np.nanargmax(np.abs(values - self.middle))
        row, column = np.unravel_index(peak, values.shape)
        return (
            f"{self.value_title}, {values.shape[0]} rows ({self.row_title}) by {values.shape[1]} columns"
            f" ({self.column_title}): from {np.nanmin(values):.3g} to {np.nanmax(values):.3g}, mean"
            f" {np.nanmean(values):.3g}; {self.pooling.value} at {self.row_labels[row]}, {self.column_labels[column]}."
        )


@dataclass(frozen=True, kw_only=True)
class Line:
    name: str
    values: Float[np.ndarray, "point"]
    low: Float[np.ndarray, "point"] | None = None
    high: Float[np.ndarray, "point"] | None = None
    """Ends of the intervals."""
    seeds: tuple["Line", ...] = ()
    """The single curves of which this is the mean, each fainter in the same colour; forests have none."""


@dataclass(frozen=True, kw_only=True)
class Lines(Drawable):
    """Curves along one axis."""

    lines: tuple[Line, ...]
    ticks: tuple[str, ...]
    """Labels of the points."""
    x_title: str
    y_title: str
    y_range: tuple[float, float] | None = None
    boundaries: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        wrong = [line.name for line in self.with_seeds if len(line.values) != len(self.ticks)]
        if wrong:
            raise ValueError(f"lines {wrong} do not have {len(self.ticks)} points")

    @property
    def with_seeds(self) -> tuple[Line, ...]:
        """Each line, and those of its seeds after it."""
        return tuple(curve for line in self.lines for curve in (line, *line.seeds))

    @property
    def summary(self) -> str:
        parts = [
            f"{line.name} from {np.nanmin(line.values):.3g} to {np.nanmax(line.values):.3g}, last {line.values[-1]:.3g}"
            for line in self.lines
            if len(line.values) and np.isfinite(line.values).any()
        ]
        return f"{self.y_title} by {self.x_title}: {'; '.join(parts) or 'nothing to show'}."


@dataclass(frozen=True, kw_only=True)
class Bars(Drawable):
    """One number for each label."""

    values: Float[np.ndarray, "bar"]
    labels: tuple[str, ...]
    x_title: str
    y_title: str
    marked: int | None = None

    def __post_init__(self) -> None:
        if len(self.values) != len(self.labels):
            raise ValueError(f"{len(self.values)} bars have {len(self.labels)} labels")

    @property
    def summary(self) -> str:
        top = ", ".join(f"{self.labels[i]} {self.values[i]:.3g}" for i in np.argsort(-self.values)[:3])
        return f"{self.y_title} by {self.x_title}; largest: {top}"


@dataclass(frozen=True, kw_only=True)
class Forest(Drawable):
    """Numbers with their intervals: rows with a mark for each kind of number."""

    lines: tuple[Line, ...]
    """The kinds of numbers: a value for each row, NaN where it has none."""
    labels: tuple[str, ...]
    """Labels of the rows, the first at the top."""
    x_title: str
    y_title: str = ""
    """What the rows are, if their labels do not say it."""
    x_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        wrong = [line.name for line in self.lines if len(line.values) != len(self.labels)]
        if wrong:
            raise ValueError(f"{wrong} do not have {len(self.labels)} values")

    @property
    def summary(self) -> str:
        parts = []
        for line in self.lines:
            values = [f"{label} {value:.3g}" for label, value in zip(self.labels, line.values) if np.isfinite(value)]
            parts.append(f"{line.name}: {', '.join(values) or 'nothing to show'}")
        return f"{self.x_title}: {'; '.join(parts)}."


@dataclass(frozen=True, kw_only=True)
class Strip(Drawable):
    """A text, token by token."""

    pieces: tuple[str, ...]
    segment_of: tuple[int, ...]
    weights: Float[np.ndarray, "token"] | None
    """NaN leaves a token plain; None colours by segment."""
    notes: tuple[str, ...]
    marks: tuple[tuple[int, int, str], ...]
    """Token ranges with a label for each."""
    legend: str
    """What the colours show: a quantity with its unit, and what it is pooled over."""
    low: float = 0.0
    high: float = 1.0
    """Ends of the weights' colour scale."""
    first: int = 0
    """Number of the first token, if this is a part of a longer text."""

    @property
    def summary(self) -> str:
        words = f"{len(self.pieces)} tokens in {len(set(self.segment_of))} segments"
        if self.weights is None:
            return f"{words}."
        top = ", ".join(
            f"{self.pieces[i].strip()!r} (token {self.first + i}) {self.weights[i]:.3g}"
            for i in np.argsort(-np.nan_to_num(self.weights))[:3]
        )
        return f"{words}, by {self.legend}; strongest: {top}."


class Best(Enum):
    """Which value of a column is the best."""

    HIGHEST = "highest"
    LOWEST = "lowest"


@dataclass(frozen=True, kw_only=True)
class Table(Shown, Tabular):
    """A table, on the screen or in print."""

    best: Mapping[str, Best] = field(default_factory=lambda: MappingProxyType({}))
    """Labels of the columns in which print may mark the best value."""
    rivals: tuple[str, ...] = ()
    """Labels of the columns among which print may mark the highest value of each row."""


def slot_labels(count: int) -> tuple[str, ...]:
    return tuple(f"slot {slot}" for slot in range(count))


def token_labels(pieces: Sequence[str]) -> tuple[str, ...]:
    """Each token's number and text."""
    return tuple(f"{i}: {visible(piece)}" for i, piece in enumerate(pieces))


def visible(piece: str) -> str:
    """A token's text with visible blanks and line breaks."""
    return piece.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")
