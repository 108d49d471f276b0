"""What every screen starts from: the loaded checkpoint, the context, and the trace of the one on the other."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.charts import Chart, ComputedChart, OfRun, RunChart
from app.choices.context import Context
from app.figures.theme import DARK, LIGHT, Theme
from app.server import cache, results
from app.server.jobs import Job, JobPhase
from app.ui import progress, say, sidebar, state
from app.views.run import memory

if TYPE_CHECKING:
    import numpy as np

    from lm2.runs.spec import RunSpec
    from lm2.runs.trace import Trace
    from lm2.weights.checkpoint import Checkpoint
    from probes.causal.lens import SlotReadout


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A checkpoint that has read a context."""

    checkpoint: "Checkpoint"
    context: Context
    trace: "Trace"

    @property
    def layers(self) -> tuple[int, ...]:
        """The blocks with a memory that the trace holds."""
        return memory.layers(self.trace, self.checkpoint.config)


def open_checkpoint() -> "Checkpoint | None":
    """Load the chosen checkpoint; None once it has been explained why there is none."""
    chosen = state.current().model
    state.write_link()  # a page that is loaded again while this takes its time must find what was chosen
    try:
        with st.spinner(say.words("Loading {} ...", chosen.checkpoint)):
            loaded = cache.checkpoint(chosen.checkpoint, chosen.device, chosen.dtype)
    except ValueError as error:
        say.info("{}.", error)
        return None
    state.shows("weights", loaded.digest)
    return loaded


def segment_length() -> int | None:
    """The one that is chosen; None, the checkpoint's own."""
    return state.current().model.length or None


def open_trace() -> Opened | None:
    """Load and run what the selection names; None while a long text runs, and once a user's mistake has been
    explained."""
    loaded = open_checkpoint()
    if loaded is None:
        return None
    try:
        read = sidebar.context_of(state.current().text)
        state.shows("context", read.text)
        layers = sorted(loaded.config.memory_layers)
        if layers and state.current().run.layer not in layers:
            state.settle("run.layer", layers[-1])
        spec = cache.spec_for(loaded, read.text, segment_length(), state.current().run.layer)
        trace = ran(loaded, spec)
    except ValueError as error:
        say.info("{}.", error)
        return None
    return None if trace is None else Opened(checkpoint=loaded, context=answerable(read, loaded, trace), trace=trace)


def answerable(read: Context, loaded: "Checkpoint", trace: "Trace") -> Context:
    """The context without the questions whose answers the model has no tokens for, which is said."""
    quizzes = tuple(quiz for quiz in read.quizzes if quiz.answerable(trace.tokens, loaded.tokenizer))
    lost = dict.fromkeys(quiz.answer for quiz in read.quizzes if quiz not in quizzes)
    if lost:
        say.info(
            "The tokenizer of {} has no tokens for {}: questions with this answer are left out.",
            loaded.name,
            ", ".join(lost),
        )
    return replace(read, quizzes=quizzes)


def ran(loaded: "Checkpoint", spec: "RunSpec") -> "Trace | None":
    """The trace of a spec, as `result_of` has it."""
    return result_of(RunChart(spec=spec, shown=OfRun.TEXT), loaded)


def result_of(chart: Chart, loaded: "Checkpoint") -> Any:
    """What a chart shows something of. Work on a short text is waited for; of a long one the page shows how far it is,
    and None comes back.

    Whoever asks for the same result meets it: on another screen, after a reload, in another session. Raises ValueError
    as `Chart.result` does.
    """
    found = results.result_of(chart, loaded, state.session())
    if not isinstance(found, Job):
        return found
    state.write_link()
    bar = st.empty()
    while found.at_once and not found.wait(0.1):
        bar.progress(found.done / (found.total or 1), say.words("Segment {} of {}", found.done, found.total or "..."))
    bar.empty()
    if not found.phase.ended:
        st.caption(
            "A long text runs in the background: you can continue elsewhere, and return by this page's link."
            " It stops when no page waits for it any more."
        )
        progress.show(found, "segment")
    elif found.phase is JobPhase.FINISHED:
        return result_of(chart, loaded)
    elif found.phase is JobPhase.FAILED:
        results.forget(chart, loaded)
        raise ValueError(found.sentence)
    else:
        forget = partial(results.forget, chart, loaded)
        st.button("Run the text", type="primary", icon=":material/play_arrow:", on_click=forget)
        say.caption("Stopped after {}.", progress.counted(found.done, "segment"))
    return None


def computed(charts: Mapping[str, Chart], loaded: "Checkpoint") -> dict[str, ComputedChart]:
    """Charts of results that are there, with their views."""
    found: dict[Hashable, Any] = {}
    for chart in charts.values():
        if chart.result_key not in found:
            found[chart.result_key] = result_of(chart, loaded)
        if found[chart.result_key] is None:  # somebody else's results have just taken its room
            st.stop()
    return {title: chart.made(loaded, found[chart.result_key]) for title, chart in charts.items()}


def open_memory() -> Opened | None:
    """As `open_trace`, for screens that need a memory."""
    opened = open_trace()
    if opened is not None and not opened.layers:
        name = opened.checkpoint.name
        say.info("{} has no memory, so there is nothing to show here. The Run screen shows its predictions.", name)
        return None
    return opened


def captured(opened: Opened, layer: int) -> int:
    """`layer`, if the trace holds it; else the text is run again for it, when a fragment that has only this trace chose
    it."""
    if layer not in opened.layers:
        st.rerun()
    return layer


def subtitle(opened: Opened) -> None:
    """One line that says what ran."""
    trace, config = opened.trace, opened.checkpoint.config
    say.caption(
        "{} ({} memory) on {}, {} · {} · {} tokens in {} segments · run {}",
        opened.checkpoint.name,
        config.memory.value,
        trace.device,
        trace.dtype,
        opened.context.origin,
        len(trace.tokens),
        len(trace.segments),
        trace.spec.digest[:10],
    )
    if opened.layers and len(opened.layers) < len(config.memory_layers):
        say.caption(
            "All blocks together would be too much to keep: only block {} was captured. Choosing another runs the text"
            " again.",
            opened.layers[0],
        )


def readout(opened: Opened, bank: "np.ndarray", layer: int) -> "SlotReadout":
    """What the slots of a bank say through a block."""
    from probes.causal.lens import read_out

    return read_out(opened.checkpoint, bank, layer, top=5, random=256, seed=0)


def theme() -> Theme:
    """The figures' colours for the browser's light or dark appearance."""
    return DARK if st.context.theme.type == "dark" else LIGHT
