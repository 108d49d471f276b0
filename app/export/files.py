"""Figure or table -> files: PDF, SVG and PNG, or LaTeX and Markdown, the numbers behind it, and all of them in one
archive. The same figure gives the same bytes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from app.figures.print.figure import RASTER, PrintFigure, printing
from app.figures.print.page import letters
from app.figures.print.text import printable
from app.figures.print.venues import Columns
from app.views import captions, numbers
from app.views.kinds import Table
from app.views.latex import escaped, latex, markdown
from lm2.files import spreadsheet_cell

MOST_CSV = 100_000
"""Cells of a CSV file; more are in Parquet and npz alone."""


class FileFormat(Enum):
    """A file that a figure can become, by the name it has in an archive."""

    PDF = "fig.pdf"
    SVG = "fig.svg"
    PNG_300 = "fig-300.png"
    PNG_600 = "fig-600.png"


_DOTS = {FileFormat.PNG_300: 300, FileFormat.PNG_600: 600}


def render(drawn: PrintFigure, form: FileFormat, digest: str = "") -> bytes:
    """The figure's file. `digest`: of the spec that it was made by, which the file then carries along."""
    made = io.BytesIO()
    with printing(drawn.fonts):
        drawn.figure.savefig(
            made,
            format=form.value.rpartition(".")[-1],
            dpi=_DOTS.get(form, RASTER),
            metadata=_metadata(drawn, form, digest),
        )
    return made.getvalue()


def _metadata(drawn: PrintFigure, form: FileFormat, digest: str) -> dict[str, Any]:
    """What the file says of itself: no date and no version, so that the same figure is the same file."""
    title, described = printable(drawn.title), printable(" ".join(view.alt for view in drawn.views))
    made = f"spec sha256:{digest}" if digest else None
    if form is FileFormat.PDF:
        return {
            "Title": title,
            "Subject": described,
            "Keywords": made,
            "Creator": "LM2 workbench",
            "Producer": None,
            "CreationDate": None,
        }
    if form is FileFormat.SVG:
        return {"Title": title, "Description": described, "Identifier": made, "Creator": "LM2 workbench", "Date": None}
    return {"Title": title, "Description": described, "Source": made, "Software": None}


def bundle(drawn: PrintFigure, sidecar: Mapping[str, Any], digest: str = "") -> bytes:
    """A ZIP archive of the figure in every form, its numbers, a draft of its caption, LaTeX lines, and `sidecar`: how
    it was made, as JSON.

    `digest` as for `render`.
    """
    files = {form.value: render(drawn, form, digest) for form in FileFormat}
    left_out = []
    for letter, view in zip(letters(drawn.page), drawn.views):
        name = f"data-{letter}" if len(drawn.views) > 1 else "data"
        table, arrays = numbers.table(view), io.BytesIO()
        if len(table) <= MOST_CSV:
            files[f"{name}.csv"] = _written(_for_spreadsheets(table), csv.write_csv)
        else:
            left_out.append(
                f"{name}.csv is left out: {len(table):,} rows are more than {MOST_CSV:,}; {name}.parquet has them."
            )
        files[f"{name}.parquet"] = _written(table, parquet.write_table)
        np.savez_compressed(arrays, **numbers.arrays(view))
        files[f"{name}.npz"] = arrays.getvalue()
    files["caption.txt"] = (caption(drawn) + "\n").encode()
    files["figure.tex"] = figure_tex(drawn, left_out).encode()
    files["sidecar.json"] = json.dumps(sidecar, indent=1, sort_keys=True, ensure_ascii=False).encode()
    return archive(files)


def table_bundle(view: Table, sidecar: Mapping[str, Any]) -> bytes:
    """A ZIP archive of a table as LaTeX and Markdown, its numbers, and `sidecar`: how it was made, as JSON."""
    rows = pa.table({name: list(values) for name, values in view.as_columns().items()})
    files = {"table.tex": latex(view).encode(), "table.md": markdown(view).encode()}
    files |= {
        "data.csv": _written(_for_spreadsheets(rows), csv.write_csv),
        "data.parquet": _written(rows, parquet.write_table),
    }
    files["sidecar.json"] = json.dumps(sidecar, indent=1, sort_keys=True, ensure_ascii=False).encode()
    return archive(files)


def _for_spreadsheets(table: pa.Table) -> pa.Table:
    """The table with texts that no spreadsheet takes for formulas."""
    return pa.table(
        {
            spreadsheet_cell(name): _texts(column.combine_chunks())
            for name, column in zip(table.column_names, table.columns)
        }
    )


def _texts(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.DictionaryArray):
        return pa.DictionaryArray.from_arrays(column.indices, _texts(column.dictionary))
    return (
        pa.array(map(spreadsheet_cell, column.to_pylist()), pa.string()) if pa.types.is_string(column.type) else column
    )


def _written(table: pa.Table, write: Callable[[pa.Table, io.BytesIO], None]) -> bytes:
    made = io.BytesIO()
    write(table, made)
    return made.getvalue()


def caption(drawn: PrintFigure) -> str:
    """A draft: the numbers of every panel and their intervals in words, and what was pooled, hatched or left out."""
    parts = []
    for letter, panel, view, notes in zip(letters(drawn.page), drawn.page.panels, drawn.views, drawn.notes):
        head = " ".join(
            part for part in (f"({letter})" if letter else "", f"{panel.title}." if panel.title else "") if part
        )
        parts.append(f"{head} {captions.caption(view, notes)}".strip())
    return " ".join(parts)


def figure_tex(drawn: PrintFigure, notes: Sequence[str] = ()) -> str:
    """LaTeX lines that print the figure at the size it was made for, with the draft of its caption; `notes` become
    comments."""
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
    """A ZIP archive of files by name, in this order, without a trace of when and where it was made."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as zipped:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr, entry.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
            zipped.writestr(entry, content)
    return made.getvalue()
