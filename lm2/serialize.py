"""Specifications: frozen values that are checked when they are made, and that JSON gives back unchanged."""

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

LARGEST_INT = 2**63 - 1
"""The largest whole number, in absolute value: what random generators take as a seed."""
_MOST_MEMBERS = 12
"""Errors about a larger Enum leave out the name of the field."""


@dataclass(frozen=True)
class Spec(ABC):  # noqa: B024 - only its subclasses have abstract methods
    """A frozen value whose fields are checked against their annotations, both when made in Python and when read from
    JSON.

    A field is a bool, int, float, str, Enum member, another class with `from_json`, `Annotated[Numbers, axes]`, a tuple
    of these, or one of these or None. A `__post_init__` with further checks calls this one first.
    """

    def __post_init__(self) -> None:
        for name, annotation in _annotations(type(self)).items():
            self.freeze(**{name: parse_field(f"{type(self).__name__}.{name}", annotation, getattr(self, name))})

    def freeze(self, **values: object) -> None:
        """Set fields of this frozen value; only for `__post_init__`."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, which `from_json` reads."""
        return {field.name: as_json(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """Raises ValueError for missing, unknown and invalid fields."""
        return _from_json(cls, values)

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON form: equal specifications, and no others, share it."""
        return digest_of(self.to_json())


@dataclass(frozen=True)
class Plain(Spec, ABC):
    """A specification whose JSON form also has the name of its class, as its kind."""

    def to_json(self) -> dict[str, Any]:
        return {"kind": type(self).__name__, **super().to_json()}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """An abstract class reads any of its subclasses. Raises ValueError for unknown kinds, and for missing, unknown
        and invalid fields."""
        return build(cls.__name__.lower(), kinds_of(cls), values) if ABC in cls.__bases__ else super().from_json(values)


def kinds_of(family: type[_Kind]) -> dict[str, type[_Kind]]:
    """The concrete subclasses of an abstract class by name."""
    kinds = {name: kind for child in family.__subclasses__() for name, kind in kinds_of(child).items()}
    return kinds or {family.__name__: family}


class Numbers:
    """A read-only float32 array for specifications: compared and hashed bit by bit, and a nested list in JSON.

    Raises ValueError for anything but finite numbers with `ndim` axes.
    """

    def __init__(self, name: str, values: object, ndim: int) -> None:
        if isinstance(values, Numbers):
            values = values.array
        if _has_bool(values):
            raise ValueError(f"{name} must be finite numbers, not true or false")
        try:
            array = np.array(values)
        except ValueError as error:
            raise ValueError(f"{name} must be rows of one length: {error}") from error
        if not array.size:
            array = np.zeros((0,) * ndim)
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite numbers, not {shown(values)}")
        if array.ndim != ndim:
            raise ValueError(f"{name} must have {ndim} axes, not {array.ndim}")
        if np.abs(array).max(initial=0) > np.finfo(np.float32).max:
            raise ValueError(f"{name} must be finite numbers in float32, not {shown(values)}")
        self.array: Float32[np.ndarray, ...] = array.astype(np.float32)
        self.array.setflags(write=False)

    def _bits(self) -> tuple[tuple[int, ...], bytes]:
        return self.array.shape, self.array.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Numbers) and self._bits() == other._bits()

    def __hash__(self) -> int:
        return hash(self._bits())

    def __repr__(self) -> str:
        return f"Numbers of shape {self.array.shape}"


def _has_bool(values: object) -> bool:
    """Whether nested lists contain true or false, which numpy would take for 1 and 0."""
    return any(map(_has_bool, values)) if isinstance(values, list | tuple) else isinstance(values, bool)


@cache
def _annotations(kind: type[Spec]) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def parse_field(name: str, annotation: Any, value: object) -> Any:
    """A field's value, from that value or its JSON form.

    Raises ValueError, in a sentence that begins with `name`, for a value that does not match the annotation.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin is Annotated:
        return Numbers(name, value, arguments[1])
    if origin in (Union, UnionType):
        kinds = [kind for kind in arguments if kind is not NoneType]
        if (value is None and NoneType in arguments) or (len(kinds) > 1 and isinstance(value, tuple(kinds))):
            return value
        if len(kinds) == 1:
            return parse_field(name, kinds[0], value)
        return build(name.rpartition(".")[2], {kind.__name__: kind for kind in kinds}, value)
    if origin is tuple:
        entries = as_sequence(name, value)
        types = arguments[:1] * len(entries) if arguments[-1] is Ellipsis else arguments
        if len(entries) != len(types):
            raise ValueError(f"{name} must hold {len(types)} entries, not {shown(entries)}")
        return tuple(parse_field(name, kind, entry) for kind, entry in zip(types, entries))
    from_json = getattr(annotation, "from_json", None)
    if isinstance(value, annotation) and (issubclass(annotation, Enum) or from_json is not None):
        return value
    if from_json is not None:
        if not isinstance(value, Mapping) and not issubclass(annotation, Plain | Enum):
            raise ValueError(f"{name}: {annotation.__name__} is an object with fields, not {shown(value)}")
        return from_json(value)
    if issubclass(annotation, Enum):
        return as_member(name, annotation, value)
    return _CHECKS[annotation](name, value)


def _from_json(kind: type[Spec], values: object) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{kind.__name__} is an object with fields, not {shown(values)}")
    entries = {name: value for name, value in values.items() if name != "kind" or not issubclass(kind, Plain)}
    if values.get("kind", kind.__name__) != kind.__name__ and "kind" not in entries:
        raise ValueError(f"this is of kind {shown(values['kind'])}, not {kind.__name__}")
    annotations = _annotations(kind)
    unknown = sorted(str(name) for name in entries if name not in annotations)
    required = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]
    if unknown or not set(required) <= set(entries):
        words = [f"needs {' and '.join(required)}"] * bool(required)
        words += [f"has no fields {shown(unknown)}"] * bool(unknown)
        raise ValueError(
            f"{kind.__name__} cannot be made from {shown(sorted(map(str, entries)))}: it {' and '.join(words)}"
        )
    return kind(
        **{name: parse_field(f"{kind.__name__}.{name}", annotations[name], value) for name, value in entries.items()}
    )


def build(what: str, kinds: Mapping[str, type[_Kind]], values: object) -> _Kind:
    """The value that JSON values of one of `kinds` describe. Raises ValueError for an unknown kind or field."""
    kind = values.get("kind") if isinstance(values, Mapping) else values
    if not isinstance(values, Mapping) or not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"no {what} is called {shown(kind)}; there are {sorted(kinds)}")
    return _from_json(kinds[kind], values)


def as_json(value: Any) -> Any:
    """The JSON form of a field's value. Enum members are written as their value, or their name where that is no
    text."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Numbers):
        return value.array.tolist()
    if isinstance(value, tuple):
        return [as_json(entry) for entry in value]
    return _word(value) if isinstance(value, Enum) else value


def _word(value: Enum) -> str:
    return value.value if isinstance(value.value, str) else value.name


def digest_of(values: Mapping[str, Any], extra: bytes = b"") -> str:
    """SHA-256 of JSON values and of `extra`, the content of files that they name."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode() + extra).hexdigest()


def as_member(name: str, kind: type[_Member], value: object) -> _Member:
    """The Enum member that JSON calls `value`. Raises ValueError, listing the members, for any other value."""
    members = {_word(member): member for member in kind}
    if isinstance(value, str) and value in members:
        return members[value]
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f"no {name.rpartition('.')[2]} is called {shown(value)}; there are {sorted(members)}")
    raise ValueError(f"{name} must be of {sorted(members)}, not {shown(value)}")


def as_float(name: str, value: object) -> float:
    """Raises ValueError for anything but a finite number."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with suppress(OverflowError):  # a whole number beyond all floats
            if math.isfinite(value):
                return float(value)
    raise ValueError(f"{name} must be a finite number, not {shown(value)}")


def as_int(name: str, value: object) -> int:
    """Raises ValueError for anything but a whole number of at most `LARGEST_INT`, in absolute value."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be a whole number, not {shown(value)}")
    return within(name, int(value), -LARGEST_INT, LARGEST_INT)


def within(name: str, value: int, least: int, most: int) -> int:
    """Raises ValueError, with the nearer bound, for a whole number outside least..most."""
    if value < least:
        raise ValueError(f"{name} must be at least {least:,}, not {shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be at most {most:,}, not {shown(value)}")
    return value


def as_bool(name: str, value: object) -> bool:
    """Raises ValueError for anything but true and false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {shown(value)}")
    return value


def as_sequence(name: str, values: object) -> Sequence[Any]:
    """Raises ValueError for anything but a sequence, and for a text."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise ValueError(f"{name} must be a sequence, not {shown(values)}")
    return values


def as_text(name: str, value: object) -> str:
    """Raises ValueError for anything but a text that UTF-8 can encode."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text, not {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} must be a text: character {error.start:,} of it is half a surrogate pair, which is none"
        ) from None
    return value


def not_empty(name: str, value: str) -> None:
    """Raises ValueError for an empty text."""
    if not value:
        raise ValueError(f"{name} must be a text with something in it, not {value!r}")


def none_empty(name: str, values: Sequence[str]) -> None:
    """Raises ValueError where there is no text, or one is empty."""
    if not values:
        raise ValueError(f"{name} must hold one text at least")
    for value in values:
        not_empty(name, value)


def distinct(name: str, values: Sequence[int] | None) -> None:
    """Raises ValueError where a block, segment, slot, head or token is named twice. None stands for all."""
    if values is not None and len(set(values)) != len(values):
        raise ValueError(f"{name} names a place twice: {shown(values)}")


_CHECKS = {bool: as_bool, int: as_int, float: as_float, str: as_text}
