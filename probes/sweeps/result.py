"""What a sweep found: per-document values of every unit, their effects, joint effects beside sums, curves, and the
tables of it all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from lm2.files import write_table
from lm2.tasks.prompt import Prompt
from probes.stats.effects import Effect, Redundancy, effects_of_units, joint_beside_singles
from probes.stats.metrics import Metric
from probes.sweeps.grid import ModelPart
from probes.sweeps.screening import Screening
from probes.sweeps.spec import SweepSpec

Values = Mapping[Metric, Float[np.ndarray, "... document"]]
"""By metric; where it is of units, [unit, document]."""


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Units replaced all at once."""

    label: str
    members: tuple[int, ...]
    """Indexes of the units."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepResult:
    """A finished sweep. Effects are paired with each document's own unedited run."""

    spec: SweepSpec
    checkpoint_digest: str
    device: str
    dtype: str
    parts: tuple[ModelPart, ...]
    """The units."""
    measured: tuple[int, ...]
    """Indexes of the units that were measured: all, where nothing was screened."""
    prompts: tuple[Prompt, ...]
    """The question of each document."""
    left_out: tuple[str, ...]
    """Stories of documents without the segments or the donors that the spec asks for."""
    baseline: Values
    values: Values
    """Of each measured unit's run."""
    joints: tuple[Joint, ...]
    joint_values: Values
    counts: tuple[int, ...]
    """Points of the curves: units replaced together. Empty where units exclude each other."""
    best_first: Values
    """With the first `count` units replaced, those whose single effects do most harm first. A document's order comes
    from the effects in the other half of the stories, so that no curve profits from the noise that chose its order."""
    worst_first: Values
    screening: Screening | None

    @property
    def stories(self) -> tuple[str, ...]:
        """Per document; documents of one story are one group."""
        return tuple(prompt.group for prompt in self.prompts)

    @property
    def metric(self) -> Metric:
        """The one that puts units in order."""
        return self.spec.metrics[0]

    def differences(self, values: Values, metric: Metric) -> Float[np.ndarray, "unit document"]:
        """`values` less each document's own unedited value."""
        return values[metric] - self.baseline[metric]

    def effects(self, metric: Metric) -> tuple[Effect, ...]:
        """Of each measured unit, with q over all of them."""
        return effects_of_units(self.differences(self.values, metric), self.stories, self.spec.seed)

    def ranking(self) -> tuple[int, ...] | None:
        """Measured units by the size of their mean effect on the first metric, largest first; None where the screen
        that chose them failed."""
        if self.screening is not None and not self.screening.trusted:
            return None
        means = self.differences(self.values, self.metric).mean(1)
        return tuple(self.measured[at] for at in np.argsort(-np.abs(means), kind="stable"))

    def joint_effects(self, metric: Metric) -> tuple[Effect | Redundancy, ...]:
        """Of each joint, beside the sum of its members' single effects where all of these were measured."""
        singles = dict(zip(self.measured, self.differences(self.values, metric)))
        joint = self.differences(self.joint_values, metric)
        alone = effects_of_units(joint, self.stories, self.spec.seed) if len(joint) else ()
        return tuple(
            (
                joint_beside_singles(
                    values, np.stack([singles[unit] for unit in one.members]), self.stories, self.spec.seed
                )
                if all(unit in singles for unit in one.members)
                else effect
            )
            for one, values, effect in zip(self.joints, joint, alone)
        )

    def curves(self, metric: Metric) -> dict[str, tuple[Effect, ...]]:
        """Effects with more and more units replaced, by order; a point for each of `counts`."""
        orders = {"best first": self.best_first, "worst first": self.worst_first} if self.counts else {}
        return {
            name: effects_of_units(self.differences(values, metric), self.stories, self.spec.seed)
            for name, values in orders.items()
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """values: a row per measured unit, document and metric. units: a row per unit and metric. joints, curves:
        likewise."""
        metrics = self.spec.metrics
        return {
            "values": pd.DataFrame([row for metric in metrics for row in self._values(metric)]),
            "units": pd.DataFrame([row for metric in metrics for row in self._units(metric)]),
            "joints": pd.DataFrame([row for metric in metrics for row in self._joints(metric)]),
            "curves": pd.DataFrame(
                [
                    {"metric": metric.value, "order": order, "units": count, **_columns(effect)}
                    for metric in metrics
                    for order, effects in self.curves(metric).items()
                    for count, effect in zip(self.counts, effects)
                ]
            ),
        }

    def write(self, folder: Path) -> None:
        """Each table as CSV and as Parquet."""
        for name, table in self.tables().items():
            write_table(table, folder, name)

    def _values(self, metric: Metric) -> list[dict[str, Any]]:
        return [
            {
                "unit": unit,
                **_place(self.parts[unit]),
                "document": document,
                "story": story,
                "metric": metric.value,
                "baseline": self.baseline[metric][document],
                "edited": edited,
                "effect": edited - self.baseline[metric][document],
            }
            for unit, row in zip(self.measured, self.values[metric])
            for document, (story, edited) in enumerate(zip(self.stories, row))
        ]

    def _units(self, metric: Metric) -> list[dict[str, Any]]:
        effects = dict(zip(self.measured, self.effects(metric)))
        scores = (
            self.screening.scores
            if self.screening is not None and metric is self.metric
            else np.full(len(self.parts), np.nan)
        )
        return [
            {
                "unit": unit,
                **_place(part),
                "metric": metric.value,
                "measured": unit in effects,
                **_columns(effects.get(unit)),
                "screened": scores[unit],
            }
            for unit, part in enumerate(self.parts)
        ]

    def _joints(self, metric: Metric) -> list[dict[str, Any]]:
        rows = []
        for joint, found in zip(self.joints, self.joint_effects(metric)):
            known = isinstance(found, Redundancy)
            rows.append(
                {
                    "joint": joint.label,
                    "units": len(joint.members),
                    "metric": metric.value,
                    **_columns(found.joint if known else found),
                }
            )
            for name in ("singles", "difference"):
                effect = getattr(found, name) if known else None
                rows[-1] |= {
                    f"{name}_{column}": value
                    for column, value in _columns(effect).items()
                    if column in ("mean", "low", "high")
                }
        return rows


def _place(part: ModelPart) -> dict[str, Any]:
    return {
        "what": part.what,
        "block": part.layer,
        "index": part.index,
        "segments_back": part.back,
        "value": part.value,
        "label": part.label,
    }


def _columns(effect: Effect | None) -> dict[str, float]:
    names = ("n", "groups", "mean", "low", "high", "d_z", "p", "q")
    return {name: np.nan if effect is None else getattr(effect, name) for name in names}
