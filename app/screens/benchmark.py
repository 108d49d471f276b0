"""Benchmark: models by task and length, beside the paper's numbers; or by question set."""

from dataclasses import replace

import streamlit as st

from app.charts import BenchmarkChart, OfBenchmark
from app.charts.chart import Computing
from app.server import owner
from app.ui import export_panel, panels, say, state, widgets
from app.views.study import benchmark
from lm2.evaluation import paper
from lm2.evaluation.report import seed_notes
from lm2.evaluation.results import Results

_SHOWN = {
    "Measured here": OfBenchmark.CURVES,
    "Printed in the paper": OfBenchmark.PRINTED,
    "Difference": OfBenchmark.LEAD,
    "Relative lead": OfBenchmark.RATIOS,
    "Models by length": OfBenchmark.LENGTHS,
    "Every task": OfBenchmark.TASKS,
}
_OF_PAIRS = (OfBenchmark.LEAD, OfBenchmark.RATIOS)


def render() -> None:
    st.header("Benchmark")
    st.write(
        "BABILong: bAbI facts hidden in book text of increasing length. Our models with 95 % intervals"
        " clustered by story, and the paper's numbers. Or any question sets that `lm2 eval --sets` asked."
    )
    folder = widgets.text_input(
        "Results",
        "benchmark.results",
        help=(
            "A folder written by `lm2 eval ... --out FOLDER`, if the server's owner allows it. Leave empty"
            " for the results of the bundled models."
        ),
    )
    try:
        chart = BenchmarkChart(spec=folder, shown=OfBenchmark.CURVES)
        evaluation = chart.result(None, Computing(folder=owner.allowed_path(folder) if folder else None))
    except ValueError as error:
        if folder:
            say.info("{}.", error)
        else:
            st.info(
                "No results are bundled. Run `lm2 eval --models A,B --lengths 0k,1k,4k --out FOLDER`, and enter"
                " FOLDER above.",
                icon=":material/info:",
            )
        panels.panel(benchmark.printed_curves("mean"), "printed", "Printed in the paper")
        _notes("mean")
        return
    state.record_content("evaluation", evaluation.digest)
    for note in seed_notes(evaluation):
        say.caption("{}", note)
    if not evaluation.lengths:
        _sets(chart, evaluation)
        return
    left, middle, right = st.columns(3)
    mean = {"mean": "mean over tasks"}
    task = widgets.select("Task", "benchmark.task", evaluation.tasks, show=lambda task: mean.get(task, task), at=left)
    metric = widgets.buttons("Scoring", "benchmark.metric", evaluation.metrics, at=middle)
    pairs = list(benchmark.pairs(evaluation))
    pair = widgets.select("Difference", "benchmark.pair", pairs, at=right) if pairs else ""
    st.caption(benchmark.METRICS[metric])
    if state.current().benchmark.length not in evaluation.lengths:
        state.settle("benchmark.length", evaluation.lengths[0])
    chart = replace(chart, task=task, metric=metric, pair=pair, length=state.current().benchmark.length)
    made = {
        title: replace(chart, shown=shown).computed(None, evaluation)
        for title, shown in _SHOWN.items()
        if pair or shown not in _OF_PAIRS
    }
    left, right = st.columns(2)
    panels.panel(made["Measured here"].view, "curves", "Measured here", at=left)
    panels.panel(made["Printed in the paper"].view, "printed", "Printed in the paper", at=right)
    st.caption(
        "These are different things: small models trained here on bAbI and a few books, and 1.7 billion"
        " parameters trained on 248 billion tokens, with other books, prompts and tokenizers. Compare"
        " shapes and leads, not levels."
    )
    if pair:
        left, right = st.columns(2)
        panels.panel(made["Difference"].view, "lead", f"{pair}, same items", at=left)
        note = (
            "Ratio of overall means minus 1. The paper does not state the rule behind its headline"
            " percentages. Intervals resample whole stories."
        )
        panels.panel(made["Relative lead"].view, "ratios", "Relative lead, mean over tasks", note, at=right)
    st.subheader("Every task")
    widgets.buttons("Length", "benchmark.length", evaluation.lengths)
    panels.table(made["Every task"].view, "beside")
    export_panel.render(made)
    _notes(task)


def _sets(chart: BenchmarkChart, evaluation: Results) -> None:
    left, right = st.columns(2)
    metric = widgets.buttons("Scoring", "benchmark.metric", evaluation.metrics, at=left)
    pairs = list(benchmark.pairs(evaluation))
    pair = widgets.select("Difference", "benchmark.pair", pairs, at=right) if pairs else ""
    st.caption(benchmark.METRICS[metric])
    chart = replace(chart, metric=metric, pair=pair)
    shown = {"Measured here": OfBenchmark.CURVES, "Difference": OfBenchmark.LEAD, "Every set": OfBenchmark.TASKS}
    made = {
        title: replace(chart, shown=what).computed(None, evaluation)
        for title, what in shown.items()
        if pair or what not in _OF_PAIRS
    }
    left, right = st.columns(2)
    panels.panel(made["Measured here"].view, "curves", "Measured here", at=left)
    if pair:
        panels.panel(made["Difference"].view, "lead", f"{pair}, same items", at=right)
    st.subheader("Every set")
    panels.table(made["Every set"].view, "beside")
    export_panel.render(made)


def _notes(task: str) -> None:
    st.subheader("Before you read the paper's numbers")
    for note in paper.notes(task):
        say.markdown("- {}", note)
