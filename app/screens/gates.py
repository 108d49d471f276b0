"""Gates: what the memory admits, keeps and lets out."""

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
    there = config.memory.design.gates
    if not there:
        name = opened.checkpoint.name
        say.info("{} has {}. Memory and Bank show them.", name, config.memory.design.no_gates)
        return
    gate = widgets.buttons("Gate", "gates.gate", list(there))
    rows, over = there[gate].rows, there[gate].over
    say.caption("{}: {}", there[gate].words, there[gate].meaning)
    window = None
    if rows == "token":
        window = panels.choose_window(len(trace.tokens), state.choice("run.token", len(trace.tokens)), "gates")
        title, shown, height = "Per token and block", OfRun.GATE_TOKENS, None
    else:
        title, shown, height = (
            f"Per {rows}, write by write",
            OfRun.GATE_SLOTS,
            min(720, max(280, 16 * config.slots + 100)),
        )
    chart = RunChart(spec=trace.spec, item=opened.context.origin, shown=shown, gate=gate, window=window)
    made = session.computed({title: chart}, opened.checkpoint)
    panels.panel(made[title].view, "gate_map", title, "" if rows == "token" else _WRITES.format(rows), height=height)
    _one_block(opened, chart, made)
    everything = f"Over all tokens and {over}." if rows == "token" else f"Over all segments, {over}."
    summary = gates.summary(trace, gate, opened.layers, there)
    panels.panel(summary, "gate_summary", "All blocks in numbers", everything)


@st.fragment
def _one_block(opened: Opened, chart: RunChart, above: dict[str, ComputedChart]) -> None:
    """A chosen block, and all panels for print; a fragment, so that choosing draws this part alone."""
    layer = session.captured(opened, widgets.block(opened.checkpoint.config))
    charts = {title: replace(chart, shown=shown, layer=layer) for title, shown in _OF_BLOCK.items()}
    made = session.computed(charts, opened.checkpoint)
    for column, (title, one) in zip(st.columns(2), made.items(), strict=True):
        panels.panel(one.view, f"gate_{title.lower()}", f"{title} in block {layer}", at=column)
    export_panel.hand_out({**above, **made})
    state.publish()
