"""Laws of termination: a command and the server clean up, and report it by their exit code."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from app.cli.shell.errors import ErrorHandler, Exit
from lm2.files import replace_file


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGTERM, Exit.TERMINATED, "terminated"), (signal.SIGINT, Exit.INTERRUPTED, "interrupted")],
)
def test_a_terminated_command_leaves_no_half_written_file(
    number: signal.Signals, code: Exit, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    # Shells make their background processes ignore it.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ErrorHandler() as handler, replace_file(tmp_path / "result.json") as aside:
            aside.write_text('{"half": ')
            os.kill(os.getpid(), number)
            threading.Event().wait(10)
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert (handler.code, capsys.readouterr().err) == (code, f"lm2: {message}\n")
    assert list(tmp_path.iterdir()) == [] and signal.getsignal(signal.SIGTERM) is before


def test_a_server_that_ends_with_a_job_inside_torch_ends_cleanly() -> None:
    program = """
        import torch
        from app.server import results

        def work(job):
            numbers = torch.ones(400, 400)
            for step in range(10**9):
                numbers = (numbers @ numbers).tanh()
                job.report(step)

        jobs = results.jobs(), results._runs()
        running = [jobs[0].ask("kept", work), jobs[1].ask("run", work, session="tab")]
        running.append(jobs[1].ask("short", work, session="tab", at_once=True))
        while not all(job.done for job in running):
            running[0].wait(0.01)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0 and "terminate called" not in ended.stderr
