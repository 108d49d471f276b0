"""Charts of a text as the model continues it while a direction is added, beside a random one."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from app.charts.chart import Computing
from app.charts.run import TextChart
from app.charts.updates import walk_of
from app.views.kinds import Provenance
from app.views.study import steering as views
from lm2.serialize import parse_field

if TYPE_CHECKING:
    from app.views.numbers import View
    from lm2.weights.checkpoint import Checkpoint
    from probes.causal.updates import TracedGeneration


class OfSteering(Enum):
    """Views of a text that is steered."""

    DIFFERENCE = "logit difference by token"


@dataclass(frozen=True, kw_only=True, eq=False)
class Steered:
    """One text continued as it is, with the direction, and with the random one."""

    walks: dict[str, TracedGeneration]
    norm: float
    """The site's typical norm."""
    words: tuple[int, int]
    """The tokens that the direction leads to and away from."""


@dataclass(frozen=True, kw_only=True)
class SteeringChart(TextChart):
    """A `Steered` text. Its spec has no captures; its interventions hold in all three texts."""

    steering: Any
    """A `Steering`, whose module needs torch."""
    shown: OfSteering = OfSteering.DIFFERENCE
    tokens: int
    """Tokens that the model generates after the text."""

    def __post_init__(self) -> None:
        from probes.causal.steering import Steering

        super().__post_init__()
        self.freeze(steering=parse_field("SteeringChart.steering", Steering, self.steering))
        if self.spec.captures:
            raise ValueError("the run's spec is of the text alone: it has no captures")

    @property
    def seed(self) -> int:
        return self.steering.seed

    @property
    def provenance(self) -> Provenance:
        text = super().provenance
        item = f"{text.item}, with {self.tokens} tokens that the model wrote behind it"
        control = f"control: a random direction of the same norm (seed {self.seed})"
        return replace(text, item=item, changes=(*text.changes, self.steering.words, control))

    @property
    def new_tokens(self) -> int:
        return self.tokens

    @property
    def result_key(self) -> tuple[Hashable, ...]:
        return type(self), self.spec.digest, self.steering, self.tokens

    def result(self, checkpoint: Checkpoint, computing: Computing) -> Steered:
        steering = self.steering
        words = steering.token_ids(checkpoint)
        trace = computing.run(checkpoint, steering.measured(self.spec))
        directions = {
            views.DIRECTION: steering.direction(checkpoint),
            views.RANDOM: steering.random_direction(checkpoint),
        }
        specs = {views.AS_IT_IS: self.spec} | {
            name: steering.steered(self.spec, trace, direction, self.tokens) for name, direction in directions.items()
        }
        walks = {name: walk_of(checkpoint, spec, self.tokens, computing) for name, spec in specs.items()}
        return Steered(walks=walks, norm=steering.typical_norm(trace), words=words)

    def view(self, checkpoint: Checkpoint, result: Steered) -> View:
        return views.logit_difference(result.walks, result.words, self.steering.toward, self.steering.away)
