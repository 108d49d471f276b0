"""Experiments: parts of the memory ablated over many held-out questions, each beside its control."""

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
        "One part of the memory at a time is changed while the model answers many held-out questions."
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
    if job_panel.questions() is None:
        return
    asked = state.current().questions
    spec = ExperimentSpec(
        experiment=key,
        checkpoint=checkpoint.name,
        task=asked.task,
        questions=asked.count,
        segment_length=session.segment_length(),
        seed=asked.seed,
    )
    chart = ExperimentChart(spec=spec, shown=OfExperiment.TABLE)
    report = job_panel.result_of(chart, checkpoint, f"Run about {spec.documents:,} documents", "document")
    if report is not None:
        _show(checkpoint, report)
    found = None if report is None else report.to_json()
    job_panel.again(checkpoint, key, spec, "lm2 ablate {}", found=found)


def _key() -> str:
    """Choose an experiment; shows what it asks, and its control."""
    key = widgets.select("Experiment", "experiments.experiment", show=lambda key: experiment(key).title)
    say.markdown("**{}** Control: {}.", experiment(key).question, experiment(key).control)
    return key


def _show(checkpoint: Checkpoint, report: ExperimentReport) -> None:
    """Every table, as a curve where its rows make one, else as intervals."""
    made: dict[str, ComputedChart] = {}
    for at, found in enumerate(report.findings):
        say.subheader("{}", found.title)
        chart = ExperimentChart(spec=report.spec, shown=OfExperiment.TABLE, finding=at)
        if found.curve or experiments.forest(found) is not None:
            shown = OfExperiment.CURVE if found.curve else OfExperiment.FOREST
            made[found.title] = replace(chart, shown=shown).computed(checkpoint, report)
            panels.figure(made[found.title].view, f"curve_{at}")
        table = made[f"{found.title}, table"] = chart.computed(checkpoint, report)
        panels.table(table.view, f"table_{at}")
        say.caption("{}", experiments.note(found))
    export_panel.hand_out(made)
