"""Results of evaluations, beside the paper's tables."""

import numpy as np
import pandas as pd

from app.views.kinds import Line, Lines, Table
from lm2.evaluation import paper
from lm2.evaluation.report import percent, share
from lm2.evaluation.results import Results
from probes.findings import Column, columns_of

METRICS = {
    "official": (
        "The benchmark's own rule: the task's labels that occur in the answer, without those of the question, are the"
        " target alone."
    ),
    "exact": "The answer, up to its full stop, is the target.",
}


def pairs(results: Results) -> list[str]:
    """Pairs of models that answered the same items, as "A - B"."""
    return list(dict.fromkeys(results.differences["model"] + " - " + results.differences["baseline"]))


def curves(results: Results, task: str, metric: str) -> Lines:
    """Accuracy by length with 95 % bands, and the best constant answer."""
    rows = results.table[(results.table["task"] == task) & (results.table["metric"] == metric)]
    lengths = results.lengths
    lines = [_line(model, rows[rows["model"] == model], lengths, 100.0) for model in results.models]
    constant = rows.drop_duplicates("length").set_index("length")["constant_mean"].reindex(lengths).to_numpy(float)
    lines.append(Line(name="best constant answer", values=100 * constant))
    return Lines(
        lines=tuple(lines),
        ticks=tuple(lengths),
        x_title="length (tokens of facts and book text, plus 300)",
        y_title=f"accuracy (%, {metric}), {_pooled(task)}",
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
    rows = _pair(results, pair, metric, "difference")
    rows = rows[rows["task"] == task]
    lengths = results.lengths
    return Lines(
        lines=(_line(pair, rows, lengths, 100.0), Line(name="no difference", values=np.zeros(len(lengths)))),
        ticks=tuple(lengths),
        x_title="length (tokens of facts and book text, plus 300)",
        y_title=f"points ({metric}), {_pooled(task)}",
    )


def ratios(results: Results, pair: str, metric: str) -> Table:
    """The relative difference of the means over tasks: their ratio minus 1."""
    rows = _pair(results, pair, metric, "ratio").set_index("length")
    rows = rows.loc[[length for length in results.lengths if length in rows.index]]
    ratios = [(length, percent(row), int(row["n"])) for length, row in rows.iterrows()]
    return Table(columns=columns_of(("length", Column("ratio of means less 1", "%"), "items"), ratios))


def by_length(results: Results, task: str, metric: str) -> Table:
    """A row for each length: the models with intervals, the best constant answer, and the number of items."""
    rows = results.table[(results.table["task"] == task) & (results.table["metric"] == metric)]
    lines = []
    for length in results.lengths:
        ours = rows[rows["length"] == length].set_index("model")
        if not ours.empty:
            shares = [share(ours.loc[model]) if model in ours.index else "" for model in results.models]
            lines.append((length, *shares, f"{100 * ours.iloc[0]['constant_mean']:.1f}", int(ours.iloc[0]["n"])))
    models = [Column(model, "%") for model in results.models]
    headers = ("length", *models, Column("best constant", "%"), "items")
    return Table(columns=columns_of(headers, lines), rivals=_rivals(models))


def by_task(results: Results, metric: str, length: str) -> Table:
    """A row for each task at one length: the models with intervals, the best constant answer, the ceiling, and the
    paper's numbers."""
    rows = results.table[(results.table["metric"] == metric) & (results.table["length"] == length)]
    lines = []
    for task in [*[task for task in results.tasks if task != "mean"], "mean"]:
        ours = rows[rows["task"] == task].set_index("model")
        if ours.empty:
            continue
        shares = [share(ours.loc[model]) if model in ours.index else "" for model in results.models]
        first = ours.iloc[0]
        constant = f"{100 * first['constant_mean']:.1f} {first['constant']}".strip()
        theirs = [paper.printed(model, task, length) for model in paper.COMPARED]
        lines.append(
            (
                task,
                *shares,
                int(first["n"]),
                constant,
                f"{100 * first['ceiling']:.1f}",
                *("" if np.isnan(value) else f"{value:.1f}" for value in theirs),
            )
        )
    models, theirs = [Column(model, "%") for model in results.models], [f"paper: {model}" for model in paper.COMPARED]
    headers = ("task", *models, "items", Column("best constant", "%"), Column("ceiling", "%"), *theirs)
    return Table(columns=columns_of(headers, lines), rivals=_rivals(models))


def _rivals(models: list[Column]) -> tuple[str, ...]:
    return tuple(model.label for model in models) if len(models) > 1 else ()


def _pooled(task: str) -> str:
    return "mean over tasks" if task == "mean" else task


def _pair(results: Results, pair: str, metric: str, kind: str) -> pd.DataFrame:
    model, _, baseline = pair.partition(" - ")
    rows = results.differences
    return rows[
        (rows["model"] == model) & (rows["baseline"] == baseline) & (rows["metric"] == metric) & (rows["kind"] == kind)
    ]


def _line(name: str, rows: pd.DataFrame, lengths: list[str], unit: float) -> Line:
    by_length = rows.set_index("length").reindex(lengths)
    values, low, high = (unit * by_length[column].to_numpy(float) for column in ("mean", "low", "high"))
    return Line(name=name, values=values, low=low, high=high)
