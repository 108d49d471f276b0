"""An evaluation as Markdown: tables with intervals beside the paper's numbers, and what to know before reading
either; or tables of question sets."""

import itertools
import math
import re
from collections.abc import Iterator

import pandas as pd

from lm2.evaluation import paper
from lm2.evaluation.metrics import CHOICE
from lm2.evaluation.results import SKIPPED, Results
from lm2.intervals import Bounded
from lm2.markdown import table


def markdown(results: Results, command: str) -> str:
    """The whole report. `command` is what made the results, and makes them again."""
    made_by = f"Made by\n\n```\n{command}\n```"
    if not results.lengths:
        sections = [(f"## Scoring: {metric}", *_sets(results, metric)) for metric in results.metrics]
        return "\n\n".join(["# Question sets", made_by, *itertools.chain(*sections)]) + "\n"
    parts = ["# BABILong-style benchmark", made_by]
    for metric in results.metrics:
        parts += [f"## Scoring: {metric}", _by_length(results, metric), _leads(results, metric)]
        parts += [f"### {length}\n\n{_tasks(results, metric, length)}" for length in results.lengths]
    parts += ["## What the paper prints (Table 3, mean over ten tasks, %)", _printed()]
    parts += [
        "## Before you read the paper's numbers",
        "\n".join(f"- {note}" for note in dict.fromkeys(note for task in results.tasks for note in paper.notes(task))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sets(results: Results, metric: str) -> Iterator[str]:
    rows = results.table.loc[results.table["metric"] == metric]
    chance = "guessed" if metric == CHOICE else "best constant"
    lines = []
    for name in [*[name for name in results.tasks if name != "mean"], "mean"]:
        here = rows.loc[rows["task"] == name].set_index("model")
        if not here.empty:
            first = here.iloc[0]
            shares = [share(here.loc[model]) if model in here.index else "" for model in results.models]
            constant = f"{_escaped(first['constant'])} {100 * first['constant_mean']:.1f}".strip()
            skipped = "/".join(str(here.loc[model, SKIPPED]) if model in here.index else "" for model in results.models)
            lines.append([_escaped(name), *shares, str(first["n"]), constant, f"{100 * first['ceiling']:.1f}", skipped])
    yield table(["question set", *results.models, "items", chance, "ceiling", "skipped"], lines)
    rows = results.differences.loc[
        (results.differences["metric"] == metric) & (results.differences["kind"] == "difference")
    ]
    order = {model: index for index, model in enumerate(results.models)}
    lines = [
        [f"{row['model']} - {row['baseline']}", _escaped(row["task"]), share(row, sign=True), str(row["n"])]
        for _, row in rows.iterrows()
        if order[row["model"]] < order[row["baseline"]]  # the other way round would say the same
    ]
    if lines:
        yield "Same items, paired:\n\n" + table(["models", "question set", "difference (points)", "items"], lines)


def _escaped(text: str) -> str:
    """A set's name or an answer as a Markdown cell."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def _by_length(results: Results, metric: str) -> str:
    rows = results.table.loc[(results.table["task"] == "mean") & (results.table["metric"] == metric)]
    if rows.empty:
        return ""
    lines = []
    for length in results.lengths:
        here = rows.loc[rows["length"] == length].set_index("model")
        if not here.empty:
            first = here.iloc[0]
            shares = [share(here.loc[model]) if model in here.index else "" for model in results.models]
            lines.append(
                [
                    length,
                    *shares,
                    f"{100 * first['constant_mean']:.1f}",
                    f"{100 * first['ceiling']:.1f}",
                    str(first["n"]),
                ]
            )
    return "Mean over tasks, accuracy in % (95 % interval, clustered by story):\n\n" + table(
        ["length", *results.models, "best constants", "ceiling", "items"], lines
    )


def _leads(results: Results, metric: str) -> str:
    rows = results.differences.loc[(results.differences["task"] == "mean") & (results.differences["metric"] == metric)]
    lines = []
    for model, baseline in dict.fromkeys(zip(rows["model"], rows["baseline"])):
        pair = rows.loc[(rows["model"] == model) & (rows["baseline"] == baseline)]
        if results.models.index(model) > results.models.index(baseline):
            continue  # the other way round stands there already
        for length in results.lengths:
            here = pair.loc[pair["length"] == length].set_index("kind")
            if "difference" in here.index:
                ratio = share(here.loc["ratio"], sign=True) if "ratio" in here.index else ""
                lines.append([f"{model} - {baseline}", length, share(here.loc["difference"], sign=True), ratio])
    return (
        "Same items, paired:\n\n"
        + table(["models", "length", "difference (points)", "ratio of means less 1 (%)"], lines)
        if lines
        else ""
    )


def _tasks(results: Results, metric: str, length: str) -> str:
    rows = results.table.loc[(results.table["metric"] == metric) & (results.table["length"] == length)]
    lines = []
    for task in [task for task in results.tasks if task != "mean"]:
        here = rows.loc[rows["task"] == task].set_index("model")
        if not here.empty:
            first = here.iloc[0]
            shares = [share(here.loc[model]) if model in here.index else "" for model in results.models]
            printed = [paper.printed(model, task, length) for model in paper.COMPARED]
            lines.append(
                [
                    task,
                    *shares,
                    str(first["n"]),
                    f"{first['constant']} {100 * first['constant_mean']:.1f}",
                    f"{100 * first['ceiling']:.1f}",
                    *("" if math.isnan(value) else f"{value:.0f}" for value in printed),
                ]
            )
    return table(
        [
            "task",
            *results.models,
            "items",
            "best constant",
            "ceiling",
            *(f"paper: {model}" for model in paper.COMPARED),
        ],
        lines,
    )


def _printed() -> str:
    rows = [
        [length, *(f"{paper.printed(model, 'mean', length):.1f}" for model in paper.COMPARED)]
        for length in paper.LENGTHS
    ]
    return table(["length", *paper.COMPARED], rows)


def percent(row: pd.Series) -> Bounded:
    """A row's share or difference of shares."""
    return Bounded(*(100 * float(row.at[column]) for column in ("mean", "low", "high")))


def share(row: pd.Series, *, sign: bool = False) -> str:
    """ "71.3 (68.0 to 74.4)", in percent; it says so where there is no interval."""
    words = f"{percent(row):{'+.1f' if sign else '.1f'}}"
    return f"{words} (no interval: one story a task)" if math.isnan(row.at["low"]) else words
