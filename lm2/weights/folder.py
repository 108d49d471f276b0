"""A checkpoint folder's parts in our format: configuration, weights and tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lm2.files import read_json
from lm2.model.config import LM2Config
from lm2.model.lm2 import LM2
from lm2.model.weights import check_shapes
from lm2.shown import shown
from lm2.text.tokens import Tokenizer
from lm2.weights.weight_files import read_safetensors, safetensors_shapes

FORMAT = {"format": "lm2-workbench", "version": 1}


def read_config(path: Path) -> LM2Config:
    """Raises ValueError with the path where it is not ours."""
    if not path.exists():
        raise ValueError(
            f"{path} is missing; a checkpoint folder holds config.json, model.safetensors and tokenizer.json"
        )
    values = read_json(path)
    said = {key: values.get(key) for key in FORMAT} if isinstance(values, dict) else {}
    # Compared as JSON, where true is no 1.
    if json.dumps(said) != json.dumps(FORMAT) or not isinstance(values.get("model"), dict):
        other = f", but of model_type {shown(values['model_type'])}" if "model_type" in (values or ()) else ""
        raise ValueError(
            f'{path} is neither ours, with {json.dumps(FORMAT)[1:-1]} and "model", nor of a Hugging Face Llama or'
            f" Qwen2{other}"
        )
    try:
        return LM2Config.from_json(values["model"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def folder_weights(path: Path, config: LM2Config) -> Mapping[str, Tensor]:
    """What a folder's file of weights holds; it is not read before its header says what the configuration says."""
    if not path.is_file():
        raise ValueError(
            f"{path} is missing; a checkpoint folder holds config.json, model.safetensors and tokenizer.json"
        )
    shapes = safetensors_shapes(path)
    try:
        check_shapes(LM2.shapes(config, len(shapes)), shapes)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {path.parent / 'config.json'}: {error}") from error
    return read_safetensors(path)


def read_tokenizer(path: Path, config: LM2Config) -> Tokenizer:
    """Raises ValueError with the path where it is missing, broken, or needs more tokens than the model has."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; expected a tokenizer in Hugging Face's JSON format")
    tokenizer = Tokenizer.load(path)
    check_size(tokenizer, str(path), config)
    return tokenizer


def check_size(tokenizer: Tokenizer, name: str, config: LM2Config) -> None:
    """Raises ValueError where an id lies beyond the model's, of an added token too; `name` is what the error calls the
    tokenizer."""
    if tokenizer.size > config.d_vocab:
        raise ValueError(
            f"{name} needs {tokenizer.size} tokens, more than the model's {config.d_vocab}: its largest id is"
            f" {tokenizer.size - 1}"
        )
