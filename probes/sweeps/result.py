"""The result of a sweep: every unit's values by document, effects, joint effects beside sums, curves and tables."""

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
from probes.stats.metrics import Metric, first_token
from probes.sweeps.grid import ModelPart
from probes.sweeps.screening import Screening
from probes.sweeps.spec import SweepSpec

Values = Mapping[Metric, Float[np.ndarray, "... document"]]
"""By metric; [unit, document] for units."""


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Units that are replaced together."""

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
    """Indexes of the measured units: all, if nothing was screened."""
    prompts: tuple[Prompt, ...]
    """The question of each document."""
    answer_tokens: tuple[int, ...]
    """How many the answer of each has."""
    left_out: tuple[str, ...]
    """Stories of documents that lack the segments or donors that the spec asks for."""
    baseline: Values
    values: Values
    """Of the measured units."""
    joints: tuple[Joint, ...]
    joint_values: Values
    counts: tuple[int, ...]
    """Points of the curves: how many units are replaced together. Empty if units exclude each other."""
    best_first: Values
    """With the first `count` units replaced, most harmful single effects first. A document's order comes from the other
    half of the stories, so that no curve profits from the noise that chose its order."""
    worst_first: Values
    screening: Screening | None

    @property
    def stories(self) -> tuple[str, ...]:
        """Of each document; documents of one story are one group."""
        return tuple(prompt.group for prompt in self.prompts)

    @property
    def metric(self) -> Metric:
        """The metric that orders units."""
        return self.spec.metrics[0]

    def label(self, metric: Metric) -> str:
        """The metric's, which says so if it reads an answer's first token alone."""
        if metric is Metric.LOGIT_DIFFERENCE:
            return metric.label.replace(" (", f"{first_token(self.answer_tokens)} (")
        return metric.label

    def differences(self, values: Values, metric: Metric) -> Float[np.ndarray, "unit document"]:
        """`values` minus each document's own unedited value."""
        return values[metric] - self.baseline[metric]

    def effects(self, metric: Metric) -> tuple[Effect, ...]:
        """Of each measured unit; q is over all of them."""
        return effects_of_units(self.differences(self.values, metric), self.stories, self.spec.seed)

    def ranking(self) -> tuple[int, ...] | None:
        """Measured units by the absolute value of their mean effect on the first metric, largest first; None if the
        screen that chose them failed."""
        if self.screening is not None and not self.screening.trusted:
            return None
        means = self.differences(self.values, self.metric).mean(1)
        return tuple(self.measured[i] for i in np.argsort(-np.abs(means), kind="stable"))

    def joint_effects(self, metric: Metric) -> tuple[Effect | Redundancy, ...]:
        """Of each joint, beside the sum of its members' single effects if all of these were measured."""
        singles = dict(zip(self.measured, self.differences(self.values, metric)))
        differences = self.differences(self.joint_values, metric)
        effects = effects_of_units(differences, self.stories, self.spec.seed) if len(differences) else ()
        return tuple(
            joint_beside_singles(
                values, np.stack([singles[unit] for unit in joint.members]), self.stories, self.spec.seed
            )
            if singles.keys() >= set(joint.members)
            else effect
            for joint, values, effect in zip(self.joints, differences, effects)
        )

    def curves(self, metric: Metric) -> dict[str, tuple[Effect, ...]]:
        """Effects by order of replacement; one for each of `counts`."""
        orders = {"best first": self.best_first, "worst first": self.worst_first} if self.counts else {}
        return {
            name: effects_of_units(self.differences(values, metric), self.stories, self.spec.seed)
            for name, values in orders.items()
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """values: a row for each measured unit, document and metric. units, joints and curves: for each of these and
        each metric."""
        kinds = {"values": self._values, "units": self._units, "joints": self._joints, "curves": self._curves}
        return {
            name: pd.DataFrame([row for metric in self.spec.metrics for row in rows(metric)])
            for name, rows in kinds.items()
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
        screening = self.screening if metric is self.metric else None
        scores = np.full(len(self.parts), np.nan) if screening is None else screening.scores
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
        for joint, effect in zip(self.joints, self.joint_effects(metric)):
            parts = {"singles": None, "difference": None}
            if isinstance(effect, Redundancy):
                parts, effect = {"singles": effect.singles, "difference": effect.difference}, effect.joint
            rows.append(
                {
                    "joint": joint.label,
                    "units": len(joint.members),
                    "metric": metric.value,
                    **_columns(effect),
                    **{
                        f"{name}_{column}": _columns(part)[column]
                        for name, part in parts.items()
                        for column in ("mean", "low", "high")
                    },
                }
            )
        return rows

    def _curves(self, metric: Metric) -> list[dict[str, Any]]:
        return [
            {"metric": metric.value, "order": order, "units": count, **_columns(effect)}
            for order, effects in self.curves(metric).items()
            for count, effect in zip(self.counts, effects)
        ]


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
