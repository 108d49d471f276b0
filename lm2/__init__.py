"""LM2 Workbench: memory-augmented language models, and what happens inside them.

    checkpoint = lm2.load("babi-lm2-qa1")
    spec = lm2.RunSpec(checkpoint="babi-lm2-qa1", text="...", captures=(lm2.Capture(lm2.Site.READ_PATTERN),))
    trace = lm2.run(checkpoint, spec)
    trace.at(lm2.Site.READ_PATTERN, segment=1, layer=0)      # [head, token, slot]

Importing this package is fast; torch and TransformerLens are imported with the first name that needs them.
"""

import importlib
from typing import Any

_SOURCES = {
    "Add": "lm2.runs.operations",
    "BankEdit": "lm2.runs.interventions",
    "Capture": "lm2.runs.capture",
    "Carry": "lm2.runs.interventions",
    "Checkpoint": "lm2.weights.checkpoint",
    "CheckpointError": "lm2.weights.checkpoint",
    "Edit": "lm2.runs.interventions",
    "Freeze": "lm2.runs.interventions",
    "HeadMax": "lm2.runs.capture",
    "HeadMean": "lm2.runs.capture",
    "Initial": "lm2.runs.donors",
    "LM2Config": "lm2.model.config",
    "Mean": "lm2.runs.donors",
    "MemoryKind": "lm2.model.memory",
    "MemoryOff": "lm2.runs.interventions",
    "Patch": "lm2.runs.donors",
    "Permute": "lm2.runs.operations",
    "Persistence": "lm2.runs.interventions",
    "PooledMax": "lm2.runs.capture",
    "PooledMean": "lm2.runs.capture",
    "ProjectOut": "lm2.runs.operations",
    "Reset": "lm2.runs.interventions",
    "RunSpec": "lm2.runs.spec",
    "Scale": "lm2.runs.operations",
    "Set": "lm2.runs.operations",
    "Site": "lm2.model.sites",
    "SlotMass": "lm2.runs.capture",
    "TopSlots": "lm2.runs.capture",
    "Trace": "lm2.runs.trace",
    "Whole": "lm2.runs.capture",
    "WriteBlock": "lm2.runs.interventions",
    "capture": "lm2.stores.capture",
    "generate": "lm2.runs.generation",
    "graft": "lm2.weights.graft",
    "load": "lm2.weights.checkpoint",
    "open_store": "lm2.stores.store",
    "questions": "lm2.tasks.sets.question_set",
    "run": "lm2.runs.runner",
}

_MODULES = {"babilong": "lm2.tasks.babilong"}


def __getattr__(name: str) -> Any:
    if name == "__all__":  # for `from lm2 import *`
        return __dir__()
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _SOURCES:
        raise AttributeError(f"module 'lm2' has no attribute {name!r}")
    return getattr(importlib.import_module(_SOURCES[name]), name)


def __dir__() -> list[str]:
    return sorted([*_SOURCES, *_MODULES])
