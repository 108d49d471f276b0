"""Checkpoints: a model, its tokenizer and its card; loaded by bundled name or path, saved as a folder.

    config.json         {"format": "lm2-workbench", "version": 1, "model": {...}}
    model.safetensors   every weight once, under our names
    tokenizer.json      Hugging Face `tokenizers`
    card.md             what it was trained on and what it can do

Others' Llama weights open too: `lm2.weights.huggingface` and `lm2.weights.gguf_model`.
"""

import difflib
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lm2.files import read_text, replace_folder, state
from lm2.model.config import LM2Config
from lm2.model.lm2 import LM2
from lm2.serialize import digest_of
from lm2.shown import shown
from lm2.text.tokens import Tokenizer
from lm2.weights import bundled
from lm2.weights.cost import WORKING_BYTES
from lm2.weights.folder import FORMAT, check_size, folder_weights, read_config, read_tokenizer
from lm2.weights.gguf_model import read_gguf
from lm2.weights.huggingface import is_llama, read_folder
from lm2.weights.released import read_released


class CheckpointError(ValueError):
    """A checkpoint cannot be opened; the message says what, where and what was expected."""


class Dtype(Enum):
    """Number formats a checkpoint can run in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"

    @property
    def torch(self) -> torch.dtype:
        return torch.float32 if self is Dtype.FLOAT32 else torch.bfloat16


class ModelLock:
    """A lock on a model, for one thread at a time and as often as this thread likes.

    Taking it refuses a model with hooks that somebody left on it: a run's own are put on afterwards, and taken off
    before.
    """

    def __init__(self, model: LM2) -> None:
        self.model = model
        self._lock = threading.RLock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As of threading's locks. Raises ValueError as `HookedModel.refuse_hooks` does, and then holds nothing."""
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
    """A model ready to run. Device and dtype were chosen when it was loaded and are chosen nowhere else."""

    name: str
    """As given to `load`."""
    model: LM2
    tokenizer: Tokenizer
    digest: str
    """SHA-256 of everything that decides what it computes: configuration, tokenizer and weights, as `digest_of_model`
    has it.

    It is that of the files. Whoever changes weights in memory has another model: `dataclasses.replace(checkpoint,
    name=..., digest=...)` gives it a name and a digest of its own.
    """
    weights_digest: str = ""
    """SHA-256 of the file of weights; of all of them in order of name where there are several. Empty where they are in
    no file."""
    card: str = ""
    """Markdown."""
    working_bytes: int = WORKING_BYTES
    """What reading one segment may take; see `lm2.weights.cost`."""
    lock: ModelLock = field(default=None, repr=False)  # type: ignore[assignment]
    """Held by whatever computes with the model, since hooks are state on a shared module. None, one of the model's
    own."""

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
        return sum(
            weight.numel() for name, weight in self.model.weights().items() if ".mem." in name or name == "bank_start"
        )

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.weights().values())


def choose_device(device: str) -> torch.device:
    """ "auto" is CUDA, then MPS, then CPU; "cuda:1" is the second of its kind.

    Raises CheckpointError for a device that this machine does not have.
    """
    counts = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    there = [kind for kind, count in counts.items() if count]
    if device == "auto":
        return torch.device(there[0])
    kind, colon, number = device.partition(":")
    known = kind in there and (not colon or (number.isascii() and number.isdigit() and int(number[:9]) < counts[kind]))
    if not known:
        named = ", ".join(f"{kind} (0 to {counts[kind] - 1})" if counts[kind] > 1 else kind for kind in there)
        raise CheckpointError(
            f"device {shown(device)} is not on this machine; it has {named}, and 'auto' is the first of them"
        )
    return torch.device(kind, int(number)) if colon else torch.device(kind)


def load(name_or_path: str | Path, device: str = "auto", dtype: str = "float32") -> Checkpoint:
    """Open a bundled checkpoint, a folder in our format, a .pt file of the released code, or a Llama of others.

    A Llama is a Hugging Face folder or a .gguf file; it becomes a model without memory, with segments as long as
    the positions it was trained on, at most 2048, and tokens that see all earlier ones.

    A .pt file needs tokenizer.json beside it, and, unless it has the released size, config.json beside it
    in our format with `"memory": "release"`. It is read with `weights_only=True`: no code in it runs.

    Raises CheckpointError with what is wrong, where, and what was expected.
    """
    name = str(name_or_path)
    try:
        kind = Dtype(dtype)
    except ValueError:
        raise CheckpointError(f"dtype must be one of {[member.value for member in Dtype]}, not {dtype!r}") from None
    target = choose_device(device)
    try:
        before = state(*bundled.files_of(name))
        found = _opened(name, target, kind.torch)
        if state(*bundled.files_of(name)) != before:  # it could have the weights of one and the digest of another
            raise ValueError(f"the files of {shown(name)} changed while they were read; load it again")
        return found
    except OSError as error:
        raise CheckpointError(f"{shown(name)} cannot be opened: {error.strerror or error}") from error
    except ValueError as error:  # every reader names the file
        raise CheckpointError(" ".join(str(error).split())) from error


def _opened(name: str, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    path = bundled.place(name)
    if (path.suffix == ".gguf" and path.is_file()) or (name and is_llama(path)):
        return _llama(name, path, device, dtype)
    if name and path.is_dir():
        weights_path = path / "model.safetensors"
        config = read_config(path / "config.json")
        tokenizer = read_tokenizer(path / "tokenizer.json", config)
        weights = folder_weights(weights_path, config)
    elif path.suffix == ".pt" and path.is_file():
        weights_path = path
        config, weights = read_released(path)
        tokenizer = read_tokenizer(path.parent / "tokenizer.json", config)
    else:
        near = difflib.get_close_matches(name, bundled.bundled_names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{shown(name)} is neither a bundled checkpoint ({', '.join(bundled.bundled_names())}), a folder, nor a .pt"
            f" or .gguf file{hint}"
        )
    card, weights_digest = weights_path.parent / "card.md", _sha256((weights_path,))
    return Checkpoint(
        name=name,
        model=_filled(config, weights, weights_path, device, dtype),
        tokenizer=tokenizer,
        digest=digest_of_model(config, tokenizer, weights_digest),
        weights_digest=weights_digest,
        card=read_text(card) if card.exists() else "",
    )


def _filled(
    config: LM2Config, weights: Mapping[str, Tensor], where: Path, device: torch.device, dtype: torch.dtype
) -> LM2:
    model = LM2.empty(config, device, dtype)
    try:
        model.load_weights(weights)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return model


def save(folder: Path, model: LM2, tokenizer: Tokenizer, card: str) -> None:
    """Write a checkpoint folder; an existing one is replaced in one step, or left whole when writing fails."""
    with replace_folder(folder) as fresh:
        values = {**FORMAT, "model": model.config.to_json()}
        (fresh / "config.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        save_file(
            {name: weight.contiguous().cpu() for name, weight in model.weights().items()}, fresh / "model.safetensors"
        )
        (fresh / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        (fresh / "card.md").write_text(card, encoding="utf-8")


def setup_digest(config: LM2Config, tokenizer: Tokenizer) -> str:
    """SHA-256 of the configuration in our terms and of the tokenizer as it was loaded: of what makes numbers of the
    weights.

    Fields that stand at their default are left out: one that is new changes no digest of models that do without it.
    """
    chosen = {field.name for field in fields(config) if getattr(config, field.name) != field.default}
    return digest_of(
        {
            "config": {name: value for name, value in config.to_json().items() if name in chosen},
            "tokenizer": tokenizer.to_json(),
        }
    )


def digest_of_model(config: LM2Config, tokenizer: Tokenizer, weights_digest: str) -> str:
    """SHA-256 of `setup_digest` and the digest of the weights' files."""
    return digest_of({"setup": setup_digest(config, tokenizer), "weights": weights_digest})


def _llama(name: str, path: Path, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    found = read_gguf(path) if path.is_file() else read_folder(path)
    check_size(found.tokenizer, f"the tokenizer of {path}", found.config)
    model, weights_digest = _filled(found.config, found.weights, path, device, dtype), _sha256(found.files)
    digest = digest_of_model(found.config, found.tokenizer, weights_digest)
    return Checkpoint(
        name=name, model=model, tokenizer=found.tokenizer, digest=digest, weights_digest=weights_digest, card=found.card
    )


def _sha256(paths: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
