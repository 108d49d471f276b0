"""Results of charts, computed once for all sessions: their parts are kept in a store, and long work runs in jobs."""

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
"""What a result without a known size counts as."""

_SHORT_SEGMENTS, _SHORT_WORK = 250, 2e10
"""Up to so many segments, and tokens x parameters, a run is short: a few seconds."""

_LAST_SECONDS = 10.0
"""How long the server waits for its jobs when it ends."""

_JOBS = 64
"""How many ended jobs are remembered, with their results."""


class ResultCache:
    """Results by key. The least recently used are dropped first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._results: OrderedDict[Key, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Any:
        """The result under a key, or None."""
        return self.first(lambda other: other == key)

    def first(self, matches: Callable[[Key], bool]) -> Any:
        """The most recently used result under a key that matches, or None."""
        with self._lock:
            key = next(filter(matches, reversed(self._results)), None)
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
    return 4 * len(result) if isinstance(result, str) else getattr(result, "bytes", _ASSUMED_BYTES)


@st.cache_resource(show_spinner=False)
def _store() -> ResultCache:
    return ResultCache(_STORE_BYTES)


def key_of(checkpoint: Checkpoint | None, *parts: Hashable) -> Key:
    """A key with everything else that decides a result: the model, how it runs, and the stories there are."""
    model = () if checkpoint is None else (checkpoint.digest, checkpoint.device, checkpoint.dtype)
    return (*parts, *model, str(stories.origin()))


class _NotKeptError(Exception):
    """A part of a result is not in the store."""


@dataclass(frozen=True, kw_only=True)
class Kept(Computing):
    """Takes the parts of results from the store. If `anew`, other parts are computed and kept there."""

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
        """A run with more captures serves as well, because captures change nothing."""
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
        """What a run takes from other texts: for all slots, heads and blocks, so that choosing another one runs no text
        again."""
        from lm2.runs.runner import source_activations

        changes = tuple(_everywhere(change) for change in spec.interventions if change.donors)
        if not changes:
            return None
        spec = replace(spec, captures=(), interventions=changes)
        return self.part(checkpoint, ("sources", spec.digest), lambda: source_activations(checkpoint, spec))


def _narrowed(trace: Trace, spec: RunSpec) -> Trace:
    """A run with more captures as the spec's run."""
    return replace(
        trace, spec=spec, records={place: value for place, value in trace.records.items() if place[0] in spec.captures}
    )


def _everywhere(change: Intervention) -> Intervention:
    return replace(change, **{axis: None for axis in ("slots", "heads", "layers") if hasattr(change, axis)})


def result_of(chart: Chart, checkpoint: Checkpoint, session: str) -> Any | Job:
    """A chart's result, if its parts are in the store; else the job that computes it, the same for all sessions.

    Short texts are run at once, long ones one after the other. Raises ValueError as `Chart.result` does.
    """
    key, runs = key_of(checkpoint, *chart.result_key), _runs()
    job = runs.find(key)
    try:
        result = chart.result(checkpoint, Kept())
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
    underway = job is not None and not job.cancelling and not job.phase.ended
    at_once = not underway and all(_short(checkpoint, spec, chart.new_tokens) for spec in chart.runs)
    return runs.ask(key, partial(compute, chart, checkpoint), session=session, at_once=at_once)


def forget(chart: Chart, checkpoint: Checkpoint) -> None:
    """Forget a chart's job that failed or was cancelled, so that the result can be computed again."""
    _runs().forget(key_of(checkpoint, *chart.result_key))


def compute(chart: Chart, checkpoint: Checkpoint | None, job: Job) -> Any:
    """A chart's result, as the work of a job; a finished job's result is taken."""
    finished = jobs().find(key_of(checkpoint, *chart.result_key))
    if finished is not None and finished.phase is JobPhase.FINISHED:
        return finished.result
    return chart.result(checkpoint, Kept(anew=True, on_step=job.report))


def _short(checkpoint: Checkpoint, spec: RunSpec, new_tokens: int) -> bool:
    from lm2.runs.runner import prepare

    tokens, segments = prepare(checkpoint, spec, new_tokens)
    return len(segments) <= _SHORT_SEGMENTS and len(tokens) * checkpoint.parameters <= _SHORT_WORK


@st.cache_resource(show_spinner=False)
def _runs() -> Jobs:
    """The runs of texts, which stop when no page waits for them."""
    return _stopped_at_exit(Jobs(_JOBS, _connected))


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The background work that runs to its end, whoever waits for it: sweeps, probes ..."""
    return _stopped_at_exit(Jobs(_JOBS))


def _connected(session: str) -> bool:
    """Whether a session's page is open."""
    return runtime.exists() and runtime.get_instance().is_active_session(session)


def _stopped_at_exit(jobs: Jobs) -> Jobs:
    """A thread that is inside torch when Python ends would end the process with a core dump."""
    atexit.register(jobs.stop, _LAST_SECONDS)
    return jobs
