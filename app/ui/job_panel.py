"""What screens with background jobs share: how many questions are asked, the job, and how to reproduce it."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.charts import Chart
from app.server import results, sets
from app.server.jobs import JobPhase, Work
from app.ui import progress, say, state, widgets
from lm2.files import csv_text

if TYPE_CHECKING:
    import pandas as pd

    from lm2.tasks.sets.question_set import QuestionSet
    from lm2.weights.checkpoint import Checkpoint

_ORDER = (
    "From the set's first on. Of bAbI: the last question of each held-out story, then the one before it, and so on."
)


def questions() -> QuestionSet | None:
    """Choose how many questions of the set are asked, and the seed; None after explaining why they cannot be asked."""
    name = state.current().questions.set
    left, right = st.columns(2)
    try:
        file = sets.file_read(name)
        most = None if file is None else max(2, len(file.prompts))
        count = widgets.number("Questions", "questions.count", highest=most, help=_ORDER, at=left)
        widgets.number("Seed", "questions.seed", help="For all random draws: partners, orders, resamples.", at=right)
        asked = sets.questions(name, count)
    except ValueError as error:
        say.info("{}.", error)
        return None
    state.record_content("questions", "\f".join(prompt.text for prompt in asked.prompts))
    say.caption(
        "{} questions in {} of {} ({}), chosen under Questions in the sidebar. The settings under Context there"
        " do not apply here.",
        len(asked),
        progress.counted(asked.groups, "group"),
        name,
        asked.about,
    )
    return asked


def is_finished(chart: Chart, checkpoint: Checkpoint) -> bool:
    """Whether a chart's result has been computed, and is still there."""
    job = results.jobs().find(results.key_of(checkpoint, *chart.result_key))
    return job is not None and job.phase is JobPhase.FINISHED


def result_of(chart: Chart, checkpoint: Checkpoint, label: str, unit: str) -> Any:
    """A chart's result, as `result` computes it."""
    key = results.key_of(checkpoint, *chart.result_key)
    return result(key, partial(results.compute, chart, checkpoint), label, unit)


def result(key: Hashable, work: Work, label: str, unit: str) -> Any:
    """The result of the job of `key`: a button starts it, and its progress is shown; None until it has finished.

    Whoever opens the same link sees the same job.
    """
    jobs = results.jobs()
    job = jobs.find(key)
    if job is not None and not job.phase.ended:
        progress.show(job, unit)
        return None
    if job is not None and job.phase is JobPhase.FINISHED:
        return job.result
    st.button(say.words("{}", label), type="primary", icon=":material/play_arrow:", on_click=jobs.ask, args=(key, work))
    if job is None:
        st.caption("Not run yet. It runs in the background: you can keep working here, and return by this page's link.")
    if job is not None and job.phase is JobPhase.FAILED:
        say.info("It could not be run: {}.", job.sentence.removesuffix("."))
    if job is not None and job.phase is JobPhase.CANCELLED:
        say.caption("Stopped after {}.", progress.counted(job.done, unit))
    return None


def reproduce(
    checkpoint: Checkpoint,
    name: str,
    spec: Any,
    command: str,
    tables: Callable[[], Mapping[str, pd.DataFrame]] | None = None,
    titles: Sequence[str] = (),
    *,
    output: dict[str, Any] | None = None,
) -> None:
    """How to get the same numbers elsewhere: the spec, the command, and the results. `tables` makes the tables when a
    button of one of the `titles` is pressed."""
    file = f"{name}-{spec.digest[:10]}"
    say.caption(
        "Spec {} of {} ({}), {} on {}. To compute the same numbers again:",
        spec.digest,
        checkpoint.name,
        checkpoint.digest[:10],
        checkpoint.dtype,
        checkpoint.device,
    )
    st.code(command.format(f"{file}.json"), language="bash")
    with st.container(horizontal=True):
        widgets.download("Spec (JSON)", json.dumps(spec.to_json(), indent=1), f"{file}.json", "application/json")
        if output is not None:
            widgets.download("Results (JSON)", json.dumps(output, indent=1), f"results-{file}.json", "application/json")
        for title in titles if tables else ():
            widgets.download(
                f"{title.capitalize()} (CSV)",
                lambda title=title: csv_text(tables()[title]),
                f"{title}-{file}.csv",
                "text/csv",
            )
