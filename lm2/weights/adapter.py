"""Adapters: the memory and the LoRA of a model whose other weights are those of a base in files of its own.

config.json            {"format": "lm2-workbench-adapter", "version": 1, "base": {"name", "path", "digest"},
                       "model": {...}, "lora": {...} or null}
adapter.safetensors    the weights of memory and LoRA under our names, in bfloat16
card.md                what it was trained on
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lm2.files import read_json, replace_folder
from lm2.model.config import LM2Config
from lm2.model.lm2 import LM2
from lm2.model.lora import LoRA, add_lora, is_lora, merged
from lm2.model.weights import check_shapes, in_memory
from lm2.serialize import as_json
from lm2.shown import shown
from lm2.weights.bundled import ADAPTER, base_of, is_adapter, known_places
from lm2.weights.folder import ModelFiles, read_card
from lm2.weights.weight_files import read_safetensors, safetensors_shapes

_WEIGHTS = "adapter.safetensors"
_OF_MEMORY = {
    "memory", "slots", "slot_dim", "memory_heads", "memory_layers", "bank_start", "forget_bias", "read_top_k",
    "gate_pooling", "start_keeps", "memory_sizes",
}  # fmt: skip
_OF_READING = {"segment_length", "segment_end", "attention_window", "embedding_std"}
"""Fields in which a model may differ from the one whose weights it has."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter's files, with those of its base."""

    config: LM2Config
    """Of the base with its memory."""
    lora: LoRA | None
    weights: Mapping[str, Tensor]
    """Of the base, the memory and the LoRA, which are not merged."""
    base: ModelFiles
    base_path: Path
    path: Path
    """The file of memory and LoRA."""
    card: str

    def merged(self) -> ModelFiles:
        """The model as other checkpoints are, without LoRA."""
        return replace(
            self.base,
            config=self.config,
            weights=merged(self.weights),
            paths=(*self.base.paths, self.path),
            card=self.card,
        )


def read_adapter(folder: Path, read: Callable[[str], ModelFiles]) -> Adapter:
    """An adapter and its base, which `read` opens.

    Raises ValueError with the file that is missing, broken, or does not fit the others, and for a base that is not
    found or has another digest than the one that was trained on.
    """
    path = folder / "config.json"
    values = read_json(path)
    try:
        if set(values) != {*ADAPTER, "base", "model", "lora"} or values["version"] != ADAPTER["version"]:
            raise ValueError(f"an adapter has {', '.join([*ADAPTER, 'base', 'model', 'lora'])}, not {shown(values)}")
        config = LM2Config.from_json(values["model"])
        lora = None if values["lora"] is None else LoRA.from_json(values["lora"])
        if lora is not None:
            lora.check(config)
        base_path = base_of(folder)
    except ValueError as error:
        raise ValueError(str(error) if str(folder) in str(error) else f"{path}: {error}") from error
    if is_adapter(base_path):
        raise ValueError(f"{path}: its base {base_path} is an adapter itself; expected a whole model")
    base = read(str(base_path))
    if base.digest != values["base"]["digest"]:
        raise ValueError(
            f"{folder} was trained on another base than {base_path}, whose digest is {base.digest[:12]}: expected"
            f" {shown(values['base']['name'])} of digest {shown(values['base']['digest'])[1:13]}"
        )
    check_backbone(config, base.config, str(base_path))
    shapes = safetensors_shapes(folder / _WEIGHTS)
    try:
        check_shapes(_learned_shapes(config, lora, len(shapes) + len(base.weights)), shapes)
    except ValueError as error:
        raise ValueError(f"{folder / _WEIGHTS} does not fit {path}: {error}") from error
    return Adapter(
        config=config,
        lora=lora,
        weights={**base.weights, **read_safetensors(folder / _WEIGHTS)},
        base=base,
        base_path=base_path,
        path=folder / _WEIGHTS,
        card=f"{base.card.rstrip()}\n\n{read_card(folder)}".lstrip(),
    )


def check_backbone(config: LM2Config, base: LM2Config, name: str) -> None:
    """Raise ValueError where a model cannot have the weights of `base`, which is called `name`."""
    free = _OF_READING | (set() if base.memory_layers else _OF_MEMORY)
    for field in fields(config):
        ours, theirs = getattr(config, field.name), getattr(base, field.name)
        if field.name not in free and ours != theirs:
            raise ValueError(
                f"{name} has {field.name} {shown(as_json(theirs))}, and the model that is to have its weights"
                f" {shown(as_json(ours))}"
            )


def _learned_shapes(config: LM2Config, lora: LoRA | None, tensors: int) -> dict[str, tuple[int, ...]]:
    LM2.shapes(config, tensors)  # refuses more blocks than there are tensors
    with torch.device("meta"):
        model = LM2(config)
        if lora is not None:
            add_lora(model, lora)
    weights = model.weights()
    return {name: tuple(weight.shape) for name, weight in weights.items() if in_memory(name) or is_lora(name)}


def save_adapter(folder: Path, model: LM2, lora: LoRA | None, base: ModelFiles, base_path: Path, card: str) -> None:
    """Write the memory and the LoRA of a model; an existing folder is replaced in one step, and kept if writing fails.

    The base is named by its place relative to the folder, or by its name alone if it is bundled or of a known package.
    """
    base_path = base_path.resolve()
    known = base_path in [place.resolve() for place in known_places(base_path.name)]
    learned = {name: weight for name, weight in model.weights().items() if in_memory(name) or is_lora(name)}
    with replace_folder(folder) as temporary:
        values = {
            **ADAPTER,
            "base": {
                "name": base_path.name,
                "path": base_path.name if known else os.path.relpath(base_path, folder.resolve()),
                "digest": base.digest,
            },
            "model": model.config.to_json(),
            "lora": None if lora is None else lora.to_json(),
        }
        (temporary / "config.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        save_file(
            {name: weight.to(torch.bfloat16).contiguous().cpu() for name, weight in learned.items()},
            temporary / _WEIGHTS,
        )
        (temporary / "card.md").write_text(card, encoding="utf-8")
