"""Ablations: parts of the memory switched off or replaced on one text, and what that does to every prediction."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import AblationChart, OfAblation
from app.choices import toggles
from app.choices.selection import TextSource
from app.choices.toggles import ManualChange, Policy, Toggles
from app.server import cache
from app.ui import donors, export_panel, job_panel, panels, say, session, sidebar, state, widgets
from app.ui.session import Opened
from app.views.run import text
from app.views.study import ablations
from lm2.model.gates import gates_of
from lm2.runs.interventions import Persistence

if TYPE_CHECKING:
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
    toggled = state.current().toggles
    _toggled(opened, toggled)
    try:
        chart = _chart(opened, toggled)
        found = session.result_of(chart, opened.checkpoint)
    except ValueError as error:
        say.warning("This cannot be run: {}. Change it above, or clear it.", error)
        _history(opened)
        return
    if found is None:
        return
    _remember(opened, found, toggled)
    if toggled.words:
        _effect(opened, found, chart)
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
    replaced = "The slots whose content is replaced when a segment begins."
    widgets.pills("Slots", "toggles.slots", range(opened.checkpoint.config.slots), help=replaced)
    left, right = st.columns([3, 2])
    permuted = f"{_CHANGE_HELP} Permuted: the chosen slots are rotated by one place."
    widgets.buttons("By", "toggles.slot_change", show=_CHANGES.__getitem__, help=permuted, at=left)
    reading = "Reading alone: the tokens see the change, and the bank is written as if there were none."
    widgets.buttons("For", "toggles.persistence", show=_PERSISTENCE.__getitem__, help=reading, at=right)


def _memory(opened: Opened, last: int) -> None:
    left, middle, right = st.columns([4, 2, 3])
    policy = widgets.buttons("Memory", "toggles.policy", show=_POLICIES.__getitem__, help=_POLICY_HELP, at=left)
    if policy is Policy.FREEZE:
        widgets.number("Frozen from segment", "toggles.freeze_at", 0, last, at=middle)
    elif policy is Policy.RESET:
        asked = "-1 is the last, which holds only the question."
        widgets.number("Reset before segment", "toggles.reset_at", -1, last, help=asked, at=middle)
    blocks, silent = (
        sorted(opened.checkpoint.config.memory_layers),
        "In these blocks reading adds nothing to the residual stream; writing continues.",
    )
    widgets.pills("Silent blocks", "toggles.silent", blocks, help=silent, at=right)


def _heads_and_gates(opened: Opened) -> None:
    config = opened.checkpoint.config
    left, middle, right = st.columns([2, 3, 2])
    replaced = "The heads whose read is replaced."
    widgets.pills("Memory heads", "toggles.heads", range(config.memory_heads), help=replaced, at=left)
    changes = toggles.head_changes(config)
    widgets.buttons("By", "toggles.head_change", changes, show=_CHANGES.__getitem__, help=_CHANGE_HELP, at=middle)
    everywhere = "Choose none for all of them."
    widgets.pills("In blocks", "toggles.blocks", sorted(config.memory_layers), help=everywhere, at=right)
    clamped = "Every entry is clamped to this value. Leave empty to keep the gate as it is."
    for column, gate in zip(st.columns(3), gates_of(config), strict=False):
        widgets.fraction(gate.words.capitalize(), f"toggles.{toggles.clamp_field(gate)}", help=clamped, at=column)
    say.caption("{}", config.memory.design.head_edit)


def _statements(opened: Opened) -> None:
    ranges, whole = opened.context.statements, opened.context.text
    if refused := opened.checkpoint.config.memory.design.write_block_refused:
        say.caption("{}{}.", refused[0].upper(), refused[1:])
        return
    widgets.multiselect(
        "Cannot write",
        "toggles.muted",
        range(len(ranges)),
        show=lambda at: f"{at}: {whole[slice(*ranges[at])]}",
        placeholder="Choose sentences",
        help="No slot attends to the tokens of these sentences. The tokens of their own segment still see them.",
    )


def _shared(last: int) -> None:
    """What several toggles go by."""
    left, middle, right = st.columns([2, 1, 1])
    if last:
        later = "Blocks, slots, heads and gates are changed in this segment and all later ones."
        widgets.slider("From segment", "toggles.since", 0, last, help=later, at=left)
    other = f"The story from which values are taken, asked its last question. Counted from {_own_story()}."
    widgets.number("Other story", "toggles.other", 1, 1000, help=other, at=middle)
    widgets.number("Stories to average or carry", "toggles.others", help="Counted from that one on.", at=right)


def _own_story() -> str:
    chosen = state.current().text
    if chosen.source in (TextSource.STORY, TextSource.SIMULATED):
        return "this one: 1 is the next"
    return f"the first story of qa{chosen.task}, which is 1"


def _chart(opened: Opened, toggled: Toggles) -> AblationChart:
    """The text under the toggles. Raises ValueError where they name what is not there."""
    trace, context = opened.trace, opened.context
    near = donors.neighbours(replace(state.current().text, question=-1), toggled.other, toggled.borrowed)
    texts = tuple(sidebar.context_of(other).text for other in near)
    changes = toggled.interventions(
        opened.checkpoint.config, trace.tokens, len(trace.segments), context.statements, texts
    )
    return AblationChart(
        spec=replace(trace.spec, captures=(), interventions=changes),
        item=context.origin,
        shown=OfAblation.TEXT,
        marks=text.marks(trace, context),
    )


def _toggled(opened: Opened, toggled: Toggles) -> None:
    """What is toggled in words, with the ways back."""
    past = state.session_list(f"toggles {opened.trace.spec.digest}")
    if not past or past[-1] != toggled:
        past.append(toggled)

    def undo() -> None:
        past.pop()
        _restore(past[-1])

    words, back, clear = st.columns([5, 1, 1], vertical_alignment="center")
    words.markdown(say.words("**Toggled:** {}", "; ".join(toggled.words) or "nothing"))
    back.button("Undo", icon=":material/undo:", disabled=len(past) < 2, on_click=undo, width="stretch")
    again, nothing = partial(_restore, Toggles()), not toggled.words
    clear.button("Clear", icon=":material/restart_alt:", disabled=nothing, on_click=again, width="stretch")


def _restore(wanted: Toggles) -> None:
    state.update("toggles", **vars(wanted))


def _untouched(opened: Opened) -> None:
    """Nothing is toggled: what to do, and what the text is like without."""
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


def _effect(opened: Opened, found: Comparison, chart: AblationChart) -> None:
    """Both runs side by side."""
    context, tokenizer, pieces = opened.context, opened.checkpoint.tokenizer, found.after.tokens.shown
    if context.quizzes:
        task = state.current().text.task
        panels.panel(
            ablations.quizzes(found, context, tokenizer, cache.answers(task)),
            "quizzes_ablated",
            "Answers, before and after",
            "Probability of the answer's first token, at the question's last token. Logit difference: its logit minus"
            f" the mean logit of the first tokens of the other answers of qa{task}.",
        )
    st.subheader("Text")
    chosen = state.choice("run.token", len(pieces))
    token = ablations.asked_at(found, context, tokenizer) if chosen is None else chosen
    chart = replace(chart, window=panels.choose_window(len(pieces), token, "ablations"))
    charts = {"Text": chart, "Change, token by token": replace(chart, shown=OfAblation.CHANGE)}
    made = session.computed(charts, opened.checkpoint)
    state.click("run", token=panels.strip(made["Text"].view, "strip_ablated", token))
    widgets.tabs(
        "What has changed",
        "ablations.changed",
        {
            "Chosen token": partial(_beside, found, token, tokenizer),
            "Most changed": partial(_most_changed, found, tokenizer),
            "Along the text": partial(_along, found, made["Change, token by token"].view),
            "Runs": partial(_history, opened),
            "Run it again": partial(job_panel.reproduce, opened.checkpoint, "ablation", chart.spec, "lm2 ablate {}"),
        },
    )
    export_panel.render(made)


def _beside(found: Comparison, token: int, tokenizer: Tokenizer) -> None:
    title = f"After token {token} ({found.after.tokens.shown[token].strip() or 'blank'})"
    view = text.compare_next_tokens(
        found.before.logits[token], found.after.logits[token], ("before", "after"), tokenizer.shown
    )
    panels.panel(view, "ablated_next", title)


def _most_changed(found: Comparison, tokenizer: Tokenizer) -> None:
    panels.panel(
        ablations.most_changed(found, tokenizer), "ablated_most", "Tokens after which predictions changed most"
    )


def _along(found: Comparison, view: Lines) -> None:
    most = int(found.kl.argmax())
    note = f"KL: mean {found.kl.mean():.4f} nats per token, at most {found.kl.max():.3f}, after token {most}."
    panels.panel(view, "ablated_lines", "Change, token by token", note)


def _remember(opened: Opened, found: Comparison, toggled: Toggles) -> None:
    history = state.session_list(f"runs {opened.trace.spec.digest}")
    for trace, kl, done in ((found.before, 0.0, Toggles()), (found.after, float(found.kl.mean()), toggled)):
        if trace.spec.digest not in [ran.digest for ran in history]:
            history.append(ablations.ran(trace, kl, done, opened.context, opened.checkpoint.tokenizer))


def _history(opened: Opened) -> None:
    """This session's runs on the text; a click on one toggles what was toggled there."""
    history = state.session_list(f"runs {opened.trace.spec.digest}")
    if len(history) < 2:
        return
    st.subheader("Runs on this text")
    panels.selectable_table(ablations.runs(history), "ablation_runs", lambda row: _restore(history[row].toggles))
    st.caption("Runs of this session, oldest first. Tick one to restore its changes.")
