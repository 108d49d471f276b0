"""Writing files so that a reader never meets half of one: write aside, then rename."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_table(table: "DataFrame", folder: Path, name: str) -> None:
    """A table as CSV and as Parquet."""
    with replace_file(folder / f"{name}.csv") as aside:
        table.to_csv(aside, index=False, na_rep="nan")
    with replace_file(folder / f"{name}.parquet") as aside:
        table.to_parquet(aside, index=False)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """A fresh folder to write into, which takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        if path.exists():
            os.replace(path, old)
        os.replace(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if old.exists():
            if not path.exists():  # the rename of the new one failed: put the old one back
                os.replace(old, path)
            shutil.rmtree(old, ignore_errors=True)
