"""Labels of one's own, from a CSV file."""

import io
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lm2.files import read_text

TARGET = "labels "
"""What a target that names such a file begins with."""
MOST_BYTES = 64 * 1024**2
"""Larger files of labels are not read."""
_COLUMNS = ("row", "label", "group")


class OwnLabel(NamedTuple):
    """A line of the file."""

    row: int
    label: str
    """Empty where it is not known."""
    group: str


def read_labels(path: Path, rows: int) -> list[OwnLabel]:
    """The lines of a file with columns row, label and group, and maybe others, for examples of so many rows.

    Raises ValueError for a file that is none, a row that is not there or named twice, and one without a group.
    """
    try:
        table = pd.read_csv(io.StringIO(read_text(path, MOST_BYTES)), dtype=str, keep_default_na=False)
    except ValueError as error:  # of pandas, too
        raise ValueError(f"{path} is not readable as a CSV file of labels: {error}") from error
    lacking = [name for name in _COLUMNS if name not in table]
    if lacking:
        raise ValueError(f"{path} has no column {' and no '.join(lacking)}: labels have columns {', '.join(_COLUMNS)}")
    found: dict[int, OwnLabel] = {}
    for row, label, group in zip(*(table[name] for name in _COLUMNS)):
        if not row.isdecimal() or int(row) >= rows or int(row) in found:
            raise ValueError(f"{path} names row {row!r}{' twice' if row.isdecimal() and int(row) in found else ''}; there are rows 0 to {rows - 1}")
        if not group:
            raise ValueError(f"{path} gives no group to row {row}: without one it could stand on both sides of a split")
        found[int(row)] = OwnLabel(int(row), label, group)
    return list(found.values())
