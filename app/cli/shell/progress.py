"""What a command tells while it works, all of it on standard error: a bar, and notes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Told(Protocol):
    """How far it is: `done` of `total`, where that is known; `about`: what was done last."""

    def __call__(self, done: int, total: int | None = None, about: str = "") -> None: ...


@contextmanager
def progress(unit: str, desc: str | None = None, *, scale: bool = False) -> Iterator[Told]:
    """What work tells its steps to, counted in `unit`s; `scale`: in thousands and millions. Nothing is drawn where
    nobody looks."""
    from tqdm import tqdm

    with tqdm(unit=unit, desc=desc, unit_scale=scale, disable=None) as bar:

        def told(done: int, total: int | None = None, about: str = "") -> None:
            bar.total = total
            if about:
                bar.set_postfix_str(about, refresh=False)
            bar.update(done - bar.n)

        yield told


def note(words: str) -> None:
    """Say something before the answer is there."""
    print(words, file=sys.stderr, flush=True)
