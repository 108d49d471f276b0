"""Laws of names and tokens: whatever they hold, they are text in every language that they are put into, and nothing is
fetched for them."""

import ast
import html
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import app
from app.export import files
from app.export.files import FileFormat, bundle, figure_tex, table_bundle
from app.figures.print.figure import draw as printed
from app.figures.print.page import Annotation, Paper
from app.figures.print.text import printable
from app.figures.print.venues import Venue
from app.figures.screen import draw
from app.figures.screen.html import interactive
from app.figures.theme import LIGHT
from app.ui import say
from app.views.kinds import Bars, Forest, Heatmap, Line, Lines, Strip, Table
from app.views.latex import escaped, latex, markdown
from app.views.markdown import code, plain
from app.views.numbers import View
from app.views.seen import in_a_line, seen
from lm2.files import csv_text, spreadsheet_cell, spreadsheet_text
from probes.findings import columns_of

HOSTILE = (
    "![x](http://evil.example/a.png)", "[y](https://evil.example)", "www.evil.example", "a@evil.example",
    "<img src=http://evil.example/b.png>",
    "<s>gone</s><b>&lt;&amp;", "$x^2$", "$\\frac{1}{2", ":red[hi]", ":material/home:", ":smile:", "`code`",
        "**bold** _it_ ~~no~~", "a | b", "# head", "- list",
    "1. one", "%{y}", "%d {0} {}", "\\input{x}% ^ ~ #", "a--b ,,c'' ?`", "=1+1", "+cmd", "-cmd", "@SUM(1)", "'=1",
    "\u202eevil\u2066", "\x1b[31mred", "nul\0",
    "\ufffd", "中文", "عربي", "😀", "e\u0301", "two\nlines\ttab", "-->", "</script><script>", "x" * 10_000, "",
)  # fmt: skip
ALL = " ".join(part for part in HOSTILE if len(part) < 100)


_QUIET = re.compile(r"\\([!-/:-@\[-`{-~])|(`+)(?!`)(.*?)(?<!`)\2(?!`)")
"""What Markdown takes for itself: a character after a backslash, and code."""


def outside(written: str) -> str:
    """What is left for Markdown to make something of."""
    return _QUIET.sub("", written)


def shown(written: str) -> str:
    """The text that Markdown shows."""
    return _QUIET.sub(lambda found: found[1] or re.sub("^ (.*) $", r"\1", found[3]), written)


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_a_text_as_it_is_and_makes_nothing_of_it(text: str) -> None:
    for written in (plain(text), plain(ALL + text)):
        assert not re.search(r"[\[\]<>`*_$~|#]|https?:|www\.|@|:material|:[a-z]|&\w+;", outside(written))
    assert shown(plain(text)) == in_a_line(text) and shown(code(text)) == in_a_line(text)
    assert "\n" not in plain(text) + code(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_prints_a_text_with_what_pdflatex_has(text: str) -> None:
    written = escaped(text)
    assert not re.search(r"(?<!\\)[#%&_]", re.sub(r"\\[#%&_${}]", "", written).replace("~", "")) and "\n" not in written
    assert all(char.isascii() or char in "éß" for char in written) and not re.search("[\0-\x1f]", written)
    braces = re.sub(r"\\[\\{}]", "", written)
    assert braces.count("{") == braces.count("}") and re.sub(r"\\\$", "", written).count("$") % 2 == 0
    assert escaped("中\ufffd\u202e") == "U+4E2DU+FFFDU+202E" and escaped("Zoë ßøł") == "Zoë ßøł"


def test_a_row_of_latex_cannot_begin_with_what_the_row_before_takes_for_its_own() -> None:
    written = latex(Table(columns=columns_of(("a",), (("[2cm]",), ("*",), ("x",)))))
    assert "{[}2cm]" in written and "{*}" in written and not re.search(r"\\\\\s*[\[*]", written)


@pytest.mark.parametrize("text", [*HOSTILE, "-3.5", "'", "''@"])
def test_no_text_is_a_formula_in_a_spreadsheet_and_the_text_comes_back(text: str) -> None:
    cell = spreadsheet_cell(text)
    assert spreadsheet_text(cell) == text
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r") or float(cell)
    again = pd.read_csv(
        io.StringIO(csv_text(pd.DataFrame({"name": [text], text or "n": [1.5]}))), keep_default_na=False, dtype=str
    )
    assert spreadsheet_text(again["name"][0]) == text and spreadsheet_text(again.columns[1]) == (text or "n")


def views(name: Callable[[str], str]) -> dict[str, View]:
    """A view of every kind, with each of its texts by `name`."""
    texts, line = tuple(name(part) for part in "abc"), np.array([0.5, np.nan, 0.7])
    one = Line(name=name("line"), values=line, low=line - 0.1, high=line + 0.1)
    return {
        "map": Heatmap(
            values=np.arange(9.0).reshape(3, 3), row_labels=texts, column_labels=texts, row_title=name("row"),
            column_title=name("column"),
            value_title=name("value"), low=0.0, high=8.0, boundaries=(0, 2), segment_labels=(name("s"), name("t")),
        ),
        "lines": Lines(lines=(one, one), ticks=texts, x_title=name("x"), y_title=name("y")),
        "forest": Forest(lines=(one, one), labels=texts, x_title=name("x"), y_title=name("y")),
        "bars": Bars(values=line, labels=texts, x_title=name("x"), y_title=name("y"), marked=0),
        "strip": Strip(
            pieces=texts, segment_of=(0, 0, 1), weights=line, notes=texts, marks=((0, 2, name("mark")),),
            legend=name("legend"),
        ),
    }  # fmt: skip


KINDS = ("map", "lines", "forest", "bars", "strip")


def named(part: str) -> str:
    return f"{part}{ALL}"


def long(part: str) -> str:
    return part + "x" * 10_000


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "strip"])
def test_plotly_reads_names_as_text(kind: str) -> None:
    short = ("<s>a</s>", "&lt;", "%{y}", "<a href='http://evil.example'>b</a>")
    for text in short:
        shown = json.loads(draw.figure(views(lambda part, text=text: part + text)[kind], LIGHT).to_json())
        words = list(
            _texts(
                {
                    "data": shown["data"],
                    "layout": {name: shown["layout"].get(name) for name in ("xaxis", "yaxis", "annotations")},
                }
            )
        )
        assert any(html.unescape(word).endswith(text) for word in words)
        for word in words:
            assert not re.search(r"<(?!br>|extra>|/extra>)|&(?!lt;|gt;|amp;)", word)
            assert not re.search(r"%\{(?!text|customdata|fullData\.name|x|y:|z:)", word) or text == "%{y}"
        assert all(
            "evil" not in trace.get("hovertemplate", "") and text not in trace.get("hovertemplate", "")
            for trace in shown["data"]
        )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


class _Page(HTMLParser):
    """The texts of a page, and the addresses in it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.addresses, self.scripts, self.titles = [], [], 0, []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.addresses += [value for name, value in attrs if name in ("href", "src", "action", "srcset")]
        self.titles += [value for name, value in attrs if name == "title"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_takes_whatever_a_name_holds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_DOTS", dict.fromkeys(files._DOTS, 40))
    view = views(named)[kind]
    marks = () if kind == "strip" else (Annotation(x=0.6, y=0.6, text=ALL),)
    drawn = printed(view, Paper(venue=Venue.ICLR, title=ALL, height=8.0, annotations=marks))
    archive = zipfile.ZipFile(io.BytesIO(bundle(drawn, {"name": ALL})))
    assert {form.value for form in FileFormat} < set(archive.namelist())
    picture = ElementTree.fromstring(archive.read("fig.svg"))
    assert printable(ALL) in "".join(picture.itertext())  # its title; the rest is drawn as paths
    assert not [
        value
        for part in picture.iter()
        for name, value in part.attrib.items()
        if name.endswith("href") and not value.startswith(("#", "data:"))
    ]
    assert json.loads(archive.read("sidecar.json")) == {"name": ALL}
    rows = pd.read_csv(io.BytesIO(archive.read("data.csv")), keep_default_na=False)
    assert f"a{ALL}" in set(rows.iloc[:, 0 if kind in ("bars", "strip") else 1])
    assert all(char.isascii() or char == "é" for char in archive.read("figure.tex").decode())
    page = _Page()
    page.feed(interactive(drawn))
    assert page.addresses == [] and seen(ALL) in page.words
    assert kind != "strip" or (seen(f"a{ALL}") in page.words and any(seen(f"a{ALL}") in title for title in page.titles))


@pytest.mark.parametrize("kind", KINDS)
def test_a_very_long_name_leaves_a_figure_its_room(kind: str) -> None:
    drawn = printed(views(long)[kind], Paper(venue=Venue.ICML, title=long("")))
    assert all(min(axes.get_position().size) > 0.05 for axes in drawn.figure.axes[:1])
    if kind != "strip":
        assert len(draw.figure(views(long)[kind], LIGHT).to_json()) < 100_000


def table(values: np.ndarray) -> View:
    rows, columns = values.shape
    return Heatmap(
        values=values, row_labels=tuple(map(str, range(rows))), column_labels=tuple(map(str, range(columns))),
        row_title="row", column_title="column",
        value_title="value", low=0.0, high=1.0, boundaries=(0, 1) if columns > 1 else (), counts=False,
    )  # fmt: skip


def bare() -> dict[str, View]:
    """Views of every kind of almost nothing."""
    found = {f"map {shape}": table(np.full(shape, 0.5)) for shape in ((0, 0), (0, 3), (3, 0), (1, 1), (1, 4), (4, 1))}
    found["map of NaN"], found["map of a constant"] = table(np.full((2, 3), np.nan)), table(np.full((2, 3), 0.5))
    found["masked map"] = replace(found["map of a constant"], masked=np.ones((2, 3), bool))
    found["map of no range"] = replace(found["map of a constant"], low=0.5, high=0.5)
    for words, values in (
        ("nothing", np.zeros(0)),
        ("one value", np.ones(1)),
        ("NaN", np.full(3, np.nan)),
        ("a constant", np.full(3, 0.5)),
    ):
        names, line = (
            tuple(map(str, range(len(values)))),
            Line(name="line", values=values, low=values - 0.1, high=values + 0.1),
        )
        found[f"lines of {words}"] = Lines(
            lines=(line, replace(line, low=None, high=None)), ticks=names, x_title="x", y_title="y"
        )
        found[f"forest of {words}"] = Forest(lines=(line,), labels=names, x_title="x")
        found[f"bars of {words}"] = Bars(values=values, labels=names, x_title="x", y_title="y")
        found[f"strip of {words}"] = Strip(
            pieces=names, segment_of=(0,) * len(names), weights=values, notes=names, marks=(), legend="weights"
        )
    return found


@pytest.mark.parametrize("name", list(bare()))
def test_a_view_of_almost_nothing_goes_through_every_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_DOTS", dict.fromkeys(files._DOTS, 40))
    drawn = printed(bare()[name], Paper(venue=Venue.ICML))
    assert (
        bundle(drawn, {}).startswith(b"PK")
        and interactive(drawn).endswith("</html>")
        and figure_tex(drawn).endswith("\\end{figure}\n")
    )
    if not isinstance(bare()[name], Strip):
        assert draw.figure(bare()[name], LIGHT).to_json()


def test_a_table_of_hostile_names_keeps_its_cells_in_every_form() -> None:
    rows = tuple((text, 1.5) for text in HOSTILE)
    view = Table(columns=columns_of(("name", "value"), rows))
    archive = zipfile.ZipFile(io.BytesIO(table_bundle(view, {})))
    assert len(markdown(view).splitlines()) == len(rows) + 2
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in markdown(view).splitlines())
    assert latex(view).count(r"\\") - latex(view).count(r"\\input") == len(rows) + 1
    again = pd.read_csv(io.BytesIO(archive.read("data.csv")), keep_default_na=False, dtype=str)
    assert [spreadsheet_text(cell) for cell in again["name"]] == list(HOSTILE)


def test_the_page_of_a_figure_asks_nobody_for_anything() -> None:
    page = interactive(printed(views(str)["lines"], Paper(venue=Venue.ICML)))
    # Plotly itself, which is part of the page.
    outside = re.sub(r"<script>/\*\*.*?</script>", "", page, flags=re.DOTALL)
    assert len(outside) < 100_000 and not re.search(r"https?://(?!www\.w3\.org)", outside)
    assert '"sendDataToCloud"' not in outside and "cdn" not in outside.lower()


_SAID = {
    "markdown", "caption", "info", "error", "warning", "success", "toast", "write", "header", "subheader", "title",
    "spinner", "button", "expander", "checkbox",
    "radio", "toggle", "metric", "badge", "popover", "link_button", "progress", "tabs", "selectbox",
    "segmented_control", "pills", "download_button",
}  # fmt: skip


def _is_ours(node: ast.expr) -> bool:
    """Whether a text is words of this code alone, or has its values put in by `say.words`."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.isupper()
        case ast.Subscript(value=value):
            return _is_ours(value)
        case ast.BinOp(left=repeated, op=ast.Mult()):
            return _is_ours(repeated)
        case ast.IfExp(body=one, orelse=other) | ast.BinOp(left=one, right=other):
            return _is_ours(one) and _is_ours(other)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="say"), attr="words"), args=[template, *_]):
            return _is_ours(template)
        case ast.Call(func=ast.Name(id="words"), args=[ast.Name(id="template"), *_]):
            return True  # in `say` itself
        case ast.Call(func=ast.Attribute(value=ast.Name(id="probes"), attr="verdict")):
            return True  # Markdown of its own
        case ast.JoinedStr(values=parts):
            return all(isinstance(part, ast.Constant) or _is_ours(part.value) for part in parts)
    return False


@pytest.mark.parametrize("path", sorted(Path(app.__path__[0]).rglob("*.py")), ids=lambda path: path.name)
def test_what_streamlit_reads_as_markdown_is_words_of_ours_with_values_put_in_as_text(path: Path) -> None:
    source = path.read_text("utf-8")
    if "import streamlit" not in source:
        return
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.attr in _SAID
        ):
            said = node.args[1:2] if node.func.attr == "progress" else node.args[:1]
            wrong += [
                f"{path.name}:{text.lineno} {ast.unparse(text)}"
                for text in said
                if node.func.value.id not in ("captions", "links", "widgets") and not _is_ours(text)
            ]
    assert [text for text in wrong if text.split()[-1] != "label"] == []


def test_values_are_put_into_our_words_as_text() -> None:
    assert say.words("It says **{}** ({:.1f}).", "<b>", -0.25) == r"It says **\<b\>** (-0.2)."
    assert say.words("Type {}.", say.CodeText("lm2 `x` --out")) == "Type ``lm2 `x` --out``."
    assert len(say.words("{}", "x" * 10_000)) == 1000


HOSTILE_LINKS = {
    "checkpoint": "![x](http://evil.example/a.png) :red[hi] $x$ :material/home: <b>\u202e",
    "text": (
        "Mary ![a](http://evil.example/b.png) $x$ <s>went</s> \u202eto\0 \x1b[31mthe 中 garden. "
        + "x" * 60
        + ".\fWhere is `Mary`?"
    ),
    "probe_targets": "![x](http://evil.example/c.png), :red[place] of <b>, $y$",
    "patched_at": "![x](http://evil.example/d.png)",
    "results": "/nowhere/![x](http://evil.example/e.png)",
    "donor_text": "![x](http://evil.example/f.png) $x$",
}


def _show(screen: str) -> None:
    from app.navigation import SCREENS
    from app.ui import sidebar, state

    sidebar.render()
    SCREENS[screen].render()
    state.publish()


def _screens() -> list[str]:
    return sorted(path.stem for path in (Path(app.__path__[0]) / "screens").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize(
    ("screen", "left_out"), [*((screen, "") for screen in _screens()), ("run", "checkpoint"), ("memory", "checkpoint")]
)
def test_a_link_of_hostile_names_is_shown_as_text_on_every_screen(
    screen: str, left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streamlit.testing.v1 import AppTest

    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    test = AppTest.from_function(_show, kwargs={"screen": screen}, default_timeout=120)
    for name, value in HOSTILE_LINKS.items():
        if name != left_out:
            test.query_params[name] = value
    test.query_params["source"], test.query_params["donor_source"] = "text", "text"
    test.run()
    assert not test.exception
    for kind in (
        "markdown",
        "caption",
        "info",
        "warning",
        "error",
        "success",
        "header",
        "subheader",
        "button",
        "expander",
    ):
        for element in test.get(kind):
            for text in (getattr(element, "value", None), getattr(element, "label", None)):
                assert not re.search(r"\]\(|://|:red\[|<s>|\$", outside(str(text or "")))
                assert not re.search("[\0\x1b\u202e]", str(text or ""))
