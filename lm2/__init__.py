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
    "Capture": "lm2.capture",
    "Checkpoint": "lm2.checkpoint",
    "CheckpointError": "lm2.checkpoint",
    "Clamp": "lm2.interventions",
    "Freeze": "lm2.interventions",
    "HeadMax": "lm2.capture",
    "HeadMean": "lm2.capture",
    "LM2Config": "lm2.config",
    "MemoryKind": "lm2.config",
    "PooledMax": "lm2.capture",
    "PooledMean": "lm2.capture",
    "Reset": "lm2.interventions",
    "RunSpec": "lm2.spec",
    "Site": "lm2.sites",
    "SlotMass": "lm2.capture",
    "TopSlots": "lm2.capture",
    "Trace": "lm2.trace",
    "Whole": "lm2.capture",
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
