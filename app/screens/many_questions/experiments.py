"""Experiments: parts of the memory ablated over many questions, each beside its control."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import ComputedChart, ExperimentChart, OfExperiment
from app.ui import export_panel, job_panel, panels, say, session, state, widgets
from app.views.study import experiments
from probes.experiments.registry import experiment

if TYPE_CHECKING:
    from lm2.weights.checkpoint import Checkpoint
    from probes.experiments.experiment import ExperimentReport


def render() -> None:
    from probes.experiments.experiment import ExperimentSpec

    st.header("Experiments")
    st.write(
        "One part of the memory at a time is changed while the model answers many questions."
        " Every result comes with its control."
    )
    checkpoint = session.open_checkpoint()
    if checkpoint is None:
        return
    if not checkpoint.config.memory_layers:
        say.info(
            "{} has no memory, so there is nothing to ablate. Sweeps can replace its attention and MLPs.",
            checkpoint.name,
        )
        return
    key = _key()
    asked = job_panel.questions()
    if asked is None:
        return
    try:
        experiment(key).check_questions(asked)
    except ValueError as error:
        say.info("{}.", error)
        return
    questions = state.current().questions
    spec = ExperimentSpec(
        experiment=key,
        checkpoint=checkpoint.name,
        questions=asked.name,
        count=len(asked),
        segment_length=session.segment_length(),
        seed=questions.seed,
    )
    chart = ExperimentChart(spec=spec, shown=OfExperiment.TABLE)
    report = job_panel.result_of(chart, checkpoint, f"Run about {spec.documents:,} documents", "document")
    if report is not None:
        _show(checkpoint, report)
    output = None if report is None else report.to_json()
    job_panel.reproduce(checkpoint, key, spec, "lm2 ablate {}", output=output)


def _key() -> str:
    """Choose an experiment, and show its question and its control."""
    key = widgets.select("Experiment", "experiments.experiment", show=lambda key: experiment(key).title)
    say.markdown("**{}** Control: {}.", experiment(key).question, experiment(key).control)
    return key


def _show(checkpoint: Checkpoint, report: ExperimentReport) -> None:
    """Every table, and its rows as a curve or as intervals if they make one."""
    made: dict[str, ComputedChart] = {}
    for index, findings in enumerate(report.findings):
        say.subheader("{}", findings.title)
        chart = ExperimentChart(spec=report.spec, shown=OfExperiment.TABLE, finding=index)
        if findings.curve or experiments.forest(findings) is not None:
            shown = OfExperiment.CURVE if findings.curve else OfExperiment.FOREST
            made[findings.title] = replace(chart, shown=shown).computed(checkpoint, report)
            panels.figure(made[findings.title].view, f"curve_{index}")
        table = made[f"{findings.title}, table"] = chart.computed(checkpoint, report)
        panels.table(table.view, f"table_{index}")
        say.caption("{}", experiments.note(findings))
    export_panel.render(made)
