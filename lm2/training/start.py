"""What training starts from instead of random weights, and which weights it changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor

from lm2.model.config import LM2Config
from lm2.model.lm2 import LM2
from lm2.model.lora import LoRA, add_lora, is_lora, merged
from lm2.model.weights import in_memory
from lm2.shown import shown
from lm2.weights.adapter import check_backbone, read_adapter
from lm2.weights.bundled import is_adapter, path_of
from lm2.weights.checkpoint import read_files
from lm2.weights.folder import ModelFiles


class Trained(Enum):
    """Which weights training changes."""

    ALL = "all"
    MEMORY = "memory"
    LORA = "lora"
    """What a memory will need, before there is one or while it stays as it is."""
    MEMORY_AND_LORA = "memory+lora"

    @property
    def memory(self) -> bool:
        """Whether a memory is trained."""
        return self is not Trained.LORA

    @property
    def lora(self) -> bool:
        """Whether a LoRA is trained."""
        return self in (Trained.LORA, Trained.MEMORY_AND_LORA)

    def includes(self, name: str) -> bool:
        """Whether it changes the weight of this name."""
        return self is Trained.ALL or (self.memory and in_memory(name)) or (self.lora and is_lora(name))


@dataclass(frozen=True, kw_only=True)
class Start:
    """A checkpoint that training starts from."""

    name: str
    config: LM2Config
    lora: LoRA | None
    """That of an adapter."""
    weights: Mapping[str, Tensor]
    """With the LoRA's, which are not merged."""
    base: ModelFiles
    """The adapter's base; where the start is no adapter, itself."""
    base_path: Path

    @classmethod
    def read(cls, name: str) -> "Start":
        """Raises ValueError as `lm2.load` raises CheckpointError."""
        path = path_of(name)
        if is_adapter(path):
            adapter = read_adapter(path, read_files)
            config, weights, base, base_path = adapter.config, adapter.weights, adapter.base, adapter.base_path
            return cls(name=name, config=config, lora=adapter.lora, weights=weights, base=base, base_path=base_path)
        base = read_files(name)
        return cls(name=name, config=base.config, lora=None, weights=base.weights, base=base, base_path=path)

    def check(self, config: LM2Config, lora: LoRA | None) -> None:
        """Raise ValueError for a model that cannot have these weights, or a LoRA other than this one."""
        check_backbone(config, self.config, f"the start {shown(self.name)}")
        if lora is not None and self.lora not in (None, lora):
            raise ValueError(
                f"lora is {shown(lora.to_json())}, and that of the start {shown(self.name)} is"
                f" {shown(self.lora.to_json())}"
            )

    def put_into(self, model: LM2, lora: LoRA | None, generator: torch.Generator) -> None:
        """Give a fresh model these weights. A memory that the start does not have is silenced, and a LoRA that it does
        not have is drawn from `generator`; where the model is to have none, the start's is merged."""
        if not self.config.memory_layers and model.config.memory_layers:
            model.config.memory.design.silence(model)
        if lora is not None:
            add_lora(model, lora, generator)
        weights = merged(self.weights) if lora is None else self.weights
        model.load_weights(model.weights() | dict(weights))
