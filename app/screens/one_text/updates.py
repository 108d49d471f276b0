"""Updates: what the memory takes in while a text is written, and how that changes what tokens read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import Chart, OfUpdates, SteeringChart, UpdateChart
from app.choices.selection import ProbeText
from app.figures.palettes import Stretch
from app.ui import donors, export_panel, panels, say, session, state, steering, widgets
from app.ui.session import Opened
from app.views.run import memory, text
from app.views.study import updates

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamlit.delta_generator import DeltaGenerator

    from app.charts import ComputedChart
    from app.charts.updates import Continued
    from lm2.runs.interventions import Intervention
    from probes.causal.updates import TracedGeneration

_SHOWN = {
    "Slots read, token by token": OfUpdates.STEPS,
    "Before": OfUpdates.BEFORE,
    "After": OfUpdates.AFTER,
    "Difference": OfUpdates.DIFFERENCE,
    "Reading, update by update": OfUpdates.COURSE,
    "Prediction, update by update": OfUpdates.EXPECTED,
}
_PROBED = (
    "Read weights of block {layer}, {pooled}, both maps on one scale. The probe is read as a segment"
    " of its own without any context, so only the bank differs. The bank is that of the text written"
    " with writes {shown}."
)
_PROBES = {ProbeText.QUESTION: "the question", ProbeText.SEGMENT: "the prompt's last segment"}
_MOVED = (
    "Share moved: how much of a token's attention went elsewhere (total variation of each head, then"
    " pooled as in the maps)."
)


def render() -> None:
    st.header("Updates")
    st.write(
        "The model continues the context. Each segment it fills is written to the bank, so the same"
        " tokens read something else afterwards. With writes off, the bank stays the same, and so does"
        " the reading."
    )
    opened = session.open_memory()
    if opened is None:
        return
    session.subtitle(opened)
    left, middle, right = st.columns(3)
    count = widgets.slider("Tokens to write", "updates.written", help="The most likely token each time.", at=left)
    last = len(opened.trace.segments) - 1
    help = "The control: this segment and all later ones pass on the bank with which they began."
    frozen = _slider("Writes off: from segment", "updates.frozen", last, last, help, middle)
    writes = widgets.buttons(
        "Show the text written with", "updates.writes", show=lambda writes: f"writes {writes}", at=right
    )
    left, right = st.columns(2)
    with left:
        layer = session.require_layer(opened, widgets.block(opened.checkpoint.config))
    changes = _toggled(opened, count)
    if changes is None:
        return
    chart = UpdateChart(
        spec=replace(opened.trace.spec, captures=(), interventions=changes),
        item=opened.context.origin,
        shown=OfUpdates.STEPS,
        tokens=count,
        frozen=frozen,
        layer=layer,
        head=widgets.head(opened.checkpoint.config, right),
        writes=writes,
        probe=(),
    )
    continued = _result_of(chart, opened)
    if continued is None:
        return
    _written(opened, continued, chart)
    steered = steering.render(opened, chart)
    _before_and_after(opened, continued, chart, steered)
    _again(continued)


def _toggled(opened: Opened, count: int) -> tuple[Intervention, ...] | None:
    """The interventions that hold for the text and while `count` tokens are written; None after explaining what is
    wrong with them."""
    help = "Memory, slots, heads, gates and statements as toggled there, for the context and all that is written."
    on = widgets.buttons("Toggles of the Ablations screen", "updates.toggled", help=help) == "on"
    toggles = state.current().toggles
    if not on:
        return ()
    say.caption("Written with: {}.", "; ".join(toggles.words) or "nothing toggled; choose on the Ablations screen")
    try:
        return donors.toggled(opened, toggles, count)
    except ValueError as error:
        say.warning("This cannot be run: {}. Change it on the Ablations screen, or switch its toggles off here.", error)
        return None


def _result_of(chart: UpdateChart, opened: Opened) -> Continued | None:
    """None while it is computed, and after explaining why it cannot be."""
    try:
        return session.result_of(chart, opened.checkpoint)
    except ValueError as error:
        say.info("{}.", error)
        return None


def _again(continued: Continued) -> None:
    """What ran, and how to run it again."""
    on, off = continued.walks["on"], continued.walks["off"]
    digests = ", ".join(f"writes {name}: run {walk.spec.digest[:10]}" for name, walk in continued.walks.items())
    count, layers = len(on.ids), on.layers
    say.caption("{}; each continued by {} tokens, the most likely one every time.", digests, count)
    with st.expander("Run again"):
        st.code(
            "import dataclasses\nimport lm2\nfrom probes.causal.updates import generate_traced\n\n"
            f"on = lm2.RunSpec.from_json({on.spec.to_json()!r})\n"
            f"off = dataclasses.replace(on, interventions=(*on.interventions, lm2.{off.spec.interventions[-1]!r}))\n"
            f"walks = [generate_traced(lm2.load(on.checkpoint), spec, tokens={count}, layers={layers})"
            " for spec in (on, off)]",
            wrap_lines=True,
        )


def _slider(label: str, field: str, last: int, default: int, help: str, at: DeltaGenerator) -> int:
    """A slider of 0 to `last`, if that is not 0. The field is -1 until something is chosen, which stands for a default
    that may move."""
    if not -1 <= state.value(field) <= last:
        state.settle(field, -1)
    value = default if state.value(field) == -1 else state.value(field)
    if last == 0:
        return value
    key = state.widget_key(field, value)
    return at.slider(label, 0, last, key=key, help=help, on_change=state.take, args=(field,))


@st.fragment
def _written(opened: Opened, continued: Continued, chart: UpdateChart) -> None:
    """The generation, token by token; a fragment, so that its slider redraws this part alone."""
    on, off = continued.walks.values()
    walk, piece_of = continued.walks[chart.writes], opened.checkpoint.tokenizer.shown
    count, start = len(walk.ids), len(walk.prompt)
    say.subheader("Written with writes {}", chart.writes)
    help = "Counted from the first token that the model wrote."
    step = (widgets.slider("Token", "updates.step", 1, count, help=help) if count > 1 else 1) - 1
    view = updates.strip(walk, text.marks(opened.trace, opened.context), piece_of)
    _choose(panels.strip(view, "strip_updates", start + step), start)
    say.caption("{}", updates.step_note(walk, step))
    left, right = st.columns(2)
    with left:
        st.subheader("Slots read, token by token")
        steps, height = chart.view(opened.checkpoint, continued), panels.height_of(opened.checkpoint.config.slots)
        cell = panels.clickable_map(steps, "reads_by_step", None, step, Stretch.LINEAR, height)
        _choose(None if cell is None else start + cell.column, start)
    predicted = text.compare_next_tokens(on.logits[step], off.logits[step], ("writes on", "writes off"), piece_of)
    panels.panel(predicted, "expected_at_step", f"Predicted as token {step + 1}", at=right)
    _both(on, off, piece_of)
    state.publish()


def _both(on: TracedGeneration, off: TracedGeneration, piece_of: Callable[[int], str]) -> None:
    """Where the two texts diverge, and both of them side by side."""
    from probes.causal.updates import divergence

    first = divergence(on, off)
    if first is None:
        say.caption("With writes on and off the model writes the same {} tokens.", len(on.ids))
    else:
        say.caption(
            "The two texts diverge at token {}; after it, the predictions are about two different texts.", first + 1
        )
    with st.expander("Both texts, token by token"):
        panels.table(updates.steps(on, off, piece_of), "steps", 360)
        st.caption(
            "Distance: total variation between the two next-token distributions, 0 to 1, while both texts are the same."
        )


def _choose(token: int | None, start: int) -> None:
    """Go to a token that the model wrote, after a click on it or on its column."""
    if token is not None and token >= start:
        state.click("updates", step=token - start + 1)


@st.fragment
def _before_and_after(opened: Opened, continued: Continued, chart: UpdateChart, steered: SteeringChart | None) -> None:
    """One probe, read from two banks of the walk that is shown, and all panels for print; a fragment, too."""
    st.subheader("The same tokens, before and after")
    question = _question(opened)
    walk = continued.walks[chart.writes]
    last = len(walk.banks) - 1
    left, middle, right = st.columns(3)
    probes = list(ProbeText) if question else [ProbeText.SEGMENT]
    probe = widgets.select("Probe, read from every bank", "updates.probe", probes, show=_PROBES.__getitem__, at=left)
    help = "0 is the fresh bank with which a document begins."
    before = _slider("Before: segments written", "updates.before", last, walk.segment_of(0), help, middle)
    help = "The last segment is still open: the bank is what it would pass on now."
    after = _slider("After: segments written", "updates.after", last, last, help, right)
    by_question = bool(question) and probe is ProbeText.QUESTION
    ids = question if by_question else opened.trace.segments[-1].ids
    chart = replace(chart, probe=ids, before=before, after=after)
    with st.spinner("Reading the probe from every bank ..."):
        reread = _result_of(chart, opened)
    if reread is None:
        return
    read, height = reread.readings[chart.writes], panels.height_of(opened.checkpoint.config.slots)
    token = _answer(opened) if by_question else int(read.logits[before].argmax())
    charts: dict[str, Chart] = {title: replace(chart, shown=shown, token=token) for title, shown in _SHOWN.items()} | (
        {} if steered is None else {steering.TITLE: steered}
    )
    made = session.computed(charts, opened.checkpoint)
    for column, title, bank in zip(st.columns(2), ("Before", "After"), (before, after), strict=True):
        with column:
            say.subheader("{}", title)
            say.caption("Read from {}.", updates.bank_name(walk, bank))
            panels.figure(made[title].view, title.lower(), height)
    probed = _PROBED.format(layer=chart.layer, pooled=memory.over(chart.head), shown=chart.writes)
    toggled = "The toggles changed how the banks were written; the probe is read without them."
    notes = (probed, opened.checkpoint.config.memory.design.rereading, toggled if chart.spec.interventions else "")
    say.caption("{}", " ".join(filter(None, notes)))
    left, right = st.columns(2)
    panels.panel(made["Difference"].view, "difference", "Difference", at=left, height=height)
    moved = updates.most_moved(read, chart.layer, chart.head, before, after)
    panels.panel(moved, "most_moved", "Tokens whose reading changed most", _MOVED, at=right)
    shown = opened.checkpoint.tokenizer.shown
    predicted = text.compare_next_tokens(read.logits[before], read.logits[after], ("before", "after"), shown)
    panels.panel(predicted, "expected_behind", "Predicted after the probe", at=right)
    _courses(opened, made, before, by_question=by_question)
    export_panel.render(made)
    state.publish()


def _courses(opened: Opened, made: dict[str, ComputedChart], before: int, *, by_question: bool) -> None:
    left, right = st.columns(2)
    note = (
        f"Share of the probe's reading that has moved since ({before} segments written), mean over its tokens."
        " With writes off it stays where it was."
    )
    panels.panel(made["Reading, update by update"].view, "course", "Reading, update by update", note, at=left)
    predicted = made["Prediction, update by update"]
    token = opened.checkpoint.tokenizer.shown(predicted.chart.token).strip()
    reason = (
        "the true answer's first token" if by_question else f"the most likely one before ({before} segments written)"
    )
    note = f"Of {token!r} after the probe: {reason}."
    panels.panel(predicted.view, "expected", "Prediction, update by update", note, at=right)


def _question(opened: Opened) -> tuple[int, ...]:
    """The tokens of the context's last question, if there is one."""
    if not opened.context.quizzes:
        return ()
    quiz, tokens = opened.context.quizzes[-1], opened.trace.tokens
    return tuple(tokens.ids[index] for index in tokens.within(quiz.end - len(quiz.question), quiz.end))


def _answer(opened: Opened) -> int:
    """The first token of the answer to the context's last question."""
    quiz = opened.context.quizzes[-1]
    return opened.checkpoint.tokenizer.answer_at(opened.trace.tokens, quiz.end, quiz.answer)[1]
