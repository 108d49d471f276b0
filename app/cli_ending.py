"""How commands end: exit codes, and one line for whatever goes wrong."""

import os
import sys
import traceback
from enum import IntEnum
from types import TracebackType


class Exit(IntEnum):
    """Exit codes."""

    DONE = 0
    FAILED = 1
    MISTAKE = 2
    UNEXPECTED = 70
    INTERRUPTED = 130
    UNREAD = 141


MEANING = {
    Exit.DONE: "done",
    Exit.FAILED: "the check that the command makes failed (parity)",
    Exit.MISTAKE: "a mistake in what was asked for or in a file; one line says which",
    Exit.UNEXPECTED: "an error that nobody expected; --debug shows where",
    Exit.INTERRUPTED: "interrupted",
    Exit.UNREAD: "whoever read the output stopped reading",
}


class Ending:
    """Around a command: what it raises becomes an exit code and one line on standard error, with `debug` behind a traceback.

    Nothing that a command raises goes on from here, but nothing is passed over in silence either: each kind has its code.
    """

    def __init__(self) -> None:
        self.code: int = Exit.DONE
        self.debug = False

    def __enter__(self) -> "Ending":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        match error:
            case None | SystemExit():
                return False
            case BrokenPipeError():
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left must go somewhere
                self.code, said = Exit.UNREAD, ""
            case KeyboardInterrupt():
                self.code, said = Exit.INTERRUPTED, "interrupted"
            case ValueError() | OSError():
                self.code, said = Exit.MISTAKE, str(error) or repr(error)
            case _:
                self.code, said = Exit.UNEXPECTED, f"{type(error).__name__}: {error} (--debug shows where)"
        if self.debug:
            traceback.print_exception(error)
        if said:
            print(f"lm2: {' '.join(said.split())}", file=sys.stderr)
        return True
