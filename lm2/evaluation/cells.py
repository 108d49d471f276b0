"""What an evaluation asks: models x question sets, or models x tasks x lengths; and what a model has said to each
item."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from lm2.evaluation.recipes import Recipe, check_recipes
from lm2.tasks.babilong import length_tokens
from lm2.tasks.sets.question_set import pinned, questions
from lm2.weights import bundled


class Style(Enum):
    """How a question is put to a model."""

    PLAIN = "plain"
    """Mixture and question, as models trained here know it."""
    INSTRUCTED = "instructed"
    """Instruction, examples, form, context, question: for pretrained models."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that an evaluation's numbers depend on, apart from the files it reads: question sets, or BABILong's
    tasks at several lengths."""

    models: tuple[str, ...]
    """Names or paths, as `lm2.load` takes them."""
    recipes: tuple[Recipe, ...] = ()
    """Which of the models are seeds of one recipe; the answers do not depend on it."""
    sets: tuple[str, ...] = ()
    """Names of question sets, which `questions` reads; then there are no tasks, and what follows them is not used."""
    count: int | None = None
    """Questions of each set; None, all of a file's, and of a built-in set 64."""
    tasks: tuple[int, ...] = ()
    lengths: tuple[str, ...] = ()
    samples: tuple[int, ...] = ()
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
        check_recipes(self.recipes, self.models)
        if self.sets:
            if not self.models or self.tasks or self.lengths or self.samples:
                raise ValueError(f"an evaluation of question sets needs models, and no tasks or lengths, not {self}")
            object.__setattr__(self, "sets", tuple(dict.fromkeys(map(pinned, self.sets))))
            return
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
    """One model and question set, or one model, task and length."""

    model: str
    task: str
    """The set's name; of BABILong's grid, qa1 to qa10."""
    length: str = ""
    """Empty for a set."""
    samples: int
    """Questions; of a task, for each seed."""

    @property
    def file(self) -> str:
        name = (
            self.model
            if self.model in bundled.bundled_names()
            else f"{Path(self.model).stem}-{short_digest(self.model)}"
        )
        if self.length:
            return f"{name}/{self.task}-{self.length}.json"
        return f"{name}/{re.sub('[^a-zA-Z0-9]+', '-', self.task)[:40].strip('-')}-{short_digest(self.task)}.json"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One item and what a model said."""

    seed: int = 0
    story: str
    """The item's group: items of one story share their facts, and count as one."""
    question: str
    target: str
    output: str = ""
    tokens: int
    """Of facts and book; of a set's question, of the whole prompt."""
    accepted: tuple[str, ...] = ()
    """Answers that are accepted besides the target."""
    rivals: tuple[str, ...] = ()
    """Where every item of the set has some."""
    log_probabilities: tuple[float, ...] = ()
    """Of the target and of each rival after the prompt, in nats."""
    skipped: str = ""
    """Why the model was not asked; empty if it was."""

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.target, *self.accepted)

    def to_json(self) -> dict[str, Any]:
        """Without what only some sets' items have, where this one does not."""
        optional = ("accepted", "rivals", "log_probabilities", "skipped")
        return {name: value for name, value in asdict(self).items() if value or name not in optional}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Answered":
        """Raises TypeError for other fields."""
        by_name: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**by_name)


def cells(evaluation: Evaluation) -> list[EvaluationCell]:
    """Short lengths first. Raises ValueError for a set that cannot be read."""
    if evaluation.sets:
        counts = {name: len(questions(name, evaluation.count)) for name in evaluation.sets}
        return [
            EvaluationCell(model=model, task=name, samples=count)
            for model in evaluation.models
            for name, count in counts.items()
        ]
    return [
        EvaluationCell(model=model, task=f"qa{task}", length=length, samples=samples)
        for length, samples in zip(evaluation.lengths, evaluation.samples)
        for model in evaluation.models
        for task in evaluation.tasks
    ]


def task_order(task: str) -> int:
    """Sorts tasks by their numbers, after "mean"; question sets keep their order."""
    number = task.removeprefix("qa")
    return int(number) if number.isdecimal() else -(task == "mean")


def short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
