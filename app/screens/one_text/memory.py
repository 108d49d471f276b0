"""Memory: which slots the tokens read, and which tokens the slots take in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import ComputedChart, OfRun, RunChart
from app.components.multiples import multiples
from app.figures.palettes import Stretch
from app.ui import export_panel, panels, say, session, state, widgets
from app.views.run import memory, text
from lm2.model.sites import Site

if TYPE_CHECKING:
    from lm2.runs.trace import Trace


def render() -> None:
    st.header("Memory")
    st.write("Which slots each token reads, and which tokens each slot takes in, over the whole context.")
    opened = session.open_memory()
    if opened is None:
        return
    session.subtitle(opened)
    config, trace = opened.checkpoint.config, opened.trace
    left, middle, right = st.columns([2, 3, 2])
    layer, head = widgets.block(config, left), widgets.head(config, middle)
    stretch = Stretch(widgets.buttons("Colours", "memory.scale", help="sqrt makes small weights visible.", at=right))
    writes = bool(Site.WRITE_PATTERN.layers(config))
    token, slot = state.choice("run.token", len(trace.tokens)), state.choice("run.slot", config.slots)
    side = state.current().run.side if writes else "read"
    window = panels.choose_window(len(trace.tokens), token, "memory")
    chart = RunChart(
        spec=trace.spec, item=opened.context.origin, shown=OfRun.READS, layer=layer, head=head, window=window
    )
    relative = state.current().memory.coloured == "slot"
    marks = text.marks(trace, opened.context)
    charts = {
        "Reads": chart,
        "Text": replace(chart, shown=OfRun.TEXT, slot=slot, side=side, relative=relative, marks=marks),
    }
    sides = {"Reads": "read"}
    if writes:
        charts["Writes"] = replace(chart, shown=OfRun.WRITES)
        sides["Writes"] = "wrote"
    if token is not None:
        charts["Slots of the token"] = replace(chart, shown=OfRun.TOKEN, token=token, window=None)
    made = session.computed(charts, opened.checkpoint)
    state.click("run", token=panels.strip(made["Text"].view, "strip_memory", token, stretch))
    if slot is None:
        st.caption("Click a cell of a map, or choose a slot below, to colour the text by its weights.")
    height = min(720, max(240, 14 * config.slots + 90))
    for title, map_side in sides.items():
        say.subheader("{}", title)
        cell = panels.clickable_map(made[title].view, title.lower(), slot, token, stretch, height)
        if cell is not None:
            state.click("run", token=cell.column, slot=cell.row, side=map_side)
    if not writes:
        st.subheader("Writes")
        st.info(
            "The released arithmetic has no write attention: row j of the bank belongs to token j of the segment, and"
            " the gates decide what stays. See Gates and Bank.",
            icon=":material/info:",
        )
    _details(trace, layer, head, writes, made.get("Slots of the token"))
    _overview(trace, opened.layers, layer, head, writes, stretch)
    export_panel.render(made, stretch)


def _details(trace: Trace, layer: int, head: str, writes: bool, slots_of_token: ComputedChart | None) -> None:
    """The chosen token's slots and the chosen slot's tokens."""
    left, right = st.columns(2)
    with left:
        token = widgets.optional_number("Token", "run.token", len(trace.tokens), help="Clear it to choose none.")
        if slots_of_token is not None:
            piece = trace.tokens.shown[token].strip() or "blank"
            say.caption("What token {} ({}, segment {}) reads", token, piece, text.segment_of(trace)[token])
            panels.figure(slots_of_token.view, "slots_of_token")
        else:
            st.caption("Click a token, or a cell of a map, to see which slots it reads.")
    with right:
        count = trace.bank.shape[0]
        slot = widgets.optional_number("Slot", "run.slot", count, help="Clear it to choose none.")
        if slot is not None:
            side = "read"
            if writes:
                side = widgets.buttons(
                    "Tokens that",
                    "run.side",
                    show=lambda side: f"{side} slot {slot}",
                    help="These tokens are listed here and coloured in the text. A click on a map also selects:"
                    " Reads for tokens that read, Writes for tokens that wrote.",
                )
            widgets.buttons(
                "The text's colours",
                "memory.coloured",
                show={"map": "as in the map", "slot": "relative to the slot"}.__getitem__,
                help="Relative to the slot: the brightest colour is the slot's own largest weight, however small.",
            )
            weights = memory.write_map(trace, layer, head) if side == "wrote" else memory.read_map(trace, layer, head)
            panels.table(memory.tokens_of_slot(trace, weights, slot), f"tokens_that_{side}")
        else:
            st.caption("Click a cell of a map to see which tokens read or wrote its slot.")


def _overview(trace: Trace, layers: tuple[int, ...], layer: int, head: str, writes: bool, stretch: Stretch) -> None:
    """Every block and head as a small map."""
    st.subheader("All blocks and heads")
    st.write("Click a panel to open it above.")
    heads = [*map(str, range(trace.at(Site.READ_PATTERN, segment=0, layer=layers[0]).shape[0])), "mean", "max"]
    selected = (layers.index(layer), heads.index(head))
    titles = {Site.READ_PATTERN: "Read weights"} | ({Site.WRITE_PATTERN: "Write weights"} if writes else {})
    for site, title in titles.items():
        maps = memory.multiples(trace, site, layers)
        clicked = multiples(
            key=f"multiples_{site.name}",
            panels=maps,
            layer_labels=[f"block {block}" for block in layers],
            head_labels=[f"head {name}" if name.isdigit() else name for name in heads],
            selected=selected,
            boundaries=text.boundaries(trace),
            title=f"{title}: slots down, tokens along",
            stretch=stretch,
            alt=f"{title} of {len(layers)} blocks and {len(heads) - 2} heads, largest {maps.max():.3f}",
        )
        if clicked is not None:
            state.click("run", layer=layers[clicked[0]], head=heads[clicked[1]])
    with st.expander("Read heads in numbers"):
        panels.table(memory.heads(trace, layers), "heads")
        st.caption(
            "Means over all tokens. Selectivity is the mutual information of token and slot: 0 bits if every"
            " token reads alike."
        )
