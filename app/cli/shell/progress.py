"""What a command shows while it works, on standard error: a progress bar, and notes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class OnProgress(Protocol):
    """Called with how much is `done` of `total`, if that is known; `about`: the last step."""

    def __call__(self, done: int, total: int | None = None, about: str = "") -> None: ...


@contextmanager
def progress(unit: str, desc: str | None = None, *, scale: bool = False) -> Iterator[OnProgress]:
    """A bar, drawn only in a terminal, that counts in `unit`s; `scale`: in thousands and millions."""
    from tqdm import tqdm

    with tqdm(unit=unit, desc=desc, unit_scale=scale, disable=None) as bar:

        def on_progress(done: int, total: int | None = None, about: str = "") -> None:
            bar.total = total
            if about:
                bar.set_postfix_str(about, refresh=False)
            bar.update(done - bar.n)

        yield on_progress


def note(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
