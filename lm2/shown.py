"""Values in sentences: in errors, titles and captions."""

import reprlib
from collections.abc import Sequence

_EXCERPT = 60
"""Characters of a longer text that are quoted."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def shown(value: object) -> str:
    """Any value as a short line: both ends of a long text or number, the first entries of a long sequence."""
    return _SHORT.repr(value)


def ranges(numbers: Sequence[int]) -> str:
    """Numbers as ranges: (0, 3, 4, 5) is "0,3-5"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def numbered(noun: str, numbers: Sequence[int]) -> str:
    """A noun with numbers: "slots 0,3-5"."""
    return f"no {noun}" if not numbers else f"{noun}{'s' if len(numbers) > 1 else ''} {ranges(numbers)}"


def excerpt(text: str) -> str:
    """A text in quotation marks; of a longer one the beginning and the end, where its question is."""
    line = " ".join(text.split())
    return f"“{line if len(line) <= _EXCERPT else f'{line[: _EXCERPT // 2]} … {line[-_EXCERPT // 2 :]}'}”"


def excerpts(texts: Sequence[str]) -> str:
    """One text as an excerpt, several as their number."""
    return f"the text {excerpt(texts[0])}" if len(texts) == 1 else f"{len(texts)} other texts"
