"""Links: a selection's fields as texts in an address, and back. What makes no sense is left out, and told."""

import base64
import binascii
import re
import zlib
from collections.abc import Container, Mapping
from enum import Enum
from typing import Any, NamedTuple

from app.choices.context import MAX_CHARACTERS
from app.choices.fields import SelectionField, TextForm
from app.choices.ranges import numbers
from lm2.shown import ranges

LONGEST = 6_000
"""Characters of a field in an address; a longer one is left out."""
_SHORT = 40
"""A text of more characters is compressed."""
_PACKED = "~"
"""What a compressed text begins with."""
_NUMBER = re.compile(r"-?[0-9]{1,10}")
_NUMBERS = range(-1, 2**31)
"""Whole numbers of a field that says nothing else."""
_PLACES = range(100_000)
"""Numbers in a field that holds several and says nothing else."""
SHOWN = 40
"""Characters of a value that a problem quotes."""


class Link(NamedTuple):
    """What could be read of a link."""

    values: dict[str, Any]
    """By field."""
    problems: tuple[str, ...]
    """What was left out, a sentence each."""


def write(value: Any) -> str:
    """A field's value as it stands in an address."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return ranges(value)
    if isinstance(value, str) and (len(value) > _SHORT or value.startswith(_PACKED)):
        return _PACKED + base64.urlsafe_b64encode(zlib.compress(value.encode(), 9)).decode()
    return str(value)


def fits(value: Any) -> bool:
    """Whether a field's value is short enough for an address."""
    return not (isinstance(value, str) and len(value) > MAX_CHARACTERS) and len(write(value)) <= LONGEST


def read(written: Mapping[str, str], choices: Mapping[str, SelectionField]) -> Link:
    """What a link chooses, of all that there is to choose, by its names in an address."""
    values: dict[str, Any] = {}
    problems = []
    for name, text in written.items():
        if name not in choices:
            problems.append(f"This link names {name[:SHOWN]!r}, which this version cannot read: it was left out.")
            continue
        try:
            values[name] = _checked(_read(text, choices[name].default), choices[name].allowed)
        except ValueError as error:
            problems.append(f"This part of the link was left out: {name}={text[:SHOWN]!r}. {error}.")
    return Link(values, tuple(problems))


def _read(text: str, default: Any) -> Any:
    """A field's value. Raises ValueError with a sentence for what is none."""
    if isinstance(default, Enum):
        there = {member.value: member for member in type(default)}
        _checked(text, tuple(there))
        return there[text]
    if isinstance(default, tuple):
        try:
            return numbers(text)
        except ValueError:
            raise ValueError("Numbers are written 0,3-5") from None
    if default is None or isinstance(default, int):
        if not _NUMBER.fullmatch(text):
            raise ValueError("It is not a usable whole number")
        return int(text)
    found = _unpacked(text[1:]) if text.startswith(_PACKED) else text
    if any(0xD800 <= ord(letter) < 0xE000 for letter in found):
        raise ValueError("It holds half a character")
    return found


def _unpacked(text: str) -> str:
    """A compressed text. Bounded: a few kB of zlib can otherwise unpack to gigabytes."""
    stream, most = zlib.decompressobj(), 4 * MAX_CHARACTERS
    try:
        found = stream.decompress(base64.b64decode(text.encode(), altchars=b"-_", validate=True), most)
    except (binascii.Error, UnicodeError, zlib.error):
        raise ValueError("It is damaged: copy the link again, whole") from None
    if not stream.eof or stream.unused_data:
        raise ValueError(f"It is cut, or longer than {MAX_CHARACTERS:,} characters: copy the link again, whole")
    try:
        return found.decode()
    except UnicodeError:
        raise ValueError("It is not text") from None


def _checked(value: Any, allowed: Container | None) -> Any:
    """The value. Raises ValueError, with those that there are, for one outside its set."""
    if isinstance(value, tuple):
        for number in value:
            _checked(number, _PLACES if allowed is None else allowed)
        return value
    if allowed is None and isinstance(value, int):
        allowed = _NUMBERS
    if allowed is not None and value not in allowed:
        raise ValueError(f"There are {_words(allowed)}")
    return value


def _words(allowed: Container) -> str:
    if isinstance(allowed, TextForm):
        return allowed.words
    return (
        f"{allowed[0]:,} to {allowed[-1]:,}"
        if isinstance(allowed, range)
        else ", ".join(one or "none" for one in allowed)
    )
