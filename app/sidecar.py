"""Sidecars: what a figure was made with, so that it can be made again elsewhere, and what is different where it is."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.charts import Made
    from app.figure_spec import FigureSpec

_LIBRARIES = ("torch", "transformer-lens", "numpy", "scikit-learn", "matplotlib", "tokenizers")
_SAID = {
    "numbers": "the numbers", "checkpoint_digest": "the checkpoint's weights", "results_digest": "the evaluation's tables",
    "device": "the device", "dtype": "the number format",
}  # fmt: skip
"""Of a panel."""


def sidecar(spec: FigureSpec, made: Sequence[Made]) -> dict[str, Any]:
    """As JSON: the spec, what each chart was made with, the digest of its numbers, and the command that makes the figure again."""
    return {
        "figure": spec.to_json(), "figure_digest": spec.digest, "made": [one.to_json() for one in made], "code_digest": code_digest(),
        "versions": versions(), "command": "lm2 figure sidecar.json -o fig.pdf",
    }  # fmt: skip


def differences(told: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a figure was made with that is otherwise now, a line each. `told` may be a bare spec, which says nothing of it."""
    lines = []
    for at, (one, other) in enumerate(zip(told.get("made", ()), now["made"])):
        where = f" of panel {at + 1}" if len(now["made"]) > 1 else ""
        for name, words in _SAID.items():
            if one.get(name) != other.get(name):
                was = f" (was {one.get(name)}, is {other.get(name)})" if name in ("device", "dtype") else ""
                lines.append(f"{words}{where}{was}")
    if told.get("code_digest", now["code_digest"]) != now["code_digest"]:
        lines.append("the workbench's code")
    old = told.get("versions", now["versions"])
    changed = [f"{library} (was {old.get(library)}, is {version})" for library, version in now["versions"].items() if old.get(library) != version]
    return [*lines, *([f"the versions of {', '.join(changed)}"] if changed else [])]


def versions() -> dict[str, str]:
    """Of Python and of the libraries that a figure's numbers and looks depend on."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _LIBRARIES}}


@cache
def code_digest() -> str:
    """SHA-256 of the workbench's own Python files, in the order of their names."""
    root, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for package in ("app", "lm2", "probes") for path in (root / package).rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()
