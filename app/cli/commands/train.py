"""`lm2 train`, `lm2 tokenizer` and `lm2 graft`: make checkpoints and tokenizers."""

import argparse
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import check_file, check_folder, errors_name, whole_number
from app.cli.shell.output import Output, write_file, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import OnProgress, progress
from lm2.serialize import LARGEST_INT
from lm2.shown import shown

if TYPE_CHECKING:
    from lm2.training.state import Progress


def add_train(commands: Commands) -> None:
    parser = commands.add(
        "train",
        "train a model or a memory onto one, or continue training it",
        _train,
        "Training that was stopped resumes where it was.",
    )
    words = "model or start, stages and what they are about, as in the bundled training.json files"
    parser.add_argument("config", type=Path, metavar="CONFIG.json", help=words)
    words = "in place of the configuration's"
    parser.add_argument("--seed", type=whole_number(0, LARGEST_INT), metavar="N", help=words)
    words = "folder of the checkpoint and of the resumable state"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=words)


def add_tokenizer(commands: Commands) -> None:
    parser = commands.add("tokenizer", "train a tokenizer on a data folder's stories and books", _tokenizer)
    words = "folder with babi/babi-v1.2-en-train.tar.xz and books/train/*.txt.xz"
    parser.add_argument("folder", type=Path, metavar="DIR", help=words)
    words = "largest size of the vocabulary"
    parser.add_argument("--pieces", type=whole_number(1, 10**7), default=2048, metavar="N", help=words)
    words = "the tokenizer, in Hugging Face's format"
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help=words)


def add_graft(commands: Commands) -> None:
    parser = commands.add("graft", "add an untrained memory to a model without one", _graft)
    parser.add_argument("checkpoint", metavar="MODEL", help="folder (ours or Hugging Face's) or .gguf file")
    words = "rows of the bank, each as wide as the residual stream"
    parser.add_argument("--slots", type=whole_number(1, 10**6), required=True, metavar="N", help=words)
    words = "heads that read and write the slots"
    parser.add_argument("--heads", type=whole_number(1, 10**6), required=True, metavar="N", help=words)
    parser.add_argument("--layers", metavar="0,4,8", help="blocks that get a memory, from 0 (default: all)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the checkpoint")


def _train(chosen: argparse.Namespace) -> Output | None:
    from accelerate import PartialState

    from lm2.training.config import TrainingConfig
    from lm2.training.train import train
    from lm2.weights.checkpoint import load

    check_folder(chosen.out, "training", "checkpoint")
    config, losses = TrainingConfig.load(chosen.config), []
    if chosen.seed is not None:
        config = replace(config, seed=chosen.seed)
    with ExitStack() as stack, errors_name(chosen.config):
        bars: list[OnProgress] = []

        def on_step(state: "Progress", loss: float) -> None:
            losses.append(loss)
            if PartialState().is_main_process:  # one of several that train together
                if not bars:  # begun here, so that the bar does not count the time that reading takes
                    bars.append(stack.enter_context(progress("step")))
                bars[0](state.step, config.steps, f"{config.at(state.step - 1)[0].phase.value}, loss {loss:.3f}")

        train(config, chosen.out, on_step)
    if not PartialState().is_main_process:
        return None
    folder = chosen.out / "checkpoint"
    checkpoint = load(folder, "cpu")
    document = {
        "checkpoint": str(folder),
        "checkpoint_digest": checkpoint.digest,
        "parameters": checkpoint.parameters,
        "steps": config.steps,
        "loss": losses[-1] if losses else None,
        **written(folder),
    }
    return Output(document=document, lines=[f"{folder} can be opened: lm2 info {folder}"])


def _tokenizer(chosen: argparse.Namespace) -> Output:
    from lm2.text.tokens import Tokenizer
    from lm2.training.corpus import texts

    check_file(chosen.out)
    with progress("text") as on_text:
        tokenizer = Tokenizer.train(_counted(texts(chosen.folder), on_text), chosen.pieces)
    write_file(chosen.out, tokenizer.to_json())
    line = f"{chosen.out}: {tokenizer.size} pieces"
    return Output(document={"pieces": tokenizer.size, **written(chosen.out)}, lines=[line])


def _counted(texts: Iterable[str], on_text: OnProgress) -> Iterator[str]:
    for done, text in enumerate(texts, start=1):
        yield text
        on_text(done)


def _parse_layers(text: str) -> tuple[int, ...]:
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
    layers = tuple(range(plain.config.n_layers)) if chosen.layers is None else _parse_layers(chosen.layers)
    grafted = graft(
        plain,
        slots=chosen.slots,
        slot_dim=plain.config.d_model,
        memory_heads=chosen.heads,
        memory_layers=layers,
        generator=torch.Generator().manual_seed(0),
    )
    save(chosen.out, grafted.model, grafted.tokenizer, grafted.card)
    document = {
        "checkpoint": str(chosen.out),
        "checkpoint_digest": grafted.digest,
        "parameters": grafted.parameters,
        "memory_parameters": grafted.memory_parameters,
        **written(chosen.out),
    }
    added = f"{grafted.memory_parameters:,} parameters of memory added to {plain.parameters:,}"
    return Output(document=document, lines=[f"{chosen.out}: {added}; lm2 info {chosen.out}"])
