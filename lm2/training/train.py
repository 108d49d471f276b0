"""The training loop: back-propagation through segments, a curriculum over their number, and exact resumption.

Written on Hugging Face `accelerate`: the same configuration trains on one CPU, one GPU or many.
"""

import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from lm2.files import read_json, read_text, restore_folder
from lm2.model.config import LM2Config, MemoryKind
from lm2.model.finite import NotFiniteError
from lm2.model.lm2 import LM2
from lm2.runs.batched import run_batch
from lm2.serialize import MOST, Spec, within
from lm2.tasks.babi import Story, read, split
from lm2.tasks.stories import data_folder
from lm2.text.segments import numbered
from lm2.text.tokens import Tokenizer
from lm2.training.curriculum import TASKS, Lessons, Phase, Stage, TrainingDocument
from lm2.training.state import Progress, resume, save_state
from lm2.weights.checkpoint import save

MOST_IN_ONE_SEGMENT = 8
"""Statements that a question shares a segment with, at most."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Spec):
    """Everything a training run depends on; the same values give the same weights on the same machine.

    Which documents a step sees does not depend on the model, so that models trained with the same `seed` and `stages`
    have seen the same.
    """

    model: LM2Config
    stories: tuple[str, ...]
    """bAbI files, folders or archives with tasks 1-10; the last tenth of each file's stories is held out."""
    tokenizer: str
    """A tokenizer.json."""
    seed: int
    stages: tuple[Stage, ...]
    books: tuple[str, ...] = ()
    """Plain texts, or xz-compressed ones, that statements are hidden in."""
    batch: int = 32
    """Documents a step, on each process."""
    questions: int = 6
    """Questions asked of each document of the MEMORY phase."""
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-4
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    checkpoint_every: int = 100
    memory_from_attention: bool = False
    """Whether a gated memory's weights begin, with the MEMORY phase, as `GatedMemory.begin_as` has them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("batch", 1), ("questions", 1), ("checkpoint_every", 1), ("warmup_steps", 0), ("seed", 0)):
            within(name, getattr(self, name), least, MOST)
        for name in ("learning_rate", "final_learning_rate", "weight_decay", "clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name):g}")
        if not self.stories or not self.stages:
            raise ValueError(f"needs stories and stages, not {self.stories} and {self.stages}")
        if self.memory_from_attention and self.model.memory is not MemoryKind.GATED:
            raise ValueError(f"only a gated memory can begin as attention, not a {self.model.memory.value} one")

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> tuple[Stage, float]:
        """The stage of a step, and how far through it the step is, from 0 to 1."""
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
            found = cls.from_json(read_json(path))
        except ValueError as error:
            raise ValueError(f"{path} is not a training configuration: {error}") from error
        files = {
            name: tuple(str(_found(file, path.parent)) for file in getattr(found, name))
            for name in ("stories", "books")
        }
        return replace(found, tokenizer=str(path.parent / found.tokenizer), **files)


def _found(name: str, beside: Path) -> Path:
    """A file: beside the configuration, or else in the data folder if it is there."""
    shared = data_folder()
    elsewhere = shared is not None and not (beside / name).exists() and (shared / name).exists()
    return shared / name if elsewhere else beside / name


Hits = dict[str, tuple[int, int]]
"""(right, asked) by kind of question. Right is an answer whose every token was the most probable one."""


class Rollout(nn.Module):
    """A model over whole documents, so that data-parallel wrappers see one forward for one backward."""

    def __init__(self, model: LM2) -> None:
        super().__init__()
        self.model = model

    def forward(self, documents: Sequence[TrainingDocument], language_weight: float) -> tuple[Tensor, Hits]:
        """Mean cross-entropy of the answers' tokens, each document counting alike, plus weighted next-token loss."""
        documents = sorted(documents, key=lambda document: -len(document.segments))
        banks, language = self._read(documents, language=language_weight > 0)
        loss, hits = self._ask(documents, banks)
        return loss + language_weight * language if language_weight else loss, hits

    def _read(self, documents: Sequence[TrainingDocument], *, language: bool) -> tuple[list[Tensor | None], Tensor]:
        """The banks of all documents after 0, 1, 2 ... segments, longest documents first, and the mean next-token
        loss."""
        banks = [self.model.fresh_bank(len(documents))]
        losses = []
        read = [numbered(document.segments) for document in documents]
        if banks[0] is None and not language:  # no question will know what was read
            read = []
        writes = max((question.after for document in documents for question in document.asked), default=0)
        for ids, non_padding, output in run_batch(self.model, read, banks[0], writes=writes):
            banks.append(output.bank)
            if language and ids.shape[1] > 1:
                followed = non_padding[:, 1:]
                logits = output.unembed(output.final[:, :-1][followed]).float()
                losses.append(nn.functional.cross_entropy(logits, ids[:, 1:][followed], reduction="none"))
        nothing = torch.zeros((), device=self.model.embed.weight.device)
        return banks, torch.cat(losses).mean() if losses else nothing

    def _ask(self, documents: Sequence[TrainingDocument], banks: Sequence[Tensor | None]) -> tuple[Tensor, Hits]:
        """Each question is a row of its own, which begins with the bank of its document."""
        asked = [(row, question) for row, document in enumerate(documents) for question in document.asked]
        losses, owners, hits = [], [], {}
        # Rows of like length go together: padding costs as much as text.
        asked.sort(key=lambda pair: len(pair[1].ids))
        for _, group in itertools.groupby(asked, key=lambda pair: (len(pair[1].ids) - 1).bit_length()):
            rows = list(group)
            bank = None if banks[0] is None else torch.stack([banks[question.after][row] for row, question in rows])
            segments = [numbered([question.ids], question.after) for _, question in rows]
            ids, _, output = next(run_batch(self.model, segments, bank, writes=0))
            places = [
                (at, len(question.ids) - 1 - back)
                for at, (_, question) in enumerate(rows)
                for back in range(question.answer)
            ]
            row, column = torch.tensor(places, device=ids.device).T
            logits, target = output.unembed(output.final[row, column - 1]).float(), ids[row, column]
            losses.append(nn.functional.cross_entropy(logits, target, reduction="none"))
            owners += [rows[at][0] for at, _ in places]
            right = (logits.argmax(-1) == target).tolist()
            for at, (_, question) in enumerate(rows):
                got, count = hits.get(question.label, (0, 0))
                hits[question.label] = (
                    got + all(hit for hit, (place, _) in zip(right, places) if place == at),
                    count + 1,
                )
        owner = torch.tensor(owners, device=losses[0].device)
        weight = 1 / owner.bincount().clamp(min=1)[owner]
        return (torch.cat(losses) * weight).sum() / weight.sum(), hits


def draw(config: TrainingConfig, lessons: Lessons, step: int, process: int) -> list[TrainingDocument]:
    """The documents of one step: a function of seed, stages, step and process alone."""
    rng = random.Random(f"{config.seed}/{step}/{process}")
    stage, share = config.at(step)
    statements, prose = (round(low + share * (high - low)) for low, high in (stage.statements, stage.prose))
    length = rng.choice(stage.lengths)
    documents = []
    while len(documents) < (
        config.batch if stage.phase is Phase.MEMORY else 6 * config.batch
    ):  # the early ones are short
        task = rng.choice(stage.tasks)
        if stage.phase is Phase.REPEAT or rng.random() < 0.05:
            documents.append(lessons.repeat(rng))
        elif stage.phase is Phase.OPEN or rng.random() < 0.1:
            documents.append(lessons.open(rng, task, min(statements, MOST_IN_ONE_SEGMENT)))
        else:
            documents.append(lessons.memory(rng, task, statements, prose, length, stage.places, config.questions))
        if not documents[-1].asked:
            documents.pop()
    return documents


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then a half cosine down to `final_learning_rate`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return (
        config.final_learning_rate
        + (config.learning_rate - config.final_learning_rate) * (1 + math.cos(math.pi * done)) / 2
    )


@torch.no_grad()
def held_out_accuracy(
    model: LM2, lessons: Lessons, stories: Sequence[Story], config: TrainingConfig, each: int
) -> Hits:
    """The last question of `each` held-out stories of every task, always the same ones, in a segment of its own."""
    tasks = sorted({task for stage in config.stages for task in stage.tasks})
    asked = [story for task in tasks for story in [story for story in stories if story.task == task][:each]]
    return Rollout(model)(
        [lessons.exam(story, story.questions[-1], config.model.segment_length) for story in asked], 0.0
    )[1]


def train(config: TrainingConfig, folder: Path, on_step: Callable[[Progress, float], None] | None = None) -> LM2:
    """Train, or go on training, into `folder`; returns the trained model.

    `folder`/training holds the resumable state (no pickle) and is replaced in one step; `folder`/checkpoint, at the
    end, what `lm2.load` opens. `on_step` hears the progress and the loss. Interrupted at any moment and started again,
    the weights come out the same.

    Raises NotFiniteError, with step and loss, before weights are changed by a loss or a gradient that is NaN or
    infinite; the state that was kept last is left as it is. Raises ValueError for a folder in which another
    configuration, or this one with other files, was trained, and for a damaged state.
    """
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    tokenizer = Tokenizer.load(Path(config.tokenizer))
    known, held = _stories(config)
    lessons = Lessons(known, [read_text(Path(book)) for book in config.books], tokenizer, config.model.segment_end)
    model = LM2(config.model)
    model.initialise(torch.Generator().manual_seed(config.seed))
    optimizer = _optimizer(config, model)
    restore_folder(folder / "checkpoint")
    progress = resume(folder / "training", config, model, optimizer)
    rollout, optimizer = accelerator.prepare(Rollout(model), optimizer)
    first_with_memory = next((step for step in range(config.steps) if config.at(step)[0].phase is Phase.MEMORY), None)
    while progress.step < config.steps:
        began = time.perf_counter()
        stage, _ = config.at(progress.step)
        if config.memory_from_attention and progress.step == first_with_memory:
            for block in model.blocks:
                if block.mem is not None:
                    block.mem.begin_as(block.attn)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, progress.step)
        with _step(progress.step + 1, folder):
            loss, _ = rollout(draw(config, lessons, progress.step, accelerator.process_index), stage.language_weight)
            accelerator.backward(loss)
            gradient = accelerator.clip_grad_norm_(rollout.parameters(), config.clip)
            if not (loss.isfinite() and gradient.isfinite()):
                raise NotFiniteError(f"the loss is {loss.item():.6g}, the length of its gradient {gradient.item():.6g}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.seconds += time.perf_counter() - began
        if on_step is not None:
            on_step(progress, loss.item())
        if accelerator.is_main_process and (
            progress.step % config.checkpoint_every == 0 or progress.step == config.steps
        ):
            with _step(progress.step, folder):
                hits = held_out_accuracy(model, lessons, held, config, 50)
            save_state(
                folder / "training", config, model, optimizer, progress
            )  # after its weights have been seen to work
            held_out = " ".join(
                f"{label}:{right / count:.0%}"
                for label, (right, count) in sorted(hits.items(), key=lambda one: int(one[0][2:]))
            )
            _LOG.info("step %d, loss %.3f, held-out accuracy %s", progress.step, loss.item(), held_out)
    if accelerator.is_main_process:
        save(folder / "checkpoint", model, tokenizer, _card(config, progress))
    return model


@contextmanager
def _step(number: int, folder: Path) -> Iterator[None]:
    """One step's computing; where a number is none, an error that says in which one, and what there is to go on
    from."""
    try:
        yield
    except NotFiniteError as error:
        kept = folder / "training"
        left = f"{kept} holds the last good state" if kept.exists() else "no state was kept yet"
        raise NotFiniteError(
            f"training stops at step {number}, whose loss is not a finite number: {error}; {left}"
        ) from error


def _stories(config: TrainingConfig) -> tuple[list[Story], list[Story]]:
    """Stories to train on, and held-out ones; a story that is word for word in both is only held out."""
    found = [story for path in config.stories for story in read(path) if story.task in TASKS]
    known, held = split(found)
    texts = {_texts(story) for story in held}
    return [story for story in known if _texts(story) not in texts], list(held)


def _texts(story: Story) -> tuple[str, ...]:
    return tuple(statement.text for statement in story.statements)


def _optimizer(config: TrainingConfig, model: LM2) -> torch.optim.Optimizer:
    """AdamW; gains and biases are not decayed."""
    decayed = {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": config.weight_decay}
    plain = {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}
    return torch.optim.AdamW([decayed, plain], lr=config.learning_rate, betas=(0.9, 0.98))


def _card(config: TrainingConfig, progress: Progress) -> str:
    files = ", ".join(Path(name).name for name in (*config.stories, *config.books))
    tasks = ", ".join(f"qa{task}" for task in sorted({task for stage in config.stages for task in stage.tasks}))
    return (
        f"Trained by `lm2 train` on {tasks} of {files} (the last tenth of each task's stories held out) and simulated"
        f" stories, seed {config.seed}, {progress.step} steps of {config.batch} documents, {progress.seconds / 60:.0f}"
        " minutes.\n\nAccuracy: not measured yet; `lm2 recall` and `lm2 eval` do.\n"
    )
