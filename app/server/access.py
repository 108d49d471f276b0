"""Which captures a session has opened. Its browser asks for parts of them by a token that nobody else has."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from lm2 import files

if TYPE_CHECKING:
    from lm2.stores.store import Store

HEADER = "lm2-session"
"""The request header that carries the token."""
_MOST = 4
"""Stores that a session has open; the least recently used is closed first."""


class Access:
    """One session's open stores, by numbers that mean nothing elsewhere. It lasts as long as the session holds it."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._open: OrderedDict[int, tuple[Path, files.State, Store]] = OrderedDict()
        self._numbers = count()
        _SESSIONS[self.token] = self

    def open(self, path: Path) -> tuple[int, Store]:
        """A store as far as it is written now, and its number, which is another one once more has been written.

        Raises ValueError as `lm2.open_store` does.
        """
        from lm2.stores.store import open_store

        state = files.state(path)
        for number, (other, seen, _) in [*self._open.items()]:
            if other == path and seen != state:
                del self._open[number]
        number = next((number for number, (other, *_) in self._open.items() if other == path), None)
        if number is None:
            number = next(self._numbers)
            self._open[number] = path, state, open_store(path)
        self._open.move_to_end(number)
        if len(self._open) > _MOST:
            self._open.popitem(last=False)
        return number, self._open[number][-1]

    def store(self, number: int) -> Store | None:
        """The store of a number; None if it is not open."""
        return self._open[number][-1] if number in self._open else None


_SESSIONS: WeakValueDictionary[str, Access] = WeakValueDictionary()


def of(token: str) -> Access | None:
    """The access that a token stands for; None if there is none, or its session has ended."""
    return _SESSIONS.get(token)
