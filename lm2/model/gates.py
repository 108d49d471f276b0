"""The gates of a memory: their names, their sites and what their values mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm2.model.sites import AnySite, Site

if TYPE_CHECKING:
    from lm2.model.config import LM2Config


@dataclass(frozen=True)
class Gate:
    """A gate of a memory, with values between 0 and 1."""

    name: str
    """As in "input gate"."""
    site: AnySite
    share: str
    """What a value is a share of."""
    meaning: str
    least: bool = False
    """Whether low values are the interesting ones."""
    rows: str = "slot"
    """What each row of values belongs to: a slot or a token."""
    over: str = "slots and features"
    """What a mean over one segment's values, or one token's, runs over."""

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
"""LM2's gates by the names that links and figures use. Other memories use the same names for gates of the same use."""


def gates_of(config: LM2Config) -> tuple[Gate, ...]:
    """The gates of a model."""
    return tuple(config.memory.design.gates.values())
