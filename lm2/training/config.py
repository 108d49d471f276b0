"""TrainingConfig, and the learning rate's schedule."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from lm2.files import read_json
from lm2.model.config import LM2Config
from lm2.serialize import LARGEST_INT, Spec, within
from lm2.tasks.stories import data_folder
from lm2.training.curriculum import Stage


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Spec):
    """Everything that a training run depends on; the same values give the same weights on the same machine.

    The documents of a step do not depend on the model: models with the same `seed` and `stages` see the same ones.
    """

    model: LM2Config
    stories: tuple[str, ...]
    """bAbI files, folders or archives with tasks 1-10; the last tenth of each file's stories is held out."""
    tokenizer: str
    """A tokenizer.json."""
    seed: int
    stages: tuple[Stage, ...]
    books: tuple[str, ...] = ()
    """Texts, plain or xz-compressed, that statements are hidden in."""
    batch: int = 32
    """Documents per step and process."""
    questions: int = 6
    """Questions asked of each document of the MEMORY phase."""
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-4
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    checkpoint_every: int = 100
    memory_from_attention: bool = False
    """Whether a gated memory's weights are set by `GatedMemory.begin_as` when the MEMORY phase begins."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("batch", 1), ("questions", 1), ("checkpoint_every", 1), ("warmup_steps", 0), ("seed", 0)):
            within(name, getattr(self, name), least, LARGEST_INT)
        for name in ("learning_rate", "final_learning_rate", "weight_decay", "clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name):g}")
        if not self.stories or not self.stages:
            raise ValueError(f"needs stories and stages, not {self.stories} and {self.stages}")
        if self.memory_from_attention and not self.model.memory.design.begins_as_attention:
            raise ValueError(f"only a gated memory can begin as attention, not a {self.model.memory.value} one")

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> tuple[Stage, float]:
        """The stage of a step, and the share of it that lies before the step."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step / stage.steps
            step -= stage.steps
        raise ValueError(f"there are {self.steps} steps, and none after them")

    @classmethod
    def load(cls, path: Path) -> "TrainingConfig":
        """Read a JSON file. `tokenizer` is relative to it, `stories` and `books` to it or to the data folder
        (LM2_DATA_DIR).

        Raises ValueError with the path and what is wrong.
        """
        try:
            config = cls.from_json(read_json(path))
        except ValueError as error:
            raise ValueError(f"{path} is not a training configuration: {error}") from error
        files = {
            name: tuple(_locate(file, path.parent) for file in getattr(config, name)) for name in ("stories", "books")
        }
        return replace(config, tokenizer=str(path.parent / config.tokenizer), **files)


def _locate(name: str, folder: Path) -> str:
    """The path of a file in the configuration's folder or, where only that has it, in the data folder."""
    shared = data_folder()
    if shared is not None and not (folder / name).exists() and (shared / name).exists():
        folder = shared
    return str(folder / name)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then a half cosine down to `final_learning_rate`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    least = config.final_learning_rate
    return least + (config.learning_rate - least) * (1 + math.cos(math.pi * done)) / 2
