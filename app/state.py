"""The door to session state and to the URL.

A Selection is everything that decides what is on the screen. It is read from the URL when a session starts and
written back after each run of the script, so that a copied link opens the same view.
"""

import base64
import dataclasses
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.toggles import Toggles, numbers, ranges

_LONGEST_TEXT_IN_URL = 6_000
_NOTHING = object()


class Source(Enum):
    """Where the text comes from."""

    STORY = "story"
    SIMULATED = "simulated"
    PASTED = "text"
    FILE = "file"


class Kind(Enum):
    """How a question of a story is put to the model."""

    OWN_SEGMENT = "own segment"
    SAME_TEXT = "same text"
    WHOLE_STORY = "whole story"


class Patched(Enum):
    """What is carried over from another story's run."""

    BANK = "bank"
    READ = "read"
    STREAM = "stream"


class Probe(Enum):
    """Which tokens are read again and again, from one bank after the other."""

    QUESTION = "question"
    SEGMENT = "segment"


@dataclass(frozen=True, kw_only=True)
class Selection(Toggles):
    """One view of the workbench, with what is toggled in it. Field names are the names in the URL."""

    checkpoint: str = "babi-lm2-qa1"
    device: str = "auto"
    dtype: str = "float32"
    length: int = 0
    """Segment length in tokens; 0, the checkpoint's own."""
    source: Source = Source.STORY
    task: int = 1
    index: int = 0
    question: int = -1
    """Which question of the story; -1, the last."""
    asked: Kind = Kind.OWN_SEGMENT
    seed: int = 0
    statements: int = 10
    text: str = ""
    layer: int = -1
    """Block; -1, the last that has a memory."""
    head: str = "mean"
    """A memory head's number, "mean" or "max"."""
    token: int | None = None
    slot: int | None = None
    scale: str = "sqrt"
    """Of the maps' colours: "linear" or "sqrt"."""
    side: str = "read"
    """Whether the text is coloured by who "read" or who "wrote" the chosen slot."""
    coloured: str = "map"
    """Whether the text's colours end where those of the map do, "map", or at the chosen slot's largest weight, "slot"."""
    gate: str = "forget"
    printed: str = ""
    """The panel that is handed out for print; empty, the screen's first."""
    venue: str = "icml"
    """Where figures are to be printed."""
    columns: str = "single"
    """Columns of its text that they span."""
    across: int = 2
    """Panels in a row of the figure that is being composed."""
    shared: str = "off"
    """Whether its maps have one colour scale: "on" or "off"."""
    toggling: str = "Memory"
    """Which of the Ablations screen's toggles are shown."""
    ablated: str = "Chosen token"
    """Which part of what they have changed."""
    segment: int = -1
    """-1, the last."""
    results: str = ""
    """Folder of an evaluation; empty, the bundled one."""
    metric: str = "official"
    shown: str = "mean"
    """Task of the benchmark's curves: "mean" over tasks, or "qa1" ..."""
    at: str = "0k"
    """Length of the benchmark's table of tasks."""
    rival: str = ""
    """Two models whose difference is shown, as "A - B"; empty, the first two."""
    written: int = 24
    """Tokens that the model writes behind the context."""
    writes: str = "on"
    """Whether the text shown was written with the bank updated, "on", or not, "off"."""
    frozen: int = -1
    """Segment from which on nothing is written where writes are off; -1, the context's last."""
    step: int = 1
    """Which of the tokens that the model wrote."""
    probe: Probe = Probe.QUESTION
    before: int = -1
    """Segments that have written to the first of two banks; -1, those before the context's last."""
    after: int = -1
    """Segments that have written to the second; -1, all."""
    experiment: str = "policies"
    exam_task: int = 1
    """Task of the held-out questions of Experiments and Sweeps."""
    exam_questions: int = 64
    exam_seed: int = 0
    grid: str = "slots"
    """What a sweep's units are."""
    replacement: str = "resample"
    """What takes their place; gates are clamped instead."""
    back: tuple[int, ...] = (0,)
    """Segments in which they are replaced, counted back from the answer's own."""
    route: str = "exact"
    """Whether everything behind a unit is computed anew, "exact", or the "answer" alone."""
    ordered: str = "logit_difference"
    """Metric that puts a sweep's units in order."""
    screened: int = 0
    """Units for whose sake the others are only estimated; 0, all are measured."""
    effect: str = ""
    """Metric that is shown; empty, the one that orders."""
    hidden: str = "on"
    """Whether cells that are not significant are hidden: "on" or "off"."""
    unit: int | None = None
    """The unit whose documents are shown."""
    probe_tasks: tuple[int, ...] = (1,)
    """bAbI tasks whose documents are read by linear probes."""
    probe_count: int = 200
    """Documents of each."""
    probe_origin: str = "simulated"
    probe_seed: int = 0
    """For stories, folds, control labels and whatever else is drawn."""
    probe_moment: str = "segment"
    """Where in a document the rows are that are read."""
    probe_sources: str = "bank:mean, bank:sketch256"
    """What is read, with commas between."""
    probe_targets: str = "place of *"
    """What is read off it."""
    probe_baselines: str = "tokens, embedding, position, untrained, reset"
    probe_family: str = "logistic"
    probe_folds: int = 5
    probe_permutations: int = 999
    probe_strengths: str = "0.001, 0.01, 0.1, 1"
    probe_labels: str = ""
    """A CSV file with labels of one's own; empty, there are none."""
    probe_target: str = ""
    """The target that is shown; empty, the first."""
    probe_source: str = ""
    """The source whose cell is open; empty, the first."""
    probe_segment: int = -1
    """The segment of that cell; -1, all together."""
    donor_source: Source = Source.STORY
    donor_task: int = 0
    """0, the context's."""
    donor_index: int = -1
    """Story or seed; -1, the first behind the context's with other answers."""
    donor_question: int = -1
    donor_text: str = ""
    patched: Patched = Patched.BANK
    patched_slots: tuple[int, ...] = ()
    """None named, all."""
    patched_layer: int = -1
    """-1, the last that has the site."""


_FIELDS = {field.name: field for field in dataclasses.fields(Selection)}


def current() -> Selection:
    """This session's selection; what the URL says when the session begins."""
    if "selection" not in st.session_state:
        st.session_state["selection"] = _from_url(dict(st.query_params))
    return st.session_state["selection"]


def update(**changes: Any) -> Selection:
    """Replace fields of the selection."""
    st.session_state["selection"] = dataclasses.replace(current(), **changes)
    return st.session_state["selection"]


def choice(field: str, count: int) -> int | None:
    """A field that chooses one of `count` things; None where it chooses none, or one that is not there."""
    chosen = getattr(current(), field)
    return chosen if chosen is not None and 0 <= chosen < count else None


def texts(field: str) -> tuple[str, ...]:
    """What a field holds that is several texts with commas between."""
    return tuple(filter(None, (part.strip() for part in getattr(current(), field).split(","))))


def publish() -> None:
    """Write the selection to the URL, leaving out what is at its default."""
    values = {name: _write(getattr(current(), name)) for name in _FIELDS if getattr(current(), name) != _FIELDS[name].default}
    if len(values.get("text", "")) > _LONGEST_TEXT_IN_URL:
        del values["text"]
    if dict(st.query_params) != values:
        st.query_params.from_dict(values)


def open_screen(screen: str, **changes: Any) -> None:
    """Change the selection and go to another screen, named as in the URL."""
    update(**changes)
    st.switch_page(st.Page(lambda: None, title=screen, url_path=screen))  # pages are known by their path


def text_fits_url() -> bool:
    """Whether the pasted text is short enough to be part of a link."""
    return len(_write(current().text)) <= _LONGEST_TEXT_IN_URL


def session() -> str:
    """Which session this is: a page that is open in a browser."""
    return get_script_run_ctx().session_id


def widget_key(field: str, value: Any) -> str:
    """The session key of a field's widget, which will show `value`; pass `take` as the widget's on_change."""
    key = f"widget_{field}"
    if st.session_state.get(key, _NOTHING) != value:
        st.session_state[key] = value
    return key


def take(field: str) -> None:
    """The user has moved a field's widget: the selection follows."""
    update(**{field: st.session_state[f"widget_{field}"]})


def kept(name: str) -> list[Any]:
    """A list of this session's own, empty at first. It is no part of a link."""
    return st.session_state.setdefault(f"kept_{name}", [])


def _write(value: Any) -> str:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return ranges(value)
    if isinstance(value, str) and len(value) > 40:
        return "~" + base64.urlsafe_b64encode(zlib.compress(value.encode(), 9)).decode()
    return str(value)


def _from_url(values: dict[str, str]) -> Selection:
    """A link's selection; fields that do not make sense keep their defaults, and `problems` tells of them."""
    read: dict[str, Any] = {}
    for name, written in values.items():
        if name in _FIELDS:
            try:
                read[name] = _read(written, _FIELDS[name].default)
            except (ValueError, zlib.error):
                st.session_state.setdefault("link_problems", []).append(f"{name}={written[:40]}")
    return Selection(**read)


def link_problems() -> list[str]:
    """Parts of the link that made no sense; told once."""
    return st.session_state.pop("link_problems", [])


def _read(written: str, default: Any) -> Any:
    if isinstance(default, Enum):
        return type(default)(written)
    if isinstance(default, tuple):
        return numbers(written)
    if default is None or isinstance(default, int):
        return int(written)
    if written.startswith("~"):
        # Bounded: a few kB of zlib can otherwise unpack to gigabytes.
        return zlib.decompressobj().decompress(base64.urlsafe_b64decode(written[1:]), 1_000_000).decode()
    return written
