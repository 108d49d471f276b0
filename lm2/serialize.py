"""Plain values: what may stand in a specification, checked as it is made and the same after a way through JSON."""

import hashlib
import json
import math
import numbers
from abc import ABC
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Self, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from jaxtyping import Float32

from lm2.shown import shown

_Kind = TypeVar("_Kind", bound="Plain")
_Member = TypeVar("_Member", bound=Enum)

MOST = 2**63 - 1
"""The largest whole number, to either side: what random generators take as a seed."""
_LISTED = 12
"""Members of a closed set that an error lists before it names the value."""


@dataclass(frozen=True)
class Spec(ABC):  # noqa: B024 - specifications of a kind have abstract methods
    """A frozen value whose fields are checked by their annotations, as it is made and as it is read from JSON.

    A field is a bool, int, float, str, a member of an Enum, another value with `from_json`, `Annotated[Numbers, axes]`,
    a tuple of these, or one of these or None. A subclass with laws of its own begins its `__post_init__` with this one.
    """

    def __post_init__(self) -> None:
        self.freeze(
            **{
                name: settled(f"{type(self).__name__}.{name}", wanted, getattr(self, name))
                for name, wanted in _wanted(type(self)).items()
            }
        )

    def freeze(self, **values: object) -> None:
        """Give fields their plain form. Of `__post_init__` alone."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` undoes it."""
        return {field.name: as_json(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Raises ValueError for fields that are missing, unknown or of another kind, and for values that make no
        sense."""
        return _read(cls, values)

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON form: two share it only if they are equal."""
        return digest_of(self.to_json())


@dataclass(frozen=True)
class Plain(Spec, ABC):
    """A value that is told from its siblings by the name of its class, which its JSON form calls its kind."""

    def to_json(self) -> dict[str, Any]:
        return {"kind": type(self).__name__, **super().to_json()}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """An abstract class reads a value of any kind below it. Raises ValueError for a kind or field that does not
        exist, and for values that make no sense."""
        return build(cls.__name__.lower(), kinds_of(cls), values) if ABC in cls.__bases__ else super().from_json(values)


def kinds_of(family: type[_Kind]) -> dict[str, type[_Kind]]:
    """The classes below an abstract one of which there are values, by their names in JSON."""
    below = family.__subclasses__()
    return {name: kind for each in below for name, kind in kinds_of(each).items()} or {family.__name__: family}


class Numbers:
    """A read-only float32 array that may stand in a specification: equal where shape and every bit are. JSON keeps it
    as it is.

    Raises ValueError for anything but finite numbers with `ndim` axes.
    """

    def __init__(self, name: str, values: object, ndim: int) -> None:
        if isinstance(values, Numbers):
            values = values.array
        if _any_truth(values):
            raise ValueError(f"{name} must be finite numbers, not true or false")
        try:
            array = np.array(values)
        except ValueError as error:
            raise ValueError(f"{name} must be rows of one length: {error}") from error
        if array.size and (array.dtype.kind not in "fiu" or not np.isfinite(array).all()):
            raise ValueError(f"{name} must be finite numbers, not {shown(values)}")
        if array.size and array.ndim != ndim:
            raise ValueError(f"{name} must have {ndim} axes, not {array.ndim}")
        if array.size and np.abs(array).max() > np.finfo(np.float32).max:
            raise ValueError(f"{name} must be finite numbers in float32, not {shown(values)}")
        self.array: Float32[np.ndarray, ...] = array.astype(np.float32).reshape(
            array.shape if array.size else (0,) * ndim
        )
        self.array.setflags(write=False)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Numbers)
            and self.array.shape == other.array.shape
            and self.array.tobytes() == other.array.tobytes()
        )

    def __hash__(self) -> int:
        return hash((self.array.shape, self.array.tobytes()))

    def __repr__(self) -> str:
        return f"Numbers of shape {self.array.shape}"


def _any_truth(values: object) -> bool:
    """Whether true or false stands among numbers: numpy would take it for 1 or 0."""
    if isinstance(values, list | tuple):
        return any(map(_any_truth, values))
    return isinstance(values, bool)


@cache
def _wanted(kind: type[Spec]) -> dict[str, Any]:
    """The annotation of each field."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def settled(name: str, wanted: Any, value: object) -> Any:
    """A value as the annotation `wanted` has it, from that or from its JSON form.

    Raises ValueError for a value of another kind, in a sentence that begins with `name`.
    """
    origin, of = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return value
    if origin is Annotated:
        return Numbers(name, value, of[1])
    if origin in (Union, UnionType):
        kinds = [kind for kind in of if kind is not NoneType]
        if (value is None and NoneType in of) or (len(kinds) > 1 and isinstance(value, tuple(kinds))):
            return value
        return (
            settled(name, kinds[0], value)
            if len(kinds) == 1
            else build(name.rpartition(".")[2], {kind.__name__: kind for kind in kinds}, value)
        )
    if origin is tuple:
        return _settled_entries(name, of, as_sequence(name, value))
    from_json = getattr(wanted, "from_json", None)
    if isinstance(value, wanted) and (issubclass(wanted, Enum) or from_json is not None):
        return value
    if from_json is not None:
        if not isinstance(value, Mapping) and not issubclass(wanted, Plain | Enum):
            raise ValueError(f"{name}: {wanted.__name__} is an object with fields, not {shown(value)}")
        return from_json(value)
    if issubclass(wanted, Enum):
        return member(name, wanted, value)
    return _CHECKS[wanted](name, value)


def _settled_entries(name: str, of: tuple[Any, ...], entries: Sequence[object]) -> tuple[Any, ...]:
    if of[-1] is Ellipsis:
        return tuple(settled(name, of[0], entry) for entry in entries)
    if len(entries) != len(of):
        raise ValueError(f"{name} must hold {len(of)} entries, not {shown(entries)}")
    return tuple(settled(name, kind, entry) for kind, entry in zip(of, entries))


def _read(kind: type[Spec], values: object) -> Any:
    """A value of a kind from its JSON form, in which the kind may be named."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{kind.__name__} is an object with fields, not {shown(values)}")
    named = {name: value for name, value in values.items() if name != "kind" or not issubclass(kind, Plain)}
    if values.get("kind", kind.__name__) != kind.__name__ and "kind" not in named:
        raise ValueError(f"this is of kind {shown(values['kind'])}, not {kind.__name__}")
    wanted = _wanted(kind)
    unknown = sorted(str(name) for name in named if name not in wanted)
    needed = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]
    if unknown or not set(needed) <= set(named):
        words = [f"needs {' and '.join(needed)}"] * bool(needed) + [f"has no fields {shown(unknown)}"] * bool(unknown)
        raise ValueError(
            f"{kind.__name__} cannot be made from {shown(sorted(map(str, named)))}: it {' and '.join(words)}"
        )
    return kind(**{name: settled(f"{kind.__name__}.{name}", wanted[name], value) for name, value in named.items()})


def build(what: str, kinds: Mapping[str, type[_Kind]], values: object) -> _Kind:
    """One of `kinds` from its JSON values. Raises ValueError for a kind or field that does not exist."""
    kind = values.get("kind") if isinstance(values, Mapping) else values
    if not isinstance(values, Mapping) or not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"no {what} is called {shown(kind)}; there are {sorted(kinds)}")
    return _read(kinds[kind], values)


def as_json(value: Any) -> Any:
    """A field's JSON form: values with a form of their own by that, members of an Enum by value or, where that is no
    text, by name."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Numbers):
        return value.array.tolist()
    if isinstance(value, tuple):
        return [as_json(entry) for entry in value]
    return _word(value) if isinstance(value, Enum) else value


def _word(value: Enum) -> str:
    return value.value if isinstance(value.value, str) else value.name


def digest_of(values: Mapping[str, Any], beside: bytes = b"") -> str:
    """SHA-256 of a specification's JSON form, and of what it reads `beside`: two share it only if they are equal."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode() + beside).hexdigest()


def member(name: str, kind: type[_Member], value: object) -> _Member:
    """The member of a closed set by its word in JSON. Raises ValueError, with those that there are."""
    there = {_word(entry): entry for entry in kind}
    if isinstance(value, str) and value in there:
        return there[value]
    if len(there) > _LISTED:
        raise ValueError(f"no {name.rpartition('.')[2]} is called {shown(value)}; there are {sorted(there)}")
    raise ValueError(f"{name} must be of {sorted(there)}, not {shown(value)}")


def number(name: str, value: object) -> float:
    """Raises ValueError for anything but a finite number."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with suppress(OverflowError):  # a whole number beyond all floats
            if math.isfinite(value):
                return float(value)
    raise ValueError(f"{name} must be a finite number, not {shown(value)}")


def as_int(name: str, value: object) -> int:
    """Raises ValueError for anything but a whole number of at most `MOST`, to either side."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be a whole number, not {shown(value)}")
    return within(name, int(value), -MOST, MOST)


def within(name: str, value: int, least: int, most: int) -> int:
    """Raises ValueError, with the nearer bound, for a whole number outside least..most."""
    if value < least:
        raise ValueError(f"{name} must be at least {least:,}, not {shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be at most {most:,}, not {shown(value)}")
    return value


def truth(name: str, value: object) -> bool:
    """Raises ValueError for anything but true and false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {shown(value)}")
    return value


def as_sequence(name: str, values: object) -> Sequence[Any]:
    """Raises ValueError for anything but a sequence; a text is none."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise ValueError(f"{name} must be a sequence, not {shown(values)}")
    return values


def text(name: str, value: object) -> str:
    """Raises ValueError for anything but a text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, not {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} must be a text: character {error.start:,} of it is half a surrogate pair, which is none"
        ) from None
    return value


def written(name: str, value: str) -> str:
    """Raises ValueError for a text with nothing in it."""
    if not value:
        raise ValueError(f"{name} must be a text with something in it, not {value!r}")
    return value


def all_written(name: str, values: Sequence[str]) -> None:
    """Raises ValueError where there is no text, and for one with nothing in it."""
    if not values:
        raise ValueError(f"{name} must hold one text at least")
    for value in values:
        written(name, value)


def places(name: str, values: Sequence[int] | None) -> None:
    """Raises ValueError for numbers of blocks, segments, slots, heads or tokens of which one is named twice. None names
    all."""
    if values is not None and len(set(values)) != len(values):
        raise ValueError(f"{name} names a place twice: {shown(values)}")


_CHECKS = {bool: truth, int: as_int, float: number, str: text}
