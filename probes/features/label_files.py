"""Labels of one's own, from a CSV file."""

import csv
import io
import math
from pathlib import Path
from typing import NamedTuple

from lm2.files import read_text, spreadsheet_text
from lm2.shown import shown

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

    Raises ValueError, with the line, for a file that is none, a row that is not there or named twice, one without a
    group, and a label that is a missing number's ("nan").
    """
    (_, head), *lines = _cells(path)
    lacking = [name for name in _COLUMNS if name not in head]
    if lacking:
        raise ValueError(
            f"{path} has no column {' and no '.join(lacking)}: labels have columns {', '.join(_COLUMNS)}, not"
            f" {shown(head)}"
        )
    twice = [name for name in _COLUMNS if head.count(name) > 1]
    if twice:
        raise ValueError(f"{path} has the column {twice[0]} twice")
    at = [head.index(name) for name in _COLUMNS]
    found: dict[int, OwnLabel] = {}
    for number, cells in lines:
        where = f"{path}:{number}"
        if len(cells) != len(head):
            raise ValueError(f"{where}: {len(cells)} cells; expected {len(head)}, as the first line has")
        row, label, group = (spreadsheet_text(cells[column]) for column in at)
        if not _is_row(row, rows) or int(row) in found:
            twice = " twice" if _is_row(row, rows) else ""
            raise ValueError(f"{where} names row {shown(row)}{twice}; there are rows 0 to {rows - 1}")
        if not group:
            raise ValueError(
                f"{where} gives no group to row {row}: without one it could stand on both sides of a split"
            )
        if _is_no_number(label):
            raise ValueError(
                f"{where} gives {shown(label)} as the label of row {row}: leave it empty where it is not known"
            )
        found[int(row)] = OwnLabel(int(row), label, group)
    return list(found.values())


def _cells(path: Path) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file that are not empty, each by its number and cell by cell; the first one there is, at
    least."""
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


def _is_no_number(label: str) -> bool:
    """Whether a label is what other programs write for a number that is missing or has no bound."""
    try:
        return not math.isfinite(float(label))
    except ValueError:
        return False
