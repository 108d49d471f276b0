"""The training loop: back-propagation through segments, a curriculum over their number, and exact resumption.

With Hugging Face `accelerate` the same configuration trains on one CPU, one GPU or many.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from lm2.files import read_text, restore_folder
from lm2.model.finite import NotFiniteError
from lm2.model.lm2 import LM2
from lm2.tasks.babi import Story, split
from lm2.tasks.babi_files import read
from lm2.text.tokens import Tokenizer
from lm2.training.config import TrainingConfig, learning_rate
from lm2.training.curriculum import TASKS, Lessons, Phase, Stage, TrainingDocument
from lm2.training.frozen import FrozenBlocks
from lm2.training.question_lessons import QuestionLessons
from lm2.training.rollout import Hits, Rollout
from lm2.training.start import Start, Trained
from lm2.training.state import Progress, resume, save_state
from lm2.weights.adapter import save_adapter
from lm2.weights.checkpoint import Checkpoint, save

_MOST_IN_ONE_SEGMENT = 8
"""The most statements that share a segment with a question."""

_WITH_MEMORY = (Phase.MEMORY, Phase.QUESTIONS)

_LOG = logging.getLogger(__name__)


def draw_documents(
    config: TrainingConfig, lessons: Lessons, asked: Mapping[Stage, QuestionLessons], step: int, process: int
) -> list[TrainingDocument]:
    """The documents of one step: a function of seed, stages, step and process alone."""
    rng = random.Random(f"{config.seed}/{step}/{process}")
    stage, share = config.at(step)
    if stage in asked:
        return rng.choices(asked[stage].training, k=config.batch)
    statements, prose = (round(low + share * (high - low)) for low, high in (stage.statements, stage.prose))
    length = rng.choice(stage.lengths)
    documents = []
    # The early ones are short.
    while len(documents) < (config.batch if stage.phase is Phase.MEMORY else 6 * config.batch):
        task = rng.choice(stage.tasks)
        if stage.phase is Phase.REPEAT or rng.random() < 0.05:
            documents.append(lessons.repeat(rng))
        elif stage.phase is Phase.OPEN or rng.random() < 0.1:
            documents.append(lessons.open(rng, task, min(statements, _MOST_IN_ONE_SEGMENT)))
        else:
            documents.append(lessons.memory(rng, task, statements, prose, length, stage.places, config.questions))
        if not documents[-1].questions:
            documents.pop()
    return documents


@torch.no_grad()
def held_out_accuracy(
    rollout: Rollout,
    lessons: Lessons,
    stories: Sequence[Story],
    asked: Iterable[QuestionLessons],
    config: TrainingConfig,
    each: int,
) -> Hits:
    """On the last question, in a segment of its own, of the first `each` stories of every task that is trained on, and
    on the first `each` documents held out of every question set."""
    tasks = _tasks(config)
    chosen = [story for task in tasks for story in [story for story in stories if story.task == task][:each]]
    exams = [lessons.exam(story, story.questions[-1], config.model.segment_length) for story in chosen]
    exams += [document for lesson in asked for document in lesson.held_out[:each]]
    return rollout(exams, 0.0)[1]


def train(config: TrainingConfig, folder: Path, on_step: Callable[[Progress, float], None] | None = None) -> LM2:
    """Train, or continue training, in `folder`; returns the trained model.

    `folder`/training holds the resumable state; `folder`/checkpoint, at the end, what `lm2.load` opens. `on_step` is
    called with the progress and the loss. Where only memory and LoRA are trained, the checkpoint is an adapter.
    Training that is interrupted at any moment and started again gives the same weights.

    Raises NotFiniteError, with step and loss, before a loss or a gradient that is NaN or infinite changes weights; the
    last saved state stays. Raises ValueError for a folder in which another configuration, or this one with other files,
    was trained, and for a damaged state.
    """
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    start = None if config.start is None else Start.read(config.start)
    tokenizer = Tokenizer.load(Path(config.tokenizer or "")) if start is None else start.base.tokenizer
    stories, held_out = _stories(config)
    lessons = Lessons(stories, [read_text(Path(book)) for book in config.books], tokenizer, config.model.segment_end)
    model = _begin(config, start)
    reader = Checkpoint(name="model", model=model, tokenizer=tokenizer, digest="")
    asked = {
        stage: QuestionLessons.of(stage.questions, stage.count, reader) for stage in config.stages if stage.questions
    }
    optimizer = _optimizer(config, model)
    restore_folder(folder / "checkpoint")
    progress = resume(folder / "training", config, model, optimizer)
    alone = Rollout(model, FrozenBlocks(model, folder).through)
    rollout, optimizer = accelerator.prepare(alone, optimizer)
    first_with_memory = next((step for step in range(config.steps) if config.at(step)[0].phase in _WITH_MEMORY), None)
    while progress.step < config.steps:
        began = time.perf_counter()
        stage, _ = config.at(progress.step)
        if config.memory_from_attention and progress.step == first_with_memory:
            for layer in config.model.memory_layers:
                model.blocks[layer].mem.begin_as(model.blocks[layer].attn)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, progress.step)
        with _step(progress.step + 1, folder):
            loss, _ = rollout(
                draw_documents(config, lessons, asked, progress.step, accelerator.process_index), stage.language_weight
            )
            accelerator.backward(loss)
            gradient = accelerator.clip_grad_norm_(rollout.parameters(), config.clip)
            assert gradient is not None, "nothing scales it"
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
                hits = held_out_accuracy(alone, lessons, held_out, asked.values(), config, 50)
            # Saved only after its outputs have been seen to be finite.
            save_state(folder / "training", config, model, optimizer, progress)
            accuracy = " ".join(
                f"{label}:{right / count:.0%}"
                for label, (right, count) in sorted(hits.items(), key=lambda item: (len(item[0]), item[0]))
            )
            _LOG.info("step %d, loss %.3f, held-out accuracy %s", progress.step, loss.item(), accuracy)
    if accelerator.is_main_process:
        card = _card(config, progress)
        if start is None or config.train is Trained.ALL:
            save(folder / "checkpoint", model, tokenizer, card)
        else:
            save_adapter(folder / "checkpoint", model, config.lora, start.base, start.base_path, card)
    return model


def _begin(config: TrainingConfig, start: Start | None) -> LM2:
    """The model before the first step, with gradients for the weights that are trained.

    Raises ValueError where the start does not fit the configuration.
    """
    model, generator = LM2(config.model), torch.Generator().manual_seed(config.seed)
    model.initialise(generator)
    if start is not None:
        start.check(config.model, config.lora)
        if start.config.memory_layers and config.memory_from_attention:
            raise ValueError(f"memory_from_attention is for a new memory, and the start {start.name} has one already")
        start.put_into(model, config.lora, generator)
        for name, weight in model.named_parameters():
            weight.requires_grad_(config.train.includes(name))
    return model


@contextmanager
def _step(number: int, folder: Path) -> Iterator[None]:
    """Adds to a NotFiniteError in which step it arose, and which state there is to continue from."""
    try:
        yield
    except NotFiniteError as error:
        saved = folder / "training"
        state = f"{saved} holds the last good state" if saved.exists() else "no state was kept yet"
        raise NotFiniteError(
            f"training stops at step {number}, whose loss is not a finite number: {error}; {state}"
        ) from error


def _stories(config: TrainingConfig) -> tuple[list[Story], list[Story]]:
    """Stories to train on, and held-out ones; a story that is word for word in both is only held out."""
    training, held_out = split([story for path in config.stories for story in read(path) if story.task in TASKS])
    texts = {_texts(story) for story in held_out}
    return [story for story in training if _texts(story) not in texts], list(held_out)


def _texts(story: Story) -> tuple[str, ...]:
    return tuple(statement.text for statement in story.statements)


def _optimizer(config: TrainingConfig, model: LM2) -> torch.optim.Optimizer:
    """AdamW; gains and biases are not decayed."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    decayed = {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": config.weight_decay}
    plain = {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0}
    return torch.optim.AdamW([decayed, plain], lr=config.learning_rate, betas=(0.9, 0.98))


def _tasks(config: TrainingConfig) -> list[int]:
    return sorted({task for stage in config.stages if stage.questions is None for task in stage.tasks})


def _card(config: TrainingConfig, progress: Progress) -> str:
    lessons = []
    if tasks := ", ".join(f"qa{task}" for task in _tasks(config)):
        files = ", ".join(Path(name).name for name in (*config.stories, *config.books))
        lessons.append(f"on {tasks} of {files} (the last tenth of each task's stories held out) and simulated stories")
    names = dict.fromkeys(stage.questions for stage in config.stages if stage.questions)
    lessons += [f"on the questions of {Path(name).name} (the last tenth of its groups held out)" for name in names]
    origin = "" if config.start is None else f", started from {Path(config.start).name}"
    part = "" if config.train is Trained.ALL else f", {config.train.value} alone"
    return (
        f"Trained by `lm2 train`{origin}{part}, {' and '.join(lessons)}, seed {config.seed}, {progress.step} steps of"
        f" {config.batch} documents, {progress.seconds / 60:.0f} minutes.\n\nAccuracy: not measured yet; `lm2 recall`"
        " and `lm2 eval` do.\n"
    )
