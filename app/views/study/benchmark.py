"""Results of evaluations, beside the paper's tables."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from app.views.kinds import Line, Lines, Table
from lm2.evaluation import paper
from lm2.evaluation.report import percent, seed_headers, seed_shares, share
from lm2.evaluation.results import SKIPPED, Results
from probes.findings import Column, columns_of

METRICS = {
    "official": (
        "The benchmark's own rule: the task's labels that occur in the answer, without those of the question, are the"
        " target alone."
    ),
    "exact": "The answer, up to its full stop, is the target.",
    "contains": "An accepted answer stands in what the model says, as whole words.",
    "f1": "The words that what the model says and an accepted answer share, as SQuAD counts them (token F1).",
    "choice": "The answer is likelier, per character, than each of its rivals. By chance: one over answer and rivals.",
}


def pairs(results: Results) -> list[str]:
    """Pairs of models that answered the same items, as "A - B"."""
    names = dict.fromkeys(zip(results.differences["model"], results.differences["baseline"]))
    return [f"{model} - {baseline}" for model, baseline in names if {model, baseline} <= {*results.models}]


def curves(results: Results, task: str, metric: str) -> Lines:
    """Accuracy by length, or by question set, with 95 % bands, and the best constant answer."""
    rows, axis = _along(results, results.table[results.table["metric"] == metric], task)
    by_seed = {
        model: [_line(seed, rows[rows["model"] == seed], axis) for seed in seeds]
        for model, seeds in results.recipes.items()
    }
    lines = [_line(model, rows[rows["model"] == model], axis, by_seed.get(model, ())) for model in results.models]
    constant = rows.drop_duplicates(axis.column).set_index(axis.column)["constant_mean"].reindex(axis.ticks)
    lines.append(Line(name=f"{_chance(metric)} answer", values=100 * constant.to_numpy(float)))
    return Lines(
        lines=tuple(lines),
        ticks=axis.ticks,
        x_title=axis.title,
        y_title=f"accuracy (%, {metric}){axis.of}",
        y_range=(0, 102),
    )


def printed_curves(task: str) -> Lines:
    """The paper's Table 3, for its models of one size."""
    return Lines(
        lines=tuple(
            Line(name=model, values=np.array([paper.printed(model, task, length) for length in paper.LENGTHS]))
            for model in paper.COMPARED
        ),
        ticks=paper.LENGTHS,
        x_title="length (as printed)",
        y_title=f"accuracy (%), {_pooled(task)}",
        y_range=(0, 102),
    )


def lead(results: Results, pair: str, task: str, metric: str) -> Lines:
    """One model minus another on the same items, in points, with 95 % bands."""
    rows, axis = _along(results, _pair(results, pair, metric, "difference"), task)
    by_seed = [
        _line(seeds, _along(results, _pair(results, seeds, metric, "difference"), task)[0], axis)
        for seeds in _seed_pairs(results, pair)
    ]
    return Lines(
        lines=(_line(pair, rows, axis, by_seed), Line(name="no difference", values=np.zeros(len(axis.ticks)))),
        ticks=axis.ticks,
        x_title=axis.title,
        y_title=f"points ({metric}){axis.of}",
    )


def ratios(results: Results, pair: str, metric: str) -> Table:
    """The relative difference of the means over tasks: their ratio minus 1."""
    rows = _pair(results, pair, metric, "ratio").set_index("length")
    rows = rows.loc[[length for length in results.lengths if length in rows.index]]
    each = [_pair(results, seeds, metric, "ratio").set_index("length") for seeds in _seed_pairs(results, pair)]
    by_seed = [Column("by seed", "%")] if each else []
    ratios = [
        (
            length,
            percent(row),
            *(
                [
                    ", ".join(
                        f"{100 * seed.at[length, 'mean']:+.1f}" if length in seed.index else "none" for seed in each
                    )
                ]
                if each
                else []
            ),
            int(row["n"]),
        )
        for length, row in rows.iterrows()
    ]
    return Table(columns=columns_of(("length", Column("ratio of means less 1", "%"), *by_seed, "items"), ratios))


def by_length(results: Results, task: str, metric: str) -> Table:
    """A row for each length: the models with intervals, the best constant answer, and the number of items."""
    rows = results.table[(results.table["task"] == task) & (results.table["metric"] == metric)]
    lines = []
    for length in results.lengths:
        ours = rows[rows["length"] == length].set_index("model")
        if not ours.empty:
            shares = [share(ours.loc[model]) if model in ours.index else "" for model in results.models]
            shares += seed_shares(results, ours)
            lines.append((length, *shares, f"{100 * ours.iloc[0]['constant_mean']:.1f}", int(ours.iloc[0]["n"])))
    models = [Column(model, "%") for model in results.models]
    headers = ("length", *models, *_by_seed(results), Column("best constant", "%"), "items")
    return Table(columns=columns_of(headers, lines), rivals=_rivals(models))


def by_task(results: Results, metric: str, length: str) -> Table:
    """A row for each task at one length: the models with intervals, the best constant answer, the ceiling, and the
    paper's numbers; or a row for each question set, with what was skipped, where some was."""
    rows = results.table[(results.table["metric"] == metric) & (results.table["length"] == length)]
    skipped = rows[rows[SKIPPED] > 0] if SKIPPED in rows else rows.iloc[:0]
    lines = []
    for task in [*[task for task in results.tasks if task != "mean"], "mean"]:
        ours = rows[rows["task"] == task].set_index("model")
        if ours.empty:
            continue
        shares = [share(ours.loc[model]) if model in ours.index else "" for model in results.models]
        shares += seed_shares(results, ours)
        first = ours.iloc[0]
        constant = f"{100 * first['constant_mean']:.1f} {first['constant']}".strip()
        theirs = [paper.printed(model, task, length) for model in paper.COMPARED] if length else []
        left_out = skipped[skipped["task"] == task]
        lines.append(
            (
                task,
                *shares,
                int(first["n"]),
                constant,
                f"{100 * first['ceiling']:.1f}",
                *("" if np.isnan(value) else f"{value:.1f}" for value in theirs),
                *([", ".join(f"{row.model} {row.skipped}" for row in left_out.itertuples())] if len(skipped) else []),
            )
        )
    models = [Column(model, "%") for model in results.models]
    theirs = [f"paper: {model}" for model in paper.COMPARED] if length else []
    headers = ("task" if length else "question set", *models, *_by_seed(results), "items", Column(_chance(metric), "%"))
    headers = (*headers, Column("ceiling", "%"), *theirs, *(["skipped"] if len(skipped) else []))
    return Table(columns=columns_of(headers, lines), rivals=_rivals(models))


def _chance(metric: str) -> str:
    return "guessed" if metric == "choice" else "best constant"


def _rivals(models: list[Column]) -> tuple[str, ...]:
    return tuple(model.label for model in models) if len(models) > 1 else ()


def _by_seed(results: Results) -> list[Column]:
    return [Column(header, "%") for header in seed_headers(results)]


def _seed_pairs(results: Results, pair: str) -> list[str]:
    """The pairs of two recipes' seeds."""
    model, _, baseline = pair.partition(" - ")
    return [" - ".join(seeds) for seeds in results.seed_pairs(model, baseline)]


def _pooled(task: str) -> str:
    return "mean over tasks" if task == "mean" else task


def _pair(results: Results, pair: str, metric: str, kind: str) -> pd.DataFrame:
    model, _, baseline = pair.partition(" - ")
    rows = results.differences
    return rows[
        (rows["model"] == model) & (rows["baseline"] == baseline) & (rows["metric"] == metric) & (rows["kind"] == kind)
    ]


class _Axis(NamedTuple):
    """What results are drawn along."""

    column: str
    ticks: tuple[str, ...]
    title: str
    of: str
    """What the curves are of, for the other axis' title."""


def _along(results: Results, rows: pd.DataFrame, task: str) -> tuple[pd.DataFrame, _Axis]:
    """The rows of a task with its lengths; or, where there are no lengths, of all question sets."""
    if results.lengths:
        title = "length (tokens of facts and book text, plus 300)"
        return rows[rows["task"] == task], _Axis("length", tuple(results.lengths), title, f", {_pooled(task)}")
    sets = tuple(name for name in results.tasks if name != "mean")
    return rows[rows["task"] != "mean"], _Axis("task", sets, "question set", "")


def _line(name: str, rows: pd.DataFrame, axis: _Axis, seeds: Sequence[Line] = ()) -> Line:
    by_tick = rows.set_index(axis.column).reindex(axis.ticks)
    values, low, high = (100 * by_tick[column].to_numpy(float) for column in ("mean", "low", "high"))
    return Line(name=name, values=values, low=low, high=high, seeds=tuple(seeds))
