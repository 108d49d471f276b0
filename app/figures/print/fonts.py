"""Fonts for print: the one that comes with matplotlib, and installed ones for the characters that it lacks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

FONT = "DejaVu Sans"
"""Comes with matplotlib, so that figures look the same on every machine."""

_NO_LETTERS = ("Last Resort", "STIXNonUnicode", "STIXSize", "cm")
"""Prefixes of matplotlib's own fonts that draw something other than the character."""

_PLAIN = (400, "normal", "regular", "book")


def families(texts: Iterable[str]) -> tuple[str, ...]:
    """The fonts that texts need: `FONT`, and for each character that it lacks the first font that has it."""
    lacking = set("".join(texts)) - _drawn(FONT)
    return (FONT, *sorted({family for char in lacking if (family := family_of(char))}))


def has(char: str) -> bool:
    """Whether any font can draw it."""
    return char in _drawn(FONT) or family_of(char) is not None


@cache
def family_of(char: str) -> str | None:
    """The alphabetically first installed font, other than `FONT`, that draws a character; None without one."""
    return next((family for family in _installed() if char in _drawn(family) and _outlined(family, char)), None)


@cache
def _installed() -> tuple[str, ...]:
    """Names of upright fonts of normal weight and width, other than `FONT`."""
    plain = {
        font.name
        for font in fontManager.ttflist
        if (font.style, font.stretch) == ("normal", "normal") and font.weight in _PLAIN
    }
    return tuple(sorted(name for name in plain - {FONT} if not name.startswith(_NO_LETTERS)))


@cache
def _drawn(family: str) -> frozenset[str]:
    """The characters of a scalable font."""
    font = get_font(findfont(FontProperties(family=family)))
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()


def _outlined(family: str, char: str) -> bool:
    """Whether a glyph has an outline; those of colour fonts have none and would print as blanks."""
    font = get_font(findfont(FontProperties(family=family)))
    font.load_char(ord(char))
    return len(font.get_path()[0]) > 0
