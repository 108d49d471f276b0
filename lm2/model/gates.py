"""The gates of a memory: where they are, what they are called, and what their values say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm2.model.sites import AnySite, Site

if TYPE_CHECKING:
    from lm2.model.config import LM2Config


@dataclass(frozen=True)
class Gate:
    """One of a memory's gates, whose values lie between 0 and 1."""

    name: str
    """As in "input gate"."""
    site: AnySite
    share: str
    """What a value is a share of."""
    meaning: str
    least: bool = False
    """Whether low values are what a map of it is looked at for."""
    rows: str = "slot"
    """What has a value of its own, or one for each feature: a slot, a token."""
    over: str = "slots and features"
    """What all values of one segment are of, or of one token."""

    @property
    def words(self) -> str:
        return f"{self.name} gate"


GATES = {
    "in": Gate("input", Site.GATE_IN, "share admitted", "share of the candidate admitted (1 admits all)"),
    "forget": Gate(
        "forget", Site.GATE_FORGET, "share kept", "share of the old bank kept (1 keeps all, 0 forgets)", least=True
    ),
    "out": Gate(
        "output",
        Site.GATE_OUT,
        "share let through",
        "share of what was read that enters the stream (1 lets all through)",
        rows="token",
        over="features",
    ),
}
"""LM2's, by the names that links and figures have for them. A memory whose gate does the same in another way gives it
the same name."""


def gates_of(config: LM2Config) -> tuple[Gate, ...]:
    """Those that a model has."""
    return tuple(config.memory.design.gates.values())
