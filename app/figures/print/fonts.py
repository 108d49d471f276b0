"""Fonts on paper: the one that comes with matplotlib, and installed ones for the characters that it lacks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

FONT = "DejaVu Sans"
"""Comes with matplotlib, so that figures are the same on every machine as far as it goes."""

_NO_LETTERS = ("Last Resort", "STIXNonUnicode", "STIXSize", "cm")
"""How the names of those of matplotlib's own fonts begin that have pictures of characters' codes, or other signs in
their places."""

_PLAIN = (400, "normal", "regular", "book")


def families(texts: Iterable[str]) -> tuple[str, ...]:
    """The fonts that some texts are printed in: for each character the first that has it."""
    lacking = set("".join(texts)) - _drawn(FONT)
    return (FONT, *sorted({family for char in lacking if (family := family_of(char))}))


def has(char: str) -> bool:
    """Whether any font can draw it."""
    return char in _drawn(FONT) or family_of(char) is not None


@cache
def family_of(char: str) -> str | None:
    """The first installed font, by name, that draws a character which matplotlib's own lacks; None where there is
    none."""
    return next((family for family in _installed() if char in _drawn(family) and _outlined(family, char)), None)


@cache
def _installed() -> tuple[str, ...]:
    """Names of upright fonts of plain weight and width, but for `FONT`."""
    plain = {
        one.name
        for one in fontManager.ttflist
        if (one.style, one.stretch) == ("normal", "normal") and one.weight in _PLAIN
    }
    return tuple(sorted(name for name in plain - {FONT} if not name.startswith(_NO_LETTERS)))


@cache
def _drawn(family: str) -> frozenset[str]:
    """The characters of a font that can be enlarged."""
    font = get_font(findfont(FontProperties(family=family)))
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def _outlined(family: str, char: str) -> bool:
    """Whether a glyph has an outline: those of coloured fonts have none, and would print as nothing."""
    font = get_font(findfont(FontProperties(family=family)))
    font.load_char(ord(char))
    return len(font.get_path()[0]) > 0
