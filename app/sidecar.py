"""Sidecars: what a figure was made with, so that it can be made again elsewhere, and what is different where it is."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.figure_spec import FigureSpec
from app.views.numbers import arrays

if TYPE_CHECKING:
    from app.views.numbers import View
    from lm2.checkpoint import Checkpoint

_LIBRARIES = ("torch", "transformer-lens", "numpy", "matplotlib", "tokenizers")
_SAID = {
    "numbers": "the numbers", "checkpoint_digest": "the checkpoint's weights", "code_digest": "the workbench's code", "device": "the device",
    "dtype": "the number format", "versions": "the versions of",
}  # fmt: skip


def sidecar(spec: FigureSpec, checkpoint: Checkpoint, view: View) -> dict[str, Any]:
    """As JSON: the spec, what it was run with, the digest of its numbers, and the command that makes it again."""
    return {
        "figure": spec.to_json(), "figure_digest": spec.digest, "checkpoint_digest": checkpoint.digest, "device": checkpoint.device,
        "dtype": checkpoint.dtype, "seed": spec.run.seed, "numbers": _numbers(view), "code_digest": code_digest(), "versions": versions(),
        "command": "lm2 figure sidecar.json -o fig.pdf",
    }  # fmt: skip


def differences(told: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a figure was made with that is otherwise now, a line each. `told` may be a bare spec, which says nothing of it."""
    lines = []
    for name, words in _SAID.items():
        if name not in told or told[name] == now[name]:
            continue
        if name == "versions" and isinstance(told[name], dict):
            changed = [f"{library} (was {told[name].get(library)}, is {is_})" for library, is_ in now[name].items() if told[name].get(library) != is_]
            lines += [f"{words} {', '.join(changed)}"] if changed else []
        elif name in ("device", "dtype"):
            lines.append(f"{words} (was {told[name]}, is {now[name]})")
        else:
            lines.append(words)
    return lines


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


def _numbers(view: View) -> str:
    """SHA-256 of a view's arrays, bit by bit."""
    found = hashlib.sha256()
    for name, values in sorted(arrays(view).items()):
        found.update(f"{name} {values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()
