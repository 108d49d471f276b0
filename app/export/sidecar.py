"""Sidecars: what a figure was made with, so that it can be made again elsewhere, and what differs there."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.views.numbers import alike
from lm2.shown import shown

if TYPE_CHECKING:
    from app.charts import ComputedChart
    from app.export.figure_spec import FigureSpec

_LIBRARIES = ("torch", "transformer-lens", "numpy", "scikit-learn", "matplotlib", "tokenizers")
_OF_PANEL = {"results_digest": "the evaluation's tables", "device": "the device", "dtype": "the number format"}
_OF_MACHINE = {"processor": "the processor", "threads": "the number of threads"}
"""Sidecars of earlier versions do not have these."""


def sidecar(spec: FigureSpec, made: Sequence[ComputedChart]) -> dict[str, Any]:
    """The spec, what each chart was made with, digests of its numbers, and the command that makes the figure again."""
    from lm2.origin import code_digest, processor, threads  # slow: imports torch

    return {
        "figure": spec.to_json(),
        "figure_digest": spec.digest,
        "made": [computed.to_json() for computed in made],
        "code_digest": code_digest("app", "lm2", "probes"),
        "versions": versions(),
        "processor": processor(),
        "threads": threads(),
        "command": "lm2 figure sidecar.json -o fig.pdf",
    }


def to_json(sidecar: Mapping[str, Any]) -> str:
    return json.dumps(sidecar, indent=1, sort_keys=True, ensure_ascii=False)


def check(sidecar: Mapping[str, Any]) -> None:
    """Raise ValueError where fields other than the figure have the wrong type."""
    made, versions = sidecar.get("made", []), sidecar.get("versions", {})
    if not isinstance(made, list) or not all(isinstance(chart, dict) for chart in made):
        raise ValueError(f"made must be a list of objects, one for each panel, not {shown(made)}")
    if not isinstance(versions, dict):
        raise ValueError(f"versions must be an object, with a version for each library, not {shown(versions)}")


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each thing in which two sidecars of a figure differ. `before` may be a bare spec."""
    lines = []
    for number, (old, new) in enumerate(zip(before.get("made", ()), now["made"]), start=1):
        where = f" of panel {number}" if len(now["made"]) > 1 else ""
        lines += [f"{words}{where}" for words in (*_numbers(old, new), *_checkpoint(old, new))]
        for name, words in _OF_PANEL.items():
            if old.get(name) != new.get(name):
                change = f" (was {old.get(name)}, is {new.get(name)})" if name in ("device", "dtype") else ""
                lines.append(f"{words}{where}{change}")
    if before.get("code_digest", now["code_digest"]) != now["code_digest"]:
        lines.append("the workbench's code")
    for name, words in _OF_MACHINE.items():
        if before.get(name, now[name]) != now[name]:
            lines.append(f"{words} (was {before[name]}, is {now[name]})")
    old = before.get("versions", now["versions"])
    changed = [
        f"{library} (was {old.get(library)}, is {version})"
        for library, version in now["versions"].items()
        if old.get(library) != version
    ]
    return [*lines, *([f"the versions of {', '.join(changed)}"] if changed else [])]


def _numbers(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    numbers = old.get("numbers")  # of earlier versions a digest
    same = alike(numbers, new["numbers"]) if isinstance(numbers, dict) else numbers == new["numbers_sha256"]
    return [] if same else ["the numbers"]


def _checkpoint(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, now = old.get("checkpoint_digest"), new.get("checkpoint_digest")
    # Earlier versions kept the digest of the weights as that of the checkpoint.
    if before == now or ("weights_digest" not in old and before == new.get("weights_digest")):
        return []
    setup = "setup_digest" in old and old["setup_digest"] != new.get("setup_digest")
    weights = not setup or old.get("weights_digest") != new.get("weights_digest")
    parts = {"the checkpoint's weights": weights, "the checkpoint's configuration or tokenizer": setup}
    return [words for words, differs in parts.items() if differs]


def versions() -> dict[str, str]:
    """Of Python and of the libraries on which a figure's numbers and looks depend."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _LIBRARIES}}
