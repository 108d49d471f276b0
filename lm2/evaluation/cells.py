"""What an evaluation asks: models x tasks x lengths, and what a model has said to each item."""

import hashlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lm2.tasks.babilong import length_tokens
from lm2.weights import bundled


class Style(Enum):
    """How a question is put to a model."""

    PLAIN = "plain"
    """Mixture and question, as models trained here know it."""
    INSTRUCTED = "instructed"
    """Instruction, examples, form, context, question: for pretrained models."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that an evaluation's numbers depend on, apart from the files it reads."""

    models: tuple[str, ...]
    """Names or paths, as `lm2.load` takes them."""
    tasks: tuple[int, ...]
    lengths: tuple[str, ...]
    samples: tuple[int, ...]
    """Items of a task and seed, for each length."""
    seeds: int = 1
    """Seeds 0..seeds-1 are pooled; each draws its own items and mixes them anew."""
    babi: str | None = None
    """A folder or archive of bAbI files: its test files if it has any, else the last tenth of each file's stories.
    None: the simulator."""
    books: str | None = None
    """A text or folder of texts to hide facts in; not needed at 0k."""
    length_tokenizer: str = "babi-lm2"
    """The bundled checkpoint, or tokenizer.json, whose tokenizer counts lengths."""
    style: Style = Style.PLAIN
    segment_length: int | None = None
    """None: each checkpoint's own."""
    device: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not (self.models and self.tasks and self.lengths) or self.seeds < 1 or min(self.samples, default=0) < 1:
            raise ValueError(f"an evaluation needs models, tasks, lengths, samples and a seed, not {self}")
        if len(self.samples) != len(self.lengths):
            raise ValueError(f"{len(self.lengths)} lengths need as many numbers of samples, not {len(self.samples)}")
        for length in self.lengths:
            length_tokens(length)
        outside = [task for task in self.tasks if not 1 <= task <= 10]
        if outside:
            raise ValueError(f"tasks are qa1 to qa10, not {', '.join(f'qa{task}' for task in outside)}")


@dataclass(frozen=True, kw_only=True)
class EvaluationCell:
    """One model, task and length."""

    model: str
    task: int
    length: str
    samples: int

    @property
    def file(self) -> str:
        name = (
            self.model
            if self.model in bundled.bundled_names()
            else f"{Path(self.model).stem}-{short_digest(self.model)}"
        )
        return f"{name}/qa{self.task}-{self.length}.json"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One item and what a model said."""

    seed: int
    story: str
    """Items of one story share their facts: they count as one group."""
    question: str
    target: str
    output: str
    tokens: int
    """Of facts and book."""


def cells(evaluation: Evaluation) -> list[EvaluationCell]:
    """Short lengths first."""
    return [
        EvaluationCell(model=model, task=task, length=length, samples=samples)
        for length, samples in zip(evaluation.lengths, evaluation.samples)
        for model in evaluation.models
        for task in evaluation.tasks
    ]


def short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
