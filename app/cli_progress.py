"""The bar on which a command tells how far it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(unit: str, desc: str | None = None) -> Iterator[Callable[[int, int], None]]:
    """What work tells its steps to: how many `unit`s are done, of how many. Nothing is drawn where nobody looks."""
    from tqdm import tqdm

    with tqdm(unit=unit, desc=desc, disable=None) as bar:

        def told(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield told
