"""Background work, shared by all sessions of the server: each job is found again by its key, and ends with those who
wait for it."""

import queue
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from app.server import owner

PATIENCE = 30.0
"""Seconds that a job goes on when every session that waited for it has gone: one that reloads its page is back
sooner."""

Work = Callable[["Job"], Any]
"""What a job does. It reports its steps to the job, and its result is what it returns."""


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
    """Ends the work of a job that nobody wants any more."""


class Job:
    """One piece of work. Sessions read it and may cancel it; one thread alone runs it."""

    def __init__(self, work: Work, awaited: Callable[[], bool] = lambda: True, *, at_once: bool = False) -> None:
        """
        Args:
            awaited: whether anybody still waits for it; where nobody does, it stops as if cancelled.
            at_once: whether it runs beside others, not after them.
        """
        self.at_once = at_once
        self.phase = JobPhase.WAITING
        self.done = 0
        self.total: int | None = None
        """Steps; None until the work has told."""
        self.result: Any = None
        """What the work returned; None before."""
        self.sentence = ""
        """Why it failed, as visitors may read it: an unforeseen error by its kind alone."""
        self.cancelling = False
        """Whether it has been told to stop; where it runs, it does so at its next step."""
        self.deserted = False
        """Whether it was stopped because nobody waited for it any more."""
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
        """The work has done so many steps, of so many. Raises CancelledError once it has been told to stop."""
        here = (time.monotonic(), done)
        if not self._first[0]:
            self._first = here  # what a resumed work had done before says nothing of its pace
        self._last = here
        self.done, self.total = done, total or self.total
        self._leave_if_deserted()
        if self.cancelling:
            raise CancelledError

    def _leave_if_deserted(self) -> None:
        if not self.cancelling and not self._awaited():
            self.deserted = True
            self.cancel()

    def cancel(self) -> None:
        """Tell it to stop. One that waits will not begin; one that runs stops at its next step."""
        with self._lock:
            self.cancelling = True
            if self.phase is JobPhase.WAITING:
                self.phase = JobPhase.CANCELLED
                self._over.set()

    def wait(self, seconds: float) -> bool:
        """Wait for its end, so long at most; whether it has ended."""
        return self._over.wait(seconds)

    def run(self) -> None:
        """Do the work. A user's mistake (ValueError, OSError) is kept as its sentence; any other error goes on to the
        caller."""
        work, self._work = self._work, None  # an ended job holds no checkpoint
        self._leave_if_deserted()
        with self._lock:
            if self.cancelling:
                return
            self._began, self.phase = time.monotonic(), JobPhase.RUNNING
        ended = JobPhase.FAILED
        try:
            self.result = work(self)
            ended = JobPhase.FINISHED
        except CancelledError:
            ended = JobPhase.CANCELLED
        except (ValueError, OSError) as error:
            self.sentence = owner.without_folders(str(error))
        finally:
            if ended is JobPhase.FAILED and not self.sentence:
                self.sentence = f"the program failed with {sys.exc_info()[0].__name__}; the server's log says where"
            self._ended, self.phase = time.monotonic(), ended
            self._over.set()


@dataclass
class _Waiting:
    """The sessions that wait for a job, and when one of them was there last."""

    sessions: set[str] = field(default_factory=set)
    seen: float = field(default_factory=time.monotonic)


class Jobs:
    """The jobs by key, and the thread that runs them one after the other."""

    def __init__(self, kept: int, connected: Callable[[str], bool] = lambda session: False) -> None:
        """
        Args:
            kept: how many ended jobs are remembered; those least recently asked for go first.
            connected: whether a session's page is still open.
        """
        self._kept, self._connected = kept, connected
        self._waiters: dict[Hashable, _Waiting] = {}
        self._jobs: OrderedDict[Hashable, Job] = OrderedDict()
        self._waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._next()

    def find(self, key: Hashable) -> Job | None:
        """The job of a key, in whatever phase it is; None for one that nobody asked for, or that was forgotten."""
        with self._lock:
            if key in self._jobs:
                self._jobs.move_to_end(key)
            return self._jobs.get(key)

    def ask(self, key: Hashable, work: Work, *, session: str | None = None, at_once: bool = False) -> Job:
        """The job of a key: the one that waits, runs or has finished; else `work` as a new one.

        Args:
            session: who waits for it, and from now on for no other one; None, it is kept to its end whoever waits.
            at_once: run it beside the others, not after them.
        """
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.cancelling or job.phase is JobPhase.FAILED:
                waiting = self._waiters[key] = _Waiting()
                awaited = partial(self._awaited, waiting) if session is not None else lambda: True
                job = self._jobs[key] = Job(work, awaited, at_once=at_once)
                if at_once:
                    threading.Thread(target=job.run, name="job", daemon=True).start()
                else:
                    self._waiting.put(job)
            if session is not None:
                self._leave(session)
                self._waiters[key].sessions.add(session)
                self._waiters[key].seen = time.monotonic()
            self._jobs.move_to_end(key)
            ended = [held for held, one in self._jobs.items() if one.phase.ended]
            for held in ended[: max(0, len(ended) - self._kept)]:
                del self._jobs[held], self._waiters[held]
            return job

    def leave(self, session: str) -> None:
        """A session waits for no job any more."""
        with self._lock:
            self._leave(session)

    def forget(self, key: Hashable) -> None:
        """What a job found, or why it failed, has been told: who asks again has it run again."""
        with self._lock:
            if key in self._jobs and self._jobs[key].phase.ended:
                del self._jobs[key], self._waiters[key]

    def stop(self, seconds: float) -> None:
        """Cancel all jobs and wait for their end, so long at most: the server ends."""
        until = time.monotonic() + seconds
        with self._lock:
            jobs = [job for job in self._jobs.values() if not job.phase.ended]
        for job in jobs:
            job.cancel()
        for job in jobs:
            job.wait(max(0.0, until - time.monotonic()))

    def _leave(self, session: str) -> None:
        for waiting in self._waiters.values():
            waiting.sessions.discard(session)

    def _awaited(self, waiting: _Waiting) -> bool:
        with self._lock:
            now = time.monotonic()
            if any(map(self._connected, waiting.sessions)):
                waiting.seen = now
            return now - waiting.seen < PATIENCE

    def _next(self) -> None:
        threading.Thread(target=self._run_one, name="jobs", daemon=True).start()

    def _run_one(self) -> None:
        """A thread does one job and starts its successor, so that no error of a job can end the work of all."""
        try:
            self._waiting.get().run()
        finally:
            self._next()
