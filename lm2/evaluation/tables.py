"""The tables of an evaluation: how often each model is right, and how much more often than another on the same
items."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lm2.evaluation.cells import Answered, EvaluationCell, task_order
from lm2.evaluation.metrics import CHOICE, METRICS, metrics_of
from lm2.evaluation.recipes import Answers, Asked, ByItem, Recipe, by_item, check_same, not_skipped
from lm2.evaluation.results import RECIPE, SKIPPED
from lm2.intervals import bootstrap, correlation, difference, half_over_seeds, over_seeds, rate
from lm2.tasks.chance import best_constant, guess_share
from lm2.tasks.sets.files import is_of_a_row

_CONSTANTS = 64
"""Of a set's accepted answers, the most frequent ones, which are tried as the best constant."""

Row = dict[str, Any]
_SEEDS = "seeds"
"""What each seed scores, in a row whose interval is for other stories alone yet."""


def table(done: Answers, recipes: Sequence[Recipe] = ()) -> list[Row]:
    """Tidy rows. Shares are of 1, with 95 % intervals clustered by story.

    `constant` is the answer that would be right most often on the task's items of all lengths if it were always given,
    and `constant_mean` how often it is right on these items (where answers stand against rivals, how often a guess
    is); `ceiling` is what printing every target would score. Rows of task "mean" hold the unweighted mean over tasks
    or sets, of lengths at which all of a model's tasks were asked. Items that were skipped are left out, and counted
    in the rows of sets.

    Each of `recipes` has rows like a model's, of the mean over its seeds on items that all of them were asked. Their
    intervals are for other stories and other seeds (`half_over_seeds`).
    """
    rows = []
    all_items: dict[str, list[Answered]] = {}
    for cell, answered in done.items():
        all_items.setdefault(cell.task, []).extend(answered)
    constants: dict[tuple[str, str], str] = {}
    items = by_item(done, recipes)
    recipe_of = {seed: recipe.name for recipe in recipes for seed in recipe.seeds}
    for cell, answered in items.items():
        asked = not_skipped(answered)
        one_seed = [item[0] for item in asked]
        for metric in metrics_of(cell, [item[0] for item in answered]) if asked else ():
            if metric == CHOICE:
                constant, by_chance = "", guess_share([item.rivals for item in one_seed])
            else:
                if (cell.task, metric) not in constants:
                    constants[cell.task, metric] = best_scoring_constant(cell.task, all_items[cell.task], metric)
                constant = constants[cell.task, metric]
                by_chance = float(np.mean(_scores(metric, cell.task, one_seed, [constant] * len(one_seed))))
            targets = (
                [1.0] if metric == CHOICE else _scores(metric, cell.task, one_seed, [item.target for item in one_seed])
            )
            scores, stories = _clustered(metric, cell, asked)
            shares = asdict(rate(_over_seeds(scores), stories, seeds=len(scores)))
            shares["mean"] = shares.pop("accuracy")
            rows.append(
                {
                    "model": cell.model,
                    "task": cell.task,
                    "length": cell.length,
                    "metric": metric,
                    **shares,
                    "constant": constant,
                    "constant_mean": by_chance,
                    "ceiling": float(np.mean(targets)),
                    _SEEDS: scores.mean(1),
                    **({} if cell.length else {SKIPPED: len(answered) - len(asked)}),
                    **({RECIPE: recipe_of.get(cell.model, "")} if recipes else {}),
                }
            )
    rows += [row for group in _by_length(items) for row in _mean_rows(*group, rows, items)]
    for row in rows:
        if half := half_over_seeds(row.pop(_SEEDS)):
            low, high = over_seeds(row["mean"], row["low"], row["high"], half)
            row["low"], row["high"] = max(0.0, low), min(1.0, high)
    return rows


def _scores(metric: str, task: str, items: Sequence[Answered], outputs: Sequence[str]) -> list[float]:
    return [METRICS[metric](task, item, output) for item, output in zip(items, outputs, strict=True)]


def _outputs(metric: str, cell: EvaluationCell, items: Sequence[Asked]) -> Float[np.ndarray, "seed item"]:
    return np.array(
        [_scores(metric, cell.task, answered, [item.output for item in answered]) for answered in zip(*items)], float
    )


def _over_seeds(scores: Float[np.ndarray, "seed item"]) -> list[float]:
    return scores.mean(0).tolist()


def _clustered(
    metric: str, cell: EvaluationCell, items: Sequence[Asked]
) -> tuple[Float[np.ndarray, "seed item"], list[str]]:
    """Each item's score by seed, and its story, by a name that means the same in all sets."""
    stories = [item[0].story for item in items]
    named = [f"{cell.task}: {story}" if is_of_a_row(story) else story for story in stories]
    return _outputs(metric, cell, items), named


def best_scoring_constant(task: str, items: Sequence[Answered], metric: str) -> str:
    """The one answer that would score best on these items, among the most frequent ones."""
    counts = Counter((item.question if metric == "official" else "", item.answers) for item in items)
    frequent = Counter(answer for item in items for answer in item.answers).most_common(_CONSTANTS)
    examples = {(item.question if metric == "official" else "", item.answers): item for item in items}
    totals = {
        answer: sum(n * METRICS[metric](task, examples[asked], answer) for asked, n in counts.items())
        for answer, _ in frequent
    }
    return best_constant(totals)


def differences(done: Answers, recipes: Sequence[Recipe] = ()) -> list[Row]:
    """Every model or recipe minus every other on the same items, by task and in the mean over tasks, and the ratio of
    those means less 1. Where two recipes have as many seeds, these are paired, and every pair of theirs has rows, too.
    """
    rows: list[Row] = []
    items = by_item(done, recipes)
    seeds = {seed for recipe in recipes for seed in recipe.seeds}
    alike = [(a, b) for a, b in itertools.permutations(recipes, 2) if len(a.seeds) == len(b.seeds)]
    for length, by_model in _by_length(items):
        names = itertools.permutations((model for model in by_model if model not in seeds), 2)
        for model, baseline in itertools.chain(names, *(zip(a.seeds, b.seeds) for a, b in alike)):
            if not {model, baseline} <= by_model.keys():
                continue
            tasks = [cell.task for cell in by_model[model]]
            if tasks != [cell.task for cell in by_model[baseline]]:
                continue
            for metric in METRICS:
                pairs = {
                    task: pair
                    for task, mine, theirs in zip(tasks, by_model[model], by_model[baseline])
                    if (pair := _paired(mine, theirs, items, metric))
                }
                compared = [(task, "difference", _difference(pair)) for task, pair in pairs.items()]
                if len(pairs) == len(tasks):
                    compared += [("mean", kind, values) for kind, values in _mean_differences([*pairs.values()])]
                same = {"model": model, "baseline": baseline, "length": length, "metric": metric}
                rows += [{**same, "task": task, "kind": kind, **values} for task, kind, values in compared]
    return rows


class _Pair(NamedTuple):
    """Each item's score by seed, of the model and of its baseline, and the item's story."""

    mine: Float[np.ndarray, "seed item"]
    theirs: Float[np.ndarray, "seed item"]
    stories: list[str]


def _paired(first_cell: EvaluationCell, second_cell: EvaluationCell, done: ByItem, metric: str) -> _Pair | None:
    """The items that both were asked; None where there is none, or the metric is not theirs."""
    mine, theirs = done[first_cell], done[second_cell]
    check_same(first_cell, [item[0] for item in mine], second_cell, [item[0] for item in theirs])
    both = [(a, b) for a, b in zip(mine, theirs) if len(not_skipped((a, b))) == 2]
    if metric not in metrics_of(first_cell, [item[0] for item in mine]) or not both:
        return None
    first, second = zip(*both)
    mine, stories = _clustered(metric, first_cell, first)
    return _Pair(mine, _outputs(metric, second_cell, second), stories)


def _difference(pair: _Pair) -> Row:
    values = asdict(difference(_over_seeds(pair.mine), _over_seeds(pair.theirs), pair.stories))
    half = _half_between(pair.mine.mean(1), pair.theirs.mean(1))
    low, high = over_seeds(values["mean"], values["low"], values["high"], half)
    return {**values, "low": max(low, -1.0), "high": min(high, 1.0)}


def _half_between(mine: Float[np.ndarray, "seed"], theirs: Float[np.ndarray, "other"]) -> float:
    """Half of the interval of a difference over seeds, which are paired where there are as many of both."""
    return half_over_seeds(mine - theirs) if len(mine) == len(theirs) else half_over_seeds(mine, theirs)


def _by_length(done: ByItem) -> Iterator[tuple[str, dict[str, list[EvaluationCell]]]]:
    """For each length, each model's cells by task; models that lack a task that they have at another length are left
    out."""
    all_tasks: dict[str, set[str]] = {}
    for cell in done:
        all_tasks.setdefault(cell.model, set()).add(cell.task)
    for length in dict.fromkeys(cell.length for cell in done):
        by_model: dict[str, list[EvaluationCell]] = {}
        for cell in sorted((cell for cell in done if cell.length == length), key=lambda cell: task_order(cell.task)):
            by_model.setdefault(cell.model, []).append(cell)
        yield length, {model: by_task for model, by_task in by_model.items() if len(by_task) == len(all_tasks[model])}


def _mean_rows(
    length: str, by_model: dict[str, list[EvaluationCell]], rows: Sequence[Row], done: ByItem
) -> Iterator[Row]:
    """Means over tasks, by the metrics that all have. Their intervals' halves add up as squares (Zou and Donner 2008),
    and where two have stories in common, as far as these make them err together."""
    for model, metric in itertools.product(by_model, METRICS):
        own = [row for row in rows if (row["model"], row["length"], row["metric"]) == (model, length, metric)]
        if len(own) < len(by_model[model]):
            continue
        mean, constant_mean, ceiling = (
            float(np.mean([row[name] for row in own])) for name in ("mean", "constant_mean", "ceiling")
        )
        scored = {cell.task: _clustered(metric, cell, not_skipped(done[cell])) for cell in by_model[model]}
        clustered = {task: (_over_seeds(scores), stories) for task, (scores, stories) in scored.items()}
        together = [
            (first, second, r)
            for first, second in itertools.combinations(own, 2)
            if (r := correlation(*clustered[first["task"]], *clustered[second["task"]]))
        ]
        below, above = (
            sqrt(
                sum((row["mean"] - row[end]) ** 2 for row in own)
                + 2 * sum(r * (a["mean"] - a[end]) * (b["mean"] - b[end]) for a, b, r in together)
            )
            / len(own)
            for end in ("low", "high")
        )
        yield {
            "model": model,
            "task": "mean",
            "length": length,
            "metric": metric,
            "n": sum(row["n"] for row in own),
            "groups": len({story for _, stories in clustered.values() for story in stories}),
            "mean": mean,
            "low": mean - below,
            "high": mean + above,
            "constant": "",
            "constant_mean": constant_mean,
            "ceiling": ceiling,
            _SEEDS: np.mean([row[_SEEDS] for row in own], axis=0),
            **({} if length else {SKIPPED: sum(row[SKIPPED] for row in own)}),
            **({RECIPE: own[0][RECIPE]} if RECIPE in own[0] else {}),
        }


def _mean_differences(pairs: Sequence[_Pair]) -> Iterator[tuple[str, Row]]:
    """The difference of the means over tasks, and the ratio of those means less 1, resampling whole stories.

    No interval (nan) where a task has one story alone: nothing is known of its spread.
    """
    unknown = any(len(set(pair.stories)) < 2 for pair in pairs)
    over_seeds_alone = [(pair.mine.mean(0), pair.theirs.mean(0), pair.stories) for pair in pairs]
    means = _drawn_again(over_seeds_alone)
    real = np.mean([[np.mean(mine), np.mean(theirs)] for mine, theirs, _ in over_seeds_alone], axis=0)
    mine, theirs = (np.mean([getattr(pair, side).mean(1) for pair in pairs], axis=0) for side in ("mine", "theirs"))
    groups = {story for pair in pairs for story in pair.stories}
    counts = {"n": sum(len(pair.stories) for pair in pairs), "groups": len(groups)}

    def row(mean: float, resampled: Float[np.ndarray, "draw"], half: float) -> Row:
        low, high = (np.nan, np.nan) if unknown else np.quantile(resampled, [0.025, 0.975])
        low, high = over_seeds(float(mean), float(low), float(high), half)
        return {**counts, "mean": float(mean), "low": max(low, -1.0), "high": high}

    yield "difference", row(real[0] - real[1], means[:, 0] - means[:, 1], _half_between(mine, theirs))
    if real[1] > 0 and (means[:, 1] > 0).all():
        # Seeds make the ratio vary as they make its linear part in both means (delta method).
        half = _half_between(mine / real[1], theirs * real[0] / real[1] ** 2)
        yield "ratio", row(real[0] / real[1] - 1, means[:, 0] / means[:, 1] - 1, half)


def _drawn_again(pairs: Sequence[tuple[np.ndarray, np.ndarray, list[str]]]) -> Float[np.ndarray, "draw 2"]:
    """Means over tasks for the model and its baseline, of whole stories drawn with replacement: within each task, or
    from all tasks at once where they have stories in common."""
    stories = [group for _, _, groups in pairs for group in groups]
    if len(set(stories)) == sum(len(set(groups)) for _, _, groups in pairs):
        return np.mean(
            [
                bootstrap(np.array([mine, theirs], float).T, groups, seed=at)
                for at, (mine, theirs, groups) in enumerate(pairs)
            ],
            axis=0,
        )
    sums = np.zeros((len(stories), len(pairs), 3))
    start = 0
    for at, (mine, theirs, _) in enumerate(pairs):
        sums[start : start + len(mine), at] = np.array([mine, theirs, [1] * len(mine)], float).T
        start += len(mine)
    drawn = bootstrap(sums.reshape(len(stories), -1), stories, seed=0).reshape(-1, len(pairs), 3)
    asked = drawn[(drawn[:, :, 2] > 0).all(1)]  # a draw may have no story of a task
    return (asked[:, :, :2] / asked[:, :, 2:]).mean(1)
