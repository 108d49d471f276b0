"""LM2 Workbench: memory-augmented language models, opened.

    checkpoint = lm2.load("babi-lm2-qa1")
    spec = lm2.RunSpec(checkpoint="babi-lm2-qa1", text="...", captures=(lm2.Capture(lm2.Site.READ_PATTERN),))
    trace = lm2.run(checkpoint, spec)
    trace.at(lm2.Site.READ_PATTERN, segment=1, layer=0)      # [head, token, slot]

Importing this package is light; torch and TransformerLens are imported with the first name that needs them.
"""

import importlib
from typing import Any

_HOMES = {
    "Add": "lm2.operations",
    "BankEdit": "lm2.interventions",
    "Capture": "lm2.capture",
    "Carry": "lm2.interventions",
    "Checkpoint": "lm2.checkpoint",
    "CheckpointError": "lm2.checkpoint",
    "Edit": "lm2.interventions",
    "Freeze": "lm2.interventions",
    "HeadMax": "lm2.capture",
    "HeadMean": "lm2.capture",
    "Initial": "lm2.operations",
    "LM2Config": "lm2.config",
    "Mean": "lm2.operations",
    "MemoryKind": "lm2.config",
    "MemoryOff": "lm2.interventions",
    "Patch": "lm2.operations",
    "Permute": "lm2.operations",
    "Persistence": "lm2.interventions",
    "PooledMax": "lm2.capture",
    "PooledMean": "lm2.capture",
    "ProjectOut": "lm2.operations",
    "Reset": "lm2.interventions",
    "RunSpec": "lm2.spec",
    "Scale": "lm2.operations",
    "Set": "lm2.operations",
    "Site": "lm2.sites",
    "SlotMass": "lm2.capture",
    "TopSlots": "lm2.capture",
    "Trace": "lm2.trace",
    "Whole": "lm2.capture",
    "WriteBlock": "lm2.interventions",
    "babilong": "lm2.babilong",
    "generate": "lm2.runner",
    "graft": "lm2.grafting",
    "load": "lm2.checkpoint",
    "run": "lm2.runner",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lm2' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    return home if _HOMES[name] == f"lm2.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return __all__
