"""What all sessions of the server share besides results: loaded checkpoints, long texts, questions, costs."""

from __future__ import annotations

import gc
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import streamlit as st

from app.server import owner, results
from app.server.results import Key, ResultCache
from app.server.uploads import PREFIX, Uploads
from lm2 import files
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.spec import RunSpec
from lm2.tasks import stories
from lm2.weights.bundled import bundled_names, files_of

if TYPE_CHECKING:
    from lm2.weights.checkpoint import Checkpoint
    from probes.sweeps.spec import SweepSpec
    from probes.sweeps.sweep import Prediction

_RUN_BYTES = 256 * 1024**2
"""What one run may capture of all blocks; beyond it, only the chosen block is captured."""

_WORKING_BYTES = 2 * 1024**3
"""What running one segment may take: all sessions share the machine."""

_UPLOAD_BYTES = 8 * 1024**3
"""What all uploaded checkpoints may take on the disk."""

_TEXT_BYTES = 64 * 1024**2
"""What all texts that are too long for a link may take."""

_SITES = (Site.READ_PATTERN, Site.WRITE_PATTERN, Site.BANK_PRE, Site.BANK_POST)


def checkpoint(name: str, device: str, dtype: str) -> Checkpoint:
    """Load a checkpoint once per name, device and dtype, and again when its files have changed.

    TransformerLens takes seconds to import, so it is imported here, after the first paint. Raises ValueError for a
    checkpoint that cannot be opened, and for a path outside the folders that the server's owner opens to visitors.
    """
    path = _path(name)
    try:
        return _checkpoint(name, device, dtype, files.state(*files_of(path)), path)
    except ValueError as error:
        raise ValueError(owner.without_folders(str(error))) from error


@st.cache_resource(max_entries=2, show_spinner=False)
def _checkpoint(name: str, device: str, dtype: str, state: files.State, _path: str) -> Checkpoint:
    from lm2.weights.checkpoint import load

    checkpoint = replace(load(_path, device, dtype), name=name, working_bytes=_WORKING_BYTES)
    gc.freeze()  # Streamlit collects garbage after every rerun; walking the imported libraries each time takes 0.2 s
    return checkpoint


def _path(name: str) -> str:
    """What `lm2.load` takes for a name. Raises ValueError for a checkpoint that visitors may not open."""
    if name.startswith(PREFIX):
        return str(uploads().path(name))
    return name if name in bundled_names() else str(owner.allowed_path(name))


@st.cache_resource(show_spinner=False)
def uploads() -> Uploads:
    """The checkpoints that visitors of this server have uploaded."""
    return Uploads(_UPLOAD_BYTES)


@st.cache_resource(show_spinner=False)
def _texts() -> ResultCache:
    return ResultCache(_TEXT_BYTES)


def keep_text(text: str) -> str:
    """Keep a text while there is room, and return its digest, which stands for it in a link."""
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    _texts().put((mark,), text)
    return mark


def kept_text(mark: str) -> str | None:
    """The text that a mark stands for; None if it is not kept any more."""
    return _texts().get((mark,))


def spec_for(
    checkpoint: Checkpoint, text: str, segment_length: int | None, layer: int, bos: bool | None = None
) -> RunSpec:
    """The run that the screens show: all memory sites of all blocks, or of block `layer` alone if all are too much.

    Raises ValueError as `run` does.
    """
    return _spec_for(checkpoint.name, checkpoint.digest, text, segment_length, layer, bos, checkpoint)


# Counting a long text's tokens takes a second, and each click needs the spec.
@st.cache_resource(max_entries=64, show_spinner=False)
def _spec_for(
    name: str, digest: str, text: str, segment_length: int | None, layer: int, bos: bool | None, _checkpoint: Checkpoint
) -> RunSpec:
    from lm2.runs.runner import predicted_bytes

    gates = (gate.site for gate in _checkpoint.config.memory.design.gates.values())
    sites = [site for site in (*_SITES, *gates) if site.layers(_checkpoint.config)]
    full = RunSpec(
        checkpoint=name,
        text=text,
        segment_length=segment_length,
        captures=tuple(Capture(site) for site in sites),
        bos=bos,
    )
    if predicted_bytes(_checkpoint, full) <= _RUN_BYTES:
        return full
    # After the first segment, each begins with the bank that the one before it has left.
    captures = tuple(Capture(site, layers=(layer,), segments=(0,) if site is Site.BANK_PRE else None) for site in sites)
    return replace(full, captures=captures)


def answers(task: int) -> tuple[str, ...]:
    """All answers to a task's questions, in the real stories; without a data folder, in 20 simulated ones."""
    return _answers(task, stories.origin())


@st.cache_data(show_spinner=False)
def _answers(task: int, origin: files.State) -> tuple[str, ...]:
    read = stories.real_stories(task) or [stories.pick(task, index).story for index in range(20)]
    return tuple(sorted({question.answer for story in read for question in story.questions}))


def prediction(checkpoint: Checkpoint, spec: SweepSpec) -> Prediction:
    """What a sweep will cost, measured once. Raises ValueError as `predict` does."""
    return _prediction(results.key_of(checkpoint, spec.digest), spec, checkpoint)


@st.cache_resource(max_entries=256, show_spinner=False)
def _prediction(key: Key, _spec: SweepSpec, _checkpoint: Checkpoint) -> Prediction:
    from probes.sweeps.sweep import predict

    return predict(_spec, _checkpoint)
