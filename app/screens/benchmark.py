"""Benchmark: models by task and length, beside what the paper prints."""

from dataclasses import replace

import streamlit as st

from app.charts import BenchmarkChart, OfBenchmark
from app.server import owner
from app.ui import export_panel, panels, say, state, widgets
from app.views.study import benchmark
from lm2.evaluation import paper, results

_SHOWN = {
    "Measured here": OfBenchmark.CURVES, "Printed in the paper": OfBenchmark.PRINTED, "Difference": OfBenchmark.LEAD,
    "Relative lead": OfBenchmark.RATIOS, "Models by length": OfBenchmark.LENGTHS, "Every task": OfBenchmark.TASKS,
}  # fmt: skip
_OF_PAIRS = (OfBenchmark.LEAD, OfBenchmark.RATIOS)


def render() -> None:
    st.header("Benchmark")
    st.write(
        "BABILong: bAbI facts hidden in book text of growing length. Our models with 95 % intervals clustered by story,"
        " beside the paper's numbers."
    )
    named = widgets.line(
        "Results",
        "results",
        help=(
            "A folder that `lm2 eval ... --out FOLDER` wrote, where the server's owner opens it; empty: what the"
            " bundled models scored."
        ),
    )
    try:
        found = results.read_results(owner.place(named) if named else results.BUNDLED)
    except ValueError as error:
        if named:
            st.info(say.words("{}.", error), icon=":material/info:")
        else:
            st.info(
                "No results are bundled. Make some with `lm2 eval --models A,B --lengths 0k,1k,4k --out FOLDER`, and"
                " name FOLDER above.",
                icon=":material/info:",
            )
        st.subheader("Printed in the paper")
        panels.figure(benchmark.printed_curves("mean"), "printed")
        _notes("mean")
        return
    state.shows("evaluation", found.digest)
    left, middle, right = st.columns(3)
    with left:
        task = widgets.select(
            "Task", "shown", found.tasks, show=lambda task: "mean over tasks" if task == "mean" else task
        )
    with middle:
        metric = widgets.buttons("Scoring", "metric", list(benchmark.METRICS))
    with right:
        pairs = benchmark.pairs(found)
        pair = widgets.select("Difference", "rival", pairs) if pairs else None
    st.caption(benchmark.METRICS[metric])
    if state.current().at not in found.lengths:
        state.settle("at", found.lengths[0])
    length = state.current().at
    chart = BenchmarkChart(
        spec=named, shown=OfBenchmark.CURVES, task=task, metric=metric, pair=pair or "", length=length
    )
    made = {
        title: replace(chart, shown=shown).made(None, found)
        for title, shown in _SHOWN.items()
        if pair or shown not in _OF_PAIRS
    }
    left, right = st.columns(2)
    with left:
        st.subheader("Measured here")
        panels.figure(made["Measured here"].view, "curves")
    with right:
        st.subheader("Printed in the paper")
        panels.figure(made["Printed in the paper"].view, "printed")
    st.caption(
        "Two different things: small models trained here on bAbI and a few books, and 1.7 billion parameters trained on"
        " 248 billion tokens; other books, prompts and tokenizers. Compare shapes and leads, not levels."
    )
    if pair is not None:
        left, right = st.columns(2)
        with left:
            st.subheader(say.words("{}, same items", pair))
            panels.figure(made["Difference"].view, "lead")
        with right:
            st.subheader("Relative lead, mean over tasks")
            panels.table(made["Relative lead"].view, "ratios")
            st.caption(
                "Ratio of overall means less 1, the rule that the paper's headline percentages do not state; intervals"
                " resample whole stories."
            )
    st.subheader("Every task")
    widgets.buttons("Length", "at", found.lengths)
    panels.table(made["Every task"].view, "beside")
    export_panel.hand_out(made)
    _notes(task)


def _notes(task: str) -> None:
    st.subheader("Before you read the paper's numbers")
    for note in paper.notes(task):
        st.markdown(say.words("- {}", note))
