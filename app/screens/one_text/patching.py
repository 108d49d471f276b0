"""Patching: a part of another story's run is put into this one's when its question is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import ComputedChart, OfPatching, PatchingChart
from app.choices.selection import Patched
from app.figures.palettes import Stretch
from app.ui import donors, export_panel, job_panel, panels, say, session, state, widgets
from app.ui.session import Opened
from app.views.run import text
from app.views.study import patching
from app.views.study.patching import PatchedAnswer, Reply
from lm2.model.sites import Site
from lm2.runs.donors import Patch
from lm2.runs.interventions import Edit

if TYPE_CHECKING:
    from lm2.runs.trace import Trace
    from probes.causal.patching import PatchSpec

_PARTS = {Patched.BANK: "bank", Patched.READ: "read output", Patched.STREAM: "residual stream"}
_SITES = {Patched.READ: Site.MEM_OUT, Patched.STREAM: Site.RESID_POST}
_MEANING = {
    Patched.BANK: (
        "How much of each slot is read where the answer is predicted, mean over heads. Click a slot to"
        " choose it or to leave it out. Just before the recipient's question is read, its bank is"
        " replaced by the bank with which the donor's question is read."
    ),
    Patched.READ: (
        "MEM_OUT: what the tokens of the question's segment read from memory, as added to the residual"
        " stream. The two segments are aligned at their ends."
    ),
    Patched.STREAM: (
        "RESID_POST: the residual stream after this block, at the tokens of the question's segment. The"
        " two segments are aligned at their ends."
    ),
}
_MOST_SLOTS = 64
"""With more slots, the sweep over them waits for a click."""


@dataclass(frozen=True, kw_only=True)
class _Side(Opened):
    """One of the two stories: its run, its question and the answer."""

    asked: PatchedAnswer


def render() -> None:
    st.header("Patching")
    st.write(
        "Replace the bank, some of its slots, or one activation by those of another story's run when the"
        " question is read. Whose answer does the model give?"
    )
    opened = session.open_memory()
    if opened is None:
        return
    session.subtitle(opened)
    other = donors.choose(opened)
    if other is None:
        return
    recipient, donor = (
        _Side(**vars(side), asked=patching.patched_answer(side.trace, side.context, side.checkpoint.tokenizer))
        for side in (opened, other)
    )
    for column, title, side in zip(st.columns(2), ("Recipient", "Donor"), (recipient, donor), strict=True):
        with column:
            _story(title, side)
    part = _choose_part(recipient, donor)
    try:
        after, expected = _patched(recipient, donor, part), _donors_reply(recipient, donor, part)
    except ValueError as error:
        say.warning("This cannot be carried over: {}.", error)
        return
    if after is None:
        return
    _outcome(recipient, donor, after, expected)
    spec, item, donor_item = _spec(recipient, donor, expected), recipient.context.origin, donor.context.origin
    chart = PatchingChart(spec=spec, shown=OfPatching.READING, item=item, donor_item=donor_item)
    made = session.computed({"Slots read by both": chart}, opened.checkpoint)
    if part is Patched.BANK:
        made |= _each_slot(recipient, after, expected, replace(chart, shown=OfPatching.ALONE))
    export_panel.render(made, Stretch.SQRT)
    st.subheader("Run it again")
    job_panel.reproduce(opened.checkpoint, "patch", after.spec, "lm2 ablate {}")


def _spec(recipient: _Side, donor: _Side, expected: Reply) -> PatchSpec:
    from probes.causal.patching import PatchSpec

    run = recipient.trace.spec
    return PatchSpec(
        checkpoint=run.checkpoint,
        text=run.text,
        segment_length=run.segment_length,
        row=recipient.asked.row,
        own=recipient.asked.reply.token,
        donor=donor.context.text,
        donor_row=donor.asked.row,
        other=expected.token,
    )


def _story(title: str, side: _Side) -> None:
    tokenizer, asked = side.checkpoint.tokenizer, side.asked
    say.subheader("{}", title)
    panels.strip(text.strip(side.trace, text.marks(side.trace, side.context), tokenizer), f"strip_{title}", asked.row)
    say.caption("{}", side.context.origin)
    reply = patching.top_reply(side.trace, asked.row, tokenizer)
    probability = text.probabilities(side.trace, asked.row).max()
    st.markdown(
        say.words("It says **{}** ({:.3f}). ", reply.words, probability)
        + (
            say.words("The true answer is **{}**.", asked.reply.words)
            if asked.known
            else "The true answer is not known."
        )
    )


def _choose_part(recipient: _Side, donor: _Side) -> Patched:
    """Choose what is carried over."""
    config = recipient.checkpoint.config
    with st.container(border=True):
        left, right = st.columns([2, 3])
        parts = [part for part in Patched if part is Patched.BANK or _SITES[part].layers(config)]
        part = widgets.buttons("Carry over the donor's", "patching.part", parts, show=_PARTS.__getitem__, at=left)
        if part is Patched.BANK:
            help = "Choose none for the whole bank."
            widgets.pills("Slots", "patching.slots", range(config.slots), help=help, at=right)
            _reading(recipient, donor)
        else:
            layers = _SITES[part].layers(config)
            if state.current().patching.layer not in layers:
                state.settle("patching.layer", layers[-1])
            widgets.buttons("Of block", "patching.layer", layers, at=right)
        st.caption(_MEANING[part])
    return part


def _reading(recipient: _Side, donor: _Side) -> None:
    """What the two questions read; a click chooses a slot, or leaves it out."""
    runs = [(name, side.trace, side.asked.row) for name, side in (("recipient", recipient), ("donor", donor))]
    view = patching.reading(runs, recipient.layers)
    cell = panels.clickable_map(view, "patched_reading", None, None, Stretch.SQRT, 70 + 22 * len(view.values))
    if cell is not None:
        state.click("patching", slots=tuple(sorted({cell.column} ^ set(state.current().patching.slots))))


def _patched(recipient: _Side, donor: _Side, part: Patched) -> Trace | None:
    """The recipient's run with a part of the donor's in it; None while it runs. Raises ValueError as `run` does."""
    from probes.causal.patching import bank_edit

    choice = state.current().patching
    if part is Patched.BANK:
        change = bank_edit(donor.context.text, donor.asked.segment, recipient.asked.segment, choice.slots or None)
    else:
        change = _activation(recipient, donor, _SITES[part], choice.layer)
    return session.trace_of(recipient.checkpoint, replace(recipient.trace.spec, captures=(), interventions=(change,)))


def _activation(recipient: _Side, donor: _Side, site: Site, layer: int) -> Edit:
    """The donor's activation at a site, at as many last tokens of the question's segment as both segments have.

    Raises ValueError if the two questions do not coincide when the segments are aligned at their ends.
    """
    own, other = (side.trace.segments[side.asked.segment] for side in (recipient, donor))
    after_own, after_other = own.end - recipient.asked.row - 1, other.end - donor.asked.row - 1
    if after_own != after_other:
        raise ValueError(
            "the questions do not coincide when the two segments are aligned at their ends:"
            f" {after_own} tokens follow the recipient's, {after_other} the donor's"
        )
    tokens = tuple(range(max(own.start, own.end - len(other.ids)), own.end))
    operation = Patch(text=donor.context.text, segment=donor.asked.segment)
    return Edit(site=site, operation=operation, layers=(layer,), segments=(recipient.asked.segment,), tokens=tokens)


def _donors_reply(recipient: _Side, donor: _Side, part: Patched) -> Reply:
    """The reply that the donor's part should bring: with the bank, what the donor's story answers to the recipient's
    question, if it does; else the donor's answer to its own question."""
    answer = donors.answer_from(donor.context, recipient.context) if part is Patched.BANK else None
    if answer is None:
        return donor.asked.reply
    return patching.reply_of(recipient.trace, recipient.context, answer, recipient.checkpoint.tokenizer)


def _outcome(recipient: _Side, donor: _Side, after: Trace, expected: Reply) -> None:
    tokenizer = recipient.checkpoint.tokenizer
    before, own, row = recipient.trace, recipient.asked.reply, recipient.asked.row
    st.subheader("Whose answer?")
    if expected.token == own.token:
        alike = f"Both stories answer {expected.words}"
        if expected.words != own.words:
            alike = f"{own.words} and {expected.words} begin with the same token"
        say.info("{}: this donor cannot show whose answer the model gives. Choose another one.", alike)
    reply_before, reply_after = (patching.top_reply(trace, row, tokenizer) for trace in (before, after))
    whose = {expected.token: "the donor's answer", own.token: "the recipient's answer"}
    say.markdown(
        "Before, the model says **{}**; with the donor's part in it, **{}**: {}.",
        reply_before.words,
        reply_after.words,
        whose.get(reply_after.token, "neither story's answer"),
    )
    left, right = st.columns([3, 2])
    with left:
        runs = [
            ("before", before, row),
            ("after", after, row),
            ("in the donor's own run", donor.trace, donor.asked.row),
        ]
        panels.table(patching.answers(runs, [("recipient", own), ("donor", expected)]), "patched_answers")
        say.caption(
            "Probability of each answer's first token. The donor's answer is {}. Logit difference, donor's"
            " answer minus recipient's: {:+.2f} before, {:+.2f} after.",
            _source(recipient, donor, expected),
            *_differences(recipient, after, expected),
        )
    with right:
        view = text.compare_next_tokens(before.logits[row], after.logits[row], ("before", "after"), tokenizer.shown, 6)
        panels.table(view, "patched_next")


def _differences(recipient: _Side, after: Trace, expected: Reply) -> tuple[float, float]:
    """The logit difference before and after, donor's answer minus recipient's."""
    own, row = recipient.asked.reply, recipient.asked.row
    before, then = (
        float(patching.logit_difference(trace.logits[row], own, expected)) for trace in (recipient.trace, after)
    )
    return before, then


def _source(recipient: _Side, donor: _Side, expected: Reply) -> str:
    if expected != donor.asked.reply:
        return f"what its story says about “{recipient.context.quizzes[-1].question}”"
    return "the answer to its own question" if donor.asked.known else "the model's answer after it"


def _each_slot(recipient: _Side, after: Trace, expected: Reply, chart: PatchingChart) -> dict[str, ComputedChart]:
    """The donor's slots one by one, beside all chosen ones together. Returns the panel, if there is one."""
    checkpoint, slots = recipient.checkpoint, recipient.checkpoint.config.slots
    st.subheader("Each slot alone")
    if expected.token == recipient.asked.reply.token:
        st.caption("Nothing to compare: the two answers begin with the same token.")
        return {}
    label = say.words("Carry over each of the {:,} slots alone", slots)
    if slots > _MOST_SLOTS and not st.button(label, icon=":material/play_arrow:"):
        return {}
    with st.spinner("Carrying over each slot alone ..."):
        result = session.result_of(chart, checkpoint)
    if result is None:
        return {}
    made = chart.computed(checkpoint, result)
    left, right = st.columns([5, 1])
    with left:
        panels.figure(made.view, "patched_alone")
    chosen = list(state.current().patching.slots)
    before, now = _differences(recipient, after, expected)
    right.metric(f"{'Chosen' if chosen else 'All'} slots together", f"{now - before:+.2f}")
    right.metric("The same alone, added up", f"{result.changes[chosen or slice(None)].sum():+.2f}")
    st.caption(
        "Change of the logit difference, donor's answer minus recipient's, in logits, when a single slot"
        " is carried over. If the joint change and the sum are far apart, slots depend on each other:"
        " several hold the same, or several are needed at once."
    )
    return {"Each slot alone": made}
