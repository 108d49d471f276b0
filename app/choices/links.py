"""Links: the selection's fields as text in an address, and back. What cannot be read is left out and reported."""

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
"""Longer texts are compressed."""
_PACKED = "~"
"""The first character of a compressed text."""
_NUMBER = re.compile(r"-?[0-9]{1,10}")
_NUMBERS = range(-1, 2**31)
"""The values of a number field that declares none."""
_PLACES = range(100_000)
"""The entries of a tuple field that declares none."""
SHOWN = 40
"""Characters of a value that a problem quotes."""


class Link(NamedTuple):
    """What could be read of a link."""

    values: dict[str, Any]
    """By field."""
    problems: tuple[str, ...]
    """A sentence for each field that was left out."""


def write(value: Any) -> str:
    """A field's value as text in an address."""
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
    """The values of a link's parameters. `choices`: all fields, by their names in links."""
    values: dict[str, Any] = {}
    problems = []
    for name, text in written.items():
        if name not in choices:
            problems.append(f"This link names {name[:SHOWN]!r}, which this version cannot read: it was left out.")
            continue
        try:
            value = _read(text, choices[name].default)
            _check(value, choices[name].allowed)
            values[name] = value
        except ValueError as error:
            problems.append(f"This part of the link was left out: {name}={text[:SHOWN]!r}. {error}.")
    return Link(values, tuple(problems))


def _read(text: str, default: Any) -> Any:
    """A value of the default's type. Raises ValueError with a sentence."""
    if isinstance(default, Enum):
        _check(text, [member.value for member in type(default)])
        return type(default)(text)
    if isinstance(default, tuple):
        try:
            return numbers(text)
        except ValueError:
            raise ValueError("Numbers are written 0,3-5") from None
    if default is None or isinstance(default, int):
        if not _NUMBER.fullmatch(text):
            raise ValueError("It is not a usable whole number")
        return int(text)
    value = _unpacked(text[1:]) if text.startswith(_PACKED) else text
    if any(0xD800 <= ord(letter) < 0xE000 for letter in value):
        raise ValueError("It holds half a character")
    return value


def _unpacked(text: str) -> str:
    """A compressed text. The size is limited, since a few kB of zlib can unpack to gigabytes."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(base64.b64decode(text.encode(), altchars=b"-_", validate=True), 4 * MAX_CHARACTERS)
    except (binascii.Error, UnicodeError, zlib.error):
        raise ValueError("It is damaged: copy the link again, whole") from None
    if not stream.eof or stream.unused_data:
        raise ValueError(f"It is cut, or longer than {MAX_CHARACTERS:,} characters: copy the link again, whole")
    try:
        return data.decode()
    except UnicodeError:
        raise ValueError("It is not text") from None


def _check(value: Any, allowed: Container | None) -> None:
    """Raises ValueError, listing the allowed values, for any other."""
    if isinstance(value, tuple):
        for number in value:
            _check(number, _PLACES if allowed is None else allowed)
        return
    if allowed is None and isinstance(value, int):
        allowed = _NUMBERS
    if allowed is not None and value not in allowed:
        raise ValueError(f"There are {_words(allowed)}")


def _words(allowed: Container) -> str:
    if isinstance(allowed, TextForm):
        return allowed.words
    if isinstance(allowed, range):
        return f"{allowed[0]:,} to {allowed[-1]:,}"
    return ", ".join(value or "none" for value in allowed)
