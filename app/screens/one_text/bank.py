"""Bank: how large the slots are, how they change, how alike they are, and what they predict."""

from dataclasses import replace

import streamlit as st

from app.charts import ComputedChart, OfRun, RunChart
from app.ui import export_panel, panels, say, session, state, widgets
from app.ui.session import Opened
from app.views.run import bank


def render() -> None:
    st.header("Bank")
    st.write(
        "What is in the slots: their norms, how each segment moves them, how similar they are, and what they predict."
    )
    opened = session.open_memory()
    if opened is None:
        return
    session.subtitle(opened)
    height = panels.height_of(opened.checkpoint.config.slots)
    norms = RunChart(spec=opened.trace.spec, item=opened.context.origin, shown=OfRun.NORMS)
    charts = {"Norms": norms, "Change by segment": replace(norms, shown=OfRun.CHANGES)}
    made = session.computed(charts, opened.checkpoint)
    for column, (title, panel) in zip(st.columns(2), made.items(), strict=True):
        panels.panel(panel.view, panel.chart.words, title, at=column, height=height)
    _one_segment(opened, replace(norms, shown=OfRun.SIMILARITY), made)


@st.fragment
def _one_segment(opened: Opened, chart: RunChart, above: dict[str, ComputedChart]) -> None:
    """The bank after a chosen segment, and all panels for print; a fragment, so that the slider redraws this part
    alone."""
    from probes.causal.lens import read_out

    checkpoint, last = opened.checkpoint, len(opened.trace.segments) - 1
    if not 0 <= state.current().bank.segment <= last:
        state.settle("bank.segment", last)
    left, right = st.columns(2)
    segment = widgets.slider("After segment", "bank.segment", 0, last, at=left) if last else 0
    layer = widgets.block(checkpoint.config, right)
    made = session.computed({"Similarity of slots": replace(chart, segment=segment)}, checkpoint)
    similarity = made["Similarity of slots"].view
    left, right = st.columns(2)
    panels.panel(similarity, "similarity", f"Similarity of slots after segment {segment}", at=left, height=420)
    slots = bank.after(opened.trace, opened.layers, segment)
    predicted = bank.readout(read_out(checkpoint, slots, layer, top=5, random=256, seed=0), checkpoint.tokenizer.shown)
    panels.panel(predicted, "readout", f"What slots predict, through block {layer}", at=right, height=420)
    say.caption(
        "{}; logits are centred over the vocabulary. The baseline is 256 random slots of the bank's own"
        " norms, treated the same way. Random 95 % is the top logit below which 95 % of them stay; above"
        " random is the share of them that this slot's top logit exceeds. A slot within the random range"
        " says nothing.",
        checkpoint.config.memory.design.slot_path,
    )
    export_panel.render({**above, **made})
    state.publish()
