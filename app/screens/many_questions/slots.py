"""Slots: what reads and writes each of them over many stories, and a language model's description."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import SlotChart
from app.server import owner, results
from app.ui import export_panel, job_panel, panels, say, session, state, widgets
from app.views.study import experiments
from lm2.model.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from lm2.tasks.sets.question_set import QuestionSet
    from lm2.weights.checkpoint import Checkpoint
    from probes.explain.explain import Explanations, SlotExplanation
    from probes.explain.spec import ExplainSpec
    from probes.findings import Findings

_RELEASE = (
    "The released arithmetic has no write attention: row j of the bank belongs to token j of the"
    " segment. Only reading is available."
)
_CONTEXTS = (
    "The passages with the largest values, one per story, no text twice. A passage is a segment, or"
    " 32 tokens of a long one."
)
_NO_MODEL = (
    "Nothing leaves this machine: no language model is configured. The owner of the server can name"
    " one: `lm2 serve --model-url URL --model NAME`."
)
_PRIVATE = (
    "The passages shown here, and others to judge, are sent to {}, the language model that the owner"
    " of this server has configured."
)


def render() -> None:
    st.header("Slots")
    st.write("What reads and writes each slot most, over many stories: distinctive words, and passages in context.")
    checkpoint = session.open_checkpoint()
    if checkpoint is None:
        return
    if not checkpoint.config.memory_layers:
        say.info("{} has no memory: there are no slots to explain.", checkpoint.name)
        return
    asked = job_panel.questions()
    if asked is None:
        return
    chart = SlotChart(spec=_spec(checkpoint, asked), slot=0)
    label = f"Read {state.current().questions.count} documents"
    explanations = job_panel.result_of(chart, checkpoint, label, "document")
    if explanations is not None:
        _all_slots(explanations)
        _chosen_slot(explanations, checkpoint, chart)
    tables = None if explanations is None else partial(_tables, explanations)
    titles = ("keywords", "contexts")
    job_panel.reproduce(checkpoint, "slots", chart.spec, "lm2 explain {} --out FOLDER", tables, titles)


def _spec(checkpoint: Checkpoint, asked: QuestionSet) -> ExplainSpec:
    from probes.explain.spec import ExplainSpec, Signal
    from probes.features.documents import Documents

    questions = state.current().questions
    return ExplainSpec(
        checkpoint=checkpoint.name,
        documents=Documents(questions=(asked.name,), count=len(asked)),
        segment_length=session.segment_length(),
        seed=questions.seed,
        signals=tuple(Signal) if Site.WRITE_PATTERN.layers(checkpoint.config) else (Signal.READ,),
    )


def _all_slots(explanations: Explanations) -> None:
    """Every slot with its words; ticking one chooses it."""
    from probes.explain.report import summary

    table = summary(explanations)
    st.subheader("All slots")
    panels.selectable_table(table, "slots", lambda slot: state.update("run", slot=slot))
    say.caption("{}", experiments.note(table))


def _chosen_slot(explanations: Explanations, checkpoint: Checkpoint, chart: SlotChart) -> None:
    """The chosen slot's passages, words and description."""
    from probes.explain.report import words
    from probes.explain.spec import Signal

    left, right = st.columns([1, 3])
    slot = widgets.optional_number(
        "Slot", "run.slot", checkpoint.config.slots, help="Clear it to choose none.", at=left
    )
    side = "read"
    if Signal.WRITE in explanations.spec.signals:
        side = widgets.buttons("Who", "run.side", show=lambda side: f"{side} it", at=right)
    else:
        right.caption(_RELEASE)
    if slot is None:
        st.caption("Choose a slot, or tick it above, to see its passages.")
        return
    explanation = explanations.of(Signal.READ if side == "read" else Signal.WRITE, slot)
    say.subheader("Slot {}, {}", slot, explanation.signal.done)
    passages = len(explanation.contexts)
    made = replace(chart, slot=slot, side=side, passages=passages).computed(checkpoint, explanations)
    panels.strip(made.view, "strip_slots", None)
    st.caption(_CONTEXTS)
    _table(words(explanation), "words")
    with st.expander("A language model's description", icon=":material/forum:"):
        _description(explanations, explanation, checkpoint)
    export_panel.render({f"Passages of slot {slot}": made})


def _description(explanations: Explanations, explanation: SlotExplanation, checkpoint: Checkpoint) -> None:
    """Off unless the server's owner has named a language model: visitors do not choose where passages are sent."""
    from probes.explain.explain import describe_slots
    from probes.explain.report import descriptions, scores

    try:
        chat = owner.describer(explanations.spec.seed)
    except ValueError as error:
        say.info("{}.", error)
        return
    if chat is None:
        st.caption(_NO_MODEL)
        return
    say.caption(_PRIVATE, chat.model)
    signal, slot = explanation.signal, explanation.slot
    spec = replace(explanations.spec, model=chat.model, signals=(signal,), slots=(slot,))
    alone = replace(explanations, spec=spec)
    label = f"Describe slot {slot}, {signal.done}"
    key = results.key_of(checkpoint, spec.digest, "described")
    described = job_panel.result(key, lambda job: describe_slots(alone, chat, job.report), label, "reply")
    if described is not None:
        _table(descriptions(described), "descriptions")
        _table(scores(described), "scores")


def _table(findings: Findings, key: str) -> None:
    panels.table(findings, key)
    say.caption("{}", experiments.note(findings))


def _tables(explanations: Explanations) -> dict[str, pd.DataFrame]:
    from probes.explain.report import context_rows, keyword_rows

    return {"keywords": keyword_rows(explanations), "contexts": context_rows(explanations)}
