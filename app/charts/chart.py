"""Chart: the result that one panel of a figure shows, and how. Screen, file and command line draw panels from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeVar

from app.views.kinds import Drawable, Provenance
from app.views.numbers import View, digest, sketch
from lm2.serialize import Plain, parse_field

if TYPE_CHECKING:
    from app.views.kinds import Table
    from lm2.runs.spec import RunSpec
    from lm2.runs.trace import Trace
    from lm2.weights.checkpoint import Checkpoint

Part = TypeVar("Part")
OnStep = Callable[[int, int | None], None]
"""Called with the number of steps done, and of all steps where that is known."""


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Computes the parts of a chart's result. The server's subclass takes them from its caches."""

    on_step: OnStep = lambda done, total=None: None
    folder: Path | None = None
    """The folder of a sweep, probe or evaluation whose results are read instead."""

    def run(self, checkpoint: Checkpoint, spec: RunSpec) -> Trace:
        """The trace of a spec, possibly with more captures than it asks for."""
        from lm2.runs.runner import run

        return run(checkpoint, spec, on_segment=self.on_step)

    def part(self, checkpoint: Checkpoint, key: tuple[Hashable, ...], make: Callable[[], Part]) -> Part:
        """The result of `make`, which the key identifies."""
        return make()


def added_later(default: Any) -> Any:
    """A field that earlier versions did not have. Its default is not written to JSON, to keep old digests valid."""
    return field(default=default, metadata={"added_later": True})


@dataclass(frozen=True, kw_only=True, eq=False)
class ComputedChart:
    """A chart with its view and the origin of its numbers."""

    chart: Chart
    view: View | Table
    origin: Mapping[str, str]
    """The checkpoint's digests, device and number format, or the digest of results that were read."""

    def to_json(self) -> dict[str, Any]:
        """The chart's entry in a sidecar; the chart itself is in the figure's spec."""
        words = (
            self.view.summary
            if isinstance(self.view, Drawable)
            else f"Table of {', '.join(column.label for column in self.view.columns)}."
        )
        return {
            **self.origin,
            "seed": self.chart.seed,
            "shown": f"{self.chart.words}: {words}",
            "of": self.view.provenance.words,
            "numbers": sketch(self.view),
            "numbers_sha256": digest(self.view),
        }


@dataclass(frozen=True, kw_only=True)
class Chart(Plain, ABC):
    """One panel's content. Fields that the chosen view does not use change only the digest."""

    _spec_class = ""
    """Module and class of a spec that is imported only when it is needed, since it may need torch."""

    spec: Any
    """Of the run, sweep, probe ... that makes the result."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._spec_class:
            self.freeze(spec=parse_field(f"{type(self).__name__}.spec", resolve_name(self._spec_class), self.spec))

    def to_json(self) -> dict[str, Any]:
        values = super().to_json()
        for later in fields(self):
            if "added_later" in later.metadata and getattr(self, later.name) == later.default:
                del values[later.name]
        return values

    @property
    def words(self) -> str:
        """What is shown, in a word or two."""
        return self.shown.value

    @property
    def checkpoint(self) -> str | None:
        """Name of the model; None if the result is read from files without one."""
        return self.spec.checkpoint

    @property
    def files(self) -> tuple[str, ...]:
        """Files and folders that it reads, besides the model's."""
        return ()

    @property
    def seed(self) -> int | None:
        return self.spec.seed

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        """The runs that its result is made of, if it is made of runs."""
        return ()

    @property
    def new_tokens(self) -> int:
        """How many tokens the model writes after the text of each run."""
        return 0

    @property
    def result_key(self) -> tuple[Hashable, ...]:
        """Charts with equal keys share a result."""
        return type(self), self.spec.digest

    @abstractmethod
    def result(self, checkpoint: Checkpoint | None, computing: Computing) -> Any:
        """What `view` takes its numbers from. Raises ValueError."""

    @abstractmethod
    def view(self, checkpoint: Checkpoint | None, result: Any) -> View | Table:
        """The numbers. Raises ValueError for a block, head, slot ... that does not exist."""

    @property
    @abstractmethod
    def provenance(self) -> Provenance:
        """The model, what it read and what was changed, in words."""

    def computed(self, checkpoint: Checkpoint | None, result: Any) -> ComputedChart:
        """The view with its provenance and origin."""
        view = replace(self.view(checkpoint, result), provenance=self.provenance)
        return ComputedChart(chart=self, view=view, origin=self._origin(checkpoint, result))

    def _origin(self, checkpoint: Checkpoint | None, result: Any) -> dict[str, str]:
        return {
            "checkpoint_digest": checkpoint.digest,
            "setup_digest": checkpoint.setup_digest,
            "weights_digest": checkpoint.weights_digest,
            "device": checkpoint.device,
            "dtype": checkpoint.dtype,
        }


def check_there(name: str, value: object, values: Any) -> None:
    """Raises ValueError, listing `values`, if the value is not one of them."""
    if value not in values:
        words = f"{values[0]} to {values[-1]}" if isinstance(values, range) and values else ", ".join(map(str, values))
        raise ValueError(f"there is no {name} {value}; there are {words}")
