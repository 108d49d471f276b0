"""Gates: what the memory takes in, keeps and lets out."""

from dataclasses import replace

import streamlit as st

from app.charts import ComputedChart, OfRun, RunChart
from app.ui import export_panel, panels, say, session, state, widgets
from app.ui.session import Opened
from app.views.run import gates

_OF_BLOCK = {"Spread": OfRun.GATE_SPREAD, "Saturation": OfRun.GATE_SATURATION}
_WRITES = (
    "Mean over the features of each {}. The blocks of a segment write one after another, in the order of the columns."
)


def render() -> None:
    st.header("Gates")
    st.write("How far the input, forget and output gates are open across the context.")
    opened = session.open_memory()
    if opened is None:
        return
    session.subtitle(opened)
    config, trace = opened.checkpoint.config, opened.trace
    if warning := config.memory.design.gates_warning(config):
        say.warning("{}", warning)
    design_gates = config.memory.design.gates
    if not design_gates:
        name = opened.checkpoint.name
        say.info("{} has {}. Memory and Bank show them.", name, config.memory.design.no_gates)
        return
    gate = widgets.buttons("Gate", "gates.gate", list(design_gates))
    rows, over = design_gates[gate].rows, design_gates[gate].over
    say.caption("{}: {}", design_gates[gate].words, design_gates[gate].meaning)
    chart = RunChart(spec=trace.spec, item=opened.context.origin, shown=OfRun.GATE_SLOTS, gate=gate)
    if rows == "token":
        window = panels.choose_window(len(trace.tokens), state.choice("run.token", len(trace.tokens)), "gates")
        chart = replace(chart, shown=OfRun.GATE_TOKENS, window=window)
        title, note, height = "Per token and block", "", None
        everything = f"Over all tokens and {over}."
    else:
        title, note, height = f"Per {rows}, write by write", _WRITES.format(rows), panels.height_of(config.slots)
        everything = f"Over all segments, {over}."
    made = session.computed({title: chart}, opened.checkpoint)
    panels.panel(made[title].view, "gate_map", title, note, height=height)
    _one_block(opened, chart, made)
    summary = gates.summary(trace, gate, opened.layers, design_gates)
    panels.panel(summary, "gate_summary", "All blocks in numbers", everything)


@st.fragment
def _one_block(opened: Opened, chart: RunChart, above: dict[str, ComputedChart]) -> None:
    """A chosen block, and all panels for print; a fragment, so that choosing redraws this part alone."""
    layer = session.require_layer(opened, widgets.block(opened.checkpoint.config))
    charts = {title: replace(chart, shown=shown, layer=layer) for title, shown in _OF_BLOCK.items()}
    made = session.computed(charts, opened.checkpoint)
    for column, (title, panel) in zip(st.columns(2), made.items(), strict=True):
        panels.panel(panel.view, f"gate_{title.lower()}", f"{title} in block {layer}", at=column)
    export_panel.render({**above, **made})
    state.publish()
