"""Background work, shared by all sessions of the server: one job at a time, each found again by its key."""

import queue
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any

Work = Callable[["Job"], Any]
"""What a job does. It reports its steps to the job, and its result is what it returns."""


class Phase(Enum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (Phase.WAITING, Phase.RUNNING)


class CancelledError(Exception):
    """Ends the work of a job that nobody wants any more."""


class Job:
    """One piece of work. Sessions read it and may cancel it; the worker alone runs it."""

    def __init__(self, work: Work) -> None:
        self.phase = Phase.WAITING
        self.done = 0
        self.total: int | None = None
        """Steps; None until the work has told."""
        self.result: Any = None
        """What the work returned; None before."""
        self.sentence = ""
        """Why it failed."""
        self.cancelling = False
        """Whether it has been told to stop; where it runs, it does so at its next step."""
        self._work: Work | None = work
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
        if self.phase is not Phase.RUNNING or self.total is None or last <= first:
            return None
        return max(0.0, (now - began) / (last - first) * (self.total - last) - (time.monotonic() - now))

    def report(self, done: int, total: int | None = None) -> None:
        """The work has done so many steps, of so many. Raises CancelledError once it has been told to stop."""
        here = (time.monotonic(), done)
        if not self._first[0]:
            self._first = here  # what a resumed work had done before says nothing of its pace
        self._last = here
        self.done, self.total = done, total or self.total
        if self.cancelling:
            raise CancelledError

    def cancel(self) -> None:
        """Tell it to stop. One that waits will not begin; one that runs stops at its next step."""
        with self._lock:
            self.cancelling = True
            if self.phase is Phase.WAITING:
                self.phase = Phase.CANCELLED

    def run(self) -> None:
        """Do the work. A user's mistake (ValueError, OSError) is kept as its sentence; any other error goes on to the caller."""
        work, self._work = self._work, None  # an ended job holds no checkpoint
        with self._lock:
            if self.cancelling:
                return
            self._began, self.phase = time.monotonic(), Phase.RUNNING
        ended = Phase.FAILED
        try:
            self.result = work(self)
            ended = Phase.FINISHED
        except CancelledError:
            ended = Phase.CANCELLED
        except (ValueError, OSError) as error:
            self.sentence = str(error)
        finally:
            if ended is Phase.FAILED and not self.sentence:
                self.sentence = f"the program failed with {sys.exc_info()[1]!r}; the server's log says where"
            self._ended, self.phase = time.monotonic(), ended


class Jobs:
    """The jobs by key, and the thread that runs them one after the other."""

    def __init__(self, kept: int) -> None:
        """`kept`: how many ended jobs are remembered; those least recently asked for go first."""
        self._kept = kept
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

    def ask(self, key: Hashable, work: Work) -> Job:
        """The job of a key: the one that waits, runs or has finished; else `work` as a new one."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.cancelling or job.phase is Phase.FAILED:
                job = self._jobs[key] = Job(work)
                self._waiting.put(job)
            self._jobs.move_to_end(key)
            ended = [held for held, one in self._jobs.items() if one.phase.ended]
            for held in ended[: max(0, len(ended) - self._kept)]:
                del self._jobs[held]
            return job

    def _next(self) -> None:
        threading.Thread(target=self._run_one, name="jobs", daemon=True).start()

    def _run_one(self) -> None:
        """A thread does one job and starts its successor, so that no error of a job can end the work of all."""
        try:
            self._waiting.get().run()
        finally:
            self._next()
