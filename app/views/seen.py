"""Text whose every character can be seen: what hides, or turns the text around, stands as its code (U+202E)."""

import unicodedata

_JOINERS = "\u200c\u200d"
"""Persian and many emoji are written with these; they hide nothing."""


def seen(text: str) -> str:
    """The text with controls, marks of direction, surrogates and characters that Unicode does not have by their code.
    Line ends and tabs are kept."""
    if text.isprintable():
        return text
    return "".join(code_point(char) if _hidden(char) else char for char in text)


def in_a_line(text: str) -> str:
    """The same with a sign for each line end and tab."""
    return seen(text).replace("\n", "⏎").replace("\t", "⇥")


def code_point(char: str) -> str:
    return f"U+{ord(char):04X}"


def _hidden(char: str) -> bool:
    return (
        char not in "\n\t" and char not in _JOINERS and (unicodedata.category(char)[0] == "C" or char in "\u2028\u2029")
    )
