"""Recipes: models that differ in their training seed alone, and are compared as one."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lm2.shown import shown

if TYPE_CHECKING:
    from lm2.evaluation.cells import Answered, EvaluationCell

Answers = Mapping["EvaluationCell", Sequence["Answered"]]
Asked = tuple["Answered", ...]
"""An item, with the answer of each of a recipe's seeds; a model alone has one."""
ByItem = dict["EvaluationCell", list[Asked]]

_SEED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model under the name of its recipe. What it scores is the mean over its seeds."""

    name: str
    seeds: tuple[str, ...]
    """Names or paths of checkpoints. Recipes with as many seeds each are paired by seed in this order: name those that
    were trained on the same documents at the same place. Pairs of unrelated seeds are valid, too, but make wide
    intervals."""


def read_models(text: str) -> tuple[tuple[str, ...], tuple[Recipe, ...]]:
    """All checkpoints, and the recipes, of "lm2=A,lm2=B,rmt=C,rmt=D,E": A and B are the seeds of lm2, C and D those of
    rmt, and E is a model alone.

    What exists as a path is one, whatever is in its name, and so is what has a / before its =. Raises ValueError as
    `check_recipes` does.
    """
    models, seeds = [], dict[str, list[str]]()
    for piece in text.split(","):
        named = None if Path(piece).exists() else _SEED.fullmatch(piece)
        models.append(named[2] if named else piece)
        if named:
            seeds.setdefault(named[1], []).append(named[2])
    recipes = tuple(Recipe(name=name, seeds=tuple(each)) for name, each in seeds.items())
    check_recipes(recipes, models)
    return tuple(models), recipes


def check_recipes(recipes: Sequence[Recipe], models: Sequence[str]) -> None:
    """Raises ValueError for a recipe named like a model or another recipe, and for a seed that is no model, or that is
    named twice."""
    times = Counter(models)
    for name, count in Counter(recipe.name for recipe in recipes).items():
        if name in times or count > 1:
            raise ValueError(f"a recipe needs a name of its own, and {shown(name)} is that of another model")
    for recipe in recipes:
        for seed in recipe.seeds:
            if times[seed] != 1:
                raise ValueError(
                    f"each seed of {shown(recipe.name)} must be one of the models, named once; {shown(seed)} is named"
                    f" {times[seed]} times"
                )


def by_item(done: Answers, recipes: Sequence[Recipe]) -> ByItem:
    """The answers item by item; those of a recipe, if all its seeds have them, before those of its first seed."""
    items: ByItem = {}
    begun_by = {recipe.seeds[0]: recipe for recipe in recipes}
    for cell, answered in done.items():
        if cell.model in begun_by:
            recipe = begun_by[cell.model]
            seeds = [replace(cell, model=seed) for seed in recipe.seeds]
            if all(seed in done for seed in seeds):
                for seed in seeds:
                    check_same(cell, answered, seed, done[seed])
                items[replace(cell, model=recipe.name)] = list(zip(*(done[seed] for seed in seeds)))
        items[cell] = [(item,) for item in answered]
    return items


def check_same(
    cell: "EvaluationCell", mine: Sequence["Answered"], other: "EvaluationCell", theirs: Sequence["Answered"]
) -> None:
    """Raises ValueError where two cells hold other items."""
    if [(a.seed, a.story, a.question) for a in mine] != [(b.seed, b.story, b.question) for b in theirs]:
        raise ValueError(f"{cell.file} and {other.file} hold different items, which cannot be paired")


def not_skipped(items: Sequence[Asked]) -> list[Asked]:
    """Those that all seeds were asked."""
    return [item for item in items if not any(answered.skipped for answered in item)]
