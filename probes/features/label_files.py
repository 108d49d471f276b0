"""The user's own labels, from a CSV file."""

import csv
import io
import math
from pathlib import Path
from typing import NamedTuple

from lm2.files import read_text, spreadsheet_text
from lm2.shown import shown

TARGET = "labels "
"""Prefix of a target that names such a file."""
MOST_BYTES = 64 * 1024**2
"""Larger label files are not read."""
_COLUMNS = ("row", "label", "group")


class OwnLabel(NamedTuple):
    """A line of the file."""

    row: int
    label: str
    """Empty if it is not known."""
    group: str


def read_labels(path: Path, rows: int) -> list[OwnLabel]:
    """The lines of a file with columns row, label and group, and maybe others, for examples of so many rows.

    Raises ValueError, with the line, for an unreadable file, a row that does not exist or occurs twice, a missing
    group, and a label that stands for a missing number ("nan").
    """
    (_, header), *lines = _cells(path)
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise ValueError(
            f"{path} has no column {' and no '.join(missing)}: labels have columns {', '.join(_COLUMNS)}, not"
            f" {shown(header)}"
        )
    repeated = [name for name in _COLUMNS if header.count(name) > 1]
    if repeated:
        raise ValueError(f"{path} has the column {repeated[0]} twice")
    columns = [header.index(name) for name in _COLUMNS]
    labels: dict[int, OwnLabel] = {}
    for number, cells in lines:
        place = f"{path}:{number}"
        if len(cells) != len(header):
            raise ValueError(f"{place}: {len(cells)} cells; expected {len(header)}, as the first line has")
        row, label, group = (spreadsheet_text(cells[column]) for column in columns)
        if not _is_row(row, rows) or int(row) in labels:
            twice = " twice" if _is_row(row, rows) else ""
            raise ValueError(f"{place} names row {shown(row)}{twice}; there are rows 0 to {rows - 1}")
        if not group:
            raise ValueError(
                f"{place} gives no group to row {row}: without one it could be in training and in test rows"
            )
        if _is_missing_number(label):
            raise ValueError(
                f"{place} gives {shown(label)} as the label of row {row}: leave it empty if it is not known"
            )
        labels[int(row)] = OwnLabel(int(row), label, group)
    return list(labels.values())


def _cells(path: Path) -> list[tuple[int, list[str]]]:
    """Number and cells of each line of a CSV file that is not empty; at least one."""
    try:
        reader = csv.reader(io.StringIO(read_text(path, MOST_BYTES), newline=""), strict=True)
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is not readable as a CSV file of labels: {error}") from error
    if not lines:
        raise ValueError(f"{path} is not readable as a CSV file of labels: it is empty")
    return lines


def _is_row(text: str, rows: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(rows)) and int(text) < rows


def _is_missing_number(label: str) -> bool:
    """Whether a label is what programs write for a missing or infinite number."""
    try:
        return not math.isfinite(float(label))
    except ValueError:
        return False
