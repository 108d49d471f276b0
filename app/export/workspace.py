"""The workspace: a folder of named figures. Each is its sidecar, which `lm2 figure` makes files of."""

import json
import os
import re
from pathlib import Path
from typing import Any

from lm2.files import read_json, replace_file

VARIABLE = "LM2_WORKSPACE"
"""Environment variable by which `lm2 serve` tells the app its folder."""
DEFAULT = "lm2-workspace"
MOST = 200
"""Figures: whoever visits the server may keep some, and nobody may fill its disk."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}")


def figures() -> Path:
    """The folder of figures; it is made with the first of them."""
    return Path(os.environ.get(VARIABLE) or DEFAULT) / "figures"


def names() -> list[str]:
    """The figures that there are, in the order of the alphabet. Files of other names are none."""
    return sorted(path.stem for path in figures().glob("*.json") if _is_name(path.stem))


def save(name: str, sidecar: dict[str, Any]) -> Path:
    """Write a figure, in place of one of that name.

    Raises ValueError for a name that is no file's and for one figure more than there may be, OSError where the folder
    cannot be written.
    """
    there = names()
    if name not in there and len(there) >= MOST:
        raise ValueError(
            f"{len(there)} figures are kept, and {MOST} are the most: delete one, or replace one by its name"
        )
    with replace_file(_path(name)) as aside:
        aside.write_text(json.dumps(sidecar, indent=1, sort_keys=True, ensure_ascii=False), encoding="utf-8")
    return _path(name)


def read(name: str) -> dict[str, Any]:
    """A figure's sidecar. Raises ValueError for one that is not there, or is no JSON object."""
    if not _path(name).exists():
        raise ValueError(f"no figure is called {name!r} in {figures()}")
    values = read_json(_path(name))
    if not isinstance(values, dict):
        raise ValueError(f"{_path(name)} must hold a sidecar, an object with fields, not a {type(values).__name__}")
    return values


def delete(name: str) -> None:
    """Raises ValueError for a name that is no file's."""
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
