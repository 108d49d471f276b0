"""The door to session state and to the URL.

The selection of a session is read from the URL when the session starts, and written back after each run of the script,
so that a copied link opens the same view.
"""

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.choices import links
from app.choices.selection import CHOICES, DECIDED_BY, LINKS, Selection, TextSource
from app.server import cache
from app.ui import say

_NOTHING = object()
_DIGITS = 12
_DIGEST = re.compile(f"[0-9a-f]{{{_DIGITS}}}")
_MARK = re.compile(r"@[0-9a-f]{64}")
"""What stands in a link for a text that is too long for it: longer than a text that is written as it is."""


@dataclass(frozen=True)
class _Known:
    """A digest of what is shown, or was when a link was made."""

    digest: str
    chosen: Any
    """What chose it."""
    linked: bool
    """Whether a link says so, and nothing has been compared with it yet."""


def current() -> Selection:
    """This session's selection; what the URL says when the session begins."""
    if "selection" not in st.session_state:
        repeated = [name for name in st.query_params if len(st.query_params.get_all(name)) > 1]
        _begin(dict(st.query_params))
        for name in repeated:
            tell(f"This link names {name[: links.SHOWN]!r} more than once: the last is taken.")
    return st.session_state["selection"]


def value(field: str) -> Any:
    """What is chosen at a place of the selection, such as "text.task"."""
    return attrgetter(field)(current())


def update(part: str, **changes: Any) -> None:
    """Replace fields of a part of the selection; what was told of the link has been heard."""
    _replace(part, changes)
    st.session_state["from_link"] -= {f"{part}.{name}" for name in changes}
    st.session_state["told"] = []


def click(part: str, **clicked: Any) -> None:
    """What was clicked on, if anything: it is chosen, and the page is drawn again."""
    chosen = getattr(current(), part)
    changes = {name: place for name, place in clicked.items() if place is not None and place != getattr(chosen, name)}
    if changes:
        update(part, **changes)
        st.rerun()


def put(field: str, value: Any) -> None:
    """Replace one field."""
    part, _, name = field.partition(".")
    update(part, **{name: value})


def _replace(part: str, changes: dict[str, Any]) -> None:
    changed = dataclasses.replace(getattr(current(), part), **changes)
    st.session_state["selection"] = dataclasses.replace(current(), **{part: changed})


def _begin(written: dict[str, str]) -> None:
    """Begin a session by a link. What of it cannot be shown is told."""
    digests = {name: written.pop(name) for name in DECIDED_BY if _DIGEST.fullmatch(written.get(name, ""))}
    free = [name for name, choice in LINKS.items() if isinstance(choice.default, str) and choice.allowed is None]
    marks = {name: written.pop(name)[1:] for name in free if _MARK.fullmatch(written.get(name, ""))}
    kept = {name: cache.kept_text(mark) for name, mark in marks.items()}
    link = links.read(written, LINKS)
    values = link.values | {name: text for name, text in kept.items() if text is not None}
    # Links of before pasted and uploaded texts were parted.
    if values.get("source") is TextSource.FILE and "uploaded" not in values and "text" in values:
        values["uploaded"] = values.pop("text")
    st.session_state["selection"] = Selection.of(values)
    st.session_state["from_link"] = {LINKS[name].path for name in values}
    st.session_state["digests"] = {
        name: _Known(digest, _choosing(name), linked=True) for name, digest in digests.items()
    }
    lost = [
        f"This link's {name} is too long to be in it, and the server does not have it any more."
        for name in kept
        if kept[name] is None
    ]
    st.session_state["notices"], st.session_state["told"] = [*link.problems, *lost], []


def _choosing(what: str) -> Any:
    return attrgetter(*DECIDED_BY[what][1])(current())


def shows(what: str, content: str) -> None:
    """What the page shows, of `DECIDED_BY`: links name it by its digest. Told where the link that opened this session
    names another."""
    chosen, (words, _) = _choosing(what), DECIDED_BY[what]
    digest, known = (
        hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS],
        st.session_state["digests"].get(what),
    )
    if known is not None and known.linked and known.chosen == chosen and known.digest != digest:
        tell(f"This link was made with {words} than this server shows: what you see differs from what its maker saw.")
    st.session_state["digests"][what] = _Known(digest, chosen, linked=False)


def settle(field: str, settled: Any) -> None:
    """A field takes another value, since what it had is not there. Told where a link asked for that."""
    asked, choice = value(field), CHOICES[field]
    if asked != settled and field in st.session_state["from_link"]:
        shown = "nothing is chosen" if settled is None else f"{choice.link}={links.write(settled)} is shown"
        tell(f"This link asks for {choice.link}={links.write(asked)[:_DIGITS]}, which does not exist: {shown}.")
        st.session_state["from_link"].discard(field)
    _replace(choice.part, {choice.name: settled})


def tell(notice: str) -> None:
    """Say something above the page, once `publish` comes to it."""
    st.session_state["notices"].append(notice)


def begin_page() -> None:
    """The whole page is drawn anew: what was told stays there until something else is chosen."""
    current()
    st.session_state["notices"][:0] = st.session_state["told"]
    st.session_state["told"] = []


def choice(field: str, count: int) -> int | None:
    """A field that chooses one of `count` things; None where it chooses none, or one that is not there."""
    if value(field) is not None and not 0 <= value(field) < count:
        settle(field, None)
    return value(field)


def texts(field: str) -> tuple[str, ...]:
    """What a field holds that is several texts with commas between."""
    return tuple(filter(None, (part.strip() for part in value(field).split(","))))


def write_link() -> None:
    """Write the selection to the URL, leaving out what is at its default. The server keeps texts that are too long for
    it."""
    changed = {name: value(choice.path) for name, choice in LINKS.items() if value(choice.path) != choice.default}
    values = {name: links.write(content) for name, content in changed.items() if links.fits(content)}
    values |= {
        name: f"@{cache.keep_text(content)}"
        for name, content in changed.items()
        if name not in values and isinstance(content, str)
    }
    values |= {
        what: known.digest for what, known in st.session_state["digests"].items() if known.chosen == _choosing(what)
    }
    if dict(st.query_params) != values:
        st.query_params.from_dict(values)


def publish() -> None:
    """Write the link, and draw here what there is to tell: in one box, however much it is."""
    write_link()
    notices = st.session_state["notices"]
    if notices:
        st.warning(say.words("- {}\n" * len(notices) if len(notices) > 1 else "{}", *notices), icon=":material/link:")
    st.session_state["told"] += notices
    st.session_state["notices"] = []


def open_screen(screen: str) -> None:
    """Go to another screen, named as in the URL."""
    st.switch_page(st.Page(lambda: None, title=screen, url_path=screen))  # pages are known by their path


def fits_url(field: str) -> bool:
    """Whether a text is short enough to be part of a link."""
    return links.fits(value(field))


def session() -> str:
    """Which session this is: a page that is open in a browser."""
    return get_script_run_ctx().session_id


def widget_key(field: str, shown: Any) -> str:
    """The session key of a field's widget, which will show a value; pass `take` as the widget's on_change."""
    key, screen = f"widget_{CHOICES[field].link}", get_script_run_ctx().page_script_hash
    drawn = st.session_state.setdefault("drawn", {})
    # Another screen's widget of this key is not this one.
    if st.session_state.get(key, _NOTHING) != shown or drawn.get(key) != screen:
        st.session_state[key], drawn[key] = shown, screen
    return key


def taken(field: str) -> Any:
    """What a field's widget holds."""
    return st.session_state[f"widget_{CHOICES[field].link}"]


def take(field: str) -> None:
    """The user has moved a field's widget: the selection follows."""
    put(field, taken(field))


def kept(name: str) -> list[Any]:
    """A list of this session's own, empty at first. It is no part of a link."""
    return st.session_state.setdefault(f"kept_{name}", [])
