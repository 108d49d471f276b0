"""Updates: what the memory takes up while a text is being written, and how that changes what tokens read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from app.charts import OfUpdates, UpdateChart
from app.charts.updates import Continued
from app.choices.selection import ProbeText
from app.figures.palettes import Stretch
from app.server import cache
from app.ui import export_panel, panels, say, session, state, widgets
from app.ui.session import Opened
from app.views.run import text
from app.views.study import updates
from lm2.model.config import MemoryKind
from lm2.runs.interventions import Freeze
from lm2.runs.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.charts import ComputedChart
    from probes.causal.updates import Rereading, TracedGeneration

MOST_TOKENS = 64
_SHOWN = {
    "Slots read, token by token": OfUpdates.STEPS, "Before": OfUpdates.BEFORE, "After": OfUpdates.AFTER,
    "Difference": OfUpdates.DIFFERENCE,
    "Reading, update by update": OfUpdates.COURSE, "Prediction, update by update": OfUpdates.EXPECTED,
}  # fmt: skip

_PROBED = (
    "Read weights of block {layer}, {pooled}, both maps on one scale. The probe is read as a segment of its own with"
    " nothing else in sight, so only the bank differs; it is that of the text written with writes {shown}."
)

_BESIDES = {
    MemoryKind.RELEASE: (
        " In the released arithmetic a block reads what the block before it has just written: behind the first block, a"
        " reading also holds what the probe itself writes."
    ),
    MemoryKind.TOKENS: (
        " Tokens also attend to tokens: a column does not sum to 1, and what is left counts as one more slot."
    ),
}

_PROBES = {ProbeText.QUESTION: "the question", ProbeText.SEGMENT: "the prompt's last segment"}


def render() -> None:
    st.header("Updates")
    st.write(
        "The model goes on writing behind the context. Each segment that it fills is written to the bank, so the same"
        " tokens read something else afterwards; with writes off the bank stays as it is, and so does the reading."
    )
    opened = session.open_memory()
    if opened is None:
        return
    session.subtitle(opened)
    left, middle, right = st.columns(3)
    with left:
        count = widgets.slider("Tokens to write", "written", 1, MOST_TOKENS, help="The likeliest token each time.")
    with middle:
        asked = len(opened.trace.segments) - 1
        control = "The control: this segment and all later ones hand on the bank that they began with."
        frozen = _slider("Writes off: from segment", "frozen", asked, asked, control)
    with right:
        shown = widgets.buttons(
            "Show the text written with", "writes", ["on", "off"], show=lambda writes: f"writes {writes}"
        )
    left, right = st.columns(2)
    with left:
        layer = session.captured(opened, widgets.block(opened.checkpoint.config))
    with right:
        head = widgets.head(opened.checkpoint.config)
    try:
        walks = _walks(opened, count, frozen)
    except ValueError as error:
        st.info(say.words("{}.", error), icon=":material/info:")
        return
    chart = UpdateChart(
        spec=walks["on"].spec, item=opened.context.origin, shown=OfUpdates.STEPS, tokens=count, frozen=frozen,
        layer=layer, head=head, writes=shown,
        probe=_question(opened) or opened.trace.segments[-1].ids,
    )  # fmt: skip
    _written(opened, walks, chart)
    _before_and_after(opened, walks, chart)
    _again(walks)


def _again(walks: dict[str, TracedGeneration]) -> None:
    """What ran, and how to run it again."""
    digests = ", ".join(f"writes {name}: run {walk.spec.digest[:10]}" for name, walk in walks.items())
    count, layers = len(walks["on"].ids), walks["on"].layers
    st.caption(say.words("{}; each continued by {} tokens, the likeliest every time.", digests, count))
    with st.expander("Run again"):
        st.code(
            "import dataclasses\nimport lm2\nfrom probes.causal.updates import generate_traced\n\n"
            f"on = lm2.RunSpec.from_json({walks['on'].spec.to_json()!r})\n"
            f"off = dataclasses.replace(on, interventions=(lm2.{walks['off'].spec.interventions[0]!r},))\n"
            f"walks = [generate_traced(lm2.load(on.checkpoint), spec, tokens={count}, layers={layers}) for spec in (on, off)]",
            wrap_lines=True,
        )


def _slider(label: str, field: str, last: int, default: int, help: str) -> int:
    """A slider of 0 to `last`. What was not chosen stays at its default, also when that moves; nothing is drawn where
    there is only 0."""
    if not -1 <= getattr(state.current(), field) <= last:
        state.settle(field, -1)
    chosen = getattr(state.current(), field)
    value = default if chosen == -1 else chosen
    if last == 0:
        return value
    return st.slider(
        say.words("{}", label),
        0,
        last,
        key=state.widget_key(field, value),
        help=help,
        on_change=state.take,
        args=(field,),
    )


def _walks(opened: Opened, count: int, frozen: int) -> dict[str, TracedGeneration]:
    """The context continued with writes on and with writes off."""
    from probes.causal.updates import generate_traced  # noqa: PLC0415 - see app/cache.py

    loaded, read, layers = opened.checkpoint, opened.trace.spec, opened.layers
    specs = {
        name: RunSpec(checkpoint=loaded.name, text=read.text, segment_length=read.segment_length, interventions=changes)
        for name, changes in (("on", ()), ("off", (Freeze(segment=frozen),)))
    }
    bar = st.empty()

    def write(name: str) -> TracedGeneration:
        def heard(done: int, segments: int) -> None:
            bar.progress(
                done / segments, say.words("Writes {}: segment {} of {}, then {} tokens", name, done, segments, count)
            )

        return generate_traced(loaded, specs[name], tokens=count, layers=layers, on_segment=heard)

    walks = {
        name: cache.result(loaded, f"walk {count} {layers}", specs[name], lambda name=name: write(name))
        for name in specs
    }
    bar.empty()
    return walks


def _rereadings(opened: Opened, walks: dict[str, TracedGeneration], ids: tuple[int, ...]) -> dict[str, Rereading]:
    """The probe read from every bank of both walks. Raises ValueError as `reread` does."""
    from probes.causal.updates import reread  # noqa: PLC0415 - see app/cache.py

    loaded, layers = opened.checkpoint, opened.layers
    with st.spinner("Reading the probe from every bank ..."):
        return {
            name: cache.result(
                loaded,
                f"reread {len(walk.ids)} {layers} {ids}",
                walk.spec,
                lambda walk=walk: reread(loaded, ids, walk.banks, layers=layers),
            )
            for name, walk in walks.items()
        }


@st.fragment
def _written(opened: Opened, walks: dict[str, TracedGeneration], chart: UpdateChart) -> None:
    """The generation, token by token; a fragment, so that its slider draws this part alone."""
    on, off, walk, piece_of = walks["on"], walks["off"], walks[chart.writes], opened.checkpoint.tokenizer.shown
    count, start = len(walk.ids), len(walk.prompt)
    st.subheader(say.words("Written with writes {}", chart.writes))
    step = (
        widgets.slider("Token", "step", 1, count, help="Counted from the first that the model wrote.")
        if count > 1
        else 1
    ) - 1
    view = updates.strip(walk, text.marks(opened.trace, opened.context), piece_of)
    _choose(panels.strip(view, "strip_updates", start + step), start, step)
    st.caption(say.words("{}", updates.where(walk, step)))
    left, right = st.columns(2)
    with left:
        st.subheader("Slots read, token by token")
        steps = chart.view(opened.checkpoint, Continued(walks=walks, readings={}))
        cell = panels.map_to_click(steps, "reads_by_step", None, step, Stretch.LINEAR, _height(opened))
        _choose(None if cell is None else start + cell.column, start, step)
    with right:
        st.subheader(say.words("Expected as token {}", step + 1))
        panels.table(
            text.beside(on.logits[step], off.logits[step], ("writes on", "writes off"), piece_of), "expected_at_step"
        )
    _both(on, off, piece_of)
    state.publish()


def _both(on: TracedGeneration, off: TracedGeneration, piece_of: Callable[[int], str]) -> None:
    """Where the two texts part, and both of them side by side."""
    from probes.causal.updates import diverge  # noqa: PLC0415 - see app/cache.py

    first = diverge(on, off)
    st.caption(
        say.words("With writes on and off the model writes the same {} tokens.", len(on.ids))
        if first is None
        else say.words(
            "The two texts part at token {}; behind it, what is expected is about two different texts.", first + 1
        )
    )
    with st.expander("Both texts, token by token"):
        panels.table(updates.steps(on, off, piece_of), "steps", 360)
        st.caption(
            "Distance: total variation between the two next-token distributions, 0 to 1, while both texts are the same."
        )


def _choose(token: int | None, start: int, step: int) -> None:
    """A click on a token that the model wrote, or on its column, steps there."""
    if token is not None and token >= start and token - start != step:
        state.update(step=token - start + 1)
        st.rerun()


@st.fragment
def _before_and_after(opened: Opened, walks: dict[str, TracedGeneration], chart: UpdateChart) -> None:
    """One probe, read from two banks of the walk that is shown, and all panels for print; a fragment, as above."""
    st.subheader("The same tokens, before and after")
    walk, question, layer, head = walks[chart.writes], _question(opened), chart.layer, chart.head
    last = len(walk.banks) - 1
    left, middle, right = st.columns(3)
    with left:
        probe = widgets.select(
            "Probe, read from every bank",
            "probe",
            list(ProbeText) if question else [ProbeText.SEGMENT],
            show=_PROBES.__getitem__,
        )
    with middle:
        before = _slider(
            "Before: segments written",
            "before",
            last,
            walk.segment_of(0),
            "0 is the fresh bank that a document begins with.",
        )
    with right:
        after = _slider(
            "After: segments written",
            "after",
            last,
            last,
            "The last segment is still open: the bank is what it would hand on now.",
        )
    ids = question if probe is ProbeText.QUESTION else opened.trace.segments[-1].ids
    try:
        readings = _rereadings(opened, walks, ids)
    except ValueError as error:
        st.info(say.words("{}.", error), icon=":material/info:")
        return
    read, height = readings[chart.writes], _height(opened)
    by_question = bool(question) and probe is ProbeText.QUESTION
    token = _answer(opened) if by_question else int(read.logits[before].argmax())
    chart = replace(chart, probe=ids, before=before, after=after, token=token)
    found = Continued(walks=walks, readings=readings)
    made = {title: replace(chart, shown=shown).made(opened.checkpoint, found) for title, shown in _SHOWN.items()}
    for column, title, bank in zip(st.columns(2), ("Before", "After"), (before, after)):
        with column:
            st.subheader(say.words("{}", title))
            st.caption(say.words("Read from {}.", updates.bank(walk, bank)))
            panels.figure(made[title].view, title.lower(), height)
    pooled = f"{head} over heads" if head in ("mean", "max") else f"head {head}"
    st.caption(
        say.words(
            "{}{}",
            _PROBED.format(layer=layer, pooled=pooled, shown=chart.writes),
            _BESIDES.get(opened.checkpoint.config.memory, ""),
        )
    )
    left, right = st.columns(2)
    with left:
        st.subheader("Difference")
        panels.figure(made["Difference"].view, "difference", height)
    with right:
        st.subheader("Tokens whose reading changed most")
        panels.table(updates.most_moved(read, layer, head, before, after), "most_moved")
        st.caption(
            "Share moved: how much of a token's attention went elsewhere (total variation of each head; then as the"
            " maps are pooled)."
        )
        st.subheader("Expected behind the probe")
        panels.table(
            text.beside(
                read.logits[before], read.logits[after], ("before", "after"), opened.checkpoint.tokenizer.shown
            ),
            "expected_behind",
        )
    _courses(opened, made, before, by_question=by_question)
    export_panel.hand_out(made)
    state.publish()


def _courses(opened: Opened, made: dict[str, ComputedChart], before: int, *, by_question: bool) -> None:
    left, right = st.columns(2)
    with left:
        st.subheader("Reading, update by update")
        panels.figure(made["Reading, update by update"].view, "course")
        st.caption(
            say.words(
                "Share of the probe's reading that is elsewhere than before ({} segments written), mean over its"
                " tokens. With writes off it stays where it was.",
                before,
            )
        )
    with right:
        st.subheader("Prediction, update by update")
        expected = made["Prediction, update by update"]
        panels.figure(expected.view, "expected")
        said = repr(opened.checkpoint.tokenizer.shown(expected.chart.token).strip())
        reason = "the true answer's first token" if by_question else f"the likeliest before ({before} segments written)"
        st.caption(say.words("Of {} behind the probe: {}.", said, reason))


def _question(opened: Opened) -> tuple[int, ...]:
    """The tokens of the context's last question; none where no question is known."""
    if not opened.context.quizzes:
        return ()
    quiz, tokens = opened.context.quizzes[-1], opened.trace.tokens
    return tuple(tokens.ids[at] for at in tokens.within(quiz.end - len(quiz.question), quiz.end))


def _answer(opened: Opened) -> int:
    """The first token of the answer to the context's last question."""
    quiz = opened.context.quizzes[-1]
    return opened.checkpoint.tokenizer.answer_at(opened.trace.tokens, quiz.end, quiz.answer)[1]


def _height(opened: Opened) -> int:
    return min(720, max(280, 16 * opened.checkpoint.config.slots + 100))
