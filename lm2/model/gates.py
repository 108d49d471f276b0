"""The gates of a memory: where they are, what they are called, and what their values say."""

from dataclasses import dataclass

from lm2.model.config import LM2Config
from lm2.model.sites import Site


@dataclass(frozen=True)
class Gate:
    """One of a memory's gates, whose values lie between 0 and 1."""

    name: str
    """As in "input gate"."""
    site: Site
    share: str
    """What a value is a share of."""
    meaning: str
    least: bool = False
    """Whether low values are what a map of it is looked at for."""

    @property
    def words(self) -> str:
        return f"{self.name} gate"

    def there(self, config: LM2Config) -> bool:
        """Whether a model has it."""
        return self.site.layers(config) != ()


GATES = {
    "in": Gate("input", Site.GATE_IN, "share admitted", "share of the candidate admitted (1 admits all)"),
    "forget": Gate(
        "forget", Site.GATE_FORGET, "share kept", "share of the old bank kept (1 keeps all, 0 forgets)", least=True
    ),
    "out": Gate(
        "output", Site.GATE_OUT, "share let through",
        "share of what was read that enters the stream (1 lets all through)",
    ),
}  # fmt: skip
"""By the names that links and figures have for them."""


def gates_of(config: LM2Config) -> tuple[Gate, ...]:
    """Those that a model has."""
    return tuple(gate for gate in GATES.values() if gate.there(config))
