"""TrainingConfig, and the learning rate's schedule."""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lm2.files import read_json
from lm2.model.config import LM2Config
from lm2.model.lora import LoRA
from lm2.runs.batched import can_batch
from lm2.serialize import LARGEST_INT, Spec, within
from lm2.tasks.sets.question_set import file_of
from lm2.tasks.stories import data_folder
from lm2.training.curriculum import Stage
from lm2.training.start import Start, Trained
from lm2.weights.bundled import bundled_names

_NEWER = ("start", "train", "lora", "cycles")
"""Fields that the digests of earlier versions lack."""


@dataclass(frozen=True, kw_only=True)
class Cycle(Spec):
    """A linear warm-up of the learning rate from 0 to its peak, and a half cosine from there down to its end."""

    steps: int
    peak: float
    final: float
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        within("steps", self.steps, 1, LARGEST_INT)
        within("warmup_steps", self.warmup_steps, 0, self.steps)
        if min(self.peak, self.final) < 0:
            raise ValueError(f"a learning rate must not be negative, as peak {self.peak:g} or final {self.final:g} is")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Spec):
    """Everything that a training run depends on; the same values give the same weights on the same machine.

    The documents of a step do not depend on the model: models with the same `seed` and `stages` see the same ones.
    """

    model: LM2Config
    seed: int
    stages: tuple[Stage, ...]
    start: str | None = None
    """A checkpoint, by its name or path as for `lm2.load`, whose weights and tokenizer the model has; None for random
    weights. A memory that the checkpoint does not have begins silent."""
    train: Trained = Trained.ALL
    """The other weights stay as they are, and what is saved is an adapter."""
    lora: LoRA | None = None
    stories: tuple[str, ...] = ()
    """bAbI files, folders or archives with tasks 1-10; the last tenth of each file's stories is held out."""
    tokenizer: str | None = None
    """A tokenizer.json; None for that of the start."""
    books: tuple[str, ...] = ()
    """Texts, plain or xz-compressed, that statements are hidden in."""
    batch: int = 32
    """Documents per step and process."""
    questions: int = 6
    """Questions asked of each document of the MEMORY phase."""
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-4
    warmup_steps: int = 100
    cycles: tuple[Cycle, ...] = ()
    """The learning rate in several cycles, which span all steps. Where there are none it has one, by `learning_rate`,
    `final_learning_rate` and `warmup_steps`, which otherwise do not count."""
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
        if not self.stages or (not self.stories and any(stage.questions is None for stage in self.stages)):
            raise ValueError(f"needs stories and stages, not {self.stories} and {self.stages}")
        spanned = sum(cycle.steps for cycle in self.cycles)
        if self.cycles and spanned != self.steps:
            raise ValueError(f"the cycles of the learning rate must span the stages' {self.steps} steps, not {spanned}")
        if (self.tokenizer is None) == (self.start is None):
            raise ValueError(
                f"needs either a tokenizer or a start, which has one, not {self.tokenizer} and {self.start}"
            )
        self._check_train()
        if self.memory_from_attention and not self.model.memory.design.begins_as_attention:
            raise ValueError(f"only a gated memory can begin as attention, not a {self.model.memory.value} one")

    def _check_train(self) -> None:
        if self.start is not None and not can_batch(self.model):
            raise ValueError(
                "a model is trained where memory is the only path between segments: its attention_window must be its"
                f" segment_length {self.model.segment_length}, not {self.model.attention_window}"
            )
        if self.train is Trained.ALL:
            if self.lora is not None:
                ways = " and ".join(repr(way.value) for way in Trained if way.lora)
                raise ValueError(f"lora is for train {ways}, not {self.train.value!r}")
            return
        if self.start is None or (self.train.memory and not self.model.memory_layers):
            memory = " and a model with a memory" if self.train.memory else ""
            raise ValueError(f"train {self.train.value!r} needs a start{memory}")
        if self.train.lora and self.lora is None:
            raise ValueError(f"train {self.train.value!r} needs lora: its rank and layers")
        if self.lora is not None:
            self.lora.check(self.model)

    def to_json(self) -> dict[str, Any]:
        """As in `Spec`, but without newer fields at their default, so that digests stay those of earlier versions."""
        defaults = {field.name: field.default for field in fields(self) if field.name in _NEWER}
        values = super().to_json()
        return {
            name: value for name, value in values.items() if name not in _NEWER or getattr(self, name) != defaults[name]
        }

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
        """Read a JSON file. `tokenizer` and `start` are relative to it, `stories`, `books` and files of questions to it
        or to the data folder (LM2_DATA_DIR). With a start, `model` says only in what the model differs from it; an
        adapter's LoRA is kept.

        Raises ValueError with the path and what is wrong.
        """
        try:
            values = read_json(path)
            if isinstance(values, dict) and isinstance(values.get("start"), str):
                values = _completed(values, path.parent)
            config = cls.from_json(values)
        except ValueError as error:
            raise ValueError(f"{path} is not a training configuration: {error}") from error
        files = {
            name: tuple(_locate(file, path.parent) for file in getattr(config, name)) for name in ("stories", "books")
        }
        tokenizer = None if config.tokenizer is None else str(path.parent / config.tokenizer)
        stages = tuple(
            replace(stage, questions=_locate(stage.questions, path.parent))
            if stage.questions and file_of(stage.questions)
            else stage
            for stage in config.stages
        )
        return replace(config, tokenizer=tokenizer, stages=stages, **files)


def _completed(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The values of a configuration with those of its start."""
    name = values["start"]
    start = Start.read(name if name in bundled_names() else str(folder / name))
    completed = {**values, "start": start.name}
    if isinstance(values.get("model", {}), dict):
        completed["model"] = {**start.config.to_json(), **values.get("model", {})}
    if start.lora is not None and values.get("train", Trained.ALL.value) != Trained.ALL.value:
        completed.setdefault("lora", start.lora.to_json())
    return completed


def _locate(name: str, folder: Path) -> str:
    """The path of a file in the configuration's folder or, where only that has it, in the data folder."""
    shared = data_folder()
    if shared is not None and not (folder / name).exists() and (shared / name).exists():
        folder = shared
    return str(folder / name)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The learning rate of a step, by the cycle that it lies in."""
    for cycle in config.cycles:
        if step < cycle.steps:
            return _rate(step, cycle.steps, cycle.peak, cycle.final, cycle.warmup_steps)
        step -= cycle.steps
    return _rate(step, config.steps, config.learning_rate, config.final_learning_rate, config.warmup_steps)


def _rate(step: int, steps: int, peak: float, final: float, warmup_steps: int) -> float:
    """Linear warm-up, then a half cosine down to `final`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return final + (peak - final) * (1 + math.cos(math.pi * done)) / 2
