"""The only caches: loaded checkpoints and what was computed with them, shared by all sessions of the server."""

import atexit
import gc
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import streamlit as st
from streamlit import runtime

from app.server import owner
from app.server.jobs import Job, JobPhase, Jobs
from app.server.uploads import PREFIX, Uploads
from lm2 import files
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import Intervention
from lm2.runs.spec import RunSpec
from lm2.tasks import stories
from lm2.tasks.babi import Prompt
from lm2.weights.bundled import bundled_names, files_of

_STORE_BYTES = 1024**3
"""What the store of results may hold in all."""

_RUN_BYTES = 256 * 1024**2
"""What one run may keep with all blocks; beyond it, only the chosen block is captured."""

_WORKING_BYTES = 2 * 1024**3
"""What reading one segment may take: all sessions share the machine."""

_UPLOAD_BYTES = 8 * 1024**3
"""What uploaded checkpoints may take on the disk in all."""

_SHORT_SEGMENTS, _SHORT_WORK = 250, 2e10
"""Segments, and tokens x parameters, up to which a run is short: some seconds."""

_TEXT_BYTES = 64 * 1024**2
"""What texts may take in all that are too long for a link."""

_LAST_SECONDS = 10.0
"""How long the server waits for its jobs as it ends."""

_JOBS = 64
"""How many ended jobs are remembered, with what they found."""

_SITES = (
    Site.READ_PATTERN,
    Site.WRITE_PATTERN,
    Site.GATE_IN,
    Site.GATE_FORGET,
    Site.GATE_OUT,
    Site.BANK_PRE,
    Site.BANK_POST,
)


def checkpoint(name: str, device: str, dtype: str) -> "Checkpoint":  # noqa: F821
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
def _checkpoint(name: str, device: str, dtype: str, state: files.State, _place: str) -> "Checkpoint":  # noqa: F821
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


class Result(Protocol):
    """Something computed, which knows its size."""

    @property
    def bytes(self) -> int: ...


Made = TypeVar("Made", bound=Result)
Key = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CachedSources:
    """What other texts lend to runs."""

    given: "Donations"  # noqa: F821

    @property
    def bytes(self) -> int:
        """Bytes held in tensors, some of which serve many places."""
        return sum(
            {id(value): value.nbytes for value in (*self.given.values.values(), *self.given.banks.values())}.values()
        )


class ResultCache:
    """Results by what made them: the spec's digest, that of the weights, and more. The least recently used ones go
    first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._results: OrderedDict[Key, Result] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Result | None:
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
            return self._results.get(key)

    def put(self, key: Key, result: Result) -> None:
        with self._lock:
            self._results[key] = result
            while sum(held.bytes for held in self._results.values()) > self._limit and len(self._results) > 1:
                self._results.popitem(last=False)


@st.cache_resource(show_spinner=False)
def _store() -> ResultCache:
    return ResultCache(_STORE_BYTES)


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


def spec_for(loaded: "Checkpoint", text: str, segment_length: int | None, layer: int) -> RunSpec:  # noqa: F821
    """The run that the screens show: all memory sites of all blocks, or of block `layer` alone where all would be too
    much.

    Raises ValueError as `run` does.
    """
    return _spec_for(loaded.name, loaded.digest, text, segment_length, layer, loaded)


@st.cache_resource(
    max_entries=64, show_spinner=False
)  # counting a long text's tokens takes a second, and each click asks for its run
def _spec_for(
    name: str, digest: str, text: str, segment_length: int | None, layer: int, _loaded: "Checkpoint"
) -> RunSpec:  # noqa: F821
    from lm2.runs.runner import predicted_bytes

    sites = [site for site in _SITES if site.layers(_loaded.config)]
    full = RunSpec(
        checkpoint=name, text=text, segment_length=segment_length, captures=tuple(Capture(site) for site in sites)
    )
    if predicted_bytes(_loaded, full) <= _RUN_BYTES:
        return full
    # Of the banks that segments begin with, only the first is no bank that a segment has left.
    only = tuple(Capture(site, layers=(layer,), segments=(0,) if site is Site.BANK_PRE else None) for site in sites)
    return replace(full, captures=only)


def trace(loaded: "Checkpoint", spec: RunSpec, session: str) -> "Trace | Job":  # noqa: F821
    """The trace of a spec, where it is in the store; else the job that runs it, the same for all sessions that ask for
    it.

    A short run begins at once, long ones are run one after the other. Raises ValueError as `run` does.
    """
    key, runs = _key(loaded, "trace", spec), _runs()
    job = runs.find(key)
    found = _store().get(key)
    if found is not None:
        runs.leave(session)
        return found
    if job is not None and not job.deserted:
        if job.cancelling or job.phase is JobPhase.FAILED:
            return job
        if job.phase is JobPhase.FINISHED:  # the store had no room for it any more
            runs.forget(key)
    return runs.ask(key, lambda job: _run(loaded, spec, job), session=session, at_once=_short(loaded, spec))


def forget_run(loaded: "Checkpoint", spec: RunSpec) -> None:  # noqa: F821
    """That a run failed or was cancelled has been told: who asks again has it run again."""
    _runs().forget(_key(loaded, "trace", spec))


def _run(loaded: "Checkpoint", spec: RunSpec, job: Job) -> None:  # noqa: F821
    """Put a spec's trace into the store; what its interventions take from other texts is kept apart."""
    from lm2.runs.runner import run

    result(loaded, "trace", spec, lambda: run(loaded, spec, on_segment=job.report, sources=_lent(loaded, spec)))


def _short(loaded: "Checkpoint", spec: RunSpec) -> bool:  # noqa: F821
    from lm2.runs.runner import prepare

    tokens, segments = prepare(loaded, spec)
    return len(segments) <= _SHORT_SEGMENTS and len(tokens) * loaded.parameters <= _SHORT_WORK


@st.cache_resource(show_spinner=False)
def _runs() -> Jobs:
    """The runs of texts, which end with the pages that wait for them."""
    return _until_the_end(Jobs(_JOBS, _connected))


def _connected(session: str) -> bool:
    """Whether a session's page is open."""
    return runtime.exists() and runtime.get_instance().is_active_session(session)


def _until_the_end(jobs: Jobs) -> Jobs:
    """A thread that is inside torch as Python ends would end the process with a core dump."""
    atexit.register(jobs.stop, _LAST_SECONDS)
    return jobs


def _lent(loaded: "Checkpoint", spec: RunSpec) -> "Donations | None":  # noqa: F821
    """What other texts lend to a run: the same whichever slots, heads and blocks it is for, so one more of them runs no
    text again."""
    from lm2.runs.runner import source_activations

    def everywhere(change: Intervention) -> Intervention:
        return replace(change, **{place: None for place in ("slots", "heads", "layers") if hasattr(change, place)})

    taking = tuple(everywhere(change) for change in spec.interventions if change.donors)
    if not taking:
        return None
    whole = replace(spec, captures=(), interventions=taking)
    return result(loaded, "lent", whole, lambda: CachedSources(given=source_activations(loaded, whole))).given


def result(loaded: "Checkpoint", what: str, spec: "RunSpec | PatchSpec", make: Callable[[], Made]) -> Made:  # noqa: F821
    """What `make` makes of a spec, made only where it is not in the store; `what` says everything that the spec leaves
    open."""
    key = _key(loaded, what, spec)
    found = _store().get(key)
    if found is None:
        found = make()
        _store().put(key, found)
    return found


def _key(loaded: "Checkpoint", what: str, spec: "RunSpec | PatchSpec") -> Key:  # noqa: F821
    return (what, spec.digest, loaded.digest, loaded.device, loaded.dtype)


def key(loaded: "Checkpoint", spec: "SweepSpec | ProbeSpec | ExplainSpec | ExperimentSpec") -> Key:  # noqa: F821
    """Everything that decides the result of a spec that names stories: the stories that there are, too."""
    return (spec.digest, loaded.digest, loaded.device, loaded.dtype, str(stories.origin()))


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


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The background work of all sessions that is kept to its end, whoever waits for it: sweeps, probes ..."""
    return _until_the_end(Jobs(_JOBS))


def prediction(loaded: "Checkpoint", spec: "SweepSpec") -> "Prediction":  # noqa: F821
    """What a sweep will cost, tried out once. Raises ValueError as `predict` does."""
    return _prediction(key(loaded, spec), spec, loaded)


@st.cache_resource(max_entries=256, show_spinner=False)
def _prediction(key: Key, _spec: "SweepSpec", _loaded: "Checkpoint") -> "Prediction":  # noqa: F821
    from probes.sweeps.sweep import predict

    return predict(_spec, _loaded)


def plan(loaded: "Checkpoint", spec: "ProbeSpec") -> "ProbePlan":  # noqa: F821
    """A probe's rows and labels, laid out once. Raises ValueError as `ProbePlan.of` does, and OSError for a file of
    labels that is not there."""
    return _plan(key(loaded, spec), spec, loaded)


@st.cache_resource(max_entries=16, show_spinner=False)
def _plan(key: Key, _spec: "ProbeSpec", _loaded: "Checkpoint") -> "ProbePlan":  # noqa: F821
    from probes.probing.plan import ProbePlan

    return ProbePlan.of(_spec, _loaded)


def named(loaded: "Checkpoint", task: int, what: str) -> tuple[str, ...]:  # noqa: F821
    """The targets that "*" stands for in a few simulated stories of a task; none where these hold nothing of the
    kind."""
    return _named(loaded.digest, stories.origin(), task, what, loaded)


@st.cache_data(show_spinner=False)
def _named(digest: str, origin: files.State, task: int, what: str, _loaded: "Checkpoint") -> tuple[str, ...]:  # noqa: F821
    from probes.features.documents import Documents
    from probes.features.examples import Examples, RowPosition
    from probes.features.targets import expand

    few = Examples.of(_loaded, Documents(tasks=(task,), count=20), RowPosition.QUESTION)
    try:
        return tuple(map(str, expand((what,), few)))
    except ValueError:
        return ()
