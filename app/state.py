"""The door to session state and to the URL.

A Selection is everything that decides what is on the screen. It is read from the URL when a session starts and
written back after each run of the script, so that a copied link opens the same view.
"""

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app import cache, links, say
from app.toggles import Toggles

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
    """Pasted."""
    uploaded: str = ""
    """The text of an uploaded file."""
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
_ON, _TASKS, _SEEDS = ("on", "off"), range(1, 11), range(2**31)
ALLOWED = {
    "device": ("auto", "cpu", "cuda", "mps"), "dtype": ("float32", "bfloat16"), "length": range(1_000_001),
    "task": _TASKS, "index": range(10_000), "question": range(-1, 20), "seed": range(1_000_001), "statements": range(1, 61),
    "head": links.Form(r"mean|max|[0-9]{1,4}", "mean, max and the numbers of heads"), "token": _SEEDS, "slot": _SEEDS, "scale": ("linear", "sqrt"), "side": ("read", "wrote"),
    "coloured": ("map", "slot"),
    "gate": ("in", "forget", "out"), "venue": ("icml", "neurips", "iclr", "acl", "aaai", "cvpr", "tmlr", "ieee"), "columns": ("single", "double"),
    "across": range(1, 27), "shared": _ON, "toggling": ("Memory", "Slots", "Heads and gates", "Statements"),
    "ablated": ("Chosen token", "Most changed", "Along the text", "Runs", "Run it again"), "metric": ("official", "exact"),
    "shown": links.Form(r"mean|qa[0-9]{1,2}", "mean, qa1, qa2 and so on"), "at": links.Form(r"[0-9]{1,5}k", "lengths such as 0k and 16k"), "written": range(1, 65), "writes": _ON, "step": range(1, 65),
    "experiment": (
        "policies", "gates", "swap", "permutation", "provenance", "decoding", "attribution", "forgetting", "capacity", "overwrites", "interference",
        "erasure", "slots",
    ),
    "exam_task": _TASKS, "exam_questions": range(2, 2_001), "exam_seed": _SEEDS,
    "grid": ("slots", "memory_heads", "attention_heads", "blocks", "gates"), "replacement": ("resample", "mean", "initial", "zero"),
    "back": range(16), "route": ("exact", "answer"), "ordered": ("logit_difference", "log_probability", "kl", "cross_entropy", "exact"),
    "screened": range(1_001), "effect": ("", "logit_difference", "log_probability", "kl", "cross_entropy", "exact"), "hidden": _ON, "unit": _SEEDS,
    "probe_tasks": _TASKS, "probe_count": range(1, 2_001), "probe_origin": ("simulated", "held out"), "probe_seed": _SEEDS,
    "probe_moment": ("segment", "statement", "question", "token"), "probe_family": ("mass-mean", "LDA", "ridge", "logistic"),
    "probe_folds": range(2, 21), "probe_permutations": range(100_000),
    "donor_task": range(11), "donor_index": range(-1, 1_000_001), "donor_question": range(-1, 20),
    "freeze_at": _SEEDS, "since": _SEEDS, "other": range(1, 10_000), "others": range(1, 17),
    **dict.fromkeys(
        ("input_gate", "forget_gate", "output_gate"), links.Form(r"|0|1|0?\.[0-9]{1,6}|[0-9.]{1,7}e-[0-9]{1,2}", "numbers from 0 to 1")
    ),
}  # fmt: skip
"""The values of fields that have a closed set. Other numbers are -1 to 2^31 - 1; other texts are free."""

_OF_TEXT = ("source", "task", "index", "question", "asked", "seed", "statements", "text", "uploaded")
DECIDED_BY = {
    "context": ("another text", _OF_TEXT), "weights": ("another model", ("checkpoint",)),
    "donor": ("another donor", (*_OF_TEXT, "donor_source", "donor_task", "donor_index", "donor_question", "donor_text")),
    "questions": ("other questions", ("exam_task", "exam_questions")), "evaluation": ("another evaluation", ("results",)),
}  # fmt: skip
"""What a link names by its digest, in words where it differs, and the fields that choose it here; others' files and folders may hold something else."""
_DIGITS = 12
_DIGEST = re.compile(f"[0-9a-f]{{{_DIGITS}}}")
_MARK = re.compile(r"@[0-9a-f]{64}")
"""What stands in a link for a text that is too long for it: longer than a text that is written as it is."""


@dataclass(frozen=True)
class _Known:
    """A digest of what is shown, or was when a link was made."""

    digest: str
    chosen: tuple[Any, ...]
    """The fields that chose it."""
    linked: bool
    """Whether a link says so, and nothing has been compared with it yet."""


def current() -> Selection:
    """This session's selection; what the URL says when the session begins."""
    if "selection" not in st.session_state:
        _begin(dict(st.query_params))
    return st.session_state["selection"]


def update(**changes: Any) -> Selection:
    """Replace fields of the selection; what was told of the link has been heard."""
    st.session_state["selection"] = dataclasses.replace(current(), **changes)
    st.session_state["from_link"].difference_update(changes)
    st.session_state["told"] = []
    return st.session_state["selection"]


def _begin(written: dict[str, str]) -> None:
    """Begin a session by a link. What of it cannot be shown is told."""
    digests = {name: written.pop(name) for name in DECIDED_BY if _DIGEST.fullmatch(written.get(name, ""))}
    free = [name for name, field in _FIELDS.items() if isinstance(field.default, str) and name not in ALLOWED]
    marks = {name: written.pop(name)[1:] for name in free if _MARK.fullmatch(written.get(name, ""))}
    kept = {name: cache.kept_text(mark) for name, mark in marks.items()}
    link = links.read(written, _FIELDS, ALLOWED)
    values = link.values | {name: text for name, text in kept.items() if text is not None}
    if values.get("source") is Source.FILE and "uploaded" not in values and "text" in values:  # links of before pasted and uploaded texts were parted
        values["uploaded"] = values.pop("text")
    st.session_state["selection"] = Selection(**values)
    st.session_state["from_link"] = set(values)
    st.session_state["digests"] = {name: _Known(digest, _choosing(name), linked=True) for name, digest in digests.items()}
    lost = [f"This link's {name} is too long to be in it, and the server does not have it any more." for name in kept if kept[name] is None]
    st.session_state["notices"], st.session_state["told"] = [*link.problems, *lost], []


def _choosing(what: str) -> tuple[Any, ...]:
    return tuple(getattr(current(), field) for field in DECIDED_BY[what][1])


def shows(what: str, content: str) -> None:
    """What the page shows, of `DECIDED_BY`: links name it by its digest. Told where the link that opened this session names another."""
    chosen, (words, _) = _choosing(what), DECIDED_BY[what]
    digest, known = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS], st.session_state["digests"].get(what)
    if known is not None and known.linked and known.chosen == chosen and known.digest != digest:
        tell(f"This link was made with {words} than this server shows: what you see differs from what its maker saw.")
    st.session_state["digests"][what] = _Known(digest, chosen, linked=False)


def settle(field: str, value: Any) -> None:
    """A field takes another value, since what it had is not there. Told where a link asked for that."""
    asked = getattr(current(), field)
    if asked != value and field in st.session_state["from_link"]:
        shown = "nothing is chosen" if value is None else f"{field}={links.write(value)} is shown"
        tell(f"This link asks for {field}={links.write(asked)[:_DIGITS]}, which is not there: {shown}.")
        st.session_state["from_link"].discard(field)
    st.session_state["selection"] = dataclasses.replace(current(), **{field: value})


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
    chosen = getattr(current(), field)
    if chosen is not None and not 0 <= chosen < count:
        settle(field, None)
    return getattr(current(), field)


def texts(field: str) -> tuple[str, ...]:
    """What a field holds that is several texts with commas between."""
    return tuple(filter(None, (part.strip() for part in getattr(current(), field).split(","))))


def write_link() -> None:
    """Write the selection to the URL, leaving out what is at its default. The server keeps texts that are too long for it."""
    chosen = current()
    changed = {name: getattr(chosen, name) for name in _FIELDS if getattr(chosen, name) != _FIELDS[name].default}
    values = {name: links.write(value) for name, value in changed.items() if links.fits(value)}
    values |= {name: f"@{cache.keep_text(value)}" for name, value in changed.items() if name not in values and isinstance(value, str)}
    values |= {what: known.digest for what, known in st.session_state["digests"].items() if known.chosen == _choosing(what)}
    if dict(st.query_params) != values:
        st.query_params.from_dict(values)


def publish() -> None:
    """Write the link, and draw here what there is to tell."""
    write_link()
    for notice in st.session_state["notices"]:
        st.warning(say.words("{}", notice), icon=":material/link:")
    st.session_state["told"] += st.session_state["notices"]
    st.session_state["notices"] = []


def open_screen(screen: str, **changes: Any) -> None:
    """Change the selection and go to another screen, named as in the URL."""
    update(**changes)
    st.switch_page(st.Page(lambda: None, title=screen, url_path=screen))  # pages are known by their path


def fits_url(field: str) -> bool:
    """Whether a text is short enough to be part of a link."""
    return links.fits(getattr(current(), field))


def session() -> str:
    """Which session this is: a page that is open in a browser."""
    return get_script_run_ctx().session_id


def widget_key(field: str, value: Any) -> str:
    """The session key of a field's widget, which will show `value`; pass `take` as the widget's on_change."""
    key, screen = f"widget_{field}", get_script_run_ctx().page_script_hash
    drawn = st.session_state.setdefault("drawn", {})
    if st.session_state.get(key, _NOTHING) != value or drawn.get(key) != screen:  # another screen's widget of this key is not this one
        st.session_state[key], drawn[key] = value, screen
    return key


def take(field: str) -> None:
    """The user has moved a field's widget: the selection follows."""
    update(**{field: st.session_state[f"widget_{field}"]})


def kept(name: str) -> list[Any]:
    """A list of this session's own, empty at first. It is no part of a link."""
    return st.session_state.setdefault(f"kept_{name}", [])
