"""Slots: what reads and writes each of them over many stories, and what a language model makes of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import SlotChart
from app.server import cache, owner
from app.ui import export_panel, job_panel, panels, say, session, state, widgets
from app.views.study import experiments
from lm2.files import csv_text
from lm2.model.config import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from app.server.jobs import Job
    from lm2.weights.checkpoint import Checkpoint
    from probes.experiments.tables import Findings
    from probes.explain.explain import Explanations, SlotExplanation
    from probes.explain.spec import ExplainSpec

_RELEASE = (
    "The released arithmetic has no write attention: row j of the bank belongs to token j of the segment. Only reading"
    " can be told."
)
_CONTEXTS = (
    "The passages with the largest values, one of a story, no text twice. A passage is a segment, or 32 tokens of a"
    " long one."
)
_NO_MODEL = (
    "Nothing leaves this machine: no language model is asked. Whoever starts the server can name one: `lm2 serve"
    " --model-url URL --model NAME`."
)
_PRIVATE = (
    "The passages shown here, and others to judge, are sent to {}, the language model that this server's owner has"
    " named."
)


def render() -> None:
    st.header("Slots")
    st.write(
        "What reads and writes each slot most, over many stories: words that stand out, and passages with what is"
        " around them."
    )
    loaded = session.open_checkpoint()
    if loaded is None:
        return
    if not loaded.config.memory_layers:
        st.info(say.words("{} has no memory: there are no slots to explain.", loaded.name), icon=":material/info:")
        return
    if job_panel.questions() is None:
        return
    spec = _spec(loaded)
    found = job_panel.result(
        cache.key(loaded, spec),
        partial(_explain, loaded, spec),
        f"Read {state.current().exam_questions} documents",
        "document",
    )
    if found is not None:
        _all(found)
        _one(found, loaded)
    job_panel.again(loaded, "slots", spec, "lm2 explain {} --out FOLDER", None, {} if found is None else _csv(found))


def _spec(loaded: Checkpoint) -> ExplainSpec:
    from probes.explain.spec import ExplainSpec, Signal  # noqa: PLC0415
    from probes.features.documents import Documents, Origin  # noqa: PLC0415 - see app/cache.py

    chosen = state.current()
    return ExplainSpec(
        checkpoint=loaded.name, documents=Documents(tasks=(chosen.exam_task,), count=chosen.exam_questions,
            origin=Origin.HELD_OUT),
        segment_length=chosen.length or None, seed=chosen.exam_seed,
        signals=(Signal.READ,) if loaded.config.memory is MemoryKind.RELEASE else tuple(Signal),
    )  # fmt: skip


def _explain(loaded: Checkpoint, spec: ExplainSpec, job: Job) -> Explanations:
    from probes.explain.explain import explain  # noqa: PLC0415 - see app/cache.py

    return explain(loaded, spec, job.report)


def _all(found: Explanations) -> None:
    """Every slot with its words; a tick chooses one."""
    from probes.explain.report import summary  # noqa: PLC0415 - see app/cache.py

    table = summary(found)
    st.subheader("All slots")
    panels.table_to_choose(experiments.table(table), "slots", lambda slot: state.update(slot=slot))
    st.caption(say.words("{}", experiments.note(table)))


def _one(found: Explanations, loaded: Checkpoint) -> None:
    """The chosen slot: its contexts, its words, and a description."""
    from probes.explain.report import words  # noqa: PLC0415
    from probes.explain.spec import Signal  # noqa: PLC0415 - see app/cache.py

    left, right = st.columns([1, 3])
    with left:
        slot = widgets.choice_of_number("Slot", "slot", loaded.config.slots, help="Empty it to choose none.")
    with right:
        if Signal.WRITE in found.spec.signals:
            side = widgets.buttons("Who", "side", ["read", "wrote"], show=lambda side: f"{side} it")
        else:
            side = "read"
            st.caption(_RELEASE)
    if slot is None:
        st.caption("Choose a slot, or tick it above, to see its passages.")
        return
    one = found.of(Signal.READ if side == "read" else Signal.WRITE, slot)
    st.subheader(say.words("Slot {}, {}", slot, one.signal.done))
    made = SlotChart(spec=found.spec, slot=slot, side=side, passages=len(one.contexts)).made(loaded, found)
    panels.strip(made.view, "strip_slots", None)
    st.caption(_CONTEXTS)
    _table(words(one), "words")
    with st.expander("A language model's description", icon=":material/forum:"):
        _description(found, one, loaded)
    export_panel.hand_out({f"Passages of slot {slot}": made})


def _description(found: Explanations, one: SlotExplanation, loaded: Checkpoint) -> None:
    """Off unless the server's owner has named a language model: visitors choose neither where passages are sent nor
    what is written."""
    from probes.explain.explain import describe_slots  # noqa: PLC0415
    from probes.explain.report import descriptions, scores  # noqa: PLC0415 - see app/cache.py

    try:
        chat = owner.describer(found.spec.seed)
    except ValueError as error:
        st.info(say.words("{}.", error), icon=":material/info:")
        return
    if chat is None:
        st.caption(_NO_MODEL)
        return
    st.caption(say.words(_PRIVATE, chat.model))
    spec = replace(found.spec, model=chat.model, signals=(one.signal,), slots=(one.slot,))
    asked = replace(found, spec=spec)
    label = f"Describe slot {one.slot}, {one.signal.done}"
    described = job_panel.result(
        (*cache.key(loaded, spec), "described"), lambda job: describe_slots(asked, chat, job.report), label, "reply"
    )
    if described is not None:
        _table(descriptions(described), "descriptions")
        _table(scores(described), "scores")


def _table(found: Findings, key: str) -> None:
    panels.table(experiments.table(found), key)
    st.caption(say.words("{}", experiments.note(found)))


def _csv(found: Explanations) -> dict[str, partial[str]]:
    from probes.explain.report import context_rows, keyword_rows  # noqa: PLC0415 - see app/cache.py

    return {
        name: partial(_written, rows, found) for name, rows in (("keywords", keyword_rows), ("contexts", context_rows))
    }


def _written(rows: Callable[[Explanations], pd.DataFrame], found: Explanations) -> str:
    return csv_text(rows(found))
