"""Checkpoints: a model, its tokenizer and its card; loaded by bundled name or path, saved as a folder.

    config.json         {"format": "lm2-workbench", "version": 1, "model": {...}}
    model.safetensors   every weight once, under our names
    tokenizer.json      Hugging Face `tokenizers`
    card.md             what it was trained on and what it can do

Others' Llama weights open too: `lm2.huggingface`.
"""

import difflib
import hashlib
import json
import pickle
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cached_property
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lm2 import bundled
from lm2.files import read_json, read_text, replace_folder
from lm2.config import LM2Config, MemoryKind
from lm2.cost import WORKING_BYTES
from lm2.huggingface import is_llama, read_folder, read_gguf
from lm2.model import LM2
from lm2.plain import digest_of
from lm2.released import RELEASED_SIZE, our_weights
from lm2.tokens import Tokenizer

_FORMAT = {"format": "lm2-workbench", "version": 1}


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

    Taking it refuses a model with hooks that somebody left on it: a run's own are put on afterwards, and taken off before.
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
    """SHA-256 of everything that decides what it computes: configuration, tokenizer and weights, as `digest_of_model` has it."""
    weights_digest: str = ""
    """SHA-256 of the file of weights; of all of them in order of name where there are several. Empty where they are in no file."""
    card: str = ""
    """Markdown."""
    working_bytes: int = WORKING_BYTES
    """What reading one segment may take; see `lm2.cost`."""
    lock: ModelLock = field(default=None, repr=False)  # type: ignore[assignment]
    """Held by whatever computes with the model, since hooks are state on a shared module. None, one of the model's own."""

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
        return sum(weight.numel() for name, weight in self.model.weights().items() if ".mem." in name or name == "bank_start")

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.weights().values())


def choose_device(device: str) -> torch.device:
    """"auto" is CUDA, then MPS, then CPU. Raises CheckpointError for a device that this machine does not have."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    kind = device.partition(":")[0]
    if not there.get(kind, False):
        raise CheckpointError(f"device {device!r} is not on this machine; it has {', '.join(k for k, found in there.items() if found)}")
    return torch.device(device)


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
    path = bundled.FOLDER / name if name in bundled.bundled_names() else Path(name)
    if path.suffix == ".gguf" and path.is_file() or name and is_llama(path):
        return _llama(name, path, target, kind.torch)
    if name and path.is_dir():
        config = _config(path / "config.json")
        weights_path = path / "model.safetensors"
        weights = _safetensors(weights_path)
    elif path.suffix == ".pt" and path.is_file():
        weights_path = path
        config, weights = _released(path)
    else:
        near = difflib.get_close_matches(name, bundled.bundled_names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise CheckpointError(
            f"{name!r} is neither a bundled checkpoint ({', '.join(bundled.bundled_names())}), a folder, nor a .pt or .gguf file{hint}"
        )
    folder = weights_path.parent
    tokenizer = _tokenizer(folder / "tokenizer.json", config)
    model = LM2.empty(config, target, kind.torch)
    try:
        model.load_weights(weights)
    except ValueError as error:
        raise CheckpointError(f"{weights_path} does not fit {folder / 'config.json'}: {error}") from error
    card, weights_digest = folder / "card.md", _sha256((weights_path,))
    return Checkpoint(
        name=name,
        model=model,
        tokenizer=tokenizer,
        digest=digest_of_model(config, tokenizer, weights_digest),
        weights_digest=weights_digest,
        card=read_text(card) if card.is_file() else "",
    )


def save(folder: Path, model: LM2, tokenizer: Tokenizer, card: str) -> None:
    """Write a checkpoint folder; an existing one is replaced in one step, or left whole when writing fails."""
    with replace_folder(folder) as fresh:
        values = {**_FORMAT, "model": model.config.to_json()}
        (fresh / "config.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        save_file({name: weight.contiguous().cpu() for name, weight in model.weights().items()}, fresh / "model.safetensors")
        (fresh / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        (fresh / "card.md").write_text(card, encoding="utf-8")


def setup_digest(config: LM2Config, tokenizer: Tokenizer) -> str:
    """SHA-256 of the configuration in our terms and of the tokenizer as it was loaded: of what makes numbers of the weights.

    Fields that stand at their default are left out: one that is new changes no digest of models that do without it.
    """
    chosen = {field.name for field in fields(config) if getattr(config, field.name) != field.default}
    return digest_of({"config": {name: value for name, value in config.to_json().items() if name in chosen}, "tokenizer": tokenizer.to_json()})


def digest_of_model(config: LM2Config, tokenizer: Tokenizer, weights_digest: str) -> str:
    """SHA-256 of `setup_digest` and the digest of the weights' files."""
    return digest_of({"setup": setup_digest(config, tokenizer), "weights": weights_digest})


def _config(path: Path) -> LM2Config:
    if not path.exists():
        raise CheckpointError(f"{path} is missing; a checkpoint folder holds config.json, model.safetensors and tokenizer.json")
    try:
        values = read_json(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(values, dict) or {key: values.get(key) for key in _FORMAT} != _FORMAT or not isinstance(values.get("model"), dict):
        raise CheckpointError(f'{path} is neither ours, with {json.dumps(_FORMAT)[1:-1]} and "model", nor of a Hugging Face Llama')
    try:
        return LM2Config.from_json(values["model"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _llama(name: str, path: Path, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    try:
        found = read_gguf(path) if path.is_file() else read_folder(path)
    except ValueError as error:
        raise CheckpointError(" ".join(str(error).split())) from error
    _check_size(found.tokenizer, f"the tokenizer of {path}", found.config)
    model = LM2.empty(found.config, device, dtype)
    model.load_weights(found.weights)
    weights_digest = _sha256(found.files)
    digest = digest_of_model(found.config, found.tokenizer, weights_digest)
    return Checkpoint(name=name, model=model, tokenizer=found.tokenizer, digest=digest, weights_digest=weights_digest, card=found.card)


def _safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; a checkpoint folder holds config.json, model.safetensors and tokenizer.json")
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is broken or no safetensors file ({path.stat().st_size:,} bytes): {error}") from error


def _released(path: Path) -> tuple[LM2Config, dict[str, Tensor]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is broken, or holds more than weights: {reason}") from error
    for key in ("model", "model_state_dict", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds no table of weights; expected the released code's state_dict")
    beside = path.parent / "config.json"
    if beside.is_file():
        config = _config(beside)
    else:
        embedding = content.get("model.embed_tokens.weight")
        if embedding is None or tuple(embedding.shape) != (RELEASED_SIZE.d_vocab, RELEASED_SIZE.d_model):
            found = "no model.embed_tokens.weight" if embedding is None else f"an embedding of {tuple(embedding.shape)}"
            raise CheckpointError(f"{path} has {found}; a model not of the released size needs config.json beside it")
        config = RELEASED_SIZE
    if config.memory is not MemoryKind.RELEASE:
        raise CheckpointError(f"{beside} says memory {config.memory.value!r}; a .pt file of the released code is 'release'")
    try:
        return config, our_weights(content, config.n_layers)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _tokenizer(path: Path, config: LM2Config) -> Tokenizer:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; expected a tokenizer in Hugging Face's JSON format")
    try:
        tokenizer = Tokenizer.load(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    _check_size(tokenizer, str(path), config)
    return tokenizer


def _check_size(tokenizer: Tokenizer, name: str, config: LM2Config) -> None:
    """Raises CheckpointError where an id lies beyond the model's, of an added token too; `name` is what the error calls the tokenizer."""
    if tokenizer.size > config.d_vocab:
        raise CheckpointError(
            f"{name} needs {tokenizer.size} tokens, more than the model's {config.d_vocab}: its largest id is {tokenizer.size - 1}"
        )


def _sha256(paths: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
