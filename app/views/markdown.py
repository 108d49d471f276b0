"""Names and tokens escaped for Markdown: GitHub's, and Streamlit's with its colours, icons and formulas."""

import re

from app.views.seen import in_a_line

_MARKED = re.compile(r"[\\`*_\[\]<>|#~$]|&(?=[#\w]+;)|:(?=[A-Za-z])|(?<=:material)/")
_BEGINS = re.compile(r"^(\s?\d*)(?=[.)+-](?:\s|$))")
"""The start of a list."""
_CHANGED = re.compile(r"https?://|www\.|@|:[-+\w]+:|^(?:<->|->|<-|-{2,}|>=|<=|~=)$", re.IGNORECASE)
"""Words that would become links, emoji or arrows. Only code stops these, as backslashes are read first."""


def plain(text: str) -> str:
    """The text on one line."""
    line = re.sub(r"^\s+", " ", in_a_line(text))  # four blanks would open a block of code
    words = [
        code(word) if _CHANGED.search(word) else _MARKED.sub(r"\\\g<0>", word) for word in re.split(r"(\s+)", line)
    ]
    return _BEGINS.sub(r"\1\\", "".join(words))


def code(text: str) -> str:
    """The text on one line, as code."""
    # Streamlit replaces icons in code too, so their slash is put between two pieces of code.
    return r"\/".join(_fenced(part) for part in re.split(r"(?<=:material)/", in_a_line(text)) if part)


def _fenced(line: str) -> str:
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if line.startswith(("`", " ")) or line.endswith(("`", " ")) else ""
    return f"{fence}{pad}{line}{pad}{fence}"
