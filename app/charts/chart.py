"""Chart: which result one panel of a figure shows, and what of it. It drives the panel on the screen, the file and the
command line."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
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
"""Called with (steps done, steps in all), where that is known."""


@dataclass(frozen=True, kw_only=True)
class Computing:
    """How a chart's result is computed: all of it, here and now. The server's takes the parts that it has kept."""

    on_step: OnStep = lambda done, total=None: None
    folder: Path | None = None
    """Of a sweep, probe or evaluation that has run, whose files serve instead."""

    def run(self, checkpoint: Checkpoint, spec: RunSpec) -> Trace:
        """The trace of a spec; it may keep more than the spec asks for."""
        from lm2.runs.runner import run

        return run(checkpoint, spec, on_segment=self.on_step)

    def part(self, checkpoint: Checkpoint, key: tuple[Hashable, ...], make: Callable[[], Part]) -> Part:
        """What `make` makes of what the key says."""
        return make()


_LATER = "later"


def later(default: Any) -> Any:
    """A field that figures of earlier versions do not have: with its default it is not written, so that their digests
    stay as they are."""
    return field(default=default, metadata={_LATER: True})


@dataclass(frozen=True, kw_only=True, eq=False)
class ComputedChart:
    """A chart with its view, and what that was made from."""

    chart: Chart
    view: View | Table
    origin: Mapping[str, str]
    """Digests of the checkpoint and its weights, device and number format; of results that were read, their digest."""

    def to_json(self) -> dict[str, Any]:
        """What a sidecar tells of it; the chart itself is in the figure's spec."""
        words = (
            self.view.summary
            if isinstance(self.view, Drawable)
            else f"Table of {', '.join(column.label for column in self.view.columns)}."
        )
        told = {"shown": f"{self.chart.words}: {words}", "of": self.view.provenance.words}
        return {
            **self.origin,
            "seed": self.chart.seed,
            **told,
            "numbers": sketch(self.view),
            "numbers_sha256": digest(self.view),
        }


@dataclass(frozen=True, kw_only=True)
class Chart(Plain):
    """One panel's content. Plain JSON both ways. Fields that what is shown has no use for change nothing but the
    digest."""

    spec: Any
    """Of the run, sweep, probe ...: what makes the result."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.freeze(spec=parse_field(f"{type(self).__name__}.spec", self._spec_kind(), self.spec))

    def to_json(self) -> dict[str, Any]:
        left_out = {
            one.name for one in fields(self) if _LATER in one.metadata and getattr(self, one.name) == one.default
        }
        return {name: value for name, value in super().to_json().items() if name not in left_out}

    @staticmethod
    def from_json(values: object) -> Chart:
        """A chart of any kind. Raises ValueError for a kind or field that does not exist, and for values that make no
        sense."""
        from app.charts import chart_of

        return chart_of(values)

    @staticmethod
    @abstractmethod
    def _spec_kind() -> type:
        """Of which class the spec is; imported where it is asked for, since it may need torch."""

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
    def runs(self) -> tuple[RunSpec, ...]:
        """The texts that it runs, where that is what its result takes."""
        return ()

    @property
    def result_key(self) -> tuple[Hashable, ...]:
        """Charts that share it are of one result."""
        return type(self), self.spec.digest

    @abstractmethod
    def result(self, checkpoint: Checkpoint | None, computing: Computing) -> Any:
        """What it shows something of. Raises ValueError."""

    @abstractmethod
    def view(self, checkpoint: Checkpoint | None, result: Any) -> View | Table:
        """The numbers. Raises ValueError for a block, head, slot ... that is not there, with those that are."""

    @property
    @abstractmethod
    def provenance(self) -> Provenance:
        """What is shown of which model on what, and what was changed, in words."""

    def made(self, checkpoint: Checkpoint | None, result: Any) -> ComputedChart:
        """`view`, with what it was made from."""
        view = replace(self.view(checkpoint, result), provenance=self.provenance)
        return ComputedChart(chart=self, view=view, origin=self._origin(checkpoint, result))

    def _origin(self, checkpoint: Checkpoint | None, result: Any) -> dict[str, str]:
        digests = {
            "checkpoint_digest": checkpoint.digest,
            "setup_digest": checkpoint.setup_digest,
            "weights_digest": checkpoint.weights_digest,
        }
        return {**digests, "device": checkpoint.device, "dtype": checkpoint.dtype}


def check_there(name: str, value: object, there: Any) -> None:
    """Raises ValueError for a value that is not there, with those that are."""
    if value not in there:
        told = f"{there[0]} to {there[-1]}" if isinstance(there, range) and there else ", ".join(map(str, there))
        raise ValueError(f"there is no {name} {value}; there are {told}")
