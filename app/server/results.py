"""What charts show, computed once for all sessions: its parts are kept in a store, and long work runs in jobs."""

from __future__ import annotations

import atexit
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit import runtime

from app.charts.chart import Chart, Computing, Part
from app.server.jobs import Job, JobPhase, Jobs
from lm2.tasks import stories

if TYPE_CHECKING:
    from lm2.runs.hooks import SourceActivations
    from lm2.runs.interventions import Intervention
    from lm2.runs.spec import RunSpec
    from lm2.runs.trace import Trace
    from lm2.weights.checkpoint import Checkpoint

Key = tuple[Hashable, ...]

_STORE_BYTES = 1024**3
"""What the store of results may hold in all."""

_ASSUMED_BYTES = 8 * 1024**2
"""What a result counts for that does not know its size."""

_SHORT_SEGMENTS, _SHORT_WORK = 250, 2e10
"""Segments, and tokens x parameters, up to which a run is short: some seconds."""

_LAST_SECONDS = 10.0
"""How long the server waits for its jobs as it ends."""

_JOBS = 64
"""How many ended jobs are remembered, with what they found."""


class ResultCache:
    """Results by what made them. The least recently used ones go first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._results: OrderedDict[Key, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Any:
        """What is kept under a key; None where nothing is."""
        return self.first(lambda held: held == key)

    def first(self, wanted: Callable[[Key], bool]) -> Any:
        """What was used last of all under a key that is wanted; None where nothing is."""
        with self._lock:
            key = next(filter(wanted, reversed(self._results)), None)
            if key is None:
                return None
            self._results.move_to_end(key)
            return self._results[key]

    def put(self, key: Key, result: Any) -> None:
        with self._lock:
            self._results[key] = result
            while sum(map(_bytes, self._results.values())) > self._limit and len(self._results) > 1:
                self._results.popitem(last=False)


def _bytes(result: Any) -> int:
    return getattr(result, "bytes", _ASSUMED_BYTES)


@st.cache_resource(show_spinner=False)
def _store() -> ResultCache:
    return ResultCache(_STORE_BYTES)


def key_of(loaded: Checkpoint | None, *what: Hashable) -> Key:
    """A key with everything else that decides a result: the model, how it runs, and the stories that there are."""
    model = () if loaded is None else (loaded.digest, loaded.device, loaded.dtype)
    return (*what, *model, str(stories.origin()))


class _NotKeptError(Exception):
    """The store does not have a part of a result."""


@dataclass(frozen=True, kw_only=True)
class Kept(Computing):
    """Parts of results as the store has them; others are computed and kept there, where that is asked for."""

    anew: bool = False

    def part(self, checkpoint: Checkpoint, key: Key, make: Callable[[], Part]) -> Part:
        key = key_of(checkpoint, *key)
        kept = _store().get(key)
        if kept is None:
            if not self.anew:
                raise _NotKeptError
            kept = make()
            _store().put(key, kept)
        return kept

    def run(self, checkpoint: Checkpoint, spec: RunSpec) -> Trace:
        """A run that has kept more serves as well: observing changes nothing."""
        from lm2.runs.runner import run

        alone = key_of(checkpoint, "run", replace(spec, captures=()).digest)
        kept = _store().first(lambda key: key[1:] == alone and set(spec.captures) <= set(key[0]))
        if kept is not None:
            return kept if kept.spec == spec else _narrowed(kept, spec)
        return self.part(
            checkpoint,
            (spec.captures, *alone[:2]),
            lambda: run(checkpoint, spec, on_segment=self.on_step, sources=self._sources(checkpoint, spec)),
        )

    def _sources(self, checkpoint: Checkpoint, spec: RunSpec) -> SourceActivations | None:
        """What a run takes from other texts: the same whichever slots, heads and blocks it is for, so that one more of
        them runs no text again."""
        from lm2.runs.runner import source_activations

        taking = tuple(map(_everywhere, (change for change in spec.interventions if change.donors)))
        if not taking:
            return None
        whole = replace(spec, captures=(), interventions=taking)
        return self.part(checkpoint, ("sources", whole.digest), lambda: source_activations(checkpoint, whole))


def _narrowed(trace: Trace, spec: RunSpec) -> Trace:
    """The run as the spec asks for it, of one that has kept more."""
    return replace(
        trace, spec=spec, records={place: value for place, value in trace.records.items() if place[0] in spec.captures}
    )


def _everywhere(change: Intervention) -> Intervention:
    return replace(change, **{place: None for place in ("slots", "heads", "layers") if hasattr(change, place)})


def result_of(chart: Chart, loaded: Checkpoint, session: str) -> Any | Job:
    """What a chart shows something of, where its parts are in the store; else the job that computes it, the same for
    all sessions that ask for it.

    Work on short texts begins at once; long ones are read one after the other. Raises ValueError as `Chart.result`
    does.
    """
    key, runs = key_of(loaded, *chart.result_key), _runs()
    job = runs.find(key)
    try:
        result = chart.result(loaded, Kept())
    except _NotKeptError:
        pass
    else:
        runs.leave(session)
        runs.forget(key)
        return result
    if job is not None and not job.deserted:
        if job.cancelling or job.phase is JobPhase.FAILED:
            return job
        if job.phase is JobPhase.FINISHED:  # the store has no room for it any more
            runs.forget(key)
            return job.result
    runs_already = job is not None and not job.cancelling and not job.phase.ended
    at_once = not runs_already and all(_short(loaded, spec) for spec in chart.runs)
    return runs.ask(key, partial(compute, chart, loaded), session=session, at_once=at_once)


def forget(chart: Chart, loaded: Checkpoint) -> None:
    """That its job failed or was cancelled has been told: who asks again has it computed again."""
    _runs().forget(key_of(loaded, *chart.result_key))


def compute(chart: Chart, loaded: Checkpoint | None, job: Job) -> Any:
    """A chart's result, as the work of a job; what somebody else has asked for already is taken."""
    asked = jobs().find(key_of(loaded, *chart.result_key))
    if asked is not None and asked.phase is JobPhase.FINISHED:
        return asked.result
    return chart.result(loaded, Kept(anew=True, on_step=job.report))


def _short(loaded: Checkpoint, spec: RunSpec) -> bool:
    from lm2.runs.runner import prepare

    tokens, segments = prepare(loaded, spec)
    return len(segments) <= _SHORT_SEGMENTS and len(tokens) * loaded.parameters <= _SHORT_WORK


@st.cache_resource(show_spinner=False)
def _runs() -> Jobs:
    """The runs of texts, which end with the pages that wait for them."""
    return _until_the_end(Jobs(_JOBS, _connected))


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The background work of all sessions that is kept to its end, whoever waits for it: sweeps, probes ..."""
    return _until_the_end(Jobs(_JOBS))


def _connected(session: str) -> bool:
    """Whether a session's page is open."""
    return runtime.exists() and runtime.get_instance().is_active_session(session)


def _until_the_end(jobs: Jobs) -> Jobs:
    """A thread that is inside torch as Python ends would end the process with a core dump."""
    atexit.register(jobs.stop, _LAST_SECONDS)
    return jobs
