"""Laws of scripts in print: a character is drawn in the first font that has it, else as its code; tokens keep their
order."""

import io
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.text import Text
from PIL import Image

from app.export.files import FileFormat, render
from app.figures.print import fonts, text as paper_text
from app.figures.print.figure import draw
from app.figures.print.page import Paper
from app.views.kinds import Strip

HAN = "漢"


def _font(path: Path, family: str, *, empty: bool) -> Path:
    """A font of one character, a full square, or one without an outline as in a colour font."""
    pen = TTGlyphPen(None)
    if not empty:
        pen.moveTo((0, 0))
        for corner in ((0, 800), (800, 800), (800, 0)):
            pen.lineTo(corner)
        pen.closePath()
    built = FontBuilder(1000, isTTF=True)
    built.setupGlyphOrder([".notdef", "han"])
    built.setupCharacterMap({ord(HAN): "han"})
    built.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "han": pen.glyph()})
    built.setupHorizontalMetrics({".notdef": (500, 0), "han": (900, 0)})
    built.setupHorizontalHeader(ascent=800, descent=-200)
    built.setupNameTable({"familyName": family, "styleName": "Regular", "psName": family.replace(" ", "")})
    built.setupOS2()
    built.setupPost()
    built.save(path)
    return path


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Adds a font to those that matplotlib finds."""

    def forget() -> None:
        for known in (fonts.family_of, fonts._installed, fonts._drawn, paper_text.width):
            known.cache_clear()
        fontManager._findfont_cached.cache_clear()

    others = [
        font
        for font in fontManager.ttflist
        if font.name not in fonts._installed() or HAN not in fonts._drawn(font.name)
    ]
    monkeypatch.setattr(fontManager, "ttflist", others)  # installed fonts may have it
    forget()

    def add(family: str, *, empty: bool = False) -> None:
        fontManager.addfont(_font(tmp_path / f"{family}.ttf", family, empty=empty))
        forget()

    yield add
    monkeypatch.undo()
    forget()


def _strip(*pieces: str) -> Strip:
    return Strip(
        pieces=pieces, segment_of=(0,) * len(pieces), weights=None, notes=(), marks=(), legend="coloured by segment"
    )


def test_what_no_font_has_is_told_by_its_code(install) -> None:
    assert paper_text.printable(f"a{HAN}") == "aU+6F22"


def test_a_font_without_outlines_prints_nothing_and_so_is_no_font(install) -> None:
    install("A coloured one", empty=True)
    assert paper_text.printable(HAN) == "U+6F22"


@pytest.mark.parametrize("form", [FileFormat.PDF, FileFormat.SVG, FileFormat.PNG_300])
def test_a_character_is_printed_in_an_installed_font_that_has_it_and_the_file_carries_it(
    form: FileFormat, install
) -> None:
    install("Zzz Han")
    assert paper_text.printable(f"a{HAN}") == f"a{HAN}" and paper_text.width(HAN, 10) == pytest.approx(9, abs=0.2)
    drawn = draw(_strip("Mary", f" {HAN}"), Paper(venue="icml"))
    assert drawn.fonts == (fonts.FONT, "Zzz Han")
    made = render(drawn, form)
    if form is FileFormat.PDF:
        assert b"ZzzHan" in made
    elif form is FileFormat.SVG:
        ET.fromstring(made)
        assert b"ZzzHan" in made
    else:
        dark = (np.asarray(Image.open(io.BytesIO(made)).convert("L")) < 60).sum()
        plain = (
            np.asarray(
                Image.open(io.BytesIO(render(draw(_strip("Mary", " "), Paper(venue="icml")), form))).convert("L")
            )
            < 60
        ).sum()
        assert dark - plain > 200  # a full square, not a hollow box


def test_figures_that_need_no_other_font_have_the_one_that_comes_with_matplotlib(install) -> None:
    install("Aaa Han")
    assert draw(_strip("Mary", " went"), Paper(venue="icml")).fonts == (fonts.FONT,)


def test_pictures_of_codes_are_no_letters() -> None:
    assert not any(name.startswith(("Last Resort", "cm")) for name in fonts._installed())
    assert findfont(FontProperties(family=fonts.FONT))


def test_tokens_from_right_to_left_keep_their_places_and_their_blanks() -> None:
    pieces = ("Mary", " שלום", " مرحبا", " went")
    drawn = draw(_strip(*pieces), Paper(venue="icml"))
    placed = [text for text in drawn.figure.findobj(Text) if text.get_text().replace("\u200e", "") in pieces]
    assert [
        text.get_text().replace("\u200e", "") for text in sorted(placed, key=lambda text: text.get_position()[0])
    ] == list(pieces)
    assert all(text.get_text().startswith(" \u200e") for text in placed[1:3])
    assert paper_text.printable("12: ·שלום") == "12: ·\u200eשלום"
    assert paper_text.width("12: ·\u200eשלום", 10) == pytest.approx(
        paper_text.width("12: ·", 10) + paper_text.width("שלום", 10), abs=0.5
    )
