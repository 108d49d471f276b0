"""Checkpoint folders in our format: configuration, weights, tokenizer and card."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from torch import Tensor

from lm2.files import read_json, read_text
from lm2.model.config import LM2Config
from lm2.model.lm2 import LM2
from lm2.model.weights import check_shapes
from lm2.serialize import as_bool, as_text, digest_of
from lm2.shown import shown
from lm2.text.tokens import Tokenizer
from lm2.weights.weight_files import read_safetensors, safetensors_shapes

FORMAT = {"format": "lm2-workbench", "version": 1}


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """The content of a checkpoint's files, whatever their format."""

    config: LM2Config
    weights: Mapping[str, Tensor]
    """By our names, in the dtype they are stored in; float32 where they were quantised."""
    tokenizer: Tokenizer
    paths: tuple[Path, ...]
    """The files of weights, in order of name."""
    card: str

    @cached_property
    def weights_digest(self) -> str:
        """SHA-256 of the files of weights."""
        digest = hashlib.sha256()
        for path in self.paths:
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        return digest.hexdigest()

    @property
    def digest(self) -> str:
        """As `digest_of_model` makes it."""
        return digest_of_model(self.config, self.tokenizer, self.weights_digest)


def setup_digest(config: LM2Config, tokenizer: Tokenizer) -> str:
    """SHA-256 of configuration and tokenizer.

    Fields at their default are left out, so that a new field does not change the digests of models without it.
    """
    chosen = {field.name for field in fields(config) if getattr(config, field.name) != field.default}
    return digest_of(
        {
            "config": {name: value for name, value in config.to_json().items() if name in chosen},
            "tokenizer": tokenizer.to_json(),
            **({"bos": tokenizer.bos} if tokenizer.adds_bos else {}),
        }
    )


def digest_of_model(config: LM2Config, tokenizer: Tokenizer, weights_digest: str) -> str:
    """SHA-256 of `setup_digest` and the digest of the weights' files."""
    return digest_of({"setup": setup_digest(config, tokenizer), "weights": weights_digest})


def read_own(folder: Path) -> ModelFiles:
    """Raises ValueError with the path of the file that is missing, broken, or does not fit the others."""
    config = read_config(folder / "config.json")
    tokenizer = _with_bos(folder / "config.json", read_tokenizer(folder / "tokenizer.json", config))
    path = folder / "model.safetensors"
    _check_there(path)
    shapes = safetensors_shapes(path)
    try:
        check_shapes(LM2.shapes(config, len(shapes)), shapes)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {folder / 'config.json'}: {error}") from error
    weights = read_safetensors(path)
    return ModelFiles(config=config, weights=weights, tokenizer=tokenizer, paths=(path,), card=read_card(folder))


def read_card(folder: Path) -> str:
    """The folder's card.md; empty where there is none."""
    path = folder / "card.md"
    return read_text(path) if path.exists() else ""


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise ValueError(
            f"{path} is missing; a checkpoint folder holds config.json, model.safetensors and tokenizer.json"
        )


def read_config(path: Path) -> LM2Config:
    """Raises ValueError with the path for a file that is not in our format."""
    if not path.exists():
        _check_there(path)
    values = read_json(path)
    values = values if isinstance(values, dict) else {}
    # Compared as JSON, where true is not 1.
    if json.dumps({key: values.get(key) for key in FORMAT}) != json.dumps(FORMAT) or not isinstance(
        values.get("model"), dict
    ):
        other = f", but of model_type {shown(values['model_type'])}" if "model_type" in values else ""
        raise ValueError(
            f'{path} is neither ours, with {json.dumps(FORMAT)[1:-1]} and "model", nor of a Hugging Face Llama or'
            f" Qwen2{other}"
        )
    try:
        return LM2Config.from_json(values["model"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_tokenizer(path: Path, config: LM2Config) -> Tokenizer:
    """Raises ValueError with the path of a tokenizer that is missing, broken, or larger than the model's vocabulary."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; expected a tokenizer in Hugging Face's JSON format")
    tokenizer = Tokenizer.load(path)
    check_size(tokenizer, str(path), config)
    return tokenizer


def _with_bos(path: Path, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the begin-of-text token that config.json names, if any."""
    bos = read_json(path).get("bos")
    if bos is None:
        return tokenizer
    try:
        if not isinstance(bos, dict) or set(bos) != {"token", "added"}:
            raise ValueError(f'bos must be {{"token": ..., "added": true or false}}, not {shown(bos)}')
        return tokenizer.with_bos(as_text("bos.token", bos["token"]), added=as_bool("bos.added", bos["added"]))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_size(tokenizer: Tokenizer, name: str, config: LM2Config) -> None:
    """Raises ValueError, calling the tokenizer `name`, if it has an id that the model lacks."""
    if tokenizer.size > config.d_vocab:
        raise ValueError(
            f"{name} needs {tokenizer.size} tokens, more than the model's {config.d_vocab}: its largest id is"
            f" {tokenizer.size - 1}"
        )
