"""Session state and the URL.

A session's selection is read from the URL when the session starts, and written back after each run of the script, so
that a copied link opens the same view.
"""

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.choices import former, links
from app.choices.selection import CHOICES, DECIDED_BY, LINKS, Selection, TextSource
from app.server import cache
from app.server.access import Access
from app.ui import say

_NOTHING = object()
_DIGITS = 12
_DIGEST = re.compile(f"[0-9a-f]{{{_DIGITS}}}")
_MARK = re.compile(r"@[0-9a-f]{64}")
"""What stands in a link for a text that is too long for it."""


@dataclass(frozen=True)
class _ContentDigest:
    """The digest of what is shown, or was when a link was made."""

    digest: str
    choices: Any
    """The choices that decided what is shown."""
    linked: bool
    """Whether the digest is from a link, and has not been compared yet."""


def current() -> Selection:
    """This session's selection; at first, the URL's."""
    if "selection" not in st.session_state:
        repeated = [name for name in st.query_params if len(st.query_params.get_all(name)) > 1]
        _begin(dict(st.query_params))
        for name in repeated:
            tell(f"This link names {name[: links.SHOWN]!r} more than once: the last is taken.")
    return st.session_state["selection"]


def value(field: str) -> Any:
    """The value of a field of the selection, such as "text.task"."""
    return attrgetter(field)(current())


def update(part: str, **changes: Any) -> None:
    """Replace fields of a part of the selection. Notices that have been shown go."""
    _replace(part, changes)
    st.session_state["from_link"] -= {f"{part}.{name}" for name in changes}
    st.session_state["shown_notices"] = []


def click(part: str, **clicked: Any) -> None:
    """Choose what was clicked on, and draw the page again. None for nothing clicked."""
    chosen = getattr(current(), part)
    changes = {name: value for name, value in clicked.items() if value is not None and value != getattr(chosen, name)}
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


def _begin(parameters: dict[str, str]) -> None:
    """Begin a session by a link, with a notice of everything in it that cannot be shown."""
    digests = {name: parameters.pop(name) for name in DECIDED_BY if _DIGEST.fullmatch(parameters.get(name, ""))}
    free = [name for name, choice in LINKS.items() if isinstance(choice.default, str) and choice.allowed is None]
    marks = {name: parameters.pop(name)[1:] for name in free if _MARK.fullmatch(parameters.get(name, ""))}
    texts = {name: cache.kept_text(mark) for name, mark in marks.items()}
    link = links.read(former.renamed(parameters), LINKS)
    values = link.values | {name: text for name, text in texts.items() if text is not None}
    # In old links, an uploaded text has the name of a pasted one.
    if values.get("source") is TextSource.FILE and "uploaded" not in values and "text" in values:
        values["uploaded"] = values.pop("text")
    st.session_state["selection"] = Selection.of(values)
    st.session_state["from_link"] = {LINKS[name].path for name in values}
    st.session_state["digests"] = {
        name: _ContentDigest(digest, _choices_of(name), linked=True) for name, digest in digests.items()
    }
    lost = [
        f"This link's {name} is too long to be in it, and the server does not have it any more."
        for name, text in texts.items()
        if text is None
    ]
    st.session_state["notices"], st.session_state["shown_notices"] = [*link.problems, *lost], []


def _choices_of(name: str) -> Any:
    return attrgetter(*DECIDED_BY[name][1])(current())


def record_content(name: str, content: str) -> None:
    """Record the content that the page shows under a name in `DECIDED_BY`, so that links hold its digest. If the link
    that opened this session has another digest, there is a notice."""
    choices, linked = _choices_of(name), st.session_state["digests"].get(name)
    digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    if linked is not None and linked.linked and linked.choices == choices and linked.digest != digest:
        other = DECIDED_BY[name][0]
        tell(f"This link was made with {other} than this server shows: what you see differs from what its maker saw.")
    st.session_state["digests"][name] = _ContentDigest(digest, choices, linked=False)


def settle(field: str, replacement: Any) -> None:
    """Replace the value of a field because it does not exist. If a link asked for it, there is a notice."""
    old, choice = value(field), CHOICES[field]
    if old != replacement and field in st.session_state["from_link"]:
        now = "nothing is chosen" if replacement is None else f"{choice.link}={links.write(replacement)} is shown"
        tell(f"This link asks for {choice.link}={links.write(old)[:_DIGITS]}, which does not exist: {now}.")
        st.session_state["from_link"].discard(field)
    _replace(choice.part, {choice.name: replacement})


def tell(notice: str) -> None:
    """Have `publish` show a notice above the page."""
    st.session_state["notices"].append(notice)


def begin_page() -> None:
    """Call when the whole page is drawn: notices stay there until something else is chosen."""
    current()
    st.session_state["notices"][:0] = st.session_state["shown_notices"]
    st.session_state["shown_notices"] = []


def choice(field: str, count: int) -> int | None:
    """A field that chooses one of `count` things; None if it chooses none, or one that does not exist."""
    if value(field) is not None and not 0 <= value(field) < count:
        settle(field, None)
    return value(field)


def texts(field: str, separator: str = ",") -> tuple[str, ...]:
    """The texts in a field that separates them by commas, or otherwise."""
    return tuple(filter(None, (part.strip() for part in value(field).split(separator.strip(" ")))))


def write_link() -> None:
    """Write the selection to the URL, without defaults. The server keeps texts that are too long for it."""
    changed = {name: value(choice.path) for name, choice in LINKS.items() if value(choice.path) != choice.default}
    values = {name: links.write(content) for name, content in changed.items() if links.fits(content)}
    values |= {
        name: f"@{cache.keep_text(content)}"
        for name, content in changed.items()
        if name not in values and isinstance(content, str)
    }
    digests = st.session_state["digests"]
    values |= {name: shown.digest for name, shown in digests.items() if shown.choices == _choices_of(name)}
    if dict(st.query_params) != values:
        st.query_params.from_dict(values)


def publish() -> None:
    """Write the link, and show all notices here in one box."""
    write_link()
    notices = st.session_state["notices"]
    if notices:
        st.warning(say.words("- {}\n" * len(notices) if len(notices) > 1 else "{}", *notices), icon=":material/link:")
    st.session_state["shown_notices"] += notices
    st.session_state["notices"] = []


def choose_set(name: str) -> None:
    """Ask the questions of this set wherever questions are asked."""
    update("questions", set=name)
    update("probes", sets=name)
    if current().text.source is TextSource.QUESTION:
        update("text", item=0)


def open_screen(screen: str) -> None:
    """Go to another screen, named as in the URL."""
    st.switch_page(st.Page(lambda: None, title=screen, url_path=screen))  # Streamlit knows pages by their path


def fits_url(field: str) -> bool:
    """Whether a text is short enough to be part of a link."""
    return links.fits(value(field))


def session() -> str:
    """The id of this session: of a page that is open in a browser."""
    return get_script_run_ctx().session_id


def widget_key(field: str, shown: Any) -> str:
    """The key of a field's widget, set to show a value; pass `take` as the widget's on_change."""
    return shown_key(f"widget_{CHOICES[field].link}", shown)


def shown_key(key: str, shown: Any) -> str:
    """The key of a widget that is not of a field, set to show a value."""
    screen = get_script_run_ctx().page_script_hash
    drawn = st.session_state.setdefault("drawn", {})
    # On another screen it is another widget.
    if st.session_state.get(key, _NOTHING) != shown or drawn.get(key) != screen:
        st.session_state[key], drawn[key] = shown, screen
    return key


def widget_value(field: str) -> Any:
    return st.session_state[f"widget_{CHOICES[field].link}"]


def take(field: str) -> None:
    """Put the value of a field's widget into the selection."""
    put(field, widget_value(field))


def access() -> Access:
    """The stores that this session has open."""
    return st.session_state.setdefault("access", Access())


def session_list(name: str) -> list[Any]:
    """A list that belongs to this session and is in no link; empty at first."""
    return st.session_state.setdefault(f"kept_{name}", [])
