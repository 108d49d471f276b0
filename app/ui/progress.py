"""The progress of a job: how far it is, how long it will still take, and a button that stops it."""

import streamlit as st

from app.server.jobs import Job, JobPhase
from app.ui import say


def show(job: Job, unit: str) -> None:
    """Follow a job, whose steps are counted in `unit`s, until it has ended; then the page is drawn again."""
    st.fragment(_progress, run_every=1.0)(job, unit)


def _progress(job: Job, unit: str) -> None:
    if job.phase.ended:
        st.rerun()
    left, right = st.columns([6, 1], vertical_alignment="bottom")
    with left:
        st.progress(min(1.0, job.done / job.total) if job.total else 0.0, say.words("{}", _how_far(job, unit)))
    with right:
        st.button(
            "Cancel",
            icon=":material/stop:",
            disabled=job.cancelling,
            on_click=job.cancel,
            help="Stops it for everyone who is waiting for it.",
        )


def _how_far(job: Job, unit: str) -> str:
    if job.cancelling:
        return f"Stopping after this {unit} ..."
    if job.phase is JobPhase.WAITING:
        return "Waiting: another job is being run first."
    if job.total is None:
        return f"{counted(job.done, unit)} in {duration(job.seconds)}" if job.done else "Starting ..."
    if job.done >= job.total:
        return f"All {counted(job.total, unit)} are done; computing the statistics ..."
    left = "" if job.left is None else f" · about {duration(job.left)} left"
    return f"{job.done:,} of {counted(job.total, unit)} · {duration(job.seconds)}{left}"


def counted(count: int, unit: str) -> str:
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """As text: "3 s", "4 min", "1.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
