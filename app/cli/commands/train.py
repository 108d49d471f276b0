"""`lm2 train`, `lm2 tokenizer` and `lm2 graft`: new checkpoints, and what they are made of."""

import argparse
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import asked_in, check_file, check_folder, whole
from app.cli.shell.output import Output, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import Told, progress
from lm2.shown import shown

if TYPE_CHECKING:
    from lm2.training.state import Progress


def add_train(commands: Commands) -> None:
    one = commands.add(
        "train", "train a model, or continue training it", _train, "Training that was stopped resumes where it was."
    )
    one.add_argument(
        "config",
        type=Path,
        metavar="CONFIG.json",
        help="model, stories, tokenizer and stages, as in the bundled training.json files",
    )
    one.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the checkpoint and of the resumable state"
    )


def add_tokenizer(commands: Commands) -> None:
    one = commands.add("tokenizer", "train a tokenizer on a data folder's stories and books", _tokenizer)
    one.add_argument(
        "folder", type=Path, metavar="DIR", help="folder with babi/babi-v1.2-en-train.tar.xz and books/train/*.txt.xz"
    )
    one.add_argument("--pieces", type=whole(1, 10**7), default=2048, metavar="N", help="largest size of the vocabulary")
    one.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="the tokenizer, in Hugging Face's format"
    )


def add_graft(commands: Commands) -> None:
    one = commands.add("graft", "add an untrained memory to a model without one", _graft)
    one.add_argument("checkpoint", metavar="MODEL", help="folder (ours or Hugging Face's) or .gguf file")
    one.add_argument(
        "--slots",
        type=whole(1, 10**6),
        required=True,
        metavar="N",
        help="rows of the bank, each as wide as the residual stream",
    )
    one.add_argument(
        "--heads", type=whole(1, 10**6), required=True, metavar="N", help="heads that read and write the slots"
    )
    one.add_argument("--layers", metavar="0,4,8", help="blocks that get a memory, from 0 (default: all)")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the checkpoint")


def _train(chosen: argparse.Namespace) -> Output | None:
    from accelerate import PartialState

    from lm2.training.config import TrainingConfig
    from lm2.training.train import train
    from lm2.weights.checkpoint import load

    check_folder(chosen.out, "training", "checkpoint")
    config, losses = TrainingConfig.load(chosen.config), []
    with ExitStack() as shown, asked_in(chosen.config):
        bars: list[Told] = []

        def heard(state: "Progress", loss: float) -> None:
            losses.append(loss)
            if PartialState().is_main_process:  # of several that train together, one tells
                if not bars:  # what is drawn begins with the first step: before it there is much to read
                    bars.append(shown.enter_context(progress("step")))
                bars[0](state.step, config.steps, f"{config.at(state.step - 1)[0].phase.value}, loss {loss:.3f}")

        train(config, chosen.out, heard)
    if not PartialState().is_main_process:  # of several that train together, one writes and tells
        return None
    folder = chosen.out / "checkpoint"
    checkpoint = load(folder, "cpu")
    found = {
        "checkpoint": str(folder),
        "checkpoint_digest": checkpoint.digest,
        "parameters": checkpoint.parameters,
        "steps": config.steps,
        "loss": losses[-1] if losses else None,
        **written(folder),
    }
    return Output(found=found, words=[f"{folder} can be opened: lm2 info {folder}"])


def _tokenizer(chosen: argparse.Namespace) -> Output:
    from lm2.files import replace_file
    from lm2.text.tokens import Tokenizer
    from lm2.training.corpus import texts

    check_file(chosen.out)
    with progress("text") as told:
        learnt = Tokenizer.train(_counted(texts(chosen.folder), told), chosen.pieces)
    with replace_file(chosen.out) as aside:
        aside.write_text(learnt.to_json(), encoding="utf-8")
    return Output(found={"pieces": learnt.size, **written(chosen.out)}, words=[f"{chosen.out}: {learnt.size} pieces"])


def _counted(texts: Iterable[str], told: Told) -> Iterator[str]:
    for done, text in enumerate(texts, start=1):
        yield text
        told(done)


def _layers(text: str) -> tuple[int, ...]:
    layers = [layer.strip() for layer in text.split(",")]
    if not all(layer.isascii() and layer.isdecimal() and len(layer) <= 9 for layer in layers):
        raise ValueError(f"layers are written 0,4,8, not {shown(text)}")
    return tuple(map(int, layers))


def _graft(chosen: argparse.Namespace) -> Output:
    import torch

    from lm2.weights.checkpoint import load, save
    from lm2.weights.graft import graft

    if chosen.out.exists():
        raise ValueError(f"{chosen.out} exists already; --out must be a new folder")
    check_folder(chosen.out)
    plain = load(chosen.checkpoint, "cpu")
    layers = tuple(range(plain.config.n_layers)) if chosen.layers is None else _layers(chosen.layers)
    grafted = graft(
        plain,
        slots=chosen.slots,
        slot_dim=plain.config.d_model,
        memory_heads=chosen.heads,
        memory_layers=layers,
        generator=torch.Generator().manual_seed(0),
    )
    save(chosen.out, grafted.model, grafted.tokenizer, grafted.card)
    found = {
        "checkpoint": str(chosen.out),
        "checkpoint_digest": grafted.digest,
        "parameters": grafted.parameters,
        "memory_parameters": grafted.memory_parameters,
        **written(chosen.out),
    }
    added = f"{grafted.memory_parameters:,} parameters of memory added to {plain.parameters:,}"
    return Output(found=found, words=[f"{chosen.out}: {added}; lm2 info {chosen.out}"])
