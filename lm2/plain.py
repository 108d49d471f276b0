"""Plain values: what may stand in a specification, checked as it is made and the same after a way through JSON."""

import hashlib
import json
import math
import numbers
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32

from lm2.sites import Site

_Kind = TypeVar("_Kind", bound="Plain")
_Member = TypeVar("_Member", bound=Enum)


@dataclass(frozen=True, kw_only=True)
class Plain(ABC):
    """A frozen value that is told from its siblings by the name of its class."""

    def settle(self, **values: object) -> None:
        """Give fields their plain form. Of `__post_init__` alone."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` of its family undoes it."""
        return {"kind": type(self).__name__} | {field.name: as_json(getattr(self, field.name)) for field in fields(self)}


class Numbers:
    """A read-only float32 array that may stand in a specification: equal where shape and every bit are. JSON keeps it as it is.

    Raises ValueError for anything but finite numbers with `ndim` axes.
    """

    def __init__(self, name: str, values: object, ndim: int) -> None:
        if isinstance(values, Numbers):
            values = values.array
        try:
            array = np.array(values)
        except ValueError as error:
            raise ValueError(f"{name} must be rows of one length: {error}") from error
        if array.size and (array.dtype.kind not in "fiu" or not np.isfinite(array).all()):
            raise ValueError(f"{name} must be finite numbers, not {values!r:.80}")
        if array.size and array.ndim != ndim:
            raise ValueError(f"{name} must have {ndim} axes, not {array.ndim}")
        self.array: Float32[np.ndarray, "..."] = array.astype(np.float32).reshape(array.shape if array.size else (0,) * ndim)
        self.array.setflags(write=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Numbers) and self.array.shape == other.array.shape and self.array.tobytes() == other.array.tobytes()

    def __hash__(self) -> int:
        return hash((self.array.shape, self.array.tobytes()))

    def __repr__(self) -> str:
        return f"Numbers of shape {self.array.shape}"


def as_json(value: object) -> Any:
    """A field's JSON form: plain values by their own, sites by name, other members of an Enum by value."""
    if isinstance(value, Plain):
        return value.to_json()
    if isinstance(value, Site):
        return value.name
    if isinstance(value, Numbers):
        return value.array.tolist()
    if isinstance(value, tuple):
        return [as_json(entry) for entry in value]
    return value.value if isinstance(value, Enum) else value


def digest_of(values: Mapping[str, Any], beside: bytes = b"") -> str:
    """SHA-256 of a specification's JSON form, and of what it reads `beside`: two share it only if they are equal."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode() + beside).hexdigest()


def build(what: str, kinds: Mapping[str, type[_Kind]], values: object) -> _Kind:
    """One of `kinds` from its JSON values. Raises ValueError for a kind or field that does not exist."""
    kind = values.get("kind") if isinstance(values, Mapping) else values
    if not isinstance(values, Mapping) or not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"no {what} is called {kind!r}; there are {sorted(kinds)}")
    given = {name: value for name, value in values.items() if name != "kind"}
    try:
        return kinds[kind](**given)
    except TypeError as error:
        raise ValueError(f"{kind} cannot be made from {sorted(given)}: {error}") from error


def member(name: str, kind: type[_Member], value: object) -> _Member:
    """The member of a closed set with this value. Raises ValueError, with those that there are."""
    there = {one.value: one for one in kind}
    if not isinstance(value, str) or value not in there:
        raise ValueError(f"{name} must be of {sorted(there)}, not {value!r}")
    return there[value]


def number(name: str, value: object) -> float:
    """Raises ValueError for anything but a finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    return float(value)


def whole(name: str, value: object) -> int:
    """Raises ValueError for anything but a whole number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    return int(value)


def several(name: str, values: object) -> Sequence[Any]:
    """Raises ValueError for anything but a sequence; a text is none."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{name} must be a sequence, not {values!r}")
    return values


def places(name: str, values: object) -> tuple[int, ...] | None:
    """Numbers of blocks, segments, slots, heads or tokens; None, all. Raises ValueError for anything else, and for one named twice."""
    if values is None:
        return None
    found = tuple(whole(name, value) for value in several(name, values))
    if len(set(found)) != len(found):
        raise ValueError(f"{name} names a place twice: {found}")
    return found


def written(name: str, value: object) -> str:
    """Raises ValueError for anything but a text with something in it."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a text with something in it, not {value!r}")
    return value


def all_written(name: str, values: object) -> tuple[str, ...]:
    """Raises ValueError for anything but texts with something in them, one at least."""
    found = tuple(written(name, value) for value in several(name, values))
    if not found:
        raise ValueError(f"{name} must hold one text at least")
    return found
