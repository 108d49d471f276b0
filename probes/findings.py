"""Results as tables: named columns with units and, where there are any, 95 % intervals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from lm2.intervals import Bounded, Rate

Cell = str | int | float
NOTHING = float("nan")
"""The cell of a row that has no such number."""


class Series(NamedTuple):
    """A plain column: the values of a `Column`, or one end of their intervals."""

    name: str
    """Unique in the table, for files, such as "right_low (%)"."""
    label: str
    """For display, where an end stands beside its column, such as "low"."""
    values: tuple[Cell, ...]


@dataclass(frozen=True)
class Column:
    """A value for each row; `low` and `high` are the ends of their 95 % intervals."""

    name: str
    unit: str = ""
    values: tuple[Cell, ...] = ()
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for text in (self.name, self.unit):
            if text != text.strip():
                raise ValueError(f"a column's name and unit must not begin or end with a blank, as {text!r} does")

    @property
    def label(self) -> str:
        """Such as "right (%)"."""
        return self._with_unit(self.name)

    def series(self) -> Iterator[Series]:
        """The values, then the ends of their intervals if there are any."""
        yield Series(self.label, self.label, self.values)
        for end, values in (("low", self.low), ("high", self.high)):
            if values is not None:
                yield Series(self._with_unit(f"{self.name}_{end}"), end, values)

    def _with_unit(self, name: str) -> str:
        return f"{name} ({self.unit})" if self.unit else name


def columns_of(headers: Sequence[Column | str], rows: Sequence[Sequence[Cell | Bounded]]) -> tuple[Column, ...]:
    """Columns from a table's rows. A column with a `Bounded` in one of its rows has intervals in all."""
    return tuple(
        _filled(header if isinstance(header, Column) else Column(header), [row[i] for row in rows])
        for i, header in enumerate(headers)
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
        """The values of every series, by its name in files."""
        return {series.name: list(series.values) for series in self.series}


@dataclass(frozen=True, kw_only=True)
class Findings(Tabular):
    """A table with a title and a note."""

    title: str
    note: str
    """What was pooled, and what the control says."""
    curve: bool = False
    """Whether the second column is drawn as a curve over the first."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a missing number is null."""
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
    """A rate in percent."""
    return Bounded(100 * rate.accuracy, 100 * rate.low, 100 * rate.high)


def mean(effect: _Mean, scale: float = 1) -> Bounded:
    """An effect's mean and interval, times `scale`."""
    return Bounded(scale * effect.mean, scale * effect.low, scale * effect.high)


def cell_words(cell: Cell) -> str:
    """A cell as plain text; empty for a missing number."""
    if not isinstance(cell, float):
        return str(cell)
    return "" if cell != cell else f"{cell:.3g}" if abs(cell) < 1 else f"{cell:.2f}"
