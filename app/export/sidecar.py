"""Sidecars: what a figure was made with, so that it can be made again elsewhere, and what is different where it is."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.views.numbers import alike
from lm2.shown import shown

if TYPE_CHECKING:
    from app.charts import ComputedChart
    from app.export.figure_spec import FigureSpec

_LIBRARIES = ("torch", "transformer-lens", "numpy", "scikit-learn", "matplotlib", "tokenizers")
_SAID = {"results_digest": "the evaluation's tables", "device": "the device", "dtype": "the number format"}
"""Of a panel."""
_HERE = {"processor": "the processor", "threads": "the number of threads"}
"""Of the machine; sidecars of earlier versions do not say."""


def sidecar(spec: FigureSpec, made: Sequence[ComputedChart]) -> dict[str, Any]:
    """As JSON: the spec, what each chart was made with, the digest of its numbers, and the command that makes the
    figure again."""
    from lm2.origin import code_digest, processor, threads  # torch's seconds come after the first paint

    return {
        "figure": spec.to_json(),
        "figure_digest": spec.digest,
        "made": [computed_chart.to_json() for computed_chart in made],
        "code_digest": code_digest("app", "lm2", "probes"),
        "versions": versions(),
        "processor": processor(),
        "threads": threads(),
        "command": "lm2 figure sidecar.json -o fig.pdf",
    }


def check(told: Mapping[str, Any]) -> None:
    """Raise ValueError, with the field, where what a sidecar tells beside its figure is of another kind."""
    made, versions = told.get("made", []), told.get("versions", {})
    if not isinstance(made, list) or not all(isinstance(one, dict) for one in made):
        raise ValueError(f"made must be a list of objects, one for each panel, not {shown(made)}")
    if not isinstance(versions, dict):
        raise ValueError(f"versions must be an object, with a version for each library, not {shown(versions)}")


def differences(told: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a figure was made with that is otherwise now, a line each. `told` may be a bare spec, which says nothing of
    it."""
    lines = []
    for at, (one, other) in enumerate(zip(told.get("made", ()), now["made"])):
        where = f" of panel {at + 1}" if len(now["made"]) > 1 else ""
        lines += [f"{words}{where}" for words in (*_numbers(one, other), *_checkpoint(one, other))]
        for name, words in _SAID.items():
            if one.get(name) != other.get(name):
                was = f" (was {one.get(name)}, is {other.get(name)})" if name in ("device", "dtype") else ""
                lines.append(f"{words}{where}{was}")
    if told.get("code_digest", now["code_digest"]) != now["code_digest"]:
        lines.append("the workbench's code")
    lines += [
        f"{words} (was {told[name]}, is {now[name]})"
        for name, words in _HERE.items()
        if told.get(name, now[name]) != now[name]
    ]
    old = told.get("versions", now["versions"])
    changed = [
        f"{library} (was {old.get(library)}, is {version})"
        for library, version in now["versions"].items()
        if old.get(library) != version
    ]
    return [*lines, *([f"the versions of {', '.join(changed)}"] if changed else [])]


def _numbers(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Earlier versions kept their digest alone, bit by bit."""
    kept = one.get("numbers")
    same = alike(kept, other["numbers"]) if isinstance(kept, dict) else kept == other["numbers_sha256"]
    return [] if same else ["the numbers"]


def _checkpoint(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Earlier versions kept the digest of the weights alone, as that of the checkpoint."""
    there, now = one.get("checkpoint_digest"), other.get("checkpoint_digest")
    if there == now or ("weights_digest" not in one and there == other.get("weights_digest")):
        return []
    setup = "setup_digest" in one and one["setup_digest"] != other.get("setup_digest")
    weights = not setup or one.get("weights_digest") != other.get("weights_digest")
    return [
        *(["the checkpoint's weights"] if weights else []),
        *(["the checkpoint's configuration or tokenizer"] if setup else []),
    ]


def versions() -> dict[str, str]:
    """Of Python and of the libraries that a figure's numbers and looks depend on."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _LIBRARIES}}
