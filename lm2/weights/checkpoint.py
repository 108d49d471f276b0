"""Checkpoints: a model with its tokenizer and its card, loaded by name or path, and saved as a folder.

config.json         {"format": "lm2-workbench", "version": 1, "model": {...}}; with a begin-of-text token, also
                    "bos": {"token": "<s>", "added": true}
model.safetensors   every weight once, under our names
tokenizer.json      Hugging Face `tokenizers`
card.md             what it was trained on and what it can do
"""

import difflib
import json
import threading
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file

from lm2.files import replace_folder, state
from lm2.model.config import LM2Config
from lm2.model.lm2 import LM2
from lm2.model.weights import in_memory
from lm2.shown import shown
from lm2.text.tokens import Tokenizer
from lm2.weights import bundled
from lm2.weights.adapter import read_adapter
from lm2.weights.cost import WORKING_BYTES
from lm2.weights.folder import FORMAT, ModelFiles, check_size, read_own, setup_digest
from lm2.weights.gguf_model import read_gguf
from lm2.weights.huggingface import is_llama, read_folder
from lm2.weights.released import read_released


class CheckpointError(ValueError):
    """A checkpoint cannot be opened; the message says what, where and what was expected."""


class Dtype(Enum):
    """Number formats a checkpoint can run in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    """On a GPU."""

    @property
    def torch(self) -> torch.dtype:
        return getattr(torch, self.value)


class ModelLock:
    """A reentrant lock that refuses a model with hooks on it: a run adds and removes its own hooks while it holds the
    lock."""

    def __init__(self, model: LM2) -> None:
        self.model = model
        self._lock = threading.RLock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As for threading's locks. Raises ValueError as `HookedModel.refuse_hooks` does, without taking the lock."""
        if not self._lock.acquire(blocking, timeout):
            return False
        try:
            self.model.refuse_hooks()
        except ValueError:
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A model ready to run, on the device and in the dtype chosen in `load`."""

    name: str
    """As given to `load`."""
    model: LM2
    tokenizer: Tokenizer
    digest: str
    """SHA-256 of configuration, tokenizer and weights, as in their files (`digest_of_model`).

    If you change weights in memory, give the model another name and digest, with `dataclasses.replace(checkpoint,
    name=..., digest=...)`.
    """
    weights_digest: str = ""
    """SHA-256 of the files of weights, in order of name. Empty for weights from no file."""
    card: str = ""
    """Markdown."""
    working_bytes: int = WORKING_BYTES
    """Limit of the working memory for one segment; see `lm2.weights.cost`."""
    lock: ModelLock = field(default=None, repr=False)  # type: ignore[assignment]
    """Must be held while computing, since hooks are state on a shared module. None makes a new lock."""

    def __post_init__(self) -> None:
        if self.lock is None or self.lock.model is not self.model:
            object.__setattr__(self, "lock", ModelLock(self.model))

    @property
    def config(self) -> LM2Config:
        return self.model.config

    @cached_property
    def setup_digest(self) -> str:
        """`digest` without the weights."""
        return setup_digest(self.config, self.tokenizer)

    @property
    def device(self) -> str:
        return self.model.embed.weight.device.type

    @property
    def dtype(self) -> str:
        return str(self.model.embed.weight.dtype).removeprefix("torch.")

    @property
    def memory_parameters(self) -> int:
        return sum(weight.numel() for name, weight in self.model.weights().items() if in_memory(name))

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.weights().values())


def choose_device(device: str) -> torch.device:
    """The device of a name such as "cuda:1"; "auto" is CUDA, MPS or CPU, whichever comes first.

    Raises CheckpointError for a device that this machine does not have.
    """
    counts = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    kinds = [kind for kind, count in counts.items() if count]
    if device == "auto":
        return torch.device(kinds[0])
    kind, colon, number = device.partition(":")
    known = kind in kinds and (not colon or (number.isascii() and number.isdigit() and int(number[:9]) < counts[kind]))
    if not known:
        devices = ", ".join(f"{kind} (0 to {counts[kind] - 1})" if counts[kind] > 1 else kind for kind in kinds)
        raise CheckpointError(
            f"device {shown(device)} is not on this machine; it has {devices}, and 'auto' is the first of them"
        )
    return torch.device(kind, int(number)) if colon else torch.device(kind)


def load(name_or_path: str | Path, device: str = "auto", dtype: str = "float32") -> Checkpoint:
    """Open a bundled checkpoint, a folder in our format, a .pt file of the released code, a Llama, or an adapter.

    A Llama is a Hugging Face folder or a .gguf file. It becomes a model without memory, whose tokens see all earlier
    ones, with segments as long as the positions it was trained on, at most 2048.

    A .pt file needs tokenizer.json beside it and, unless it has the released size, config.json in our format with
    `"memory": "release"`. Code in it does not run.

    An adapter is the folder that `lm2 train` writes where it trains a memory alone. The model is its base, with the
    memory and with the LoRA merged. The base is what the environment variable LM2_BASE names, else where it was in
    training, else a bundled checkpoint or an installed package's file of that name.

    Raises CheckpointError with what is wrong, where, and what was expected.
    """
    name = str(name_or_path)
    try:
        kind = Dtype(dtype)
    except ValueError:
        raise CheckpointError(f"dtype must be one of {[member.value for member in Dtype]}, not {dtype!r}") from None
    target = choose_device(device)
    if kind is Dtype.FLOAT16 and target.type == "cpu":
        raise CheckpointError(
            "float16 is computed on a GPU alone: choose float32 or bfloat16 on the CPU, for weights stored in it, too"
        )
    try:
        before = state(*bundled.files_of(name))
        checkpoint = _open(name, target, kind.torch)
        if state(*bundled.files_of(name)) != before:  # weights and digest may be of different files
            raise ValueError(f"the files of {shown(name)} changed while they were read; load it again")
        return checkpoint
    except OSError as error:
        raise CheckpointError(f"{shown(name)} cannot be opened: {error.strerror or error}") from error
    except ValueError as error:  # every reader names the file
        raise CheckpointError(" ".join(str(error).split())) from error


def _open(name: str, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    files = read_files(name)
    model = LM2.empty(files.config, device, dtype)
    try:
        model.load_weights(files.weights)
    except ValueError as error:
        raise ValueError(f"{', '.join(map(str, files.paths))}: {error}") from error
    return Checkpoint(
        name=name,
        model=model,
        tokenizer=files.tokenizer,
        digest=files.digest,
        weights_digest=files.weights_digest,
        card=files.card,
    )


def read_files(name: str) -> ModelFiles:
    """The content of the files that a name or path stands for. Raises ValueError as `load` raises CheckpointError."""
    path = bundled.path_of(name)
    if (path.suffix == ".gguf" and path.is_file()) or (name and is_llama(path)):
        files = read_gguf(path) if path.is_file() else read_folder(path)
        check_size(files.tokenizer, f"the tokenizer of {path}", files.config)
        return files
    if name and bundled.is_adapter(path):
        return read_adapter(path, read_files).merged()
    if name and path.is_dir():
        return read_own(path)
    if path.suffix == ".pt" and path.is_file():
        return read_released(path)
    near = difflib.get_close_matches(name, bundled.bundled_names(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{shown(name)} is neither a bundled checkpoint ({', '.join(bundled.bundled_names())}), a folder, nor a .pt"
        f" or .gguf file{hint}"
    )


def save(folder: Path, model: LM2, tokenizer: Tokenizer, card: str) -> None:
    """Write a checkpoint folder; an existing one is replaced in one step, and kept if writing fails."""
    with replace_folder(folder) as temporary:
        values = {**FORMAT, "model": model.config.to_json()}
        if tokenizer.bos is not None:
            values["bos"] = {"token": tokenizer.bos_name, "added": tokenizer.adds_bos}
        (temporary / "config.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        weights = {name: weight.contiguous().cpu() for name, weight in model.weights().items()}
        save_file(weights, temporary / "model.safetensors")
        (temporary / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        (temporary / "card.md").write_text(card, encoding="utf-8")
