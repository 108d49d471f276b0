"""Text in which every character is visible: hidden ones, or those that change direction, become a code (U+202E)."""

import unicodedata

_JOINERS = "\u200c\u200d"
"""Needed in Persian and in many emoji."""


def seen(text: str) -> str:
    """The text with codes for controls, marks of direction, surrogates and unassigned characters. Keeps line ends and
    tabs."""
    if text.isprintable():
        return text
    return "".join(code_point(char) if _hidden(char) else char for char in text)


def in_a_line(text: str) -> str:
    """The same with visible signs for line ends and tabs."""
    return seen(text).replace("\n", "⏎").replace("\t", "⇥")


def code_point(char: str) -> str:
    return f"U+{ord(char):04X}"


def _hidden(char: str) -> bool:
    return (
        char not in "\n\t" and char not in _JOINERS and (unicodedata.category(char)[0] == "C" or char in "\u2028\u2029")
    )
