"""What a sweep has done so far: one file a document, in a folder or nowhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm2.files import replace_file


class Store:
    """Results by name. With a folder, each is a file that is written whole or not at all."""

    def __init__(self, folder: Path | None, key: Mapping[str, Any]) -> None:
        """`key`: everything that the results depend on. Raises ValueError for a folder with results of another one."""
        self._folder, self._held = folder, {}
        if folder is not None:
            claim(folder / "sweep.json", key, "sweep")

    def get(self, name: str) -> Any:
        """None where it is not there, or not whole."""
        if self._folder is None:
            return self._held.get(name)
        return _read(self._folder / "documents" / f"{name}.json")

    def put(self, name: str, values: Any) -> None:
        if self._folder is None:
            self._held[name] = values
        else:
            _write(self._folder / "documents" / f"{name}.json", values)


def claim(head: Path, key: Mapping[str, Any], what: str) -> None:
    """Make a folder that of one sweep or probe: `head` in it says of which. Raises ValueError where it is another's already."""
    if not head.is_file():
        _write(head, dict(key))
        return
    there = _read(head)
    if there is None:
        raise ValueError(f"{head} is broken: expected the spec of the {what} whose results are in {head.parent}")
    differing = sorted(name for name in {*there, *key} if there.get(name) != json.loads(json.dumps(key.get(name))))
    if differing:
        raise ValueError(f"{head.parent} holds the results of another {what}: its {', '.join(differing)} differ; give this one a folder of its own")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return None


def _write(path: Path, values: Any) -> None:
    with replace_file(path) as aside:
        aside.write_text(json.dumps(values), encoding="utf-8")
