"""SweepSpec: everything that a sweep's numbers depend on, besides weights and stories."""

from dataclasses import dataclass

from lm2.runs.interventions import Persistence
from lm2.serialize import not_empty
from lm2.shown import shown
from lm2.tasks.sets.question_set import AsksQuestions
from probes.causal.plan import Route
from probes.stats.metrics import Metric
from probes.sweeps.grid import Replacement, UnitGrid


@dataclass(frozen=True, kw_only=True)
class SweepSpec(AsksQuestions):
    """A sweep of a checkpoint over the questions of a set. Plain JSON both ways."""

    checkpoint: str
    grid: UnitGrid = UnitGrid.SLOTS
    segment_length: int | None = None
    """Tokens; None takes the checkpoint's own."""
    back: tuple[int, ...] = (0,)
    """Segments in which units are replaced, counted back from the answer's own, which is 0. Gates are clamped in
    all."""
    replacement: Replacement | None = None
    """None takes CLAMP for gates and RESAMPLE for all others."""
    values: tuple[float, ...] = (0.0, 0.5, 1.0)
    """What gates are clamped to."""
    donors: int = 8
    """Stories in a MEAN."""
    persistence: Persistence = Persistence.PERSIST
    route: Route = Route.EXACT
    metrics: tuple[Metric, ...] = tuple(Metric)
    """The first one orders units."""
    screen: int | None = None
    """Estimate all units, and measure only what is needed to find the best `screen`; None measures all."""
    seed: int = 0
    """For donors, the screen's random units and resampled intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        not_empty("checkpoint", self.checkpoint)
        for name in ("back", "values", "metrics"):
            if not getattr(self, name) or len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(
                    f"{name} must hold one entry at least, and each once, not {shown(getattr(self, name))}"
                )
        if self.replacement is None:
            self.freeze(replacement=Replacement.CLAMP if self.grid is UnitGrid.GATES else Replacement.RESAMPLE)
        if self.donors < 2 or min(self.back) < 0 or self.seed < 0:
            raise ValueError(
                "a sweep needs at least 2 donors, and segments back and a seed that are not negative, "
                f"not {self.donors}, {self.back} and {self.seed}"
            )
        self._check_replacement()
        self._check_route()

    def _check_replacement(self) -> None:
        assert self.replacement is not None, "it was filled in"
        if (self.grid is UnitGrid.GATES) != (self.replacement is Replacement.CLAMP):
            raise ValueError(
                f"gates are clamped and nothing else is: {self.grid.value} cannot be replaced by"
                f" {self.replacement.value}"
            )
        if self.replacement is Replacement.INITIAL and self.grid is not UnitGrid.SLOTS:
            raise ValueError(f"only slots have a value at the start of a document, not {self.grid.value}")
        if self.grid is UnitGrid.GATES and self.back != (0,):
            raise ValueError(f"gates are clamped in all segments: back must be (0,), not {self.back}")

    def _check_route(self) -> None:
        if self.route is Route.ANSWER and (self.back != (0,) or self.grid is UnitGrid.GATES):
            raise ValueError(
                f"the answer's tokens can be computed alone in their own segment only, not for {self.grid.value} at"
                f" {self.back} back"
            )
        if self.screen is None:
            return
        if self.screen < 1:
            raise ValueError(f"a screen is for the best 1 unit at least, not {self.screen}")
        if self.grid is UnitGrid.GATES or self.route is Route.ANSWER:
            raise ValueError(
                f"a screen is of edits of one place on the exact route, not of {self.grid.value} on the"
                f" {self.route.value} route"
            )
        if self.metrics[0] is Metric.EXACT:
            raise ValueError("an exact match has no gradient to screen by: let another metric come first")
        if self.persistence is Persistence.READ_ONLY and self.back != (0,):
            raise ValueError(
                "a screen follows edits that persist: READ_ONLY can be screened in the answer's segment, not at"
                f" {self.back} back"
            )
