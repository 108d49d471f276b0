"""Ablations: parts of the memory switched off or replaced on one text, and the effect on every prediction."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import AblationChart, OfAblation
from app.choices import toggles
from app.choices.selection import TextSource
from app.choices.toggles import ManualChange, Policy, Toggles
from app.server import cache, sets
from app.ui import donors, export_panel, job_panel, panels, say, session, state, widgets
from app.ui.session import Opened
from app.views.run import text
from app.views.study import ablations
from lm2.model.gates import gates_of
from lm2.runs.interventions import Persistence

if TYPE_CHECKING:
    from app.choices.context import Context
    from app.views.kinds import Lines
    from lm2.text.tokens import Tokenizer
    from probes.causal.compare import Comparison

_POLICIES = {
    Policy.ON: "on",
    Policy.OFF: "off",
    Policy.FREEZE: "frozen",
    Policy.RESET: "reset",
    Policy.CARRY: "carried over",
}
_POLICY_HELP = (
    "off: reading adds nothing to the residual stream. frozen: from a segment on nothing is written."
    " reset: a segment begins with a fresh bank. carried over: the text begins with the bank that"
    " other stories left."
)
_CHANGES = {
    ManualChange.RESAMPLE: "another story's",
    ManualChange.MEAN: "mean of stories",
    ManualChange.INITIAL: "as at the start",
    ManualChange.ZERO: "zero",
    ManualChange.PERMUTE: "permuted",
}
_CHANGE_HELP = (
    "Another story's: its value when its last segment begins, which the model knows, but about"
    " something else. Mean of stories: the mean of such values. Zero is a value that the model may"
    " never have seen, so what it breaks says little."
)
_PERSISTENCE = {Persistence.PERSIST: "reading and writing", Persistence.READ_ONLY: "reading alone"}


def render() -> None:
    st.header("Ablations")
    st.write("Switch off or replace parts of the memory on this text, and see how every prediction changes.")
    opened = session.open_memory()
    if opened is None:
        return
    session.subtitle(opened)
    _controls(opened)
    toggles = state.current().toggles
    _toggled(opened, toggles)
    try:
        chart = _chart(opened, toggles)
        comparison = session.result_of(chart, opened.checkpoint)
    except ValueError as error:
        say.warning("This cannot be run: {}. Change it above, or clear it.", error)
        _history(opened)
        return
    if comparison is None:
        return
    _remember(opened, comparison, toggles)
    if toggles.words:
        _effect(opened, comparison, chart)
    else:
        _untouched(opened)
        _history(opened)


def _controls(opened: Opened) -> None:
    last = len(opened.trace.segments) - 1
    with st.container(border=True):
        widgets.tabs(
            "Toggle",
            "ablations.toggling",
            {
                "Memory": partial(_memory, opened, last),
                "Slots": partial(_slots, opened),
                "Heads and gates": partial(_heads_and_gates, opened),
                "Statements": partial(_statements, opened),
            },
        )
        _shared(last)


def _slots(opened: Opened) -> None:
    help = "The slots whose content is replaced when a segment begins."
    widgets.pills("Slots", "toggles.slots", range(opened.checkpoint.config.slots), help=help)
    left, right = st.columns([3, 2])
    help = f"{_CHANGE_HELP} Permuted: the chosen slots are rotated by one place."
    widgets.buttons("By", "toggles.slot_change", show=_CHANGES.__getitem__, help=help, at=left)
    help = "Reading alone: the tokens see the change, and the bank is written as if there were none."
    widgets.buttons("For", "toggles.persistence", show=_PERSISTENCE.__getitem__, help=help, at=right)


def _memory(opened: Opened, last: int) -> None:
    left, middle, right = st.columns([4, 2, 3])
    policy = widgets.buttons("Memory", "toggles.policy", show=_POLICIES.__getitem__, help=_POLICY_HELP, at=left)
    if policy is Policy.FREEZE:
        widgets.number("Frozen from segment", "toggles.freeze_at", 0, last, at=middle)
    elif policy is Policy.RESET:
        help = "-1 is the last, which holds only the question."
        widgets.number("Reset before segment", "toggles.reset_at", -1, last, help=help, at=middle)
    blocks = sorted(opened.checkpoint.config.memory_layers)
    help = "In these blocks reading adds nothing to the residual stream; writing continues."
    widgets.pills("Silent blocks", "toggles.silent", blocks, help=help, at=right)


def _heads_and_gates(opened: Opened) -> None:
    config = opened.checkpoint.config
    left, middle, right = st.columns([2, 3, 2])
    help = "The heads whose read is replaced."
    widgets.pills("Memory heads", "toggles.heads", range(config.memory_heads), help=help, at=left)
    changes = toggles.head_changes(config)
    widgets.buttons("By", "toggles.head_change", changes, show=_CHANGES.__getitem__, help=_CHANGE_HELP, at=middle)
    help = "Choose none for all of them."
    widgets.pills("In blocks", "toggles.blocks", sorted(config.memory_layers), help=help, at=right)
    help = "Every entry is clamped to this value. Leave empty to keep the gate as it is."
    for column, gate in zip(st.columns(3), gates_of(config), strict=False):
        widgets.fraction(gate.words.capitalize(), f"toggles.{toggles.clamp_field(gate)}", help=help, at=column)
    say.caption("{}", config.memory.design.head_edit)


def _statements(opened: Opened) -> None:
    ranges, text = opened.context.statements, opened.context.text
    if reason := opened.checkpoint.config.memory.design.write_block_refused:
        say.caption("{}{}.", reason[0].upper(), reason[1:])
        return
    widgets.multiselect(
        "Cannot write",
        "toggles.muted",
        range(len(ranges)),
        show=lambda index: f"{index}: {text[slice(*ranges[index])]}",
        placeholder="Choose sentences",
        help="No slot attends to the tokens of these sentences. The tokens of their own segment still see them.",
    )


def _shared(last: int) -> None:
    """The choices that several toggles share."""
    left, middle, right = st.columns([2, 1, 1])
    if last:
        help = "Blocks, slots, heads and gates are changed in this segment and all later ones."
        widgets.slider("From segment", "toggles.since", 0, last, help=help, at=left)
    help = f"The story from which values are taken, asked its last question. Counted from {_own_story()}."
    widgets.number("Other story", "toggles.other", 1, 1000, help=help, at=middle)
    widgets.number("Stories to average or carry", "toggles.others", help="Counted from that one on.", at=right)


def _other_answers(context: Context) -> tuple[tuple[str, ...], str]:
    """The answers against which those of a text stand, and which they are."""
    selection = state.current()
    if selection.text.source is not TextSource.QUESTION:
        task = selection.text.task
        return cache.answers(task), f"the other answers of qa{task}"
    rivals = context.quizzes[-1].rivals
    return (
        (rivals, "its rivals")
        if rivals
        else (sets.answers(selection.questions.set), f"the other answers of the set's first {sets.ANSWERED} questions")
    )


def _own_story() -> str:
    choice = state.current().text
    if choice.source in (TextSource.STORY, TextSource.SIMULATED):
        return "this one: 1 is the next"
    if choice.source is TextSource.QUESTION:
        return "this question: 1 is the next of its set"
    return f"the first story of qa{choice.task}, which is 1"


def _chart(opened: Opened, toggles: Toggles) -> AblationChart:
    """The text under the toggles. Raises ValueError if they name something that does not exist."""
    trace, context = opened.trace, opened.context
    return AblationChart(
        spec=replace(trace.spec, captures=(), interventions=donors.toggled(opened, toggles)),
        item=context.origin,
        shown=OfAblation.TEXT,
        marks=text.marks(trace, context),
    )


def _toggled(opened: Opened, toggles: Toggles) -> None:
    """What is toggled in words, with buttons to undo it."""
    past = state.session_list(f"toggles {opened.trace.spec.digest}")
    if not past or past[-1] != toggles:
        past.append(toggles)

    def undo() -> None:
        past.pop()
        _restore(past[-1])

    left, middle, right = st.columns([5, 1, 1], vertical_alignment="center")
    left.markdown(say.words("**Toggled:** {}", "; ".join(toggles.words) or "nothing"))
    middle.button("Undo", icon=":material/undo:", disabled=len(past) < 2, on_click=undo, width="stretch")
    clear, disabled = partial(_restore, Toggles()), not toggles.words
    right.button("Clear", icon=":material/restart_alt:", disabled=disabled, on_click=clear, width="stretch")


def _restore(toggles: Toggles) -> None:
    state.update("toggles", **vars(toggles))


def _untouched(opened: Opened) -> None:
    """Nothing is toggled: what to do, and the text as it is."""
    st.info(
        "Nothing is changed yet. Switch the memory off above to see what the model knows without it, or"
        " choose slots to replace. Your changes are compared with this run:",
        icon=":material/info:",
    )
    trace, tokenizer = opened.trace, opened.checkpoint.tokenizer
    if opened.context.quizzes:
        panels.table(text.quizzes(trace, opened.context, tokenizer), "quizzes_untouched")
    view = text.strip(trace, text.marks(trace, opened.context), tokenizer)
    state.click("run", token=panels.strip(view, "strip_untouched", state.choice("run.token", len(trace.tokens))))


def _effect(opened: Opened, comparison: Comparison, chart: AblationChart) -> None:
    """Both runs side by side."""
    context, tokenizer, pieces = opened.context, opened.checkpoint.tokenizer, comparison.after.tokens.shown
    if context.quizzes:
        answers, which = _other_answers(context)
        panels.panel(
            ablations.quizzes(comparison, context, tokenizer, answers),
            "quizzes_ablated",
            "Answers, before and after",
            "Probability of the answer's first token, at the question's last token. Logit difference: its logit minus"
            f" the mean logit of the first tokens of {which}.",
        )
    st.subheader("Text")
    chosen = state.choice("run.token", len(pieces))
    token = ablations.answer_position(comparison, context, tokenizer) if chosen is None else chosen
    chart = replace(chart, window=panels.choose_window(len(pieces), token, "ablations"))
    charts = {"Text": chart, "Change, token by token": replace(chart, shown=OfAblation.CHANGE)}
    made = session.computed(charts, opened.checkpoint)
    state.click("run", token=panels.strip(made["Text"].view, "strip_ablated", token))
    widgets.tabs(
        "What has changed",
        "ablations.changed",
        {
            "Chosen token": partial(_beside, comparison, token, tokenizer),
            "Most changed": partial(_most_changed, comparison, tokenizer),
            "Along the text": partial(_along, comparison, made["Change, token by token"].view),
            "Runs": partial(_history, opened),
            "Run it again": partial(job_panel.reproduce, opened.checkpoint, "ablation", chart.spec, "lm2 ablate {}"),
        },
    )
    export_panel.render(made)


def _beside(comparison: Comparison, token: int, tokenizer: Tokenizer) -> None:
    before, after = comparison.before, comparison.after
    title = f"After token {token} ({after.tokens.shown[token].strip() or 'blank'})"
    view = text.compare_next_tokens(before.logits[token], after.logits[token], ("before", "after"), tokenizer.shown)
    panels.panel(view, "ablated_next", title)


def _most_changed(comparison: Comparison, tokenizer: Tokenizer) -> None:
    panels.panel(
        ablations.most_changed(comparison, tokenizer), "ablated_most", "Tokens after which predictions changed most"
    )


def _along(comparison: Comparison, view: Lines) -> None:
    kl = comparison.kl
    note = f"KL: mean {kl.mean():.4f} nats per token, at most {kl.max():.3f}, after token {int(kl.argmax())}."
    panels.panel(view, "ablated_lines", "Change, token by token", note)


def _remember(opened: Opened, comparison: Comparison, toggles: Toggles) -> None:
    history = state.session_list(f"runs {opened.trace.spec.digest}")
    after = comparison.after, float(comparison.kl.mean()), toggles
    for trace, kl, toggles in ((comparison.before, 0.0, Toggles()), after):
        if trace.spec.digest not in [run.digest for run in history]:
            history.append(ablations.record(trace, kl, toggles, opened.context, opened.checkpoint.tokenizer))


def _history(opened: Opened) -> None:
    """This session's runs on the text; ticking one restores its toggles."""
    history = state.session_list(f"runs {opened.trace.spec.digest}")
    if len(history) < 2:
        return
    st.subheader("Runs on this text")
    panels.selectable_table(
        ablations.record_table(history), "ablation_runs", lambda row: _restore(history[row].toggles)
    )
    st.caption("Runs of this session, oldest first. Tick one to restore its changes.")
