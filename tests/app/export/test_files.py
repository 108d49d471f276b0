"""Laws of exported files: the same figure is the same file, and holds the numbers of its view."""

import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image
from pyarrow import csv, parquet

from app.export import files
from app.export.files import FileFormat
from app.figures.palettes import Stretch
from app.figures.print.figure import PrintFigure, compose, draw
from app.figures.print.page import Annotation, Grid, Panel, Paper
from app.figures.screen import draw as screen
from app.figures.screen.html import interactive
from app.figures.theme import LIGHT
from app.views import captions
from app.views.kinds import Bars, Best, Heatmap, Line, Lines, Strip, Table, slot_labels
from lm2.intervals import Bounded
from probes.findings import Column, columns_of

ROOT = Path(__file__).parents[3]
SIDECAR = {"run": "abc", "seed": 3, "text": "Zoë 🙂"}
DIGEST = "5f" * 32


def view(rows: int = 6, columns: int = 9) -> Heatmap:
    values = np.random.default_rng(1).random((rows, columns)).astype(np.float32)
    return Heatmap(
        values=values, row_labels=slot_labels(rows), column_labels=tuple(f'{at}: "a, b"' for at in range(columns)),
        row_title="slot",
        column_title="token", value_title="read weight, block 0, mean over heads", low=0.0, high=1.0,
        masked=values < 0.2,
        boundaries=(0, 4), segment_labels=("segment 0", "segment 1"),
    )  # fmt: skip


def lines() -> Lines:
    values = np.array([91.5, 80.25, np.nan, 60.0])
    return Lines(
        lines=(Line(name="ours", values=values, low=values - 3, high=values + 2),
            Line(name="theirs", values=values[::-1])),
        ticks=("0k", "1k", "2k", "4k"), x_title="length", y_title="accuracy (%)",
    )  # fmt: skip


def strip() -> Strip:
    return Strip(
        pieces=("Where", " is", " Zoë", "?"),
        segment_of=(0, 0, 1, 1),
        weights=np.array([0.1, 0.2, np.nan, 1.0]),
        notes=(),
        marks=((2, 3, "who"),),
        legend="read",
    )


BARS = Bars(values=np.array([0.5, -0.25]), labels=("a", "b"), x_title="slot", y_title="change")
PAPER = Paper(venue="icml", title="Reads & writes", annotations=(Annotation(x=1, y=1, text="here"),))


def grid() -> PrintFigure:
    panels = (Panel(title="One"), Panel(), Panel(), Panel())
    return compose((view(), lines(), strip(), BARS), Grid(venue="acl", columns="double", across=2, panels=panels))


ODD = {
    "axes.grid": True,
    "font.size": 20,
    "lines.linewidth": 9,
    "pdf.fonttype": 3,
    "svg.fonttype": "none",
    "savefig.dpi": 33,
}
"""Settings that a matplotlibrc may have."""


@pytest.fixture(scope="module")
def twice() -> tuple[PrintFigure, PrintFigure]:
    """The same figure, made under matplotlib's settings and under other ones."""
    figure = grid()
    with matplotlib.rc_context(ODD):
        return figure, grid()


@pytest.fixture(scope="module")
def archive() -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(files.bundle(draw(view(), PAPER), SIDECAR, DIGEST)))


@pytest.mark.parametrize("form", FileFormat)
def test_the_same_figure_is_the_same_file_whatever_settings_there_are(twice, form: FileFormat) -> None:
    first, again = twice
    made = files.render(first, form, "digest")
    with matplotlib.rc_context(ODD):
        assert files.render(again, form, "digest") == made
        assert matplotlib.rcParams["font.size"] == 20


def test_another_process_makes_the_same_archive() -> None:
    code = (
        "import hashlib, numpy as np; from app.export import files; from app.figures.print.page import Paper; from"
        " app.figures.print.figure import draw\nfrom app.views.kinds import Bars\nview = Bars(values=np.array([0.5,"
        " -0.25]), labels=('a', 'b'), x_title='slot', y_title='change')\nprint(hashlib.sha256(files.bundle(draw(view,"
        " Paper(venue='icml')), {'seed': 3})).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert made == hashlib.sha256(files.bundle(draw(BARS, Paper(venue="icml")), {"seed": 3})).hexdigest()


def test_figures_that_are_made_at_the_same_time_are_the_same() -> None:
    def make(_: int) -> bytes:
        return files.render(draw(BARS, Paper(venue="icml")), FileFormat.SVG)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(make, range(8)))) == 1


def test_an_archive_is_the_same_on_another_day(archive, monkeypatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert files.bundle(draw(view(), PAPER), SIDECAR, DIGEST) == archive.fp.getvalue()


def test_a_pdf_has_its_fonts_as_truetype_and_the_size_of_the_page() -> None:
    made = files.render(draw(view(), PAPER), FileFormat.PDF)
    assert b"/FontFile2" in made and b"/CIDFontType2" in made and b"/Type3" not in made and b"DejaVuSans" in made
    assert re.search(rb"/MediaBox \[ 0 0 234 [\d.]+ \]", made)
    assert b"CreationDate" not in made


def test_rasters_have_as_many_dots_to_the_inch_as_their_names_say() -> None:
    figure = draw(view(), PAPER)
    sizes = [
        Image.open(io.BytesIO(files.render(figure, form))).size for form in (FileFormat.PNG_300, FileFormat.PNG_600)
    ]
    assert sizes == [
        (975, round(figure.figure.get_figheight() * 300)),
        (1950, round(figure.figure.get_figheight() * 600)),
    ]


def test_letters_in_svg_are_paths_and_the_file_is_xml_whatever_the_tokens_are() -> None:
    odd = dataclasses.replace(view(), row_labels=tuple("a\x07<&>--" + str(at) for at in range(6)))
    made = files.render(draw(odd, PAPER), FileFormat.SVG)
    root = ElementTree.fromstring(made)
    assert not list(root.iter("{http://www.w3.org/2000/svg}text"))
    assert root.find("{http://www.w3.org/2000/svg}title").text == "Reads & writes"


@pytest.mark.parametrize("form", FileFormat)
def test_a_figure_carries_the_digest_of_what_made_it(archive: zipfile.ZipFile, form: FileFormat) -> None:
    assert f"spec sha256:{DIGEST}".encode() in archive.read(form.value)


def test_an_archive_holds_the_files_in_order(archive: zipfile.ZipFile) -> None:
    images, data = ["fig.pdf", "fig.svg", "fig-300.png", "fig-600.png"], ["data.csv", "data.parquet", "data.npz"]
    assert archive.namelist() == [*images, *data, "caption.txt", "figure.tex", "sidecar.json"]
    assert json.loads(archive.read("sidecar.json")) == SIDECAR


def test_the_numbers_in_an_archive_are_those_of_the_view(archive: zipfile.ZipFile) -> None:
    drawn, values = view(), view().unmasked
    for table in (
        csv.read_csv(io.BytesIO(archive.read("data.csv"))),
        parquet.read_table(io.BytesIO(archive.read("data.parquet"))),
    ):
        column = np.array(table["value"].to_pylist(), float).reshape(values.shape)
        assert np.array_equal(column.astype(np.float32), values, equal_nan=True)
        assert table["column"].to_pylist()[:9] == list(drawn.column_labels)
        assert table["row"].to_pylist()[::9] == list(drawn.row_labels)
    arrays = np.load(io.BytesIO(archive.read("data.npz")))
    assert np.array_equal(arrays["values"], drawn.values) and np.array_equal(arrays["masked"], drawn.masked)
    assert list(arrays["column_labels"]) == list(drawn.column_labels) and list(arrays["boundaries"]) == [0, 4]


def test_panels_have_their_numbers_under_their_letters(twice) -> None:
    made = zipfile.ZipFile(io.BytesIO(files.bundle(twice[0], SIDECAR)))
    assert [name for name in made.namelist() if name.endswith("csv")] == [f"data-{letter}.csv" for letter in "abcd"]
    curve = csv.read_csv(io.BytesIO(made.read("data-b.csv"))).to_pydict()
    assert curve["line"] == ["ours"] * 4 + ["theirs"] * 4 and curve["point"] == ["0k", "1k", "2k", "4k"] * 2
    assert curve["value"] == [91.5, 80.25, None, 60, 60, None, 80.25, 91.5] and curve["high"] == [
        93.5,
        82.25,
        None,
        62,
        *[None] * 4,
    ]
    assert csv.read_csv(io.BytesIO(made.read("data-c.csv")))["weight"].to_pylist() == [0.1, 0.2, None, 1.0]
    assert csv.read_csv(io.BytesIO(made.read("data-d.csv"))).to_pydict() == {"bar": ["a", "b"], "value": [0.5, -0.25]}
    assert np.array_equal(np.load(io.BytesIO(made.read("data-b.npz")))["low"][0], lines().lines[0].low, equal_nan=True)


def test_cells_beyond_the_limit_are_in_parquet_alone_and_the_archive_says_so(monkeypatch) -> None:
    monkeypatch.setattr(files, "MOST_CSV", 1)
    made = zipfile.ZipFile(io.BytesIO(files.bundle(draw(BARS, Paper(venue="icml")), SIDECAR)))
    assert "data.csv" not in made.namelist() and "data.parquet" in made.namelist()
    assert "% data.csv is left out: 2 rows are more than 1" in made.read("figure.tex").decode()


def test_a_caption_tells_numbers_intervals_and_what_a_reader_must_know(twice) -> None:
    caption = files.caption(twice[0])
    for words in (
        "(a) One. Read weight, block 0",
        "largest at slot",
        "Values of hatched cells are not shown.",
        "(b) Accuracy (%) by length: ours from 60 to 91.5",
        "ours 91.5 (88.5 to 93.5) at 0k, 80.2 (77.2 to 82.2) at 1k, 60 (57 to 62) at 4k",
        "(d) Change by slot; largest: a 0.5",
    ):
        assert words in caption
    long = Line(name="m", values=np.arange(20.0), low=np.arange(20.0) - 1, high=np.arange(20.0) + 1)
    many = Lines(lines=(long,), ticks=tuple(map(str, range(20))), x_title="x", y_title="y")
    assert captions.caption(many, ()).endswith("Intervals: m 0 (-1 to 1) at 0, 19 (18 to 20) at 19.")


def test_latex_lines_print_the_figure_at_the_size_that_it_was_made_for(twice) -> None:
    single, double = files.figure_tex(draw(view(), PAPER)), files.figure_tex(twice[0])
    assert r"\includegraphics[width=3.25in]{fig.pdf}" in single and r"\begin{figure}[t]" in single
    assert (
        r"\includegraphics[width=6.3in]{fig.pdf}" in double
        and r"\begin{figure*}[t]" in double
        and "ACL's template" in double
    )
    body = re.sub(r"(?m)^%.*$|\\[{}&%]", "", double)
    assert body.count("{") == body.count("}") and r"Reads \& writes" in single


def test_a_page_for_the_browser_has_every_panel_needs_no_network_and_offers_no_upload(twice) -> None:
    first, again = twice
    page = interactive(first)
    assert page == interactive(again)
    assert page.count("<figure ") == 4 and page.count('class="text"') == 1 and "(a) One" in page and "Zoë" in page
    for at in (0, 1, 3):
        assert f'<div id="figure-{at}"' in page
    assert not re.search(r"<script[^>]+src=|<link[^>]+href=", page)
    configs = [json.loads(config) for config in re.findall(r"(\{[^{}]*\"modeBarButtonsToRemove\"[^{}]*\})", page)]
    assert len(configs) == 3 and all(
        config["modeBarButtonsToRemove"] == ["sendChartToCloud"] and config["displaylogo"] is False
        for config in configs
    )


def test_annotations_titles_and_the_spread_of_colours_survive_on_the_page() -> None:
    paper = Paper(
        venue="icml",
        title="A <b>",
        x_title="along",
        stretch="sqrt",
        colours="greys",
        annotations=(Annotation(x=1, y=2, text="x < y"),),
    )
    page = interactive(draw(view(), paper))
    assert ("A &lt;b&gt;" in page and '"along"' in page and "x \\u003c y" in page) or "x &lt; y" in page
    drawn = screen.heatmap(view(), LIGHT, stretch=Stretch.SQRT)
    shown, plain = drawn.data[0], screen.heatmap(view(), LIGHT).data[0]
    assert np.allclose(np.asarray(shown.z) ** 2, plain.z, equal_nan=True, atol=1e-6)
    assert np.array_equal(
        np.asarray(shown.customdata)[..., 1].astype(float), np.asarray(plain.z, float), equal_nan=True
    )


def test_a_table_becomes_an_archive_with_its_rows() -> None:
    table = Table(
        columns=columns_of(
            ("model", Column("right", "%")), [("a", Bounded(90.0, 88.0, 92.0)), ("b", Bounded(50.0, 48.0, 52.0))]
        ),
        best={"right (%)": Best.HIGHEST},
    )
    archive = zipfile.ZipFile(io.BytesIO(files.table_bundle(table, SIDECAR)))
    assert archive.namelist() == ["table.tex", "table.md", "data.csv", "data.parquet", "sidecar.json"]
    assert r"\textbf{90.0 (88.0 to 92.0)}" in archive.read("table.tex").decode()
    numbers = csv.read_csv(io.BytesIO(archive.read("data.csv"))).to_pydict()
    assert numbers["right (%)"] == [90.0, 50.0] and numbers["right_low (%)"] == [88.0, 48.0]
    assert list(numbers) == ["model", "right (%)", "right_low (%)", "right_high (%)"]
    assert files.table_bundle(table, SIDECAR) == files.table_bundle(table, SIDECAR)
