"""What the Experiments and Sweeps screens share: held-out questions put to a checkpoint, the job that does it, and how
to have it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.server import cache
from app.server.jobs import JobPhase, Work
from app.ui import progress, say, sidebar, state, widgets
from lm2.tasks import stories

if TYPE_CHECKING:
    from lm2.tasks.babi import Prompt
    from lm2.weights.checkpoint import Checkpoint

MOST_QUESTIONS = 2000
"""What one job may ask; beyond it, the command line."""


def questions() -> tuple[Prompt, ...] | None:
    """Choose the held-out questions; None once it has been explained why there are not so many."""
    left, middle, right = st.columns(3)
    with left:
        task = widgets.select("bAbI task", "exam_task", list(stories.TASKS), show=sidebar.task_name)
    with middle:
        count = widgets.number(
            "Questions",
            "exam_questions",
            2,
            MOST_QUESTIONS,
            help="The last question of each held-out story, then the one before it, and so on.",
        )
    with right:
        widgets.number("Seed", "exam_seed", 0, 2**31 - 1, help="For whatever is drawn: partners, orders, resamples.")
    try:
        found = cache.questions(task, count)
    except ValueError as error:
        st.info(say.words("{}.", error), icon=":material/info:")
        return None
    state.shows("questions", "\f".join(prompt.text for prompt in found))
    origin = "held out from training" if stories.real_stories(task) else "simulated"
    st.caption(
        say.words(
            "{} questions about {} stories of qa{}, {}; each in a segment of its own. What the sidebar has under"
            " Context plays no part here.",
            count,
            len({prompt.story_id for prompt in found}),
            task,
            origin,
        )
    )
    return found


def finished(key: Hashable) -> bool:
    """Whether a job has found something that is still there."""
    job = cache.jobs().find(key)
    return job is not None and job.phase is JobPhase.FINISHED


def result(key: Hashable, work: Work, label: str, unit: str) -> Any:
    """What the job of `key` found: a button starts it, and it tells of itself while it runs; None until it has
    finished.

    Whoever opens the same link meets the same job.
    """
    jobs = cache.jobs()
    job = jobs.find(key)
    if job is not None and not job.phase.ended:
        progress.show(job, unit)
        return None
    if job is not None and job.phase is JobPhase.FINISHED:
        return job.result
    st.button(say.words("{}", label), type="primary", icon=":material/play_arrow:", on_click=jobs.ask, args=(key, work))
    if job is None:
        st.caption("Not run yet. It runs in the background: go on working here, and come back by this page's link.")
    if job is not None and job.phase is JobPhase.FAILED:
        st.info(say.words("It could not be run: {}.", job.sentence.removesuffix(".")), icon=":material/info:")
    if job is not None and job.phase is JobPhase.CANCELLED:
        st.caption(say.words("Stopped after {}.", progress.counted(job.done, unit)))
    return None


def again(
    loaded: Checkpoint,
    name: str,
    spec: Any,
    command: str,
    found: dict[str, Any] | None,
    tables: Mapping[str, Callable[[], str]] = MappingProxyType({}),
) -> None:
    """How to have the same numbers elsewhere: the spec, the command, and what was found. `tables`: CSV files, made when
    asked for."""
    file = f"{name}-{spec.digest[:10]}"
    st.caption(
        say.words(
            "Spec {} of {} ({}), {} on {}. To have the same numbers again:",
            spec.digest,
            loaded.name,
            loaded.digest[:10],
            loaded.dtype,
            loaded.device,
        )
    )
    st.code(command.format(f"{file}.json"), language="bash")
    with st.container(horizontal=True):
        widgets.download("Spec (JSON)", json.dumps(spec.to_json(), indent=1), f"{file}.json", "application/json")
        if found is not None:
            widgets.download("Results (JSON)", json.dumps(found, indent=1), f"results-{file}.json", "application/json")
        for title, make in tables.items():
            widgets.download(f"{title.capitalize()} (CSV)", make, f"{title}-{file}.csv", "text/csv")
