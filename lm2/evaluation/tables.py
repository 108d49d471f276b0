"""The tables of an evaluation: how often each model is right, and how much more often than another on the same
items."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import sqrt
from typing import Any

import numpy as np
from jaxtyping import Float

from lm2.evaluation.cells import Answered, EvaluationCell, task_order
from lm2.evaluation.metrics import CHOICE, METRICS, metrics_of
from lm2.evaluation.results import SKIPPED
from lm2.intervals import bootstrap, correlation, difference, rate
from lm2.tasks.chance import best_constant, guess_share
from lm2.tasks.sets.files import is_of_a_row

_CONSTANTS = 64
"""Of a set's accepted answers, the most frequent ones, which are tried as the best constant."""

Answers = dict[EvaluationCell, list[Answered]]
Row = dict[str, Any]


def table(done: Answers) -> list[Row]:
    """Tidy rows. Shares are of 1, with 95 % intervals clustered by story.

    `constant` is the answer that would be right most often on the task's items of all lengths if it were always given,
    and `constant_mean` how often it is right on these items (where answers stand against rivals, how often a guess
    is); `ceiling` is what printing every target would score. Rows of task "mean" hold the unweighted mean over tasks
    or sets, of lengths at which all of a model's tasks were asked. Items that were skipped are left out, and counted
    in the rows of sets.
    """
    rows = []
    all_items: dict[str, list[Answered]] = {}
    for cell, answered in done.items():
        all_items.setdefault(cell.task, []).extend(answered)
    constants: dict[tuple[str, str], str] = {}
    for cell, answered in done.items():
        asked = [item for item in answered if not item.skipped]
        for metric in metrics_of(cell, answered) if asked else ():
            if metric == CHOICE:
                constant, by_chance = "", guess_share([item.rivals for item in asked])
            else:
                if (cell.task, metric) not in constants:
                    constants[cell.task, metric] = best_scoring_constant(cell.task, all_items[cell.task], metric)
                constant = constants[cell.task, metric]
                by_chance = float(np.mean(_scores(metric, cell.task, asked, [constant] * len(asked))))
            targets = [1.0] if metric == CHOICE else _scores(metric, cell.task, asked, [item.target for item in asked])
            shares = asdict(rate(*_clustered(metric, cell, asked)))
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
                    **({} if cell.length else {SKIPPED: len(answered) - len(asked)}),
                }
            )
    return rows + [row for group in _by_length(done) for row in _mean_rows(*group, rows, done)]


def _scores(metric: str, task: str, items: Sequence[Answered], outputs: Sequence[str]) -> list[float]:
    return [METRICS[metric](task, item, output) for item, output in zip(items, outputs, strict=True)]


def _outputs(metric: str, cell: EvaluationCell, items: Sequence[Answered]) -> list[float]:
    return _scores(metric, cell.task, items, [item.output for item in items])


def _clustered(metric: str, cell: EvaluationCell, items: Sequence[Answered]) -> tuple[list[float], list[str]]:
    """Each item's score, and its story, by a name that means the same in all sets."""
    stories = [f"{cell.task}: {item.story}" if is_of_a_row(item.story) else item.story for item in items]
    return _outputs(metric, cell, items), stories


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


def differences(done: Answers) -> list[Row]:
    """Every model minus every other on the same items, by task and in the mean over tasks, and the ratio of those means
    less 1."""
    rows: list[Row] = []
    for length, by_model in _by_length(done):
        for model, baseline in itertools.permutations(by_model, 2):
            tasks = [cell.task for cell in by_model[model]]
            if tasks != [cell.task for cell in by_model[baseline]]:
                continue
            for metric in METRICS:
                pairs = {
                    task: pair
                    for task, mine, theirs in zip(tasks, by_model[model], by_model[baseline])
                    if (pair := _paired(mine, theirs, done, metric))
                }
                compared = [(task, "difference", asdict(difference(*pair))) for task, pair in pairs.items()]
                if len(pairs) == len(tasks):
                    compared += [("mean", kind, values) for kind, values in _mean_differences([*pairs.values()])]
                same = {"model": model, "baseline": baseline, "length": length, "metric": metric}
                rows += [{**same, "task": task, "kind": kind, **values} for task, kind, values in compared]
    return rows


_Pair = tuple[list[float], list[float], list[str]]
"""Each item's score, of the model and of its baseline, and the item's story."""


def _paired(first_cell: EvaluationCell, second_cell: EvaluationCell, done: Answers, metric: str) -> _Pair | None:
    """The items that both were asked; None where there is none, or the metric is not theirs."""
    mine, theirs = done[first_cell], done[second_cell]
    if [(a.seed, a.story, a.question) for a in mine] != [(b.seed, b.story, b.question) for b in theirs]:
        raise ValueError(f"{first_cell.file} and {second_cell.file} hold different items, which cannot be paired")
    both = [(a, b) for a, b in zip(mine, theirs) if not a.skipped and not b.skipped]
    if metric not in metrics_of(first_cell, mine) or not both:
        return None
    first, second = zip(*both)
    mine, stories = _clustered(metric, first_cell, first)
    return mine, _outputs(metric, second_cell, second), stories


def _by_length(done: Answers) -> Iterator[tuple[str, dict[str, list[EvaluationCell]]]]:
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
    length: str, by_model: dict[str, list[EvaluationCell]], rows: Sequence[Row], done: Answers
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
        asked = {cell.task: [item for item in done[cell] if not item.skipped] for cell in by_model[model]}
        clustered = {cell.task: _clustered(metric, cell, asked[cell.task]) for cell in by_model[model]}
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
            **({} if length else {SKIPPED: sum(row[SKIPPED] for row in own)}),
        }


def _mean_differences(pairs: Sequence[_Pair]) -> Iterator[tuple[str, Row]]:
    """The difference of the means over tasks, and the ratio of those means less 1, resampling whole stories.

    No interval (nan) where a task has one story alone: nothing is known of its spread.
    """
    unknown = any(len(set(groups)) < 2 for _, _, groups in pairs)
    means = _drawn_again(pairs)
    real = np.mean([[np.mean(mine), np.mean(theirs)] for mine, theirs, _ in pairs], axis=0)
    groups = {group for _, _, groups in pairs for group in groups}
    counts = {"n": sum(len(mine) for mine, _, _ in pairs), "groups": len(groups)}

    def row(mean: float, resampled: Float[np.ndarray, "draw"]) -> Row:
        low, high = (np.nan, np.nan) if unknown else np.quantile(resampled, [0.025, 0.975])
        return {**counts, "mean": float(mean), "low": float(low), "high": float(high)}

    yield "difference", row(real[0] - real[1], means[:, 0] - means[:, 1])
    if real[1] > 0 and (means[:, 1] > 0).all():
        yield "ratio", row(real[0] / real[1] - 1, means[:, 0] / means[:, 1] - 1)


def _drawn_again(pairs: Sequence[_Pair]) -> Float[np.ndarray, "draw 2"]:
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
