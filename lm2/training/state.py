"""Where a training run stands, kept so that a run that was stopped goes on with the same weights, and only as the run
that it was.

    progress.json           step, seconds, the configuration with the digests of its files, what made it; sealed
    state-*.safetensors     weights and the optimiser's moments; the one that progress.json names

The tensors are written first and progress.json, which names them, takes the place of the one before in one step: at
every moment one whole state is there.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor

from lm2.files import read_json, replace_file, restore_folder
from lm2.model.lm2 import LM2
from lm2.origin import differing, made_by
from lm2.sealed import DamagedError, is_sealed, unseal, write_sealed
from lm2.serialize import as_json
from lm2.training.config import TrainingConfig

_LOG = logging.getLogger(__name__)
_KIND = "training"
_FIELDS = ("step", "seconds", "config", "made", "state", "state_sha256")
_FREE = ("checkpoint_every",)
"""What may change from one session to the next: it decides no weight."""


@dataclass
class Progress:
    """Where a run stands; with the weights and the optimiser's moments, all that resuming needs."""

    step: int = 0
    seconds: float = 0.0


def save_state(
    folder: Path, config: TrainingConfig, model: LM2, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Keep the state in place of the one before."""
    tensors = {f"model/{name}": value for name, value in model.weights().items()}
    for at, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{at}/{name}": value for name, value in state.items()}
    path = folder / f"state-{progress.step}.safetensors"
    with replace_file(path) as aside:
        save_file(tensors, aside)
    like = model.embed.weight
    made = made_by(like.device.type, str(like.dtype).removeprefix("torch."))
    values = {
        **asdict(progress),
        "config": _told(config),
        "made": made,
        "state": path.name,
        "state_sha256": _sha256(path),
    }
    write_sealed(folder / "progress.json", values, of=_KIND)
    for older in folder.glob("state*.safetensors"):
        if older != path:
            older.unlink(missing_ok=True)


def resume(folder: Path, config: TrainingConfig, model: LM2, optimizer: torch.optim.Optimizer) -> Progress:
    """Load what `save_state` wrote into model and optimiser; a fresh start where nothing was written.

    What an earlier version wrote, which does not say of which configuration it is, is gone on with, and that is logged.

    Raises ValueError for a state of another configuration, and DamagedError for one that is not as it was written.
    """
    restore_folder(folder)
    head = folder / "progress.json"
    if not head.exists():
        if folder.is_dir() and any(folder.glob("state*.safetensors")):
            _LOG.warning("%s has weights and no progress.json: training begins at step 0", folder)
        return Progress()
    try:
        values = _opened(head, config)
        path = folder / values["state"]
        if "state_sha256" in values and _sha256(path) != values["state_sha256"]:
            raise DamagedError(f"{path} is damaged: its SHA-256 is not the one in progress.json")
        _load(load_file(path), model, optimizer)
        progress = Progress(step=values["step"], seconds=values["seconds"])
        if (
            isinstance(progress.step, bool)
            or not isinstance(progress.step, int)
            or not 0 <= progress.step <= config.steps
        ):
            raise DamagedError(f"{head} says step {progress.step!r} of {config.steps}")
        return progress
    except (OSError, KeyError, TypeError, IndexError, RuntimeError, DamagedError, safetensors.SafetensorError) as error:
        raise DamagedError(
            f"the state of training in {folder} cannot be gone on with: {error}; remove that folder to begin anew"
        ) from error


def _opened(head: Path, config: TrainingConfig) -> dict[str, Any]:
    try:
        values = read_json(head)
    except ValueError as error:
        raise DamagedError(str(error)) from error
    if not is_sealed(values) and isinstance(values, dict) and set(values) == {"step", "seconds"}:
        _LOG.warning(
            "%s is of an earlier version and does not say what was trained: that it was this configuration is not"
            " checked",
            head,
        )
        return values | {"state": "state.safetensors"}
    if not is_sealed(values):
        raise DamagedError(f"{head} has no seal")
    values = unseal(values, _KIND, _FIELDS, str(head))
    there, now = values["config"], _told(config)
    other = [
        f"{name} ({_short(value)} there, {_short(now.get(name))} here)"
        for name, value in there.items()
        if now.get(name) != value
    ]
    if other:
        raise ValueError(
            f"{head.parent} holds the training of another configuration: {', '.join(other)}; give this one a folder of"
            " its own"
        )
    like = values["made"]
    changed = differing(like, made_by(like["device"], like["dtype"]))
    if changed:
        _LOG.warning(
            "%s was written by another version: %s differ, so that the weights may come out otherwise than in one go",
            head,
            ", ".join(changed),
        )
    return values


def _load(tensors: Mapping[str, Tensor], model: LM2, optimizer: torch.optim.Optimizer) -> None:
    try:
        model.load_weights(
            {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
        )
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, at, key = name.split("/")
                state.setdefault(int(at), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except ValueError as error:
        raise DamagedError(f"its tensors do not fit the configuration: {error}") from error


def _told(config: TrainingConfig) -> dict[str, Any]:
    """What decides the weights, as JSON by name; files by their names and digests, so that they may lie elsewhere."""
    values = {
        field.name: getattr(config, field.name) for field in fields(config) if field.name not in (*_FREE, "model")
    }
    values |= {f"model.{name}": value for name, value in config.model.to_json().items()}
    values |= {name: [_file(Path(value)) for value in values[name]] for name in ("stories", "books")}
    values["tokenizer"] = _file(Path(config.tokenizer))
    values["stages"] = [{name: as_json(value) for name, value in asdict(stage).items()} for stage in config.stages]
    values["processes"] = PartialState().num_processes
    return json.loads(json.dumps(values))


def _file(path: Path) -> str:
    """Name and digest; of a folder, of all that is in it."""
    inside = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    found = hashlib.sha256()
    for one in inside:
        found.update(one.relative_to(path).as_posix().encode() + b"\0" + bytes.fromhex(_sha256(one)))
    return f"{path.name} {found.hexdigest()[:16]}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
