"""An evaluation as Markdown: tables with intervals beside the paper's numbers, and what to know before reading
either; or tables of question sets."""

import itertools
import math
import re
from collections.abc import Hashable, Iterator, Sequence

import pandas as pd

from lm2.evaluation import paper
from lm2.evaluation.metrics import CHOICE
from lm2.evaluation.results import SKIPPED, Results
from lm2.intervals import Bounded
from lm2.markdown import table


def markdown(results: Results, command: str) -> str:
    """The whole report. `command` is what made the results, and makes them again."""
    made_by = f"Made by\n\n```\n{command}\n```"
    seeds = [f"- {_escaped(note)}" for note in seed_notes(results)]
    made_by = "\n\n".join([made_by, *(["## Seeds", "\n".join(seeds)] if seeds else [])])
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
            shares += seed_shares(results, here)
            lines.append([_escaped(name), *shares, str(first["n"]), constant, f"{100 * first['ceiling']:.1f}", skipped])
    headers = [*results.models, *seed_headers(results)]
    yield table(["question set", *headers, "items", chance, "ceiling", "skipped"], lines)
    rows = results.differences.loc[
        (results.differences["metric"] == metric) & (results.differences["kind"] == "difference")
    ]
    lines = []
    for model, baseline in itertools.combinations(results.models, 2):
        for _, row in rows.loc[(rows["model"] == model) & (rows["baseline"] == baseline)].iterrows():
            by_seed = _seed_differences(results, model, baseline, rows.loc[rows["task"] == row["task"]])
            task, difference = _escaped(row["task"]), share(row, sign=True)
            lines.append([f"{model} - {baseline}", task, difference, *by_seed, str(row["n"])])
    if lines:
        headers = ["difference (points)", *(["by seed"] if results.recipes else [])]
        yield "Same items, paired:\n\n" + table(["models", "question set", *headers, "items"], lines)


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
            shares += seed_shares(results, here)
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
        ["length", *results.models, *seed_headers(results), "best constants", "ceiling", "items"], lines
    )


def _leads(results: Results, metric: str) -> str:
    rows = results.differences.loc[(results.differences["task"] == "mean") & (results.differences["metric"] == metric)]
    lines = []
    for model, baseline in itertools.combinations(results.models, 2):  # the other way round would say the same
        pair = rows.loc[(rows["model"] == model) & (rows["baseline"] == baseline)]
        for length in results.lengths:
            here = pair.loc[pair["length"] == length].set_index("kind")
            if "difference" in here.index:
                ratio = share(here.loc["ratio"], sign=True) if "ratio" in here.index else ""
                of_length = rows.loc[(rows["length"] == length) & (rows["kind"] == "difference")]
                by_seed = _seed_differences(results, model, baseline, of_length)
                difference = share(here.loc["difference"], sign=True)
                lines.append([f"{model} - {baseline}", length, difference, *by_seed, ratio])
    by_seed = ["by seed"] if results.recipes else []
    return (
        "Same items, paired:\n\n"
        + table(["models", "length", "difference (points)", *by_seed, "ratio of means less 1 (%)"], lines)
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
            shares += seed_shares(results, here)
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
            *seed_headers(results),
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


def seed_notes(results: Results) -> list[str]:
    """What to know of recipes, in sentences; none without any."""
    notes = [
        f"{recipe} is the mean over {len(seeds)} models that differ in their training seed alone: {', '.join(seeds)}."
        if len(seeds) > 1
        else f"{recipe} has one seed, {seeds[0]}: nothing is known of others, and its intervals are for other stories."
        for recipe, seeds in results.recipes.items()
    ]
    if any(len(seeds) > 1 for seeds in results.recipes.values()):
        notes.append(
            "The interval of a mean over seeds is for other stories and other seeds. Few seeds tell little of others,"
            " which makes it wide: by Student's t, 12.7 standard errors to each side over 2 seeds, 4.3 over 3, and 2.8"
            " over 5."
            " Each seed's own interval, for other stories alone, is in table.csv."
        )
        notes.append(
            "Differences are paired by story, and by seed between recipes that have as many, in the order in which the"
            " seeds are named. Of a model alone, nothing is known of other seeds: intervals count it as it is."
        )
    return notes


def seed_headers(results: Results) -> list[str]:
    return [f"{recipe}, by seed" for recipe in results.recipes]


def seed_shares(results: Results, rows: pd.DataFrame) -> list[str]:
    """For each recipe, what its seeds score in rows by model."""
    return [_numbers(rows, seeds) for seeds in results.recipes.values()]


def _numbers(rows: pd.DataFrame, seeds: Sequence[Hashable], *, sign: bool = False) -> str:
    """ "54.1, 56.0, 58.2", in percent, by seed, from rows by model."""
    return ", ".join(
        f"{100 * rows.at[seed, 'mean']:{'+.1f' if sign else '.1f'}}" for seed in seeds if seed in rows.index
    )


def _seed_differences(results: Results, model: str, baseline: str, rows: pd.DataFrame) -> list[str]:
    """A cell with the differences of two models' seeds; none where there are no recipes."""
    pairs = results.seed_pairs(model, baseline)
    by_seed = rows.set_index(["model", "baseline"])
    return [_numbers(by_seed, pairs, sign=True)] if results.recipes else []


def percent(row: pd.Series) -> Bounded:
    """A row's share or difference of shares."""
    return Bounded(*(100 * float(row.at[column]) for column in ("mean", "low", "high")))


def share(row: pd.Series, *, sign: bool = False) -> str:
    """ "71.3 (68.0 to 74.4)", in percent; it says so where there is no interval."""
    words = f"{percent(row):{'+.1f' if sign else '.1f'}}"
    return f"{words} (no interval: one story a task)" if math.isnan(row.at["low"]) else words
