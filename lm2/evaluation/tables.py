"""The tables of an evaluation: how often each model is right, and how much more often than another on the same
items."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float

from lm2.evaluation.cells import Answered, EvaluationCell
from lm2.intervals import bootstrap, difference, rate
from lm2.tasks.babilong import exact_score, official_score

METRICS = {"official": official_score, "exact": exact_score}

Answers = dict[EvaluationCell, list[Answered]]
Row = dict[str, Any]


def table(done: Answers) -> list[Row]:
    """Tidy rows. Shares are of 1, with 95 % intervals clustered by story.

    `constant` is the answer that would be right most often on the task's items of all lengths if it were always given,
    and `constant_mean` how often it is right on these items; `ceiling` is what printing every target would score. Rows
    of task "mean" hold the unweighted mean over tasks, of lengths at which all of a model's tasks were asked.
    """
    rows = []
    all_items: dict[int, list[Answered]] = {}
    for cell, found in done.items():
        all_items.setdefault(cell.task, []).extend(found)
    constants = {
        (task, metric): best_constant(task, items, metric) for task, items in all_items.items() for metric in METRICS
    }
    for cell, found in done.items():
        for metric, score in METRICS.items():
            right = [score(cell.task, one.question, one.target, one.output) for one in found]
            constant = constants[cell.task, metric]
            constant_mean = float(np.mean([score(cell.task, one.question, one.target, constant) for one in found]))
            shares = asdict(rate(right, [one.story for one in found]))
            shares["mean"] = shares.pop("accuracy")
            rows.append(
                {
                    "model": cell.model,
                    "task": f"qa{cell.task}",
                    "length": cell.length,
                    "metric": metric,
                    **shares,
                    "constant": constant,
                    "constant_mean": constant_mean,
                    "ceiling": float(
                        np.mean([score(cell.task, one.question, one.target, one.target) for one in found])
                    ),
                }
            )
    return rows + [row for group in _by_length(done) for row in _mean_rows(*group, rows)]


def best_constant(task: int, items: Sequence[Answered], metric: str) -> str:
    """The one answer that would score best on these items."""
    score = METRICS[metric]
    counts = Counter((one.question, one.target) for one in items)
    totals = {
        said: sum(n * score(task, question, target, said) for (question, target), n in counts.items())
        for said in {one.target for one in items}
    }
    return max(sorted(totals), key=totals.__getitem__)


def differences(done: Answers) -> list[Row]:
    """Every model minus every other on the same items, by task and in the mean over tasks, and the ratio of those means
    less 1."""
    rows: list[Row] = []
    for length, by_model in _by_length(done):
        for model, baseline in itertools.permutations(by_model, 2):
            tasks = [f"qa{cell.task}" for cell in by_model[model]]
            if tasks != [f"qa{cell.task}" for cell in by_model[baseline]]:
                continue
            for metric in METRICS:
                pairs = [_paired(a, b, done, metric) for a, b in zip(by_model[model], by_model[baseline])]
                found = [(task, "difference", asdict(difference(*pair))) for task, pair in zip(tasks, pairs)]
                found += [("mean", kind, values) for kind, values in _mean_differences(pairs)]
                same = {"model": model, "baseline": baseline, "length": length, "metric": metric}
                rows += [{**same, "task": task, "kind": kind, **values} for task, kind, values in found]
    return rows


_Pair = tuple[list[bool], list[bool], list[str]]
"""Whether each item was right, of the model and of its baseline, and the item's story."""


def _paired(one: EvaluationCell, other: EvaluationCell, done: Answers, metric: str) -> _Pair:
    score = METRICS[metric]
    mine, theirs = done[one], done[other]
    if [(a.seed, a.story, a.question) for a in mine] != [(b.seed, b.story, b.question) for b in theirs]:
        raise ValueError(f"{one.file} and {other.file} hold different items, which cannot be paired")
    scores = [[score(one.task, a.question, a.target, a.output) for a in answered] for answered in (mine, theirs)]
    return scores[0], scores[1], [a.story for a in mine]


def _by_length(done: Answers) -> Iterator[tuple[str, dict[str, list[EvaluationCell]]]]:
    """For each length, each model's cells by task; models that lack a task that they have at another length are left
    out."""
    all_tasks: dict[str, set[int]] = {}
    for cell in done:
        all_tasks.setdefault(cell.model, set()).add(cell.task)
    for length in dict.fromkeys(cell.length for cell in done):
        by_model: dict[str, list[EvaluationCell]] = {}
        for cell in sorted((cell for cell in done if cell.length == length), key=lambda cell: cell.task):
            by_model.setdefault(cell.model, []).append(cell)
        yield length, {model: found for model, found in by_model.items() if len(found) == len(all_tasks[model])}


def _mean_rows(length: str, by_model: dict[str, list[EvaluationCell]], rows: Sequence[Row]) -> Iterator[Row]:
    """Means over tasks. Tasks have different stories, so their intervals' halves add up as squares (Zou and Donner
    2008)."""
    for model, metric in itertools.product(by_model, METRICS):
        own = [row for row in rows if (row["model"], row["length"], row["metric"]) == (model, length, metric)]
        mean, constant_mean, ceiling = (
            float(np.mean([row[name] for row in own])) for name in ("mean", "constant_mean", "ceiling")
        )
        below, above = (
            float(np.sqrt(sum((row["mean"] - row[end]) ** 2 for row in own))) / len(own) for end in ("low", "high")
        )
        yield {
            "model": model,
            "task": "mean",
            "length": length,
            "metric": metric,
            "n": sum(row["n"] for row in own),
            "groups": sum(row["groups"] for row in own),
            "mean": mean,
            "low": mean - below,
            "high": mean + above,
            "constant": "",
            "constant_mean": constant_mean,
            "ceiling": ceiling,
        }


def _mean_differences(pairs: Sequence[_Pair]) -> Iterator[tuple[str, Row]]:
    """The difference of the means over tasks, and the ratio of those means less 1, resampling whole stories within each
    task.

    No interval (nan) where a task has one story alone: nothing is known of its spread.
    """
    unknown = any(len(set(groups)) < 2 for _, _, groups in pairs)
    drawn = [
        bootstrap(np.array([mine, theirs], float).T, groups, seed=at) for at, (mine, theirs, groups) in enumerate(pairs)
    ]
    means = np.mean(drawn, axis=0)
    real = np.mean([[np.mean(mine), np.mean(theirs)] for mine, theirs, _ in pairs], axis=0)
    counts = {"n": sum(len(mine) for mine, _, _ in pairs), "groups": sum(len(set(groups)) for _, _, groups in pairs)}

    def row(mean: float, resampled: Float[np.ndarray, "draw"]) -> Row:
        low, high = (np.nan, np.nan) if unknown else np.quantile(resampled, [0.025, 0.975])
        return {**counts, "mean": float(mean), "low": float(low), "high": float(high)}

    yield "difference", row(real[0] - real[1], means[:, 0] - means[:, 1])
    if real[1] > 0 and (means[:, 1] > 0).all():
        yield "ratio", row(real[0] / real[1] - 1, means[:, 0] / means[:, 1] - 1)
