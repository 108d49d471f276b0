"""Laws of background work: asked for once, told to stop, told why it failed, and never the end of the worker."""

import threading
from collections.abc import Callable, Iterator

import pytest

from app.server.jobs import Job, JobPhase, Jobs

PATIENCE = 20.0


@pytest.fixture
def jobs() -> Jobs:
    return Jobs(kept=2)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Closed until a test opens it, so that a job can be met while it runs."""
    event = threading.Event()
    yield event
    event.set()


def _until(job: Job, *phases: JobPhase) -> Job:
    waited = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if job.phase in phases:
            return job
        waited.wait(0.01)
    raise AssertionError(f"still {job.phase} after {PATIENCE} s")


def _ended(job: Job) -> Job:
    return _until(job, *(phase for phase in JobPhase if phase.ended))


def _steps(count: int, gate: threading.Event) -> Callable[[Job], int]:
    """Work of so many steps, which stops behind the first until the gate opens."""

    def work(job: Job) -> int:
        for done in range(1, count + 1):
            job.report(done, count)
            gate.wait(PATIENCE)
        return count

    return work


def _fail(job: Job) -> None:
    raise ValueError("qa11 has no stories")


def test_who_asks_for_the_same_joins_the_same_job(jobs: Jobs, gate: threading.Event) -> None:
    first = jobs.ask("same", _steps(2, gate))
    assert jobs.ask("same", _fail) is first is jobs.find("same")
    gate.set()
    assert _ended(first).phase is JobPhase.FINISHED and first.result == 2
    assert jobs.ask("same", _fail) is first, "a finished job is not run again"


def test_one_job_runs_at_a_time_in_the_order_asked_for(jobs: Jobs, gate: threading.Event) -> None:
    order: list[str] = []

    def work(name: str) -> Callable[[Job], None]:
        return lambda job: (gate.wait(PATIENCE), order.append(name))[1]

    asked = [jobs.ask(name, work(name)) for name in "abc"]
    _until(asked[0], JobPhase.RUNNING)
    assert [job.phase for job in asked[1:]] == [JobPhase.WAITING] * 2
    gate.set()
    for job in asked:
        _ended(job)
    assert order == ["a", "b", "c"]


def test_a_running_job_that_is_cancelled_stops_before_its_end(jobs: Jobs, gate: threading.Event) -> None:
    job = jobs.ask("long", _steps(1000, gate))
    _until(job, JobPhase.RUNNING)
    job.cancel()
    gate.set()
    assert _ended(job).phase is JobPhase.CANCELLED
    assert job.done < 1000 and job.result is None


def test_a_waiting_job_that_is_cancelled_never_begins(jobs: Jobs, gate: threading.Event) -> None:
    begun: list[Job] = []
    running = jobs.ask("first", _steps(1, gate))
    waiting = jobs.ask("second", begun.append)
    waiting.cancel()
    assert waiting.phase is JobPhase.CANCELLED
    gate.set()
    _ended(running)
    _ended(jobs.ask("third", lambda job: None))
    assert not begun


def test_a_cancelled_or_failed_job_can_be_asked_for_again(jobs: Jobs, gate: threading.Event) -> None:
    cancelled = jobs.ask("again", _steps(1000, gate))
    cancelled.cancel()
    anew = jobs.ask("again", lambda job: "done")
    gate.set()
    assert anew is not cancelled and _ended(anew).result == "done"
    failed = _ended(jobs.ask("failing", _fail))
    assert _ended(jobs.ask("failing", lambda job: "done")).result == "done" and failed.phase is JobPhase.FAILED


def test_a_failing_job_tells_its_sentence_and_the_next_one_runs(jobs: Jobs) -> None:
    assert _ended(jobs.ask("failing", _fail)).sentence == "qa11 has no stories"
    assert _ended(jobs.ask("next", lambda job: 7)).result == 7


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_of_the_program_is_told_and_ends_no_other_job(jobs: Jobs) -> None:
    job = _ended(jobs.ask("broken", lambda job: 1 / 0))
    assert (
        job.phase is JobPhase.FAILED
        and job.sentence == "the program failed with ZeroDivisionError; the server's log says where"
    )
    assert _ended(jobs.ask("next", lambda job: 7)).result == 7


def test_time_left_is_told_from_the_pace_of_the_steps(
    jobs: Jobs, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("app.server.jobs.time.monotonic", lambda: clock[0])
    left: list[float | None] = []

    def work(job: Job) -> None:
        for done in (40, 41, 43):  # 40 had been done before: they say nothing of the pace
            clock[0] += 2.0
            job.report(done, 50)
            left.append(job.left)

    job = _ended(jobs.ask("paced", work))
    assert left == [None, 18.0, pytest.approx(4 / 3 * 7)]
    assert job.seconds == 6.0 and job.left is None


def test_only_so_many_ended_jobs_are_remembered(jobs: Jobs, gate: threading.Event) -> None:
    for name in "abcd":
        _ended(jobs.ask(name, lambda job: name))
        jobs.find("a")
    held = [name for name in "abcd" if jobs.find(name)]
    assert len(held) <= 3 and {"a", "d"} <= set(held), "the one least recently asked for is forgotten first"
    running = jobs.ask("running", _steps(1, gate))
    for name in "efg":
        jobs.ask(name, lambda job: None)
    assert jobs.find("running") is running, "what has not ended is never forgotten"


def test_an_ended_job_holds_nothing_that_its_work_held(jobs: Jobs) -> None:
    import gc
    import weakref

    class Large:
        pass

    large = Large()
    held = weakref.ref(large)
    job = jobs.ask("large", lambda job, large=large: id(large))
    del large
    _ended(job)
    _ended(jobs.ask("next", lambda job: None))
    gc.collect()
    assert held() is None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the jobs take for the time."""
    clock = [100.0]
    monkeypatch.setattr("app.server.jobs.time.monotonic", lambda: clock[0])
    return clock


def _patient(clock: list[float], steps: threading.Semaphore, done: threading.Semaphore) -> Callable[[Job], None]:
    """Work whose steps a test lets go one by one."""

    def work(job: Job) -> None:
        for number in range(1, 100):
            steps.acquire(timeout=PATIENCE)
            done.release()
            job.report(number, 100)

    return work


@pytest.mark.parametrize("kept", [False, True])
def test_a_job_stops_once_all_who_waited_for_it_have_gone_unless_it_is_to_be_kept(
    kept: bool, clock: list[float]
) -> None:
    here = {"tab"}
    jobs = Jobs(2, here.__contains__)
    steps, done = threading.Semaphore(0), threading.Semaphore(0)
    job = jobs.ask("run", _patient(clock, steps, done), session=None if kept else "tab")
    for moment, there in ((1000.0, {"tab"}), (1031.0, set())):  # an open page is waited for however long it takes
        here.clear()
        here.update(there)
        clock[0] = moment
        steps.release()
        done.acquire(timeout=PATIENCE)
    if kept:
        steps.release(1000)
        assert _ended(job).phase is JobPhase.FINISHED
    else:
        assert _ended(job).phase is JobPhase.CANCELLED and job.deserted
        assert jobs.ask("run", lambda job: "again", session="tab") is not job, "who comes back has it run again"


def test_a_page_that_is_loaded_again_finds_the_job_running(clock: list[float]) -> None:
    here = {"before"}
    jobs = Jobs(2, here.__contains__)
    steps, done = threading.Semaphore(0), threading.Semaphore(0)
    job = jobs.ask("run", _patient(clock, steps, done), session="before")
    for moment, there in ((1000.0, {"before"}), (1005.0, set())):
        here.clear()
        here.update(there)
        clock[0] = moment
        steps.release()
        done.acquire(timeout=PATIENCE)
    here.add("after")
    assert jobs.ask("run", _fail, session="after") is job
    clock[0] += 1000.0
    steps.release(1000)
    assert _ended(job).phase is JobPhase.FINISHED


def test_a_session_that_asks_for_another_job_waits_for_the_first_no_more(
    clock: list[float], gate: threading.Event
) -> None:
    jobs = Jobs(2, lambda session: True)
    first = jobs.ask("first", _steps(1000, gate), session="tab")
    jobs.ask("second", _fail, session="tab")
    clock[0] += 1000.0
    gate.set()
    assert _ended(first).deserted


def test_a_job_that_is_to_run_at_once_waits_for_no_other(jobs: Jobs, gate: threading.Event) -> None:
    long = _until(jobs.ask("long", _steps(1000, gate)), JobPhase.RUNNING)
    assert _ended(jobs.ask("short", lambda job: 7, at_once=True)).result == 7
    assert long.phase is JobPhase.RUNNING


def test_stopping_ends_every_job_and_waits_for_it(jobs: Jobs, gate: threading.Event) -> None:
    running = _until(jobs.ask("running", _steps(1000, gate)), JobPhase.RUNNING)
    waiting = jobs.ask("waiting", _fail)
    beside = jobs.ask("beside", _steps(1000, gate), at_once=True)
    threading.Timer(0.05, gate.set).start()
    jobs.stop(PATIENCE)
    assert {job.phase for job in (running, waiting, beside)} == {JobPhase.CANCELLED}


def test_what_was_forgotten_is_run_again(jobs: Jobs) -> None:
    _ended(jobs.ask("told", lambda job: 1))
    jobs.forget("told")
    assert jobs.find("told") is None and _ended(jobs.ask("told", lambda job: 2)).result == 2
