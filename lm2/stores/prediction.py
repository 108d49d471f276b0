"""What a store will take, before there is one."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lm2.runs.loop import run_segments
from lm2.runs.runner import prepare, source_activations
from lm2.runs.spec import RunSpec
from lm2.stores.layout import FIRST_LEVEL, LAST_FIRST_LEVEL, StoreLayout
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.cost import working_bytes

_PARTS = {
    "queries": "read queries",
    "pattern": "patterns that are kept themselves",
    "pyramid": "pooled maps",
    "bank": "banks",
}
"""Arrays by the last part of their names, in words."""
_OTHERS = "predictions, gates and statistics"


@dataclass(frozen=True, kw_only=True)
class StoreCost:
    """Bytes on disk, and about how long the run will take."""

    tokens: int
    segments: int
    parts: dict[str, int]
    """Bytes by what they are for."""
    coarser: dict[int, int]
    """Bytes in all with pyramids that begin at another level."""
    seconds: float
    """From a segment that was run; about."""

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "bytes": self.bytes}


def predict(checkpoint: Checkpoint, spec: RunSpec, first_level: int = FIRST_LEVEL) -> StoreCost:
    """What `capture` would take. Runs the first segment, twice. Raises ValueError as `prepare` does."""
    tokens, segments = prepare(checkpoint, spec)

    def layout(level: int) -> StoreLayout:
        return StoreLayout.of(checkpoint, spec, len(tokens), len(segments), level)

    parts: dict[str, int] = {}
    for plan in layout(first_level).arrays.values():
        part = _PARTS.get(plan.name.rpartition("/")[2], _OTHERS)
        parts[part] = parts.get(part, 0) + plan.bytes
    seconds = 0.0
    sources = source_activations(checkpoint, spec)
    with checkpoint.lock, torch.inference_mode():
        for _ in range(2):  # the first time is slower
            began = time.perf_counter()
            for _, output, _ in run_segments(checkpoint.model, segments[:1], spec, {}, sources=sources):
                assert output.logits.isfinite().all()
            seconds = time.perf_counter() - began
    work = sum(working_bytes(checkpoint.config, segment) for segment in segments)
    return StoreCost(
        tokens=len(tokens),
        segments=len(segments),
        parts=parts,
        coarser={level: layout(level).bytes for level in range(FIRST_LEVEL, LAST_FIRST_LEVEL + 1)},
        seconds=seconds * work / working_bytes(checkpoint.config, segments[0]),
    )


def check_room(path: Path, needed: int) -> None:
    """Raise ValueError where a folder's disk has fewer bytes free than a store needs."""
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise ValueError(
            f"the store would take {needed:,} bytes, and {existing} has {free:,} free: choose another disk, or pool"
            " more tokens (--pool)"
        )
