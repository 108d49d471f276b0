"""The toy model of each memory kind: laws of all kinds run over these."""

from lm2.model.memory import MemoryKind

TOYS = {
    MemoryKind.NONE: "plain",
    MemoryKind.GATED: "gated",
    MemoryKind.RELEASE: "release",
    MemoryKind.TOKENS: "rmt",
    MemoryKind.ARMT: "armt",
}
"""The name of its fixture."""
EVERY = tuple(TOYS.get(kind, kind.value) for kind in MemoryKind)
"""A kind without a toy model asks for a fixture that is not there, and so fails every law."""
REMEMBERING = EVERY[1:]
"""Those with a bank."""
