"""Ablations: parts of the memory switched off or replaced on one text, and what that does to every prediction."""

from __future__ import annotations

import dataclasses
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
from lm2.model.config import MemoryKind
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
    "off: what is read adds nothing to the stream. frozen: from a segment on nothing is written. reset: a segment"
    " begins with a fresh bank. carried over: the text begins with the bank that other stories have left."
)
_CHANGES = {
    ManualChange.RESAMPLE: "another story's", ManualChange.MEAN: "mean of stories", ManualChange.INITIAL: "as at the start",
    ManualChange.ZERO: "zero",
    ManualChange.PERMUTE: "permuted",
}  # fmt: skip
_CHANGE_HELP = (
    "Another story's: as its last segment begins; a value that the model knows, about something else. Mean of stories:"
    " of the same. Zero is a value that the model may never have seen: what it breaks says little."
)
_PERSISTENCE = {Persistence.PERSIST: "reading and writing", Persistence.READ_ONLY: "reading alone"}


def render() -> None:
    st.header("Ablations")
    st.write("Switch off or replace parts of the memory on this text, and see what becomes of every prediction.")
    opened = session.open_memory()
    if opened is None:
        return
    session.subtitle(opened)
    _controls(opened)
    toggled = toggles.toggles_of(state.current())
    _toggled(opened, toggled)
    try:
        found = _compared(opened, toggled)
    except ValueError as error:
        st.warning(say.words("This cannot be run: {}. Change it above, or clear it.", error), icon=":material/warning:")
        _history(opened)
        return
    if found is None:
        return
    _remember(opened, found, toggled)
    if toggled.words:
        _effect(opened, found)
    else:
        _untouched(opened)
        _history(opened)


def _controls(opened: Opened) -> None:
    last = len(opened.trace.segments) - 1
    with st.container(border=True):
        widgets.parts(
            "Toggle", "toggling",
            {"Memory": partial(_memory, opened, last), "Slots": partial(_slots, opened),
                "Heads and gates": partial(_heads_and_gates, opened),
             "Statements": partial(_statements, opened)},
        )  # fmt: skip
        _shared(last)


def _slots(opened: Opened) -> None:
    widgets.places(
        "Slots",
        "slots",
        range(opened.checkpoint.config.slots),
        help="Those whose content is replaced as a segment begins.",
    )
    left, right = st.columns([3, 2])
    with left:
        widgets.buttons(
            "By",
            "slot_change",
            list(ManualChange),
            show=_CHANGES.__getitem__,
            help=f"{_CHANGE_HELP} Permuted: the slots chosen change places in a circle.",
        )
    with right:
        widgets.buttons(
            "For", "persistence", list(Persistence), show=_PERSISTENCE.__getitem__,
            help="Reading alone: the tokens see the edit, and the bank is written as if there were none.",
        )  # fmt: skip


def _memory(opened: Opened, last: int) -> None:
    left, middle, right = st.columns([4, 2, 3])
    with left:
        policy = widgets.buttons("Memory", "policy", list(Policy), show=_POLICIES.__getitem__, help=_POLICY_HELP)
    with middle:
        if policy is Policy.FREEZE:
            widgets.number("Frozen from segment", "freeze_at", 0, last)
        elif policy is Policy.RESET:
            widgets.number(
                "Reset before segment", "reset_at", -1, last, help="-1 is the last, in which a question alone stands."
            )
    with right:
        widgets.places(
            "Silent blocks",
            "silent",
            sorted(opened.checkpoint.config.memory_layers),
            help="Reading adds nothing to the stream there; writing goes on.",
        )


def _heads_and_gates(opened: Opened) -> None:
    config = opened.checkpoint.config
    left, middle, right = st.columns([2, 3, 2])
    with left:
        widgets.places("Memory heads", "heads", range(config.memory_heads), help="Those whose read is replaced.")
    with middle:
        widgets.buttons("By", "head_change", toggles.head_changes(config), show=_CHANGES.__getitem__, help=_CHANGE_HELP)
    with right:
        widgets.places("In blocks", "blocks", sorted(config.memory_layers), help="None chosen: in all of them.")
    gates = [(name, site) for name, site in toggles.GATES.items() if site.layers(config)]
    if gates:
        for column, (name, _) in zip(st.columns(3), gates):
            with column:
                widgets.share(
                    name.replace("_", " ").capitalize(),
                    name,
                    help="Every entry is clamped to this value; empty, the gate is as it is.",
                )
    if config.memory is MemoryKind.TOKENS:
        st.caption(
            "Memory tokens are read by the same attention as all tokens. A head's read is replaced at READ_PATTERN: how"
            " much of its attention goes to the memory tokens, while what goes to other tokens stays. There are no"
            " gates."
        )
    else:
        st.caption(
            "A head's read is replaced at READ_V, what the slots offer that head, and so before the output gate, which"
            " sees the change. Its pattern stays as it is."
        )


def _statements(opened: Opened) -> None:
    ranges, whole = opened.context.statements, opened.context.text
    if opened.checkpoint.config.memory is MemoryKind.RELEASE:
        st.caption("In the released arithmetic a token reads what it writes: its writing cannot be blocked alone.")
        return
    widgets.several(
        "Cannot write", "muted", range(len(ranges)), show=lambda at: f"{at}: {whole[slice(*ranges[at])]}",
        placeholder="Choose sentences",
        help="No slot attends to their tokens. The tokens of their own segment still see them.",
    )  # fmt: skip


def _shared(last: int) -> None:
    """What several toggles go by."""
    left, middle, right = st.columns([2, 1, 1])
    with left:
        if last:
            widgets.slider(
                "From segment",
                "since",
                0,
                last,
                help="Blocks, slots, heads and gates are changed in this segment and all later ones.",
            )
    with middle:
        widgets.number(
            "Other story", "other", 1, 1000,
            help=f"The story that something is taken from, asked its last question. Counted from {_own_story()}.",
        )  # fmt: skip
    with right:
        widgets.number("Stories to average or carry", "others", 1, 16, help="Counted from that one on.")


def _own_story() -> str:
    chosen = state.current()
    return (
        "this one: 1 is the next"
        if chosen.source in (TextSource.STORY, TextSource.SIMULATED)
        else f"the first story of qa{chosen.task}, which is 1"
    )


def _compared(opened: Opened, toggled: Toggles) -> Comparison | None:
    """The text's run beside its run under the toggles; None while that runs. Raises ValueError as `run` does."""
    from probes.causal.compare import compare  # noqa: PLC0415 - see app/cache.py

    loaded, trace = opened.checkpoint, opened.trace
    near = donors.neighbours(dataclasses.replace(state.current(), question=-1), toggled.other, toggled.borrowed)
    texts = tuple(sidebar.context_of(one).text for one in near)
    changes = toggled.interventions(loaded.config, trace.tokens, len(trace.segments), opened.context.statements, texts)
    spec = dataclasses.replace(trace.spec, captures=(), interventions=changes)
    after = session.ran(loaded, spec) if changes else trace
    return None if after is None else cache.result(loaded, "comparison", spec, lambda: compare(trace, after))


def _toggled(opened: Opened, toggled: Toggles) -> None:
    """What is toggled in words, with the ways back."""
    past = state.kept(f"toggles {opened.trace.spec.digest}")
    if not past or past[-1] != toggled:
        past.append(toggled)

    def undo() -> None:
        past.pop()
        _restore(past[-1])

    words, back, clear = st.columns([5, 1, 1], vertical_alignment="center")
    words.markdown(say.words("**Toggled:** {}", "; ".join(toggled.words) or "nothing"))
    back.button("Undo", icon=":material/undo:", disabled=len(past) < 2, on_click=undo, width="stretch")
    clear.button(
        "Clear",
        icon=":material/restart_alt:",
        disabled=not toggled.words,
        on_click=_restore,
        args=(Toggles(),),
        width="stretch",
    )


def _restore(wanted: Toggles) -> None:
    state.update(**{field.name: getattr(wanted, field.name) for field in dataclasses.fields(wanted)})


def _untouched(opened: Opened) -> None:
    """Nothing is toggled: what to do, and what the text is like without."""
    st.info(
        "Nothing is toggled yet. Switch the memory off above to see what the model knows without it, or choose slots to"
        " replace. What you toggle is compared with this run:",
        icon=":material/info:",
    )
    trace, tokenizer = opened.trace, opened.checkpoint.tokenizer
    if opened.context.quizzes:
        panels.table(text.quizzes(trace, opened.context, tokenizer), "quizzes_untouched")
    _choose(
        panels.strip(
            text.strip(trace, text.marks(trace, opened.context), tokenizer),
            "strip_untouched",
            state.choice("token", len(trace.tokens)),
        )
    )


def _effect(opened: Opened, found: Comparison) -> None:
    """Both runs side by side."""
    context, tokenizer, pieces = opened.context, opened.checkpoint.tokenizer, found.after.tokens.shown
    if context.quizzes:
        st.subheader("Answers, before and after")
        panels.table(
            ablations.quizzes(found, context, tokenizer, cache.answers(state.current().task)), "quizzes_ablated"
        )
        st.caption(
            say.words(
                "Probability of the answer's first token, at the question's last token. Logit difference: that token's"
                " logit less the mean of those of the other answers of qa{}.",
                state.current().task,
            )
        )
    st.subheader("Text")
    chosen = state.choice("token", len(pieces))
    token = ablations.asked_at(found, context, tokenizer) if chosen is None else chosen
    marks, window = text.marks(found.after, context), panels.part(len(pieces), token, "ablations")
    made = {
        title: (
            AblationChart(spec=found.after.spec, item=context.origin, shown=shown, marks=marks, window=window).made(
                opened.checkpoint, found
            )
        )
        for title, shown in (("Text", OfAblation.TEXT), ("Change, token by token", OfAblation.CHANGE))
    }
    _choose(panels.strip(made["Text"].view, "strip_ablated", token))
    widgets.parts(
        "What has changed", "ablated",
        {"Chosen token": partial(_beside, found, token, tokenizer),
            "Most changed": partial(_most_changed, found, tokenizer),
         "Along the text": partial(_along, found, made["Change, token by token"].view),
         "Runs": partial(_history, opened),
         "Run it again": partial(job_panel.again, opened.checkpoint, "ablation", found.after.spec, "lm2 ablate {}",
             None)},
    )  # fmt: skip
    export_panel.hand_out(made)


def _beside(found: Comparison, token: int, tokenizer: Tokenizer) -> None:
    pieces = found.after.tokens.shown
    st.subheader(say.words("After token {} ({})", token, pieces[token].strip() or "blank"))
    panels.table(
        text.beside(found.before.logits[token], found.after.logits[token], ("before", "after"), tokenizer.shown),
        "ablated_next",
    )


def _most_changed(found: Comparison, tokenizer: Tokenizer) -> None:
    st.subheader("Tokens behind which most has changed")
    panels.table(ablations.most_changed(found, tokenizer), "ablated_most")


def _along(found: Comparison, view: Lines) -> None:
    st.subheader("Change, token by token")
    panels.figure(view, "ablated_lines")
    st.caption(
        say.words(
            "KL: mean {:.4f} nats a token, at most {:.3f}, behind token {}.",
            found.kl.mean(),
            found.kl.max(),
            int(found.kl.argmax()),
        )
    )


def _choose(token: int | None) -> None:
    """A click on a token."""
    if token is not None and token != state.current().token:
        state.update(token=token)
        st.rerun()


def _remember(opened: Opened, found: Comparison, toggled: Toggles) -> None:
    history = state.kept(f"runs {opened.trace.spec.digest}")
    for trace, kl, done in ((found.before, 0.0, Toggles()), (found.after, float(found.kl.mean()), toggled)):
        if trace.spec.digest not in [one.digest for one in history]:
            history.append(ablations.ran(trace, kl, done, opened.context, opened.checkpoint.tokenizer))


def _history(opened: Opened) -> None:
    """This session's runs on the text; a click on one toggles what was toggled there."""
    history = state.kept(f"runs {opened.trace.spec.digest}")
    if len(history) < 2:
        return
    st.subheader("Runs on this text")
    panels.table_to_choose(ablations.runs(history), "ablation_runs", lambda row: _restore(history[row].toggles))
    st.caption("This session's, oldest first. Tick one to have its toggles again.")
