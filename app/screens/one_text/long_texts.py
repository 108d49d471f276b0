"""Long texts: maps of a text of any length, from a capture on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from app.components.multiples import multiples
from app.components.viewer import BandSource, Viewport, viewer
from app.figures.palettes import Stretch
from app.server import captures, results
from app.server.bands import COLUMNS, Pooled, StoreMap
from app.ui import job_panel, panels, say, session, sidebar, state, widgets
from app.views.run import store as views

if TYPE_CHECKING:
    from app.views.run.text import Marks
    from lm2.stores.store import Store

_HEIGHT = 640
"""CSS pixels that a map has at most."""


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A store, or two whose difference is shown, by the numbers that the session's browser asks for them by."""

    store: Store
    number: int
    minus: Store | None = None
    minus_number: int | None = None


def render() -> None:
    st.header("Long texts")
    st.write(
        "Which slots each token reads, and which tokens each slot takes in, in a text of any length: a run is captured"
        " into a folder once, and every part of it can be looked at from then on."
    )
    opened = _open()
    if opened is not None:
        _show(opened)
    with st.expander("Capture the text", expanded=opened is None, icon=":material/download_for_offline:"):
        _capture()


def _open() -> _Opened | None:
    """Choose what is shown; None after saying why there is nothing."""
    left, right = st.columns(2)
    names, about = captures.names(), "A capture of this workspace, or the path of another, if the owner allows it."
    with left:
        name = widgets.select_or_type("Capture", "long.store", ["", *names], help=about)
    if not name:
        st.caption("No capture is open. Choose one, or capture the text that is chosen in the sidebar.")
        return None
    with right:
        about = "Its map is subtracted, on one scale. It has to be of the same text."
        minus = widgets.select_or_type("Less another capture", "long.minus", ["", *names], help=about)
    try:
        number, store = state.access().open(captures.path(name))
        if not minus:
            opened = _Opened(store=store, number=number)
        else:
            other_number, other = state.access().open(captures.path(minus))
            views.check_alike(store, other)
            opened = _Opened(store=store, number=number, minus=other, minus_number=other_number)
    except (ValueError, OSError) as error:
        say.info("{}.", error)
        return None
    return opened if _has_maps(opened) else None


def _has_maps(opened: _Opened) -> bool:
    for store in filter(None, (opened.store, opened.minus)):
        if not store.config.memory_layers:
            say.info("{} has no memory, so there is nothing to show here.", store.spec.checkpoint)
            return False
        if not store.whole:
            st.info("No segment is on disk yet: come back when the first ones are.", icon=":material/info:")
            return False
    return True


def _show(opened: _Opened) -> None:
    store = opened.store
    written = "" if store.whole == len(store.segments) else f", of which {store.whole:,} are on disk"
    say.caption(
        "{} on {}, {} · {} tokens in {} segments{} · run {}",
        store.spec.checkpoint,
        store.origin["device"],
        store.origin["dtype"],
        f"{len(store.tokens):,}",
        f"{len(store.segments):,}",
        written,
        store.spec.digest[:10],
    )
    shown, stretch = _choose_map(opened)
    _map(opened, shown, stretch)
    _selected(shown)
    _overview(shown, stretch)


def _choose_map(opened: _Opened) -> tuple[StoreMap, Stretch]:
    store, config = opened.store, opened.store.config
    what, block, head, how, colours = st.columns([2, 2, 3, 2, 2])
    blocks = sorted(config.memory_layers)
    if state.value("long.block") not in blocks:
        state.settle("long.block", blocks[-1])
    chosen = widgets.select(
        "Head",
        "long.head",
        ["all", *map(str, range(config.memory_heads))],
        show=lambda name: "all heads" if name == "all" else f"head {name}",
        help="All heads are pooled as tokens and slots are: the largest value, or the mean.",
        at=head,
    )
    shown = StoreMap(
        store=store,
        minus=opened.minus,
        what=widgets.buttons("Map", "long.what", views.maps(store), at=what),
        block=widgets.select("Block", "long.block", blocks, at=block),
        head=None if chosen == "all" else int(chosen),
        how=Pooled(widgets.buttons("Pooled by", "long.how", help="Where tokens or slots share a cell.", at=how)),
    )
    stretch = Stretch(widgets.buttons("Colours", "memory.scale", help="sqrt makes small weights visible.", at=colours))
    return shown, stretch


@st.fragment
def _map(opened: _Opened, shown: StoreMap, stretch: Stretch) -> None:
    """The viewer. Where it is moved is in the link; only a click draws the rest of the page again."""
    store, how = shown.store, shown.how.value
    query = {"store": opened.number, "what": shown.what, "how": how, "block": shown.block}
    query |= {} if shown.head is None else {"head": shown.head}
    query |= {} if opened.minus is None else {"minus": opened.minus_number}
    title = views.map_title(shown.what, shown.block, shown.head, how)
    marks, high = _marks(store), shown.high
    pooling = how if shown.minus is None else f"difference of the {how}"
    if shown.minus is not None:
        title = f"difference of {title}"
    done = viewer(
        BandSource(
            token=state.access().token,
            query={name: str(value) for name, value in query.items()},
            text=store.spec.digest,
            columns=COLUMNS,
        ),
        key="long_map",
        tokens=shown.tokens,
        slots=shown.slots,
        starts=views.segment_starts(store),
        marks=marks,
        low=0.0 if shown.minus is None else -high,
        high=high,
        value_title=title,
        pooling=pooling,
        view=_viewport(),
        token=state.choice("long.token", shown.tokens),
        slot=state.choice("long.slot", shown.slots),
        stretch=stretch,
        height=min(_HEIGHT, panels.height_of(shown.slots)),
        alt=views.summary(store, title, high, len(marks)),
    )
    if done.view is not None:
        state.update("long", view="-".join(map(str, done.view)))
        state.write_link()
    if done.cell is not None:
        state.click("long", token=done.cell[0], slot=done.cell[1])


def _viewport() -> Viewport | None:
    first, extent, top = (*map(int, filter(None, state.value("long.view").split("-"))), 0, 0, 0)[:3]
    return (first, extent, top) if extent else None


def _marks(store: Store) -> Marks:
    """Facts of the sidebar's text, if it is the store's."""
    try:
        return views.marks(store, sidebar.context_of(state.current().text))
    except ValueError:
        return ()


def _selected(shown: StoreMap) -> None:
    """The chosen token's slots and surprisal, and the chosen slot's tokens."""
    store, place = shown.store, (shown.what, shown.block, shown.head)
    left, right = st.columns(2)
    with left:
        about = "Clear it to choose none."
        token = widgets.optional_number("Token", "long.token", shown.tokens, help=about)
        if token is None:
            st.caption("Click a cell of the map to see the token's largest weights.")
        else:
            say.caption(
                "Token {} ({}), segment {}", token, store.tokens.shown[token].strip() or "blank",
                views.segment_of(store, token),
            )  # fmt: skip
            panels.table(views.slots_of_token(store, *place, token), "long_slots")
            panels.figure(views.surprisal(store, token), "long_surprisal", 220)
    with right:
        slot = widgets.optional_number("Slot", "long.slot", shown.slots, help=about)
        if slot is None:
            st.caption("Click a cell of the map to see the tokens with the largest weights for its slot.")
        else:
            table = views.tokens_of_slot(store, *place, slot)
            tokens = table.as_columns()["token"]
            say.caption("The tokens of all the text with the largest weights for slot {}; tick one to go there.", slot)
            panels.selectable_table(table, "long_tokens", lambda row: state.update("long", token=int(tokens[row])))


def _overview(shown: StoreMap, stretch: Stretch) -> None:
    """Every block and head as a small map and as a row of a table; a click opens it above."""
    store, what = shown.store, shown.what
    st.subheader("All blocks and heads")
    st.write("Click a panel, or tick a row of the table, to open it above.")
    maps, starts = captures.panels(store, what)
    blocks = sorted(store.config.memory_layers)
    clicked = multiples(
        key=f"long_multiples_{what}",
        panels=maps,
        layer_labels=[f"block {block}" for block in blocks],
        head_labels=[f"head {head}" for head in range(maps.shape[1])],
        selected=None if shown.head is None else (blocks.index(shown.block), shown.head),
        boundaries=starts,
        title=f"{what.capitalize()}: slots down, tokens along",
        stretch=stretch,
        alt=f"{what.capitalize()} of {len(blocks)} blocks and {maps.shape[1]} heads, largest {maps.max():.3f}",
    )
    if clicked is not None:
        state.click("long", block=blocks[clicked[0]], head=str(clicked[1]))
    table = views.heads(store, what)
    rows = table.as_columns()

    def take(row: int) -> None:
        state.update("long", block=int(rows["block"][row]), head=str(rows["head"][row]))

    panels.selectable_table(table, f"long_heads_{what}", take)


def _capture() -> None:
    """Capture the text of the sidebar as a job."""
    from lm2.runs.spec import RunSpec

    checkpoint = session.open_checkpoint()
    if checkpoint is None:
        return
    try:
        context = sidebar.context_of(state.current().text)
        state.record_content("context", context.text)
        spec = RunSpec(
            checkpoint=checkpoint.name, text=context.text, segment_length=session.segment_length(), bos=session.bos()
        )
        say.markdown("{} with {}: {}", context.origin, checkpoint.name, captures.predicted(checkpoint, spec))
    except ValueError as error:
        say.info("{}.", error)
        return
    key = results.key_of(checkpoint, "capture", spec.digest)
    name = job_panel.result(key, captures.work(checkpoint, spec), "Capture it", "segment")
    if name is not None:
        say.caption("It is in the capture {}.", name)
        st.button("Open it", on_click=lambda: state.update("long", store=name), icon=":material/folder_open:")
