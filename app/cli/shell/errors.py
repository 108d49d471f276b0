"""How commands end: exit codes, and one line for whatever goes wrong."""

import os
import re
import signal
import sys
import threading
import traceback
from enum import IntEnum
from types import FrameType, TracebackType

from app.views.seen import seen


class Exit(IntEnum):
    """Exit codes."""

    DONE = 0
    FAILED = 1
    MISTAKE = 2
    UNEXPECTED = 70
    INTERRUPTED = 130
    UNREAD = 141
    TOLD_TO_END = 143


_LONGEST = 300
"""Characters of an error's line."""

_NO_MEMORY = re.compile(
    "MemoryError|OutOfMemory|out of memory|not enough memory|allocate memory|tried to allocate", re.IGNORECASE
)
"""How libraries say that there is no memory left: torch's processors and cards by a RuntimeError."""

MEANING = {
    Exit.DONE: "done",
    Exit.FAILED: "the comparison failed (parity)",
    Exit.MISTAKE: "a mistake in an argument or a file; one line says which",
    Exit.UNEXPECTED: "an unexpected error; --debug shows where",
    Exit.INTERRUPTED: "interrupted",
    Exit.UNREAD: "the reader of the output stopped reading",
    Exit.TOLD_TO_END: "terminated (SIGTERM)",
}


class ToldToEnd(BaseException):
    """The process was sent SIGTERM. Raised where the command stands, so that it leaves no half-written file behind."""


def _end(number: int, frame: FrameType | None) -> None:
    raise ToldToEnd


class ErrorHandler:
    """Around a command: what it raises becomes an exit code and one line on standard error, with `debug` behind a
    traceback.

    Nothing that a command raises goes on from here, but nothing is passed over in silence either: each kind has its
    code.
    """

    def __init__(self) -> None:
        self.code: int = Exit.DONE
        self.debug = False

    def __enter__(self) -> "ErrorHandler":
        # No other may say what a signal does.
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        if self._in_main_thread:
            self._before = signal.signal(signal.SIGTERM, _end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._in_main_thread:
            signal.signal(signal.SIGTERM, self._before)
        match error:
            case None | SystemExit():
                return False
            case BrokenPipeError():
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left must go somewhere
                self.code, said = Exit.UNREAD, ""
            case KeyboardInterrupt():
                self.code, said = Exit.INTERRUPTED, "interrupted"
            case ToldToEnd():
                self.code, said = Exit.TOLD_TO_END, "terminated"
            case ValueError() | OSError():
                self.code, said = Exit.MISTAKE, str(error) or repr(error)
            case MemoryError() | RuntimeError() if _NO_MEMORY.search(f"{type(error).__name__}: {error}"):
                self.code, said = Exit.MISTAKE, "out of memory: ask for less at once"
            case RecursionError():
                self.code, said = Exit.MISTAKE, "the input is nested too deeply"
            case _:
                self.code, said = Exit.UNEXPECTED, f"{type(error).__name__}: {error} (--debug shows where)"
        if self.debug:
            traceback.print_exception(error)
        if said:
            print(f"lm2: {_line(said)}", file=sys.stderr)
        return True


def _line(said: str) -> str:
    """A sentence on one line that can be read at once, whatever is quoted in it: both ends of a long one."""
    line = seen(" ".join(said.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 100]} … {line[-97:]}"
