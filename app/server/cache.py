"""What all sessions of the server share beside results: loaded checkpoints, kept texts, questions, costs."""

import gc
import hashlib
from dataclasses import dataclass, replace

import streamlit as st

from app.server import owner, results
from app.server.results import Key, ResultCache
from app.server.uploads import PREFIX, Uploads
from lm2 import files
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.spec import RunSpec
from lm2.tasks import stories
from lm2.tasks.babi import Prompt
from lm2.weights.bundled import bundled_names, files_of

_RUN_BYTES = 256 * 1024**2
"""What one run may keep with all blocks; beyond it, only the chosen block is captured."""

_WORKING_BYTES = 2 * 1024**3
"""What reading one segment may take: all sessions share the machine."""

_UPLOAD_BYTES = 8 * 1024**3
"""What uploaded checkpoints may take on the disk in all."""

_TEXT_BYTES = 64 * 1024**2
"""What texts may take in all that are too long for a link."""

_SITES = (Site.READ_PATTERN, Site.WRITE_PATTERN, Site.BANK_PRE, Site.BANK_POST)


def checkpoint(name: str, device: str, dtype: str) -> "Checkpoint":
    """Load a checkpoint once per name, device and dtype, and again where its files are others than they were.

    TransformerLens takes seconds to import, so it is imported here, after the first paint. Raises ValueError where it
    cannot be opened, and for a path outside the folders that the server's owner opens to visitors.
    """
    place = _place(name)
    try:
        return _checkpoint(name, device, dtype, files.state(*files_of(place)), place)
    except ValueError as error:
        raise ValueError(owner.without_folders(str(error))) from error


@st.cache_resource(max_entries=2, show_spinner=False)
def _checkpoint(name: str, device: str, dtype: str, state: files.State, _place: str) -> "Checkpoint":
    from lm2.weights.checkpoint import load

    loaded = replace(load(_place, device, dtype), name=name, working_bytes=_WORKING_BYTES)
    gc.freeze()  # Streamlit collects garbage after every rerun; walking the imported libraries each time takes 0.2 s
    return loaded


def _place(name: str) -> str:
    """Where the checkpoint of a name is, as `lm2.load` takes it. Raises ValueError where a visitor may not open it."""
    if name.startswith(PREFIX):
        return str(uploads().path(name))
    return name if name in bundled_names() else str(owner.place(name))


@st.cache_resource(show_spinner=False)
def uploads() -> Uploads:
    """The checkpoints that visitors of this server have uploaded."""
    return Uploads(_UPLOAD_BYTES)


@dataclass(frozen=True)
class LongText:
    """A text that is too long for a link."""

    text: str

    @property
    def bytes(self) -> int:
        """Bytes held at most."""
        return 4 * len(self.text)


@st.cache_resource(show_spinner=False)
def _texts() -> ResultCache:
    return ResultCache(_TEXT_BYTES)


def keep_text(text: str) -> str:
    """Keep a text while there is room; what stands for it in a link, which nobody can guess who does not have the
    text."""
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    _texts().put((mark,), LongText(text))
    return mark


def kept_text(mark: str) -> str | None:
    """The text that a link stands for; None where it is not kept any more."""
    found = _texts().get((mark,))
    return None if found is None else found.text


def spec_for(loaded: "Checkpoint", text: str, segment_length: int | None, layer: int) -> RunSpec:
    """The run that the screens show: all memory sites of all blocks, or of block `layer` alone where all would be too
    much.

    Raises ValueError as `run` does.
    """
    return _spec_for(loaded.name, loaded.digest, text, segment_length, layer, loaded)


# Counting a long text's tokens takes a second, and each click asks for its run.
@st.cache_resource(max_entries=64, show_spinner=False)
def _spec_for(
    name: str, digest: str, text: str, segment_length: int | None, layer: int, _loaded: "Checkpoint"
) -> RunSpec:
    from lm2.runs.runner import predicted_bytes

    gates = (gate.site for gate in _loaded.config.memory.design.gates.values())
    sites = [site for site in (*_SITES, *gates) if site.layers(_loaded.config)]
    full = RunSpec(
        checkpoint=name, text=text, segment_length=segment_length, captures=tuple(Capture(site) for site in sites)
    )
    if predicted_bytes(_loaded, full) <= _RUN_BYTES:
        return full
    # Of the banks that segments begin with, only the first is no bank that a segment has left.
    only = tuple(Capture(site, layers=(layer,), segments=(0,) if site is Site.BANK_PRE else None) for site in sites)
    return replace(full, captures=only)


def answers(task: int) -> tuple[str, ...]:
    """What a task's questions are answered with in the stories there are; without a data folder, in 20 simulated
    ones."""
    return _answers(task, stories.origin())


@st.cache_data(show_spinner=False)
def _answers(task: int, origin: files.State) -> tuple[str, ...]:
    found = stories.real_stories(task) or [stories.pick(task, index).story for index in range(20)]
    return tuple(sorted({question.answer for story in found for question in story.questions}))


def questions(task: int, count: int) -> tuple[Prompt, ...]:
    """As `lm2.tasks.stories.questions`, put together once: thousands of long stories take half a minute. Raises
    ValueError as it does."""
    return _questions(task, count, stories.origin())


@st.cache_resource(max_entries=16, show_spinner="Collecting the questions ...")
def _questions(task: int, count: int, origin: files.State) -> tuple[Prompt, ...]:
    return stories.questions(task, count)


def prediction(loaded: "Checkpoint", spec: "SweepSpec") -> "Prediction":
    """What a sweep will cost, tried out once. Raises ValueError as `predict` does."""
    return _prediction(results.key_of(loaded, spec.digest), spec, loaded)


@st.cache_resource(max_entries=256, show_spinner=False)
def _prediction(key: Key, _spec: "SweepSpec", _loaded: "Checkpoint") -> "Prediction":
    from probes.sweeps.sweep import predict

    return predict(_spec, _loaded)


def named(loaded: "Checkpoint", task: int, what: str) -> tuple[str, ...]:
    """The targets that "*" stands for in a few simulated stories of a task; none where these hold nothing of the
    kind."""
    return _named(loaded.digest, stories.origin(), task, what, loaded)


@st.cache_data(show_spinner=False)
def _named(digest: str, origin: files.State, task: int, what: str, _loaded: "Checkpoint") -> tuple[str, ...]:
    from probes.features.documents import Documents
    from probes.features.examples import Examples, RowPosition
    from probes.features.target_names import expand

    few = Examples.of(_loaded, Documents(tasks=(task,), count=20), RowPosition.QUESTION)
    try:
        return tuple(map(str, expand((what,), few)))
    except ValueError:
        return ()
