"""Chart: which result one panel of a figure shows, and what of it. It drives the panel on the screen, the file and the command line."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from app.views.numbers import View, digest
from lm2.plain import Plain, as_json, digest_of, member, whole

if TYPE_CHECKING:
    from app.views.kinds import Table
    from lm2.checkpoint import Checkpoint

OnStep = Callable[[int, int | None], None]
"""Hears (steps done, steps in all), where that is known."""
_Member = TypeVar("_Member", bound=Enum)


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """A chart with its view, and what that was made from."""

    chart: Chart
    view: View | Table
    origin: Mapping[str, str]
    """Digest of the weights, device and number format; of results that were read, their digest."""

    def to_json(self) -> dict[str, Any]:
        """What a sidecar tells of it; the chart itself is in the figure's spec."""
        return {**self.origin, "seed": self.chart.seed, "numbers": digest(self.view)}


@dataclass(frozen=True, kw_only=True)
class Chart(Plain):
    """One panel's content. Plain JSON both ways. Fields that what is shown has no use for change nothing but the digest."""

    spec: Any
    """Of the run, sweep, probe ...: what makes the result."""

    def __post_init__(self) -> None:
        if isinstance(self.spec, Mapping):
            self.settle(spec=self._spec_of(dict(self.spec)))
        elif not hasattr(type(self.spec), "digest"):  # of the spec itself it would read the files that this names
            raise ValueError(f"spec must be that of a result, an object with fields, not {self.spec!r:.80}")

    @staticmethod
    @abstractmethod
    def _spec_of(values: dict[str, Any]) -> Any:
        """The spec from its JSON form. Raises ValueError for one that makes no sense."""

    @property
    def words(self) -> str:
        """What is shown, in a word or two: the choice `shown`, which most kinds have."""
        return self.shown.value

    @property
    def checkpoint(self) -> str | None:
        """Name of the model; None where a result is read and no model is asked."""
        return self.spec.checkpoint

    @property
    def files(self) -> tuple[str, ...]:
        """Files and folders that it names and reads, besides the model's."""
        return ()

    @property
    def seed(self) -> int | None:
        return self.spec.seed

    @property
    def result_key(self) -> Hashable:
        """Charts that share it are of one result."""
        return type(self), self.spec.digest

    @abstractmethod
    def find(self, checkpoint: Checkpoint | None, on_step: OnStep, folder: Path | None) -> Any:
        """Compute the result. `folder`: of a sweep, probe or evaluation that has run, whose files serve instead. Raises ValueError."""

    @abstractmethod
    def view(self, checkpoint: Checkpoint | None, result: Any) -> View | Table:
        """The numbers. Raises ValueError for a block, head, slot ... that is not there, with those that are."""

    def made(self, checkpoint: Checkpoint | None, result: Any) -> Made:
        """`view`, with what it was made from."""
        return Made(chart=self, view=self.view(checkpoint, result), origin=self._origin(checkpoint, result))

    def _origin(self, checkpoint: Checkpoint | None, result: Any) -> dict[str, str]:
        return {"checkpoint_digest": checkpoint.digest, "device": checkpoint.device, "dtype": checkpoint.dtype}

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON form."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {"kind": type(self).__name__} | {field.name: _json(getattr(self, field.name)) for field in fields(self)}

    def settle_choice(self, name: str, kind: type[_Member]) -> None:
        """Give a field that is of a closed set its plain form. Of `__post_init__` alone."""
        if not isinstance(getattr(self, name), kind):
            self.settle(**{name: member(name, kind, getattr(self, name))})

    def check_whole(self, *names: str) -> None:
        """Raises ValueError for fields that are neither None nor whole numbers."""
        for name in names:
            if getattr(self, name) is not None:
                whole(name, getattr(self, name))

    def check_texts(self, *names: str) -> None:
        """Raises ValueError for fields that are no texts."""
        for name in names:
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a text, not {getattr(self, name)!r}")


def check_there(name: str, value: object, there: Any) -> None:
    """Raises ValueError for a value that is not there, with those that are."""
    if value not in there:
        told = f"{there[0]} to {there[-1]}" if isinstance(there, range) and there else ", ".join(map(str, there))
        raise ValueError(f"there is no {name} {value}; there are {told}")


def _json(value: Any) -> Any:
    return value.to_json() if hasattr(value, "to_json") else as_json(value)
