"""Gates: what the memory admits, keeps and lets out."""

import streamlit as st

from app.charts import ComputedChart, OfRun, RunChart
from app.ui import export_panel, panels, say, session, state, widgets
from app.ui.session import Opened
from app.views.run import gates
from lm2.model.config import GatePooling, MemoryKind


def render() -> None:
    st.header("Gates")
    st.write("How far the input, forget and output gates are open across the context.")
    opened = session.open_memory()
    if opened is None:
        return
    session.subtitle(opened)
    config, trace = opened.checkpoint.config, opened.trace
    if config.memory is MemoryKind.RELEASE and config.gate_pooling is GatePooling.SEGMENT:
        st.warning(
            "This model's gates pool over the whole segment, so they see the future: a gate value, and every logit,"
            " also depends on later tokens of its segment. There is one value per segment, not per token. The released"
            " arithmetic has no output gate.",
            icon=":material/warning:",
        )
    there = [gate for gate, site in gates.SITES.items() if site.layers(config)]
    if not there:
        st.info(
            say.words(
                "{} has memory tokens, and these have no gates. Memory and Bank show them.", opened.checkpoint.name
            ),
            icon=":material/info:",
        )
        return
    gate = widgets.buttons("Gate", "gate", there)
    st.caption(gates.MEANING[gate])
    window = None
    if gate == "out":
        window = panels.part(len(trace.tokens), state.choice("token", len(trace.tokens)), "gates")
        title, shown, height = "Per token and block", OfRun.GATE_TOKENS, None
    else:
        title, shown, height = "Per slot, write by write", OfRun.GATE_SLOTS, min(720, max(280, 16 * config.slots + 100))
    st.subheader(say.words("{}", title))
    made = RunChart(spec=trace.spec, item=opened.context.origin, shown=shown, gate=gate, window=window).made(
        opened.checkpoint, trace
    )
    panels.figure(made.view, "gate_map", height)
    if gate != "out":
        st.caption(
            "Mean over the features of each slot. A segment's blocks write one after the other, in order of the"
            " columns."
        )
    _one_block(opened, gate, window, {title: made})
    st.subheader("All blocks in numbers")
    panels.table(gates.summary(trace, gate, opened.layers), "gate_summary")
    st.caption("Over all segments, slots and features." if gate != "out" else "Over all tokens and features.")


@st.fragment
def _one_block(opened: Opened, gate: str, window: tuple[int, int] | None, above: dict[str, ComputedChart]) -> None:
    """A chosen block, and all panels for print; a fragment, so that choosing draws this part alone."""
    layer, trace = session.captured(opened, widgets.block(opened.checkpoint.config)), opened.trace
    made = {
        title: (
            RunChart(
                spec=trace.spec, item=opened.context.origin, shown=shown, layer=layer, gate=gate, window=window
            ).made(opened.checkpoint, trace)
        )
        for title, shown in (("Spread", OfRun.GATE_SPREAD), ("Saturation", OfRun.GATE_SATURATION))
    }
    for column, (title, one) in zip(st.columns(2), made.items()):
        with column:
            st.subheader(say.words("{} in block {}", title, layer))
            panels.figure(one.view, f"gate_{title.lower()}")
    export_panel.hand_out({**above, **made})
    state.publish()
