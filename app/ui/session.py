"""What every screen starts from: the checkpoint, the text, and the trace of its run."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.charts import Chart, ComputedChart, OfRun, RunChart
from app.choices.context import Context
from app.server import cache, results
from app.server.jobs import Job, JobPhase
from app.ui import progress, say, sidebar, state
from app.views.run import memory

if TYPE_CHECKING:
    from lm2.runs.spec import RunSpec
    from lm2.runs.trace import Trace
    from lm2.weights.checkpoint import Checkpoint


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
    """Load the chosen checkpoint; None after explaining why it cannot be loaded."""
    model = state.current().model
    state.write_link()  # for a page that is reloaded while this takes its time
    try:
        with st.spinner(say.words("Loading {} ...", model.checkpoint)):
            checkpoint = cache.checkpoint(model.checkpoint, model.device, model.dtype)
    except ValueError as error:
        say.info("{}.", error)
        return None
    state.record_content("weights", checkpoint.digest)
    return checkpoint


def segment_length() -> int | None:
    """The chosen one, in tokens; None for the checkpoint's own."""
    return state.current().model.length or None


def bos() -> bool | None:
    """Whether texts begin with the begin-of-text token; None, as the tokenizer has it."""
    return {"auto": None, "on": True, "off": False}[state.current().model.bos]


def open_trace() -> Opened | None:
    """Load and run what is selected; None while a long text runs, and after explaining a user's mistake."""
    checkpoint = open_checkpoint()
    if checkpoint is None:
        return None
    try:
        context = sidebar.context_of(state.current().text)
        state.record_content("context", context.text)
        layers = sorted(checkpoint.config.memory_layers)
        if layers and state.current().run.layer not in layers:
            state.settle("run.layer", layers[-1])
        return read(checkpoint, context, state.current().run.layer)
    except ValueError as error:
        say.info("{}.", error)
        return None


def read(checkpoint: "Checkpoint", context: Context, layer: int) -> Opened | None:
    """Run a text, as `result_of` does; questions whose answers the model has no tokens for are left out."""
    trace = trace_of(checkpoint, cache.spec_for(checkpoint, context.text, segment_length(), layer, bos()))
    if trace is None:
        return None
    quizzes = tuple(quiz for quiz in context.quizzes if quiz.answerable(trace.tokens, checkpoint.tokenizer))
    lost = dict.fromkeys(quiz.answer for quiz in context.quizzes if quiz not in quizzes)
    if lost:
        say.info(
            "The tokenizer of {} has no tokens for {}: questions with this answer are left out.",
            checkpoint.name,
            ", ".join(lost),
        )
    return Opened(checkpoint=checkpoint, context=replace(context, quizzes=quizzes), trace=trace)


def trace_of(checkpoint: "Checkpoint", spec: "RunSpec") -> "Trace | None":
    """The trace of a spec, computed as `result_of` does."""
    return result_of(RunChart(spec=spec, shown=OfRun.TEXT), checkpoint)


def result_of(chart: Chart, checkpoint: "Checkpoint") -> Any:
    """A chart's result. On a short text, it is waited for; on a long one, the page shows the progress, and the result
    is None.

    Whoever asks for the same result gets the same job: another screen, a reloaded page, another session. Raises
    ValueError as `Chart.result` does.
    """
    result = results.result_of(chart, checkpoint, state.session())
    if not isinstance(result, Job):
        return result
    job = result
    state.write_link()
    bar = st.empty()
    while job.at_once and not job.wait(0.1):
        bar.progress(job.done / (job.total or 1), say.words("Segment {} of {}", job.done, job.total or "..."))
    bar.empty()
    if not job.phase.ended:
        st.caption(
            "A long text runs in the background: you can continue elsewhere, and return by this page's link."
            " It stops when no page waits for it any more."
        )
        progress.show(job, "segment")
    elif job.phase is JobPhase.FINISHED:
        return result_of(chart, checkpoint)
    elif job.phase is JobPhase.FAILED:
        results.forget(chart, checkpoint)
        raise ValueError(job.sentence)
    else:
        forget = partial(results.forget, chart, checkpoint)
        st.button("Run the text", type="primary", icon=":material/play_arrow:", on_click=forget)
        say.caption("Stopped after {}.", progress.counted(job.done, "segment"))
    return None


def computed(charts: Mapping[str, Chart], checkpoint: "Checkpoint") -> dict[str, ComputedChart]:
    """Charts with the views of their results, which have been computed."""
    results_by_key: dict[Hashable, Any] = {}
    for chart in charts.values():
        if chart.result_key not in results_by_key:
            results_by_key[chart.result_key] = result_of(chart, checkpoint)
        if results_by_key[chart.result_key] is None:  # somebody else's results have just taken its place in the store
            st.stop()
    return {title: chart.computed(checkpoint, results_by_key[chart.result_key]) for title, chart in charts.items()}


def open_memory() -> Opened | None:
    """As `open_trace`, for screens that need a memory."""
    opened = open_trace()
    if opened is not None and not opened.layers:
        name = opened.checkpoint.name
        say.info("{} has no memory, so there is nothing to show here. The Run screen shows its predictions.", name)
        return None
    return opened


def require_layer(opened: Opened, layer: int) -> int:
    """`layer`; if the trace does not hold it, the page is drawn again, and runs the text for it."""
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
