"""The saved state of a training run, from which the same run, and no other, continues with the same weights.

    progress.json           step, seconds, the configuration with the digests of its files, what made it; sealed
    state-*.safetensors     trained weights and the optimiser's moments; progress.json names the valid one

The tensors are written first, then progress.json is replaced in one step: there is a complete state at every moment.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor

from lm2.files import read_json, replace_file, restore_folder, sha256_of
from lm2.model.lm2 import LM2
from lm2.model.weights import check_shapes
from lm2.origin import differing, made_by
from lm2.sealed import DamagedError, is_sealed, unseal, write_sealed
from lm2.shown import shown
from lm2.tasks.sets.question_set import file_of, pinned
from lm2.training.config import TrainingConfig
from lm2.weights.bundled import path_of

_LOG = logging.getLogger(__name__)
_KIND = "training"
_FIELDS = ("step", "seconds", "config", "made", "state", "state_sha256")
_FREE = ("checkpoint_every",)
"""What may differ when training continues, because no weight depends on it."""


@dataclass
class Progress:
    """With the weights and the optimiser's moments, all that resuming needs."""

    step: int = 0
    seconds: float = 0.0


def save_state(
    folder: Path, config: TrainingConfig, model: LM2, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Save the state in place of the one before."""
    tensors = {f"model/{name}": value for name, value in _trained(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
    path = folder / f"state-{progress.step}.safetensors"
    with replace_file(path) as aside:
        save_file(tensors, aside)
    like = model.embed.weight
    values = {
        **asdict(progress),
        "config": _config_values(config),
        "made": made_by(like.device.type, str(like.dtype).removeprefix("torch.")),
        "state": path.name,
        "state_sha256": sha256_of(path),
    }
    write_sealed(folder / "progress.json", values, of=_KIND)
    for older in folder.glob("state*.safetensors"):
        if older != path:
            older.unlink(missing_ok=True)


def resume(folder: Path, config: TrainingConfig, model: LM2, optimizer: torch.optim.Optimizer) -> Progress:
    """Load what `save_state` wrote into model and optimiser; where there is nothing, training begins at step 0.

    Files of an earlier version do not record their configuration; they are loaded unchecked, which is logged.

    Raises ValueError for a state of another configuration, and DamagedError for a damaged one.
    """
    restore_folder(folder)
    head = folder / "progress.json"
    if not head.exists():
        if folder.is_dir() and any(folder.glob("state*.safetensors")):
            _LOG.warning("%s has weights and no progress.json: training begins at step 0", folder)
        return Progress()
    try:
        values = _read_progress(head, config)
        path = folder / values["state"]
        if "state_sha256" in values and sha256_of(path) != values["state_sha256"]:
            raise DamagedError(f"{path} is damaged: its SHA-256 is not the one in progress.json")
        _load(load_file(path), model, optimizer)
        step = values["step"]
        if type(step) is not int or not 0 <= step <= config.steps:
            raise DamagedError(f"{head} says step {step!r} of {config.steps}")
        return Progress(step=step, seconds=values["seconds"])
    except (OSError, KeyError, TypeError, IndexError, RuntimeError, DamagedError, safetensors.SafetensorError) as error:
        raise DamagedError(
            f"the state of training in {folder} cannot be continued: {error}; remove that folder to start again"
        ) from error


def _read_progress(head: Path, config: TrainingConfig) -> dict[str, Any]:
    try:
        values = read_json(head)
    except ValueError as error:
        raise DamagedError(str(error)) from error
    if not is_sealed(values) and isinstance(values, dict) and set(values) == {"step", "seconds"}:
        _LOG.warning(
            "%s is of an earlier version, which did not record the configuration: that it is this one is not checked",
            head,
        )
        return values | {"state": "state.safetensors"}
    values = unseal(values, _KIND, _FIELDS, str(head))
    now = _config_values(config)
    there = values["config"]
    changes = [
        f"{name} ({shown(there.get(name))} there, {shown(now.get(name))} here)"
        for name in there | now
        if there.get(name) != now.get(name)
    ]
    if changes:
        raise ValueError(
            f"{head.parent} holds the training of another configuration: {', '.join(changes)}; give this one a folder"
            " of its own"
        )
    made = values["made"]
    if differences := differing(made, made_by(made["device"], made["dtype"])):
        _LOG.warning(
            "%s was written by another version: %s differ, so the weights may differ from those of one run",
            head,
            ", ".join(differences),
        )
    return values


def _trained(model: LM2) -> dict[str, Tensor]:
    """The weights that training changes, by name; the others are the start's."""
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


def _load(tensors: Mapping[str, Tensor], model: LM2, optimizer: torch.optim.Optimizer) -> None:
    try:
        saved = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
        check_shapes(
            *({name: tuple(weight.shape) for name, weight in side.items()} for side in (_trained(model), saved))
        )
        model.load_weights(model.weights() | saved)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, index, key = name.split("/")
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except ValueError as error:
        raise DamagedError(f"its tensors do not fit the configuration: {error}") from error


def _config_values(config: TrainingConfig) -> dict[str, Any]:
    """What decides the weights, as JSON by name; files by name and digest, so that they may be moved."""
    values = {name: value for name, value in config.to_json().items() if name not in (*_FREE, "model")}
    values |= {f"model.{name}": value for name, value in config.model.to_json().items()}
    values |= {name: [_file(Path(value)) for value in values[name]] for name in ("stories", "books")}
    if config.tokenizer is not None:
        values["tokenizer"] = _file(Path(config.tokenizer))
    if config.start is not None:
        values["start"] = _file(path_of(config.start))
    for stage in values["stages"]:
        if "questions" in stage:
            name = pinned(stage["questions"])
            stage["questions"] = name if file_of(name) is None else Path(name).name
    values["processes"] = PartialState().num_processes
    return json.loads(json.dumps(values))


def _file(path: Path) -> str:
    """Name and digest of a file, or of a folder with all its files."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode() + b"\0" + bytes.fromhex(sha256_of(file)))
    return f"{path.name} {digest.hexdigest()[:16]}"
