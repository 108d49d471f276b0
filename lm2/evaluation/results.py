"""Finished evaluations: the tables that `lm2 eval` wrote, read back."""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from lm2.evaluation.cells import task_order
from lm2.files import sha256_of, spreadsheet_text
from lm2.sealed import read_sealed, write_sealed
from lm2.tasks.babilong import length_tokens

BUNDLED = Path(__file__).parents[1] / "benchmark"
"""What `make benchmark` measured on the bundled models."""

TABLE = (
    "model",
    "task",
    "length",
    "metric",
    "n",
    "groups",
    "mean",
    "low",
    "high",
    "constant",
    "constant_mean",
    "ceiling",
)
DIFFERENCES = ("model", "baseline", "task", "length", "metric", "kind", "n", "groups", "mean", "low", "high")
"""The columns of the two tables."""
SKIPPED = "skipped"
"""One more column, where question sets were asked: items of which the model's tokenizer lacks a token."""
RECIPE = "recipe"
"""One more column, where there are recipes: that of a seed; empty for a recipe itself, and for a model alone."""
_NUMBERS = ("n", "groups", "mean", "low", "high", "constant_mean", "ceiling")

_TABLES = ("table.csv", "differences.csv")
_SEALS = "cells/tables.sealed"
_KIND = "evaluation"


@dataclass(frozen=True, kw_only=True)
class Results:
    table: pd.DataFrame
    """A row per model, task, length and metric; shares of 1. A question set is a task without a length."""
    differences: pd.DataFrame
    """A row per pair of models that were asked the same, task, length and metric; none where there is no such pair."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of both tables."""
        return hashlib.sha256(
            "\f".join(table.to_csv(index=False) for table in (self.table, self.differences)).encode()
        ).hexdigest()

    @cached_property
    def recipes(self) -> dict[str, list[str]]:
        """The seeds of each recipe."""
        by_recipe: dict[str, list[str]] = {}
        for recipe, model in (
            dict.fromkeys(zip(self.table[RECIPE], self.table["model"])) if RECIPE in self.table else ()
        ):
            if recipe:
                by_recipe.setdefault(recipe, []).append(model)
        return by_recipe

    def seed_pairs(self, model: str, baseline: str) -> list[tuple[str, str]]:
        """The seeds of two recipes that were compared with each other: none where there are not as many of both."""
        seeds, others = self.recipes.get(model, []), self.recipes.get(baseline, [])
        return list(zip(seeds, others)) if len(seeds) == len(others) else []

    @property
    def models(self) -> list[str]:
        """Recipes, and models that are no seed of one."""
        seeds = set(itertools.chain(*self.recipes.values()))
        return [model for model in dict.fromkeys(self.table["model"]) if model not in seeds]

    @property
    def tasks(self) -> list[str]:
        """The mean first, where there is one."""
        return sorted(dict.fromkeys(self.table["task"]), key=task_order)

    @property
    def lengths(self) -> list[str]:
        """None where question sets were asked."""
        return sorted(set(filter(None, self.table["length"])), key=length_tokens)

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(self.table["metric"]))


def seal_results(folder: Path, models: Mapping[str, Mapping[str, str]]) -> None:
    """Write beside the tables what they were made from, and their digests. `models`: what each model was, by name."""
    tables = {name: sha256_of(folder / name) for name in _TABLES}
    write_sealed(
        folder / _SEALS, {"models": {name: dict(model) for name, model in models.items()}, "tables": tables}, of=_KIND
    )


def read_results(folder: Path) -> Results:
    """Raises ValueError when the folder does not hold an evaluation's tables, or not as they were written.

    An earlier version's tables, without digests beside them, are read as they are.
    """
    if (folder / _SEALS).exists():
        sealed = read_sealed(folder / _SEALS, _KIND, ("models", "tables"))["tables"]
        other = [name for name in _TABLES if (folder / name).is_file() and sha256_of(folder / name) != sealed.get(name)]
        if other:
            raise ValueError(
                f"{folder / other[0]} is not as `lm2 eval` wrote it: its SHA-256 is not the one in {_SEALS}; the same"
                " `lm2 eval` writes it anew"
            )
    table = _read(folder / "table.csv", TABLE)
    if table.empty:
        raise ValueError(f"{folder / 'table.csv'} has no rows: nothing was asked yet")
    return Results(table=table, differences=_read(folder / "differences.csv", DIFFERENCES))


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"{path} is missing: expected a folder that `lm2 eval ... --out` wrote")
    try:
        # Elsewhere "none" is an answer.
        rows = pd.read_csv(path, keep_default_na=False, na_values={"low": ["nan"], "high": ["nan"]})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable as a table: {' '.join(str(error).split())}") from error
    missing = [column for column in columns if column not in rows]
    if missing:
        raise ValueError(f"{path} is no table of `lm2 eval`: it lacks {', '.join(missing)}")
    worded = [column for column in _NUMBERS if column in columns and len(rows) and not is_numeric_dtype(rows[column])]
    if worded:
        raise ValueError(f"{path} is no table of `lm2 eval`: not all of its column {worded[0]} are numbers")
    texts = rows.select_dtypes(exclude="number").columns
    return rows.assign(
        **{
            name: rows[name].map(lambda cell: spreadsheet_text(cell) if isinstance(cell, str) else cell)
            for name in texts
        }
    )
