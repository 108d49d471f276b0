"""Probes: what linear probes decode from the memory and the stream, beside control task and baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import OfProbe, ProbeChart
from app.figures.palettes import Stretch
from app.server.results import Kept
from app.ui import export_panel, job_panel, panels, probe_choices, say, session, state, widgets
from app.views.study import probes
from app.views.study.probes import ALL, Probed
from lm2.files import read_text

if TYPE_CHECKING:
    from app.views.kinds import Heatmap
    from lm2.weights.checkpoint import Checkpoint
    from probes.features.sources import Source
    from probes.features.targets import Target

_SHOWN = {
    "Where it can be read": OfProbe.MAP,
    "Segment by segment": OfProbe.CURVES,
    "Confusion": OfProbe.CONFUSION,
    "Every source": OfProbe.SOURCES,
    "Every target": OfProbe.TARGETS,
}
_MOST_BUTTONS = 6
_MOST_ROWS = 15
_COLUMNS = (
    "Selectivity: balanced accuracy minus that of the control task, in which every statement has a"
    " label drawn at random. Beyond a baseline: bits per row, its cross-entropy minus the source's."
    " Compression: uniform code length over online code length. p: labels of whole stories exchanged;"
    " q: adjusted over all sources and targets."
)
_CURVES = (
    "Bands are 95 % intervals, clustered by group. The control task can only be memorised: what a"
    " probe decodes there, it has memorised."
)
_CONTEXT = "The settings under Context in the sidebar do not apply here."
_ERASURE = (
    "Opens the experiment that erases where people are from every slot, with random subspaces and"
    " another concept as controls."
)
_NO_ERASURE = "The erasure experiment is about where people are, with questions of qa1."
_USE = (
    "that it can be decoded does not mean that the model uses it. To find out, erase it and measure"
    " what the model answers."
)


def render() -> None:
    st.header("Probes")
    st.write(
        "What does the memory hold? Linear probes decode it in stories that they have not seen, with a"
        " control task and baselines."
    )
    checkpoint = session.open_checkpoint()
    if checkpoint is None:
        return
    try:
        probe_choices.choose(checkpoint)
        chart = ProbeChart(spec=probe_choices.spec(checkpoint), shown=OfProbe.MAP)
        with st.spinner("Preparing the rows ..."):
            plan = chart.plan(checkpoint, Kept(anew=True))
        state.record_content("documents", "\f".join(encoded.prompt.text for encoded in plan.examples.encoded_prompts))
        if chart.spec.files:
            state.record_content("labels", "\f".join(read_text(Path(file)) for file in chart.spec.files))
    except ValueError as error:
        say.info("There is no such probe: {}.", error)
        return
    if job_panel.is_finished(chart, checkpoint):
        say.caption("{}. " + _CONTEXT, plan.cost)
    else:
        say.markdown("**{}.**", plan.cost)
        st.caption(_CONTEXT)
    probed = job_panel.result_of(chart, checkpoint, "Fit the probes", "source")
    if probed is not None:
        _show(checkpoint, probed, chart)
    tables = None if probed is None else probed.result.tables
    job_panel.reproduce(
        checkpoint, "probe", chart.spec, "lm2 probe {} --out FOLDER", tables, ("cells", "metrics", "examples")
    )


def _show(checkpoint: Checkpoint, probed: Probed, chart: ProbeChart) -> None:
    """The map beside the open source's curves; all sources; the open cell in detail."""
    target = _target(probed)
    source, segment = _place(probed)
    chart = replace(chart, target=str(target), source=source.label, segment=-1 if segment == ALL else segment)
    made = {title: replace(chart, shown=shown).computed(checkpoint, probed) for title, shown in _SHOWN.items()}
    left, right = st.columns([3, 2])
    with left:
        st.subheader("Where it can be read")
        _map(probed, target, source, segment, made["Where it can be read"].view)
    curves, note = made["Segment by segment"].view, f"{source}. {_CURVES}"
    panels.panel(curves, "probe_curves", "Segment by segment", note, at=right, height=380)
    st.subheader("Every source, all segments together")
    panels.table(made["Every source"].view, "probe_sources_told", _height(len(probed.rows)))
    best = probes.best_source_note(probed, target)
    st.caption(_COLUMNS if best is None else say.words("**{}** " + _COLUMNS, best))
    _details(checkpoint, probed, target, source, segment, made["Confusion"].view)
    export_panel.render(made)


def _height(rows: int) -> int | str:
    return "content" if rows <= _MOST_ROWS else 36 * _MOST_ROWS


def _target(probed: Probed) -> Target:
    """Choose the target that is shown."""
    names = [str(target) for target in probed.targets]
    choose = widgets.buttons if len(names) <= _MOST_BUTTONS else widgets.select
    return probed.targets[names.index(choose("Target", "probes.target", names))]


def _place(probed: Probed) -> tuple[Source, int | str]:
    """The open cell: the first one unless another is chosen."""
    labels = [source.label for source in probed.rows]
    if state.current().probes.source not in ("", *labels):
        state.settle("probes.source", "")
    if state.current().probes.segment not in (-1, *probed.result.segments):
        state.settle("probes.segment", -1)
    choice = state.current().probes
    source = probed.rows[labels.index(choice.source)] if choice.source else probed.rows[0]
    return source, ALL if choice.segment == -1 else choice.segment


def _map(probed: Probed, target: Target, source: Source, segment: int | str, view: Heatmap) -> None:
    row, column = probed.rows.index(source), probed.columns.index(segment)
    height = min(720, max(280, 22 * len(probed.rows) + 110))
    cell = panels.clickable_map(view, "probe_map", row, column, Stretch.LINEAR, height)
    say.caption("{}", probes.map_note(probed, target))
    if cell is not None and (cell.row, cell.column) != (row, column):
        segment = probed.columns[cell.column]
        state.click("probes", source=probed.rows[cell.row].label, segment=-1 if segment == ALL else segment)


def _details(
    checkpoint: Checkpoint, probed: Probed, target: Target, source: Source, segment: int | str, confusion: Heatmap
) -> None:
    """The open cell's scores, its errors, and the top tokens of its direction."""
    cell = probed.cells[source, target, segment]
    say.subheader("Details of {}", probes.cell_title(source, segment))
    if source in probed.result.plan.baselines:
        say.markdown("A baseline for the sources.  \n{}", probes.description(cell))
    else:
        left, right = st.columns([4, 1], vertical_alignment="center")
        left.markdown(probes.verdict(cell) + ": " + _USE + say.words("  \n{}", probes.description(cell)))
        if not probes.erasable(probed, target):
            right.caption(_NO_ERASURE)
        elif right.button("Erase this and run", icon=":material/ink_eraser:", width="stretch", help=_ERASURE):
            state.update("experiments", experiment="erasure")
            state.update("questions", set="babi:qa1")
            state.open_screen("experiments")
    left, right = st.columns([2, 3])
    with left:
        panels.figure(confusion, "probe_confusion", 380)
        if cell.gains:
            panels.table(probes.gains(cell), "probe_gains")
    with right:
        _direction(checkpoint, probed, target, source)
    table, count = probes.misread(probed, source, target, segment)
    if not count:
        st.caption("No row was misclassified here.")
        return
    panels.table(table, "probe_misread", "content" if count <= _MOST_ROWS else 380)
    say.caption("The {} most confident of {} misclassified rows; ⟦ ⟧ marks the row's token.", len(table.rows), count)


def _direction(checkpoint: Checkpoint, probed: Probed, target: Target, source: Source) -> None:
    from probes.probing.directions import top_tokens

    try:
        tokens = top_tokens(checkpoint, source, probed.result.readings[source, target].direction)
    except ValueError as error:
        say.caption("Top tokens: {}.", error)
        return
    panels.table(
        probes.direction_tokens(tokens, probed.result.plan.labels[target].names, checkpoint.tokenizer.shown),
        "probe_tokens",
    )
    say.caption(
        "Top tokens of each class's direction (all segments, mean over folds, minus the mean over"
        " classes), by {}. These are the weights of the probe; the model need not use the same direction.",
        tokens.path,
    )
