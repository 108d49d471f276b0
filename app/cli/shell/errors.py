"""How commands end: exit codes, and one line for every error."""

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
    """Exit codes and what they mean."""

    DONE = 0, "done"
    FAILED = 1, "the comparison failed (parity)"
    MISTAKE = 2, "a mistake in an argument or a file; one line says which"
    UNEXPECTED = 70, "an unexpected error; --debug shows where"
    INTERRUPTED = 130, "interrupted"
    UNREAD = 141, "the reader of the output stopped reading"
    TERMINATED = 143, "terminated (SIGTERM)"

    def __new__(cls, code: int, meaning: str) -> "Exit":
        member = int.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member


_LONGEST = 300
"""Characters of an error's line."""

_NO_MEMORY = re.compile(
    "MemoryError|OutOfMemory|out of memory|not enough memory|allocate memory|tried to allocate", re.IGNORECASE
)
"""How libraries report that no memory is left; torch raises RuntimeError on CPU and GPU."""


class Terminated(BaseException):
    """The process was sent SIGTERM. Raised in the running command, so that it removes half-written files."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


class ErrorHandler:
    """Context of a command: turns any exception into an exit code and one line on standard error, after a traceback if
    `debug` is set."""

    def __init__(self) -> None:
        self.code: int = Exit.DONE
        self.debug = False

    def __enter__(self) -> "ErrorHandler":
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        if self._in_main_thread:  # other threads cannot set signal handlers
            self._before = signal.signal(signal.SIGTERM, _terminate)
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
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
                self.code, message = Exit.UNREAD, ""
            case KeyboardInterrupt():
                self.code, message = Exit.INTERRUPTED, "interrupted"
            case Terminated():
                self.code, message = Exit.TERMINATED, "terminated"
            case ValueError() | OSError():
                self.code, message = Exit.MISTAKE, str(error) or repr(error)
            case MemoryError() | RuntimeError() if _NO_MEMORY.search(f"{type(error).__name__}: {error}"):
                self.code, message = Exit.MISTAKE, "out of memory: ask for less at once"
            case RecursionError():
                self.code, message = Exit.MISTAKE, "the input is nested too deeply"
            case _:
                self.code, message = Exit.UNEXPECTED, f"{type(error).__name__}: {error} (--debug shows where)"
        if self.debug:
            traceback.print_exception(error)
        if message:
            line = seen(" ".join(message.split()))
            if len(line) > _LONGEST:  # the middle of a long quotation is left out
                line = f"{line[: _LONGEST - 100]} … {line[-97:]}"
            print(f"lm2: {line}", file=sys.stderr)
        return True
