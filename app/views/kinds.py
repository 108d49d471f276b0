"""Views: numpy, labels and units, ready to draw; checked when they are made. They are no figures."""

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
    """What a view was made of, in words; empty where it is not known."""

    model: str = ""
    item: str = ""
    """Which text or which questions the model read."""
    changes: tuple[str, ...] = ()
    """What was changed in its run."""

    @property
    def words(self) -> str:
        """A sentence, or nothing."""
        said = [f"{self.model} on {self.item}" if self.model and self.item else self.model or self.item, *self._changed]
        return f"Of {'; '.join(filter(None, said))}." if any(said) else ""

    @property
    def _changed(self) -> list[str]:
        return [f"changed: {'; '.join(self.changes)}"] if self.changes else []

    @property
    def title(self) -> str:
        """What was changed, as short as a title can take it."""
        told = list(self.changes[:_TITLED])
        return "; ".join(
            told + ([f"{len(self.changes) - _TITLED} more changes"] if len(self.changes) > _TITLED else [])
        )


_TITLED = 2
"""Changes that a title names."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is drawn or written, with where it is from."""

    provenance: Provenance = Provenance()

    def titled(self, title: str) -> str:
        """A title that says what was changed, whatever it says besides."""
        changed = self.provenance.title
        if not changed or changed in title:
            return title
        return f"{title} ({changed})" if title else changed


class Drawable(Shown, ABC):
    """A view that can be drawn."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """What is shown, in words, with its numbers."""

    @property
    def alt(self) -> str:
        """The same, with what it was made of."""
        words = self.provenance.words
        return f"{self.summary.removesuffix('.')}. {words}" if words else self.summary


@dataclass(frozen=True, kw_only=True)
class Heatmap(Drawable):
    """A matrix with its axes."""

    values: Float[np.ndarray, "row column"]
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    row_title: str
    column_title: str
    value_title: str
    """What a cell holds, with its unit and what was pooled to get it."""
    low: float
    high: float
    """Ends of the colour scale."""
    boundaries: tuple[int, ...] = ()
    """Columns before which a new segment begins."""
    segment_labels: tuple[str, ...] = ()
    masked: np.ndarray | None = None
    """Cells that the model cannot see; drawn as masked, not as 0."""
    diverging: bool = False
    ticks: tuple[str, ...] = ()
    """Short words for the columns' axis; none, the labels."""
    counts: bool = False
    """Whether cells are whole numbers, written in them."""
    least: bool = False
    """Whether low values are what matters: where neighbours must be drawn as one, the least of them is."""
    row_noun: str = "row"
    """What a row is called where several are drawn as one."""
    column_noun: str = "column"
    row_kinds: tuple[Hashable, ...] = ()
    """What each row is of, where that is not the same for all: unlike rows are never drawn as one."""
    column_kinds: tuple[Hashable, ...] = ()
    first: int = 0
    """Number of the first column, where it is a part of something longer."""

    def __post_init__(self) -> None:
        wanted = (len(self.row_labels), len(self.column_labels))
        if self.values.shape != wanted:
            raise ValueError(f"a heatmap of {self.values.shape} has {wanted[0]} row and {wanted[1]} column labels")

    @property
    def pooling(self) -> Pooling:
        """Which of several values is drawn where there is room for one."""
        if self.diverging:
            return Pooling.EXTREME
        return Pooling.LEAST if self.least else Pooling.LARGEST

    @property
    def middle(self) -> float:
        """Of the colour scale."""
        return (self.low + self.high) / 2

    def down(self, most: int) -> Cells:
        """The rows as at most `most` cells; more only where there are more kinds of rows."""
        return pooling.cells(len(self.row_labels), most, (), self.row_kinds)

    def along(self, most: int) -> Cells:
        """The columns as at most `most` cells; more only where there are more kinds of columns."""
        return pooling.cells(len(self.column_labels), most, self.boundaries, self.column_kinds)

    def pooled_words(self, down: Cells, along: Cells) -> str:
        """What each cell stands for, such as "least of up to 3 tokens"; empty where nothing is pooled."""
        return pooling.words(self.pooling, (down, self.row_noun), (along, self.column_noun))

    @property
    def summary(self) -> str:
        """The map in words, with its numbers."""
        shown = self.values if self.masked is None else np.where(self.masked, np.nan, self.values)
        if not np.isfinite(shown).any():
            return f"{self.value_title}: nothing to show."
        found = {Pooling.LARGEST: np.nanargmax, Pooling.LEAST: np.nanargmin}.get(self.pooling, self._farthest)(shown)
        row, column = np.unravel_index(found, shown.shape)
        return (
            f"{self.value_title}, {shown.shape[0]} rows ({self.row_title}) by {shown.shape[1]} columns"
            f" ({self.column_title}): from {np.nanmin(shown):.3g} to {np.nanmax(shown):.3g}, mean"
            f" {np.nanmean(shown):.3g}; {self.pooling.value} at {self.row_labels[row]}, {self.column_labels[column]}."
        )

    def _farthest(self, values: Float[np.ndarray, "row column"]) -> int:
        return int(np.nanargmax(np.abs(values - self.middle)))


@dataclass(frozen=True, kw_only=True)
class Line:
    name: str
    values: Float[np.ndarray, "point"]
    low: Float[np.ndarray, "point"] | None = None
    high: Float[np.ndarray, "point"] | None = None
    """A band around the line."""


@dataclass(frozen=True, kw_only=True)
class Lines(Drawable):
    """Curves over one axis."""

    lines: tuple[Line, ...]
    ticks: tuple[str, ...]
    """What each point of the axis is."""
    x_title: str
    y_title: str
    y_range: tuple[float, float] | None = None
    boundaries: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        wrong = [line.name for line in self.lines if len(line.values) != len(self.ticks)]
        if wrong:
            raise ValueError(f"lines {wrong} do not have {len(self.ticks)} points")

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
    """One number for each of a few things."""

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
        top = np.argsort(-self.values)[:3]
        return f"{self.y_title} by {self.x_title}; largest: " + ", ".join(
            f"{self.labels[at]} {self.values[at]:.3g}" for at in top
        )


@dataclass(frozen=True, kw_only=True)
class Forest(Drawable):
    """Numbers with their intervals, a row for each thing, a mark for each kind of number."""

    lines: tuple[Line, ...]
    """The kinds; a value for each row, NaN where it has none."""
    labels: tuple[str, ...]
    """Of the rows, the first on top."""
    x_title: str
    y_title: str = ""
    """What the rows are, where their labels do not say it."""
    x_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        wrong = [line.name for line in self.lines if len(line.values) != len(self.labels)]
        if wrong:
            raise ValueError(f"{wrong} do not have {len(self.labels)} values")

    @property
    def summary(self) -> str:
        return (
            f"{self.x_title}: "
            + "; ".join(f"{line.name}: {', '.join(self._told(line)) or 'nothing to show'}" for line in self.lines)
            + "."
        )

    def _told(self, line: Line) -> list[str]:
        return [f"{label} {value:.3g}" for label, value in zip(self.labels, line.values) if np.isfinite(value)]


@dataclass(frozen=True, kw_only=True)
class Strip(Drawable):
    """The text, token by token."""

    pieces: tuple[str, ...]
    segment_of: tuple[int, ...]
    weights: Float[np.ndarray, "token"] | None
    """NaN for a plain token; None colours by segment."""
    notes: tuple[str, ...]
    marks: tuple[tuple[int, int, str], ...]
    """Token ranges with a word for each."""
    legend: str
    """What the weights are, with their unit, what was pooled to get them, and whose colours these are."""
    low: float = 0.0
    high: float = 1.0
    """Ends of the weights' colour scale."""
    first: int = 0
    """Number of the first token, where it is a part of a longer text."""

    @property
    def summary(self) -> str:
        top = (
            ""
            if self.weights is None
            else "; strongest: "
            + ", ".join(
                f"{self.pieces[at].strip()!r} (token {self.first + at}) {self.weights[at]:.3g}"
                for at in np.argsort(-np.nan_to_num(self.weights))[:3]
            )
        )
        what = "" if self.weights is None else f", by {self.legend}"
        return f"{len(self.pieces)} tokens in {len(set(self.segment_of))} segments{what}{top}."


class Best(Enum):
    """Which of a column's values is the best."""

    HIGHEST = "highest"
    LOWEST = "lowest"


@dataclass(frozen=True, kw_only=True)
class Table(Shown, Tabular):
    """Columns to be read, and to be printed."""

    best: Mapping[str, Best] = field(default_factory=lambda: MappingProxyType({}))
    """Labels of the columns whose best may be told where it is printed."""
    rivals: tuple[str, ...] = ()
    """Labels of the columns of which, row by row, the highest may be told."""


def slot_labels(count: int) -> tuple[str, ...]:
    return tuple(f"slot {at}" for at in range(count))


def token_labels(pieces: Sequence[str]) -> tuple[str, ...]:
    """Each token's text, visible blanks included, behind its number."""
    return tuple(f"{at}: {visible(piece)}" for at, piece in enumerate(pieces))


def visible(piece: str) -> str:
    """A token's text with blanks and line breaks that can be seen."""
    return piece.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")
