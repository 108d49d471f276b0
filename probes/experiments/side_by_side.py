"""An experiment on several seeds of one recipe: the spread between them beside the interval within each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lm2.weights.checkpoint import Checkpoint
from probes.experiments.experiment import ExperimentReport
from probes.findings import NOTHING, Column, Findings


@dataclass(frozen=True, kw_only=True)
class SeedsReport:
    """An experiment's reports, one for each seed, and their tables side by side."""

    reports: tuple[ExperimentReport, ...]

    @property
    def findings(self) -> tuple[Findings, ...]:
        """A table for each measured column of the experiment's tables whose rows are the same for all seeds."""
        return tuple(
            column for table in self.reports[0].findings if not self._apart(table) for column in self._columns(table)
        )

    @property
    def apart(self) -> tuple[str, ...]:
        """Which tables cannot stand side by side, and why, a sentence each."""
        return tuple(filter(None, map(self._apart, self.reports[0].findings)))

    def _of_seeds(self, table: Findings) -> dict[str, Findings | None]:
        """The same table of each seed, by its title; None where a seed has none."""
        return {
            report.spec.checkpoint: next((each for each in report.findings if each.title == table.title), None)
            for report in self.reports
        }

    def _apart(self, table: Findings) -> str:
        names = [column.name for column in table.columns]
        for seed, other in self._of_seeds(table).items():
            if other is None:
                return f"{seed} has no table {table.title!r}, which {self.reports[0].spec.checkpoint} has"
            if [column.name for column in other.columns] != names or other.columns[0].values != table.columns[0].values:
                return f"{table.title!r} has other rows or columns of {seed} than of {self.reports[0].spec.checkpoint}"
        return ""

    def _columns(self, table: Findings) -> Iterator[Findings]:
        by_seed = {seed: other for seed, other in self._of_seeds(table).items() if other is not None}
        labels = [at for at in range(len(table.columns)) if _is_label(at, list(by_seed.values()))]
        words = f"{len(by_seed)} seeds; the interval of each is for other questions, not for other seeds"
        notes = dict.fromkeys(other.note for other in by_seed.values())
        of_each = notes if len(notes) == 1 else [f"{seed}: {other.note}" for seed, other in by_seed.items()]
        for at, column in enumerate(table.columns):
            if at not in labels and not any(isinstance(cell, str) for cell in column.values):
                seeds = [replace(other.columns[at], name=seed) for seed, other in by_seed.items()]
                yield Findings(
                    title=f"{table.title}: {column.name}",
                    columns=(*(table.columns[label] for label in labels), *_summaries(seeds), *seeds),
                    note="; ".join((words, *of_each)),
                )
                of_each = ()  # said once

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a missing number is null."""
        return {
            "reports": [report.to_json() for report in self.reports],
            "findings": [table.to_json() for table in self.findings],
            "apart": list(self.apart),
        }


def check_seeds(checkpoints: Sequence[Checkpoint]) -> None:
    """Raises ValueError for checkpoints that are no seeds of one recipe: with the same weights, or with other
    configurations or tokenizers, on which the rows of tables depend."""
    first = checkpoints[0]
    digests: dict[str, str] = {}
    for checkpoint in checkpoints:
        differing = [
            name for name, value in checkpoint.config.to_json().items() if value != first.config.to_json()[name]
        ]
        if differing or checkpoint.setup_digest != first.setup_digest:
            raise ValueError(
                f"seeds of one recipe differ in their weights alone, and {checkpoint.name} differs from {first.name} in"
                f" {', '.join(differing) or 'its tokenizer'}: their rows cannot be compared"
            )
        if checkpoint.digest in digests:
            raise ValueError(f"{digests[checkpoint.digest]} and {checkpoint.name} are the same model, not two seeds")
        digests[checkpoint.digest] = checkpoint.name


def _is_label(at: int, tables: Sequence[Findings]) -> bool:
    """Whether a column says what the rows are: the first, and others of words or whole numbers, if none before is
    measured."""
    column = tables[0].columns[at]
    whole = column.low is None and not any(isinstance(cell, float) for cell in column.values)
    same = all(table.columns[at].values == column.values for table in tables)
    return at == 0 or (whole and same and _is_label(at - 1, tables))


def _summaries(seeds: Sequence[Column]) -> Iterator[Column]:
    """Mean, least and most of the seeds that have a number."""
    values = np.array([column.values for column in seeds], float)
    for name, summary in (("mean over seeds", np.mean), ("least", np.min), ("most", np.max)):
        known = [row[~np.isnan(row)] for row in values.T]
        yield Column(name, seeds[0].unit, tuple(float(summary(row)) if len(row) else NOTHING for row in known))
