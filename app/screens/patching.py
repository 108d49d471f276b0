"""Patching: something of another story's run is put into this one's, as its question is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import ComputedChart, OfPatching, PatchingChart
from app.choices.context import Context
from app.choices.selection import Patched, TextChoice, TextSource
from app.figures.palettes import Stretch
from app.server import cache
from app.ui import donors, export_panel, job_panel, panels, say, session, sidebar, state, widgets
from app.ui.session import Opened
from app.views.run import text
from app.views.study import patching
from app.views.study.patching import PatchedAnswer, Reply
from lm2.model.sites import Site
from lm2.runs.interventions import Edit
from lm2.runs.operations import Patch
from lm2.tasks import stories

if TYPE_CHECKING:
    from lm2.runs.trace import Trace
    from probes.causal.patching import PatchSpec

_SOURCES = {TextSource.STORY: "Story", TextSource.SIMULATED: "Simulated", TextSource.PASTED: "Text"}
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
class _Side:
    """One of the two stories: its run, and where it is asked what."""

    opened: Opened
    asked: PatchedAnswer

    @property
    def trace(self) -> Trace:
        return self.opened.trace

    @property
    def context(self) -> Context:
        return self.opened.context


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
    other = _choose_donor(opened)
    if other is None:
        return
    recipient, donor = (
        _Side(opened=side, asked=patching.asked(side.trace, side.context, side.checkpoint.tokenizer))
        for side in (opened, other)
    )
    for column, title, side in zip(st.columns(2), ("Recipient", "Donor"), (recipient, donor), strict=True):
        with column:
            _story(title, side)
    part = _choose_part(recipient, donor)
    try:
        after, wanted = _patched(recipient, donor, part), _donors_reply(recipient, donor, part)
    except ValueError as error:
        say.warning("This cannot be carried over: {}.", error)
        return
    if after is None:
        return
    _outcome(recipient, donor, after, wanted)
    spec, item, donor_item = _spec(recipient, donor, wanted), recipient.context.origin, donor.context.origin
    chart = PatchingChart(spec=spec, shown=OfPatching.READING, item=item, donor_item=donor_item)
    made = session.computed({"Slots read by both": chart}, opened.checkpoint)
    if part is Patched.BANK:
        made |= _each_slot(recipient, after, wanted, replace(chart, shown=OfPatching.ALONE))
    export_panel.hand_out(made, Stretch.SQRT)
    st.subheader("Run it again")
    job_panel.again(opened.checkpoint, "patch", after.spec, "lm2 ablate {}")


def _spec(recipient: _Side, donor: _Side, wanted: Reply) -> PatchSpec:
    from probes.causal.patching import PatchSpec

    read, own = recipient.trace.spec, recipient.asked
    return PatchSpec(
        checkpoint=read.checkpoint,
        text=read.text,
        segment_length=read.segment_length,
        row=own.row,
        own=own.reply.token,
        donor=donor.context.text,
        donor_row=donor.asked.row,
        other=wanted.token,
    )


def _choose_donor(opened: Opened) -> Opened | None:
    """The other story, which has been run; None while it runs, and once a mistake has been explained."""
    with st.container(border=True):
        where, what, swap = st.columns([3, 7, 2], vertical_alignment="bottom")
        source = widgets.buttons("Donor", "donor.source", list(_SOURCES), show=_SOURCES.__getitem__, at=where)
        with what:
            if source is TextSource.PASTED:
                widgets.area("Text", "donor.pasted", placeholder=sidebar.EXAMPLE)
            else:
                _choose_story(source)
        both = "The donor becomes the recipient, and the recipient the donor."
        swapped = swap.button("Swap", icon=":material/swap_horiz:", help=both, width="stretch")
    loaded = opened.checkpoint
    try:
        chosen = donors.donor(state.current().text, state.current().donor, opened.context)
        read = sidebar.context_of(chosen)
        state.shows("donor", read.text)
        if swapped:
            _swap(chosen)
        trace = session.ran(loaded, cache.spec_for(loaded, read.text, session.segment_length(), opened.layers[0]))
    except ValueError as error:
        say.info("There is no donor yet. {}.", error)
        return None
    if trace is None:
        return None
    return Opened(checkpoint=loaded, context=session.answerable(read, loaded, trace), trace=trace)


def _choose_story(source: TextSource) -> None:
    task, which, question = st.columns([3, 2, 2])
    tasks = [0, *stories.TASKS]
    own = "as the recipient's"
    task = widgets.select(
        "bAbI task", "donor.task", tasks, show=lambda task: sidebar.task_name(task) if task else own, at=task
    )
    last = donors.count(source, task or state.current().text.task) - 1
    label = "Seed" if source is TextSource.SIMULATED else "Story"
    first = "-1 is the first story after the recipient that gives another answer to its question, and to its own."
    widgets.number(label, "donor.index", -1, last, help=first, at=which)
    widgets.number("Question", "donor.question", help="Counted from 0; -1 is the last.", at=question)


def _swap(donor: TextChoice) -> None:
    """Exchange the two stories, in the sidebar as well."""
    text = state.current().text
    state.update(
        "donor",
        source=TextSource.PASTED if text.source is TextSource.FILE else text.source,
        task=text.task,
        index=text.seed if text.source is TextSource.SIMULATED else text.index,
        question=text.question,
        pasted=text.pasted,
    )
    state.update("text", **vars(donor))
    state.update("run", token=None)
    st.rerun()


def _story(title: str, side: _Side) -> None:
    tokenizer, at = side.opened.checkpoint.tokenizer, side.asked
    say.subheader("{}", title)
    panels.strip(text.strip(side.trace, text.marks(side.trace, side.context), tokenizer), f"strip_{title}", at.row)
    say.caption("{}", side.context.origin)
    says, chance = patching.said(side.trace, at.row, tokenizer), text.probabilities(side.trace, at.row).max()
    st.markdown(
        say.words("It says **{}** ({:.3f}). ", says.words, chance)
        + (say.words("The true answer is **{}**.", at.reply.words) if at.known else "The true answer is not known.")
    )


def _choose_part(recipient: _Side, donor: _Side) -> Patched:
    """What is carried over."""
    config = recipient.opened.checkpoint.config
    with st.container(border=True):
        left, right = st.columns([2, 3])
        there = [part for part in Patched if part is Patched.BANK or _SITES[part].layers(config)]
        part = widgets.buttons("Carry over the donor's", "patching.part", there, show=_PARTS.__getitem__, at=left)
        if part is Patched.BANK:
            whole = "Choose none for the whole bank."
            widgets.places("Slots", "patching.slots", range(config.slots), help=whole, at=right)
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
    view = patching.reading(runs, recipient.opened.layers)
    cell = panels.map_to_click(view, "patched_reading", None, None, Stretch.SQRT, 70 + 22 * len(view.values))
    if cell is not None:
        state.click("patching", slots=tuple(sorted({cell.column} ^ set(state.current().patching.slots))))


def _patched(recipient: _Side, donor: _Side, part: Patched) -> Trace | None:
    """The recipient's run with the donor's part in it; None while it runs. Raises ValueError as `run` does."""
    from probes.causal.patching import bank_edit

    chosen = state.current().patching
    if part is Patched.BANK:
        segments = donor.asked.segment, recipient.asked.segment
        change = bank_edit(donor.context.text, *segments, chosen.slots or None)
    else:
        change = _activation(recipient, donor, _SITES[part], chosen.layer)
    return session.ran(recipient.opened.checkpoint, replace(recipient.trace.spec, captures=(), interventions=(change,)))


def _activation(recipient: _Side, donor: _Side, site: Site, layer: int) -> Edit:
    """A site in the question's segment, as far as both segments reach.

    Raises ValueError if the two questions do not coincide when the segments are aligned at their ends.
    """
    here, there = (side.trace.segments[side.asked.segment] for side in (recipient, donor))
    behind, other = here.end - recipient.asked.row - 1, there.end - donor.asked.row - 1
    if behind != other:
        raise ValueError(
            "the questions do not coincide when the two segments are aligned at their ends:"
            f" {behind} tokens follow the recipient's, {other} the donor's"
        )
    tokens = tuple(range(max(here.start, here.end - len(there.ids)), here.end))
    operation = Patch(text=donor.context.text, segment=donor.asked.segment)
    return Edit(site=site, operation=operation, layers=(layer,), segments=(recipient.asked.segment,), tokens=tokens)


def _donors_reply(recipient: _Side, donor: _Side, part: Patched) -> Reply:
    """What a bank of the donor's should answer the recipient's question with; an activation, and where that is not
    told, its own question."""
    told = donors.told(donor.context, recipient.context) if part is Patched.BANK else None
    if told is None:
        return donor.asked.reply
    return patching.replied(recipient.trace, recipient.context, told, recipient.opened.checkpoint.tokenizer)


def _outcome(recipient: _Side, donor: _Side, after: Trace, wanted: Reply) -> None:
    tokenizer = recipient.opened.checkpoint.tokenizer
    before, own, row = recipient.trace, recipient.asked.reply, recipient.asked.row
    st.subheader("Whose answer?")
    if wanted.token == own.token:
        alike = f"Both stories answer {wanted.words}"
        if wanted.words != own.words:
            alike = f"{own.words} and {wanted.words} begin with the same token"
        say.info("{}: this donor cannot show whose answer the model gives. Choose another one.", alike)
    was, says = (patching.said(trace, row, tokenizer) for trace in (before, after))
    whose = {wanted.token: "the donor's answer", own.token: "the recipient's answer"}
    say.markdown(
        "Before, the model says **{}**; with the donor's part in it, **{}**: {}.",
        was.words,
        says.words,
        whose.get(says.token, "neither story's answer"),
    )
    left, right = st.columns([3, 2])
    with left:
        own_run = ("in the donor's own run", donor.trace, donor.asked.row)
        runs = [("before", before, row), ("after", after, row), own_run]
        panels.table(patching.answers(runs, [("recipient", own), ("donor", wanted)]), "patched_answers")
        first, then = (float(patching.difference(trace.logits[row], own, wanted)) for trace in (before, after))
        say.caption(
            "Probability of each answer's first token. The donor's answer is {}. Logit difference, donor's"
            " answer minus recipient's: {:+.2f} before, {:+.2f} after.",
            _source(recipient, donor, wanted),
            first,
            then,
        )
    with right:
        view = text.beside(before.logits[row], after.logits[row], ("before", "after"), tokenizer.shown, 6)
        panels.table(view, "patched_next")


def _source(recipient: _Side, donor: _Side, wanted: Reply) -> str:
    if wanted != donor.asked.reply:
        return f"what its story says about “{recipient.context.quizzes[-1].question}”"
    return "the answer to its own question" if donor.asked.known else "the model's answer after it"


def _each_slot(recipient: _Side, after: Trace, wanted: Reply, chart: PatchingChart) -> dict[str, ComputedChart]:
    """The donor's slots one by one, beside all the chosen ones together; the panel, where there is one."""
    loaded, own, row = recipient.opened.checkpoint, recipient.asked.reply, recipient.asked.row
    st.subheader("Each slot alone")
    if wanted.token == own.token:
        st.caption("Nothing to compare: the two answers begin with the same token.")
        return {}
    label = say.words("Carry over each of the {:,} slots alone", loaded.config.slots)
    if loaded.config.slots > _MOST_SLOTS and not st.button(label, icon=":material/play_arrow:"):
        return {}
    with st.spinner("Carrying over each slot alone ..."):
        alone = session.result_of(chart, loaded)
    if alone is None:
        return {}
    made = chart.made(loaded, alone)
    left, right = st.columns([5, 1])
    with left:
        panels.figure(made.view, "patched_alone")
    chosen = list(state.current().patching.slots)
    before, now = (float(patching.difference(trace.logits[row], own, wanted)) for trace in (recipient.trace, after))
    right.metric(f"{'Chosen' if chosen else 'All'} slots together", f"{now - before:+.2f}")
    right.metric("The same alone, added up", f"{alone.changes[chosen or slice(None)].sum():+.2f}")
    st.caption(
        "Change of the logit difference, donor's answer minus recipient's, in logits, when a single slot"
        " is carried over. If the joint change and the sum are far apart, slots depend on each other:"
        " several hold the same, or several are needed at once."
    )
    return {"Each slot alone": made}
