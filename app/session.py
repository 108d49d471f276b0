"""What every screen starts from: the loaded checkpoint, the context, and the trace of the one on the other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from app import cache, sidebar, state
from app.context import Context
from app.figures.theme import DARK, LIGHT, Theme

if TYPE_CHECKING:
    from lm2.checkpoint import Checkpoint
    from lm2.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A checkpoint that has read a context."""

    checkpoint: "Checkpoint"
    context: Context
    trace: "Trace"

    @property
    def layers(self) -> tuple[int, ...]:
        """The blocks with a memory that the trace holds."""
        held = {place.layer for _, place in self.trace.records}
        return tuple(layer for layer in sorted(self.checkpoint.config.memory_layers) if layer in held)


def open_trace() -> Opened | None:
    """Load and run what the selection names, with progress by segments; None once a user's mistake has been explained."""
    chosen = state.current()
    try:
        with st.spinner(f"Loading {chosen.checkpoint} ..."):
            loaded = cache.checkpoint(chosen.checkpoint, chosen.device, chosen.dtype)
        read = sidebar.chosen_context()
        layers = sorted(loaded.config.memory_layers)
        if layers and chosen.layer not in layers:
            chosen = state.update(layer=layers[-1])
        spec = cache.spec_for(loaded, read.text, chosen.length or None, chosen.layer)
        bar = st.empty()
        trace = cache.trace(loaded, spec, lambda done, count: bar.progress(done / count, f"Segment {done} of {count}"))
        bar.empty()
    except ValueError as error:
        st.info(str(error), icon=":material/info:")
        return None
    return Opened(checkpoint=loaded, context=read, trace=trace)


def open_memory() -> Opened | None:
    """As `open_trace`, for screens that need a memory."""
    opened = open_trace()
    if opened is not None and not opened.layers:
        st.info(f"{opened.checkpoint.name} has no memory: there is nothing to show here. The Run screen shows its predictions.", icon=":material/info:")
        return None
    return opened


def heading(title: str, opened: Opened | None, words: str) -> None:
    """A screen's title, what it shows, and what ran."""
    st.header(title)
    st.write(words)
    if opened is not None:
        trace = opened.trace
        kinds = f"{len(trace.tokens)} tokens in {len(trace.segments)} segments"
        st.caption(f"{opened.checkpoint.name} ({opened.checkpoint.config.memory.value} memory) on {trace.device}, {trace.dtype} · {opened.context.origin} · {kinds} · run {trace.spec.digest[:10]}")
        if len(opened.layers) < len(opened.checkpoint.config.memory_layers):
            st.caption(f"All blocks together would be too much to keep: only block {opened.layers[0]} was captured. Choosing another block runs the text again.")


def theme() -> Theme:
    """The figures' colours for the browser's light or dark appearance."""
    return DARK if st.context.theme.type == "dark" else LIGHT
