"""The workspace: a folder of named figures, kept as sidecars from which `lm2 figure` makes files, and of captures."""

import os
import re
from pathlib import Path
from typing import Any

from app.export.sidecar import to_json
from lm2.files import read_json, replace_file

VARIABLE = "LM2_WORKSPACE"
"""Environment variable in which `lm2 serve` passes the folder to the app."""
DEFAULT = "lm2-workspace"
MOST = 200
"""Figures, so that visitors of a server cannot fill its disk."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}")


def figures() -> Path:
    """The folder of figures, which exists after the first one is saved."""
    return _folder() / "figures"


def captures() -> Path:
    """The folder of stores that runs were captured into, which exists after the first one."""
    return _folder() / "captures"


def _folder() -> Path:
    return Path(os.environ.get(VARIABLE) or DEFAULT)


def names() -> list[str]:
    """Names of the figures, sorted. Files whose names `save` would refuse are left out."""
    return sorted(path.stem for path in figures().glob("*.json") if _is_name(path.stem))


def save(name: str, sidecar: dict[str, Any]) -> Path:
    """Write a figure, or replace the one of that name.

    Raises ValueError for a name that a file cannot have and if there are `MOST` figures, OSError if the folder cannot
    be written.
    """
    existing = names()
    if name not in existing and len(existing) >= MOST:
        raise ValueError(
            f"{len(existing)} figures are kept, and {MOST} are the most: delete one, or replace one by its name"
        )
    with replace_file(_path(name)) as temporary:
        temporary.write_text(to_json(sidecar), encoding="utf-8")
    return _path(name)


def read(name: str) -> dict[str, Any]:
    """A figure's sidecar. Raises ValueError if it does not exist or is no JSON object."""
    if not _path(name).exists():
        raise ValueError(f"no figure is called {name!r} in {figures()}")
    values = read_json(_path(name))
    if not isinstance(values, dict):
        raise ValueError(f"{_path(name)} must hold a sidecar, an object with fields, not a {type(values).__name__}")
    return values


def delete(name: str) -> None:
    """Raises ValueError for a name that a file cannot have."""
    _path(name).unlink(missing_ok=True)


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and not name.endswith((" ", "."))


def _path(name: str) -> Path:
    if not _is_name(name):
        raise ValueError(
            "a figure's name has letters, digits, blanks, dots, - and _, 80 at most, and begins with a letter or"
            f" digit, not {name!r}"
        )
    return figures() / f"{name}.json"
