"""Figure or table -> files: PDF, SVG and PNG, or LaTeX and Markdown, its numbers, and an archive of all of them. The
same figure gives the same bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from app.export.sidecar import to_json
from app.figures.print.figure import RASTER, PrintFigure, printing
from app.figures.print.page import letters
from app.figures.print.text import printable
from app.figures.print.venues import Columns
from app.views import captions, numbers
from app.views.kinds import Table
from app.views.latex import escaped, latex, markdown
from lm2.files import spreadsheet_cell

MOST_CSV = 100_000
"""Rows of a CSV file; longer tables are in Parquet and npz only."""


class FileFormat(Enum):
    """Files of a figure, by their names in an archive."""

    PDF = "fig.pdf"
    SVG = "fig.svg"
    PNG_300 = "fig-300.png"
    PNG_600 = "fig-600.png"


_DOTS = {FileFormat.PNG_300: 300, FileFormat.PNG_600: 600}


def render(drawn: PrintFigure, form: FileFormat, digest: str = "") -> bytes:
    """The content of a figure's file. `digest`: of the figure's spec, for the file's metadata."""
    file, ending = io.BytesIO(), form.value.rpartition(".")[-1]
    with printing(drawn.fonts):
        dots = _DOTS.get(form, RASTER)
        drawn.figure.savefig(file, format=ending, dpi=dots, metadata=_metadata(drawn, form, digest))
    return file.getvalue()


def _metadata(drawn: PrintFigure, form: FileFormat, digest: str) -> dict[str, Any]:
    """Metadata without date and version, so that the same figure is the same file."""
    title, description = printable(drawn.title), printable(" ".join(view.alt for view in drawn.views))
    source = f"spec sha256:{digest}" if digest else None
    if form is FileFormat.PDF:
        names = {"Title": title, "Subject": description, "Keywords": source}
        return {**names, "Creator": "LM2 workbench", "Producer": None, "CreationDate": None}
    names = {"Title": title, "Description": description}
    if form is FileFormat.SVG:
        return {**names, "Identifier": source, "Creator": "LM2 workbench", "Date": None}
    return {**names, "Source": source, "Software": None}


def bundle(drawn: PrintFigure, sidecar: Mapping[str, Any], digest: str = "") -> bytes:
    """A ZIP archive of the figure in every format, its numbers, a draft of its caption, LaTeX lines, and its sidecar.
    `digest`: as for `render`."""
    files = {form.value: render(drawn, form, digest) for form in FileFormat}
    left_out = []
    for letter, view in zip(letters(drawn.page), drawn.views):
        name = f"data-{letter}" if len(drawn.views) > 1 else "data"
        table, arrays = numbers.table(view), io.BytesIO()
        if len(table) <= MOST_CSV:
            files[f"{name}.csv"] = _content(_for_spreadsheets(table), csv.write_csv)
        else:
            left_out.append(
                f"{name}.csv is left out: {len(table):,} rows are more than {MOST_CSV:,}; {name}.parquet has them."
            )
        files[f"{name}.parquet"] = _content(table, parquet.write_table)
        np.savez_compressed(arrays, **numbers.arrays(view))
        files[f"{name}.npz"] = arrays.getvalue()
    files["caption.txt"] = (caption(drawn) + "\n").encode()
    files["figure.tex"] = figure_tex(drawn, left_out).encode()
    files["sidecar.json"] = to_json(sidecar).encode()
    return archive(files)


def table_bundle(view: Table, sidecar: Mapping[str, Any]) -> bytes:
    """A ZIP archive of a table as LaTeX and Markdown, its numbers, and its sidecar."""
    rows = pa.table({name: list(values) for name, values in view.as_columns().items()})
    return archive(
        {
            "table.tex": latex(view).encode(),
            "table.md": markdown(view).encode(),
            "data.csv": _content(_for_spreadsheets(rows), csv.write_csv),
            "data.parquet": _content(rows, parquet.write_table),
            "sidecar.json": to_json(sidecar).encode(),
        }
    )


def _for_spreadsheets(table: pa.Table) -> pa.Table:
    """The table with texts that spreadsheets do not take for formulas."""
    columns = [_texts(column.combine_chunks()) for column in table.columns]
    return pa.table(columns, list(map(spreadsheet_cell, table.column_names)))


def _texts(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(column.indices, _texts(column.dictionary))
    if pa.types.is_string(column.type):
        return pa.array(map(spreadsheet_cell, column.to_pylist()), pa.string())
    return column


def _content(table: pa.Table, write: Callable[[pa.Table, io.BytesIO], None]) -> bytes:
    file = io.BytesIO()
    write(table, file)
    return file.getvalue()


def caption(drawn: PrintFigure) -> str:
    """A draft of a caption: numbers and intervals of every panel, and what was pooled, hatched or left out."""
    parts = []
    for letter, panel, view, notes in zip(letters(drawn.page), drawn.page.panels, drawn.views, drawn.notes):
        head = " ".join(filter(None, (letter and f"({letter})", panel.title and f"{panel.title}.")))
        parts.append(f"{head} {captions.caption(view, notes)}".strip())
    return " ".join(parts)


def figure_tex(drawn: PrintFigure, notes: Sequence[str] = ()) -> str:
    """LaTeX lines that include the figure at its own size, with the draft of its caption; `notes` are comments."""
    page = drawn.page
    kind, what = ("figure*", "both columns") if page.columns is Columns.DOUBLE else ("figure", "a column of text")
    lines = [
        r"% \usepackage{graphicx}",
        f"% {page.width:g} in is the width of {what} in {page.measures.name}'s template.",
        *(f"% {note}" for note in notes),
        rf"\begin{{{kind}}}[t]",
        r"  \centering",
        rf"  \includegraphics[width={page.width:g}in]{{{FileFormat.PDF.value}}}",
        rf"  \caption{{{escaped(caption(drawn))}}}",
        r"  \label{fig:name}",
        rf"\end{{{kind}}}",
    ]
    return "\n".join(lines) + "\n"


def archive(files: Mapping[str, bytes]) -> bytes:
    """A ZIP archive of files by name, in this order, without their time and platform."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr, entry.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
            zipped.writestr(entry, content)
    return file.getvalue()
