"""What was found, as tables: named columns with their units, each with the ends of its own intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from lm2.intervals import Bounded, Rate

Cell = str | int | float
NOTHING = float("nan")
"""In a row that has no such number."""


class Series(NamedTuple):
    """A column of numbers or texts alone: a `Column` without intervals, or one of its ends."""

    name: str
    """In files, where no other column of the table may share it, such as "right_low (%)"."""
    label: str
    """For people, to whom its place says whose end it is, such as "low"."""
    values: tuple[Cell, ...]


@dataclass(frozen=True)
class Column:
    """A quantity, a value for each row; `low` and `high` are the ends of each value's 95 % interval."""

    name: str
    unit: str = ""
    values: tuple[Cell, ...] = ()
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for words in (self.name, self.unit):
            if words != words.strip():
                raise ValueError(f"a column's name and unit have no outer blanks, as {words!r} has")

    @property
    def label(self) -> str:
        """Such as "right (%)"."""
        return self._named(self.name)

    def series(self) -> Iterator[Series]:
        """The values, then the ends of their intervals where there are any."""
        yield Series(self.label, self.label, self.values)
        for end, values in (("low", self.low), ("high", self.high)):
            if values is not None:
                yield Series(self._named(f"{self.name}_{end}"), end, values)

    def _named(self, name: str) -> str:
        return f"{name} ({self.unit})" if self.unit else name


def columns_of(headers: Sequence[Column | str], rows: Sequence[Sequence[Cell | Bounded]]) -> tuple[Column, ...]:
    """The headers filled row by row. A column with a `Bounded` in one of its rows has intervals in all."""
    return tuple(
        _filled(header if isinstance(header, Column) else Column(header), [row[place] for row in rows])
        for place, header in enumerate(headers)
    )


def _filled(header: Column, cells: Sequence[Cell | Bounded]) -> Column:
    if not any(isinstance(cell, Bounded) for cell in cells):
        return replace(header, values=tuple(cells))
    values, low, high = zip(*(cell if isinstance(cell, Bounded) else (cell, NOTHING, NOTHING) for cell in cells))
    return replace(header, values=values, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Tabular:
    """Columns of one length."""

    columns: tuple[Column, ...]

    @property
    def series(self) -> tuple[Series, ...]:
        """Columns and ends of intervals, side by side."""
        return tuple(series for column in self.columns for series in column.series())

    @property
    def rows(self) -> tuple[tuple[Cell, ...], ...]:
        return tuple(zip(*(series.values for series in self.series)))

    def as_columns(self) -> dict[str, list[Cell]]:
        """The series by their names in files."""
        return {series.name: list(series.values) for series in self.series}


@dataclass(frozen=True, kw_only=True)
class Findings(Tabular):
    """One table of a report."""

    title: str
    note: str
    """What was pooled, and what the control says."""
    curve: bool = False
    """Whether the second column is a curve along the first."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a number that is not there is null."""
        names = [series.name for series in self.series]
        rows = [[None if cell != cell else cell for cell in row] for row in self.rows]
        curve = names[:4] if self.curve else None
        return {"title": self.title, "columns": names, "rows": rows, "note": self.note, "curve": curve}


class _Mean(Protocol):
    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def share(rate: Rate) -> Bounded:
    """In percent."""
    return Bounded(100 * rate.accuracy, 100 * rate.low, 100 * rate.high)


def mean(effect: _Mean, scale: float = 1) -> Bounded:
    """Of an effect, in units of which `scale` make one of its own."""
    return Bounded(scale * effect.mean, scale * effect.low, scale * effect.high)


def cell_words(cell: Cell) -> str:
    """A cell in a table that is printed as plain text; nothing for a number that is not there."""
    if not isinstance(cell, float):
        return str(cell)
    return "" if cell != cell else f"{cell:.3g}" if abs(cell) < 1 else f"{cell:.2f}"
