"""The training loop: back-propagation through segments, a curriculum over their number, and exact resumption.

Written on Hugging Face `accelerate`: the same configuration trains on one CPU, one GPU or many.
"""

import json
import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from tqdm import tqdm

from lm2.atomic import replace_folder
from lm2.babi import read, split
from lm2.checkpoint import save
from lm2.config import LM2Config
from lm2.curriculum import COPIED, Asked, Document, Phase, WhereIs
from lm2.model import LM2
from safetensors.torch import load_file, save_file
from lm2.segments import pad
from lm2.stories import data_folder
from lm2.tokens import Tokenizer

_ALONE = 6
"""Tokens of a question without statements before it, and its answer."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything a training run depends on; the same values give the same weights on the same machine."""

    model: LM2Config
    stories: tuple[str, ...]
    """bAbI files, folders or archives with task 1; the last tenth of each file's stories is held out."""
    tokenizer: str
    """A tokenizer.json."""
    seed: int
    steps: int
    batch: int = 32
    """Documents a step, on each process."""
    copy_accuracy: float = 0.95
    """Training accuracy on repeated tokens at which stories begin."""
    grow_accuracy: float = 0.90
    """Training accuracy at which documents get longer: by a statement in one segment, then by a segment."""
    statements: int = 8
    """Most statements in one segment with their question, before questions move into later segments."""
    segments: int = 8
    """Longest documents, in segments."""
    lengths: tuple[int, ...] = (16,)
    """Segment lengths in tokens; each batch draws one."""
    questions: int = 4
    """Questions asked of each document of the MEMORY phase."""
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-4
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    language_weight: float = 0.1
    """Weight of ordinary next-token loss once documents have reached their full length; answers alone count before."""
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "segments", "questions", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.stories or not self.lengths or min(self.lengths) < 4:
            raise ValueError(f"needs stories and segment lengths of at least 4 tokens, not {self.stories} and {self.lengths}")

    @classmethod
    def load(cls, path: Path) -> "TrainingConfig":
        """Read a JSON file. `tokenizer` is relative to it, `stories` to it or to the data folder (LM2_DATA_DIR).

        Raises ValueError with the path and what is wrong.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["model"] = LM2Config.from_json(values["model"])
            values["stories"] = tuple(str(_found(name, path.parent)) for name in values["stories"])
            values["tokenizer"] = str(path.parent / values["tokenizer"])
            values["lengths"] = tuple(values["lengths"]) if "lengths" in values else cls.lengths
            return cls(**values)
        except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a training configuration: {error}") from error


def _found(name: str, beside: Path) -> Path:
    """A file of stories: beside the configuration, or else in the data folder if it is there."""
    shared = data_folder()
    elsewhere = shared is not None and not (beside / name).exists() and (shared / name).exists()
    return shared / name if elsewhere else beside / name


@dataclass
class Progress:
    """Where a run stands; with the weights and the optimiser's moments, all that resuming needs."""

    step: int = 0
    phase: Phase = Phase.REPEAT
    statements: int = 2
    """Most statements of a document of the OPEN phase."""
    segments: int = 1
    """Most segments of a document of the MEMORY phase."""
    recent: dict[int, list[float]] = field(default_factory=dict)
    """Running training accuracy by distance, as [share right, steps seen]."""
    seconds: float = 0.0

    def note(self, right: dict[int, tuple[int, int]]) -> None:
        for distance, (hits, count) in right.items():
            share, seen = self.recent.get(distance, [0.0, 0])
            pace = 0.1 if seen >= 10 else 1 / (seen + 1)
            self.recent[distance] = [share + pace * (hits / count - share), seen + 1]

    def passed(self, distance: int, accuracy: float) -> bool:
        share, seen = self.recent.get(distance, [0.0, 0])
        return seen >= 20 and share >= accuracy


class Rollout(nn.Module):
    """A model over whole documents, so that data-parallel wrappers see one forward for one backward."""

    def __init__(self, model: LM2) -> None:
        super().__init__()
        self.model = model

    def forward(self, documents: Sequence[Document], language_weight: float) -> tuple[Tensor, dict[int, tuple[int, int]]]:
        """Mean over documents of their answers' cross-entropy (plus weighted next-token loss), and (right, asked) by distance."""
        answers, language = _Scores(), _Scores()
        rows = list(enumerate(documents))
        # Rows of like length go together: padding costs as much as text.
        for group in ([row for row in rows if row[1].asked], [row for row in rows if not row[1].asked]):
            if group:
                self._follow(group, answers, language if language_weight else None)
        return answers.loss() + (language_weight * language.loss() if language_weight else 0.0), answers.right

    def _follow(self, group: list[tuple[int, Document]], answers: "_Scores", language: "_Scores | None") -> None:
        """Feed documents side by side, segment by segment, and ask what is to be asked after each."""
        device = self.model.embed.weight.device
        bank = self.model.fresh_bank(len(group))
        for at in range(max(len(document.segments) for _, document in group)):
            rows = [document.segments[at] if at < len(document.segments) else () for _, document in group]
            ids, real = pad([row or (0,) for row in rows], device=device)
            out = self.model.segment(ids, bank, real=real)
            ended = torch.tensor([not row for row in rows], device=device)[:, None, None]
            bank = None if out.bank is None else torch.where(ended, bank, out.bank)
            inside = [(row, place, owner) for row, (owner, d) in enumerate(group) if rows[row] for place in d.answers[at]]
            answers.add(out.logits, ids, inside, [group[row][1].distance for row, _, _ in inside])
            if language is not None:
                plain = [(row, place, group[row][0]) for row, tokens in enumerate(rows) for place in range(len(tokens) - 1)]
                language.add(out.logits, ids, plain, [None] * len(plain))
            asked = [(row, owner, question) for row, (owner, d) in enumerate(group) for question in d.asked if question.after == at + 1]
            for longer in (False, True):
                self._ask([one for one in asked if (len(one[2].ids) > _ALONE) == longer], bank, answers)

    def _ask(self, asked: list[tuple[int, int, Asked]], bank: Tensor | None, answers: "_Scores") -> None:
        """Each question is a row of its own, which begins with the bank of its document."""
        if not asked:
            return
        ids, real = pad([question.ids for _, _, question in asked], device=self.model.embed.weight.device)
        begin = None if bank is None else bank[torch.tensor([row for row, _, _ in asked], device=ids.device)]
        places = [(at, len(question.ids) - 2, owner) for at, (_, owner, question) in enumerate(asked)]
        answers.add(self.model.segment(ids, begin, real=real).logits, ids, places, [question.distance for _, _, question in asked])


class _Scores:
    """Cross-entropies of single tokens, each belonging to a document; right and asked by distance."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.documents: list[int] = []
        self.right: dict[int, tuple[int, int]] = {}

    def add(self, logits: Tensor, ids: Tensor, places: list[tuple[int, int, int]], distances: list[int | None]) -> None:
        """Score the token after each place (row, column, document); hits are counted where there is a distance."""
        if not places:
            return
        row, column, _ = torch.tensor(places, device=ids.device).T
        predicted, target = logits[row, column].float(), ids[row, column + 1]
        self.losses.append(nn.functional.cross_entropy(predicted, target, reduction="none"))
        self.documents += [document for _, _, document in places]
        for distance, hit in zip(distances, (predicted.argmax(-1) == target).tolist()):
            if distance is not None:
                hits, count = self.right.get(distance, (0, 0))
                self.right[distance] = (hits + hit, count + 1)

    def loss(self) -> Tensor:
        """Mean over documents of each one's mean, so that one with many answers does not drown the others."""
        losses = torch.cat(self.losses)
        owner = torch.tensor(self.documents, device=losses.device)
        weight = 1 / owner.bincount().clamp(min=1)[owner]
        return (losses * weight).sum() / weight.sum()


def draw(config: TrainingConfig, source: WhereIs, progress: Progress, process: int) -> list[Document]:
    """The documents of one step: a function of seed, step, phase and process alone, so that resuming repeats nothing."""
    chance = random.Random(f"{config.seed}/{progress.step}/{process}")
    length = chance.choice(config.lengths)
    documents = []
    for _ in range(config.batch if progress.phase is Phase.MEMORY else 2 * config.batch):  # the early ones are short
        kind = chance.random()
        if progress.phase is Phase.REPEAT or kind < 0.05:
            documents.append(source.repeat(chance))
        elif progress.phase is Phase.OPEN or kind < (0.35 if progress.segments == 1 else 0.15):
            documents.append(source.open(chance, progress.statements))
        else:
            segments = progress.segments if chance.random() < 0.5 else chance.randrange(1, progress.segments + 1)
            documents.append(source.memory(chance, segments, length, questions=config.questions))
    return documents


def advance(config: TrainingConfig, progress: Progress) -> None:
    """Move on to the next phase, or to longer documents, once the present ones are mastered."""
    if progress.phase is Phase.REPEAT and progress.passed(COPIED, config.copy_accuracy):
        progress.phase, progress.recent = Phase.OPEN, {}
    elif progress.phase is Phase.OPEN and progress.passed(0, config.grow_accuracy):
        progress.recent = {}
        if progress.statements < config.statements:
            progress.statements += 1
        else:
            progress.phase = Phase.MEMORY
    elif progress.phase is Phase.MEMORY and progress.segments < config.segments:
        if progress.passed(progress.segments, config.grow_accuracy):
            progress.segments += 1


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then a half cosine down to `final_learning_rate`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def held_out_accuracy(model: LM2, source: WhereIs, config: TrainingConfig, segments: int, documents: int) -> dict[int, tuple[int, int]]:
    """(right, asked) by distance on documents made of held-out stories, always the same ones."""
    chance = random.Random(f"{config.seed}/held out")
    batch = [source.memory(chance, segments, chance.choice(config.lengths), questions=2) for _ in range(documents)]
    return Rollout(model)(batch, 0.0)[1]


def train(config: TrainingConfig, folder: Path, on_step: Callable[[Progress, float], None] | None = None) -> LM2:
    """Train, or go on training, into `folder`; returns the trained model.

    `folder`/training holds the resumable state (no pickle) and is replaced in one step; `folder`/checkpoint, at the end,
    what `lm2.load` opens. `on_step` hears the progress and the loss. Interrupted at any moment and started again, the
    weights come out the same.
    """
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    tokenizer = Tokenizer.load(Path(config.tokenizer))
    known, unseen = _sources(config, tokenizer)
    model = LM2(config.model)
    model.initialise(torch.Generator().manual_seed(config.seed))
    optimizer = _optimizer(config, model)
    progress = _resume(folder / "training", model, optimizer)
    rollout, optimizer = accelerator.prepare(Rollout(model), optimizer)
    held_out = ""
    with tqdm(total=config.steps, initial=progress.step, disable=not accelerator.is_main_process, smoothing=0.05, mininterval=2) as bar:
        while progress.step < config.steps:
            began = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, progress.step)
            grown = progress.phase is Phase.MEMORY and progress.segments == config.segments
            documents = draw(config, known, progress, accelerator.process_index)
            loss, right = rollout(documents, config.language_weight if grown else 0.0)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(rollout.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress.note(_gathered(accelerator, right))
            progress.step += 1
            progress.seconds += time.perf_counter() - began
            advance(config, progress)
            if on_step is not None:
                on_step(progress, loss.item())
            if accelerator.is_main_process and (progress.step % config.checkpoint_every == 0 or progress.step == config.steps):
                _save(folder / "training", model, optimizer, progress)
                counts = held_out_accuracy(model, unseen, config, config.segments, 64)
                held_out = " ".join(f"{distance}:{hits / count:.0%}" for distance, (hits, count) in sorted(counts.items()))
                _LOG.info("step %d, held-out accuracy by distance %s", progress.step, held_out)
            bar.set_postfix_str(f"{_stage(progress)}, loss {loss.item():.3f}, held-out {held_out}", refresh=False)
            bar.update()
    if accelerator.is_main_process:
        save(folder / "checkpoint", model, tokenizer, _card(config, progress))
    return model


def _sources(config: TrainingConfig, tokenizer: Tokenizer) -> tuple[WhereIs, WhereIs]:
    """Stories to train on, and held-out ones; a story that is word for word in both is only held out."""
    halves = [split(read(path, task=1)) for path in config.stories]
    held = {tuple(s.text for s in story.statements) for _, validation in halves for story in validation}
    known = [story for training, _ in halves for story in training if tuple(s.text for s in story.statements) not in held]
    return WhereIs(known, tokenizer), WhereIs([story for _, validation in halves for story in validation], tokenizer)


def _optimizer(config: TrainingConfig, model: LM2) -> torch.optim.Optimizer:
    """AdamW; gains and biases are not decayed."""
    decayed = {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": config.weight_decay}
    plain = {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}
    return torch.optim.AdamW([decayed, plain], lr=config.learning_rate, betas=(0.9, 0.98))


def _stage(progress: Progress) -> str:
    if progress.phase is Phase.OPEN:
        return f"open, {progress.statements} statements"
    return f"memory, {progress.segments} segments" if progress.phase is Phase.MEMORY else "repeat"


def _card(config: TrainingConfig, progress: Progress) -> str:
    files = ", ".join(Path(name).name for name in config.stories)
    return (
        f"Trained by `lm2 train` on qa1 stories of {files} (the last tenth of each file held out), seed {config.seed}, {progress.step} steps "
        f"of {config.batch} documents of up to {config.segments} segments, {progress.seconds / 60:.0f} minutes.\n\n"
        "Accuracy: not measured yet; `lm2 recall` does.\n"
    )


def _gathered(accelerator: Accelerator, right: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Counts summed over processes, so that all of them advance together."""
    if accelerator.num_processes == 1:
        return right
    table = torch.zeros(64, 2, device=accelerator.device)
    for distance, count in right.items():
        table[distance - COPIED] = torch.tensor(count, dtype=table.dtype)
    table = accelerator.reduce(table)
    return {at + COPIED: (int(hits), int(count)) for at, (hits, count) in enumerate(table.tolist()) if count}


def _save(folder: Path, model: LM2, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    tensors = {f"model/{name}": value for name, value in model.weights().items()}
    for at, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{at}/{name}": value for name, value in state.items()}
    values = asdict(progress) | {"phase": progress.phase.value}
    with replace_folder(folder) as fresh:
        save_file(tensors, fresh / "state.safetensors")
        (fresh / "progress.json").write_text(json.dumps(values), encoding="utf-8")


def _resume(folder: Path, model: LM2, optimizer: torch.optim.Optimizer) -> Progress:
    """Load what `_save` wrote into model and optimiser; a fresh start where nothing was written."""
    if not folder.exists():
        return Progress()
    values = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    values["phase"] = Phase(values["phase"])
    values["recent"] = {int(distance): pair for distance, pair in values["recent"].items()}
    tensors = load_file(folder / "state.safetensors")
    model.load_weights({name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, at, key = name.split("/")
            state.setdefault(int(at), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(**values)
