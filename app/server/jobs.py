"""Background work, shared by all sessions of the server. A job is found by its key, and stops when nobody waits for it
any more."""

import queue
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any

from app.server import owner

PATIENCE = 30.0
"""Seconds that a job goes on after all sessions that waited for it have gone; a reloaded page is back sooner."""

Work = Callable[["Job"], Any]
"""What a job does: it reports its steps to the job, and returns the result."""


class JobPhase(Enum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (JobPhase.WAITING, JobPhase.RUNNING)


class CancelledError(Exception):
    """Ends the work of a cancelled job."""


class Job:
    """One piece of work. Sessions read it and may cancel it; one thread alone runs it."""

    def __init__(
        self, work: Work, awaited: Callable[["Job"], bool] = lambda job: True, *, at_once: bool = False
    ) -> None:
        """
        Args:
            awaited: whether anybody still waits for it; if nobody does, it stops as if cancelled.
            at_once: whether it runs beside others, not after them.
        """
        self.at_once = at_once
        self.phase = JobPhase.WAITING
        self.done = 0
        self.total: int | None = None
        """Steps; None until the work has reported it."""
        self.result: Any = None
        """What the work returned; None before."""
        self.sentence = ""
        """Why it failed, for visitors; of an unforeseen error, only its type."""
        self.cancelling = False
        """Whether it is to stop at its next step."""
        self.deserted = False
        """Whether it was stopped because nobody waited for it any more."""
        self.sessions: set[str] = set()
        """Those that wait for it."""
        self.seen = time.monotonic()
        """When one of them was last there."""
        self._work: Work | None = work
        self._awaited = awaited
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._began = self._ended = 0.0
        self._first, self._last = (0.0, 0), (0.0, 0)  # reports: (time, steps done)

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return (self._ended or time.monotonic()) - self._began if self._began else 0.0

    @property
    def left(self) -> float | None:
        """Seconds that it will still take at the pace of its steps so far; None until two have been reported."""
        (began, first), (now, last) = self._first, self._last
        if self.phase is not JobPhase.RUNNING or self.total is None or last <= first:
            return None
        return max(0.0, (now - began) / (last - first) * (self.total - last) - (time.monotonic() - now))

    def report(self, done: int, total: int | None = None) -> None:
        """Called by the work after each step. Raises CancelledError once the job is to stop."""
        self._last = (time.monotonic(), done)
        if not self._first[0]:
            self._first = self._last  # what was done before the work was resumed says nothing about its pace
        self.done, self.total = done, total or self.total
        self._leave_if_deserted()
        if self.cancelling:
            raise CancelledError

    def _leave_if_deserted(self) -> None:
        if not self.cancelling and not self._awaited(self):
            self.deserted = True
            self.cancel()

    def cancel(self) -> None:
        """A waiting job will not begin; a running one stops at its next step."""
        with self._lock:
            self.cancelling = True
            if self.phase is JobPhase.WAITING:
                self.phase = JobPhase.CANCELLED
                self._over.set()

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most so long; returns whether it has ended."""
        return self._over.wait(seconds)

    def run(self) -> None:
        """Do the work. A user's mistake (ValueError, OSError) is kept as its sentence; other errors reach the
        caller."""
        work, self._work = self._work, None  # an ended job holds no checkpoint
        self._leave_if_deserted()
        with self._lock:
            if self.cancelling:
                return
            self._began, self.phase = time.monotonic(), JobPhase.RUNNING
        phase = JobPhase.FAILED
        try:
            self.result = work(self)
            phase = JobPhase.FINISHED
        except CancelledError:
            phase = JobPhase.CANCELLED
        except (ValueError, OSError) as error:
            self.sentence = owner.without_folders(str(error))
        finally:
            if phase is JobPhase.FAILED and not self.sentence:
                self.sentence = f"the program failed with {sys.exc_info()[0].__name__}; the server's log says where"
            self._ended, self.phase = time.monotonic(), phase
            self._over.set()


class Jobs:
    """The jobs by key, and the thread that runs them one after the other."""

    def __init__(self, kept: int, connected: Callable[[str], bool] = lambda session: False) -> None:
        """
        Args:
            kept: how many ended jobs are remembered; the least recently used are forgotten first.
            connected: whether a session's page is still open.
        """
        self._kept, self._connected = kept, connected
        self._jobs: OrderedDict[Hashable, Job] = OrderedDict()
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._start_thread()

    def find(self, key: Hashable) -> Job | None:
        """The job of a key, in whatever phase; None if there is none, or it was forgotten."""
        with self._lock:
            if key in self._jobs:
                self._jobs.move_to_end(key)
            return self._jobs.get(key)

    def ask(self, key: Hashable, work: Work, *, session: str | None = None, at_once: bool = False) -> Job:
        """The job of a key that waits, runs or has finished; if there is none, `work` becomes a new one.

        Args:
            session: who waits for it, and from now on for no other; None to run it to its end whoever waits.
            at_once: run it beside the others, not after them.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.cancelling or job.phase is JobPhase.FAILED:
                awaited = (lambda job: True) if session is None else self._awaited
                job = self._jobs[key] = Job(work, awaited, at_once=at_once)
                if at_once:
                    threading.Thread(target=job.run, name="job", daemon=True).start()
                else:
                    self._queue.put(job)
            if session is not None:
                self._leave(session)
                job.sessions.add(session)
                job.seen = time.monotonic()
            self._jobs.move_to_end(key)
            ended = [key for key, job in self._jobs.items() if job.phase.ended]
            for old in ended[: max(0, len(ended) - self._kept)]:
                del self._jobs[old]
            return job

    def leave(self, session: str) -> None:
        """A session waits for no job any more."""
        with self._lock:
            self._leave(session)

    def forget(self, key: Hashable) -> None:
        """Forget an ended job: it runs again if it is asked for again."""
        with self._lock:
            if key in self._jobs and self._jobs[key].phase.ended:
                del self._jobs[key]

    def stop(self, seconds: float) -> None:
        """Cancel all jobs and wait for their end, at most so long."""
        until = time.monotonic() + seconds
        with self._lock:
            jobs = [job for job in self._jobs.values() if not job.phase.ended]
        for job in jobs:
            job.cancel()
        for job in jobs:
            job.wait(max(0.0, until - time.monotonic()))

    def _leave(self, session: str) -> None:
        for job in self._jobs.values():
            job.sessions.discard(session)

    def _awaited(self, job: Job) -> bool:
        with self._lock:
            now = time.monotonic()
            if any(map(self._connected, job.sessions)):
                job.seen = now
            return now - job.seen < PATIENCE

    def _start_thread(self) -> None:
        threading.Thread(target=self._run_next, name="jobs", daemon=True).start()

    def _run_next(self) -> None:
        """Run one job in this thread and start the next thread, so that an error in a job cannot end all work."""
        try:
            self._queue.get().run()
        finally:
            self._start_thread()
