"""The plain Llama decoder, as a memory kind."""

from typing import NoReturn

from lm2.model.config import LM2Config
from lm2.model.lm2 import LM2
from lm2.model.memory import MemoryDesign, MemoryKind
from lm2.shown import shown

NO_MEMORY = MemoryKind.NONE
"""The kind of Llamas from other projects."""


class NoMemory(MemoryDesign):
    """A decoder without a bank: its segments are connected by attention alone."""

    title = "a plain decoder"
    sites = ()

    def block(self, config: LM2Config, layer: int) -> NoReturn:
        raise ValueError(f"a model without memory has none in block {layer}")

    def check(self, config: LM2Config) -> None:
        if config.memory_layers or config.slots:
            raise ValueError(
                f"a model without memory has 0 slots and no memory_layers, not {config.slots} and"
                f" {shown(config.memory_layers)}"
            )

    def first_bank(self, model: LM2) -> None:
        return None


DESIGN = NoMemory()
