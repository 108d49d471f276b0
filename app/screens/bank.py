"""Bank: how large the slots are, how they change, how alike they are, and what they say."""

import streamlit as st

from app.charts import ComputedChart, OfRun, RunChart
from app.ui import export_panel, panels, say, session, state, widgets
from app.ui.session import Opened
from app.views.run import bank
from lm2.model.config import MemoryKind


def render() -> None:
    st.header("Bank")
    st.write(
        "What is in the slots: their size, how each segment moves them, how alike they are, and what they would say."
    )
    opened = session.open_memory()
    if opened is None:
        return
    session.subtitle(opened)
    config, trace = opened.checkpoint.config, opened.trace
    height = min(720, max(280, 16 * config.slots + 100))
    made = {
        title: RunChart(spec=trace.spec, item=opened.context.origin, shown=shown).made(opened.checkpoint, trace)
        for title, shown in (("Norms", OfRun.NORMS), ("Change by segment", OfRun.CHANGES))
    }
    for column, (title, one) in zip(st.columns(2), made.items()):
        with column:
            st.subheader(say.words("{}", title))
            panels.figure(one.view, one.chart.words, height)
    _one_segment(opened, made)


@st.fragment
def _one_segment(opened: Opened, above: dict[str, ComputedChart]) -> None:
    """The bank after a chosen segment, and all panels for print; a fragment, so that the slider draws this part
    alone."""
    config, trace, layers = opened.checkpoint.config, opened.trace, opened.layers
    last = len(trace.segments) - 1
    if not 0 <= state.current().segment <= last:
        state.settle("segment", last)
    left, right = st.columns(2)
    with left:
        segment = widgets.slider("After segment", "segment", 0, last) if last else 0
    with right:
        layer = widgets.block(config)
    left, right = st.columns(2)
    with left:
        st.subheader(say.words("Likeness of slots after segment {}", segment))
        likeness = RunChart(spec=trace.spec, item=opened.context.origin, shown=OfRun.SIMILARITY, segment=segment).made(
            opened.checkpoint, trace
        )
        panels.figure(likeness.view, "similarity", 420)
    with right:
        st.subheader(say.words("What slots say, through block {}", layer))
        read = session.readout(opened, bank.after(trace, layers, segment), layer)
        panels.table(bank.readout(read, opened.checkpoint.tokenizer.shown), "readout", 420)
    way = (
        "Each memory token's final state goes through the output head"
        if config.memory is MemoryKind.TOKENS
        else (
            "Each slot goes through the block's value projection, output gate and W_O, the final norm and the output"
            " head, as if a token read it alone"
        )
    )
    st.caption(
        say.words(
            "{}; logits are centred over the vocabulary. The baseline is 256 random slots of the bank's own norms on"
            " the same way: random 95 % is the top logit that 95 % of them stay below, above random the share of them"
            " that this slot's top logit exceeds. A slot within the random range says nothing.",
            way,
        )
    )
    export_panel.hand_out({**above, "Likeness of slots": likeness})
    state.publish()
