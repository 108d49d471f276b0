"""How far a store is written, and what the next segment needs to go on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm2.model.llama import KVCache
from lm2.model.stream import Cache
from lm2.runs.loop import Carried
from lm2.sealed import read_arrays, write_arrays

FILE = "state.npz"


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a store is written."""

    segments: int
    """Whole segments, counted from the first."""
    tokens: int
    """Tokens in whole shards. The last ones may be of a segment that is not whole."""


def save(folder: Path, state: State, carried: Carried | None, of: object) -> None:
    """`carried`: what the next segment begins with; None where none follows. `of`: the header that the state belongs
    to."""
    arrays: dict[str, np.ndarray] = {}
    if carried is not None:
        bank, cache, read_cache = carried
        arrays |= {} if bank is None else {"bank": _to_bits(bank)}
        arrays |= _cache_arrays("cache", cache)
        arrays |= {} if read_cache is cache else _cache_arrays("read_cache", read_cache)
    write_arrays(folder / FILE, {"segments": state.segments, "tokens": state.tokens}, arrays, of)


def read(folder: Path, of: object) -> State:
    """Nothing where no state was saved. Raises DamagedError for a file that has changed."""
    return _state(_read(folder, of)[0])


def read_with_carried(folder: Path, of: object, like: Tensor) -> tuple[State, Carried | None]:
    """Also what the next segment begins with; None for the first one, and where none follows.

    `like`: a weight of the model, on its device and in its dtype.
    """
    header, arrays = _read(folder, of)

    def tensor(name: str) -> Tensor:
        return _from_bits(arrays[name], like)

    def cache(name: str) -> Cache | None:
        if f"{name}/positions" not in arrays:
            return None
        layers = sum(key.startswith(f"{name}/k") for key in arrays)
        return Cache(
            tuple(KVCache(k=tensor(f"{name}/k{layer}"), v=tensor(f"{name}/v{layer}")) for layer in range(layers)),
            *(torch.from_numpy(arrays[f"{name}/{part}"]).to(like.device) for part in ("positions", "next_position")),
        )

    if not arrays:
        return _state(header), None
    bank = tensor("bank") if "bank" in arrays else None
    return _state(header), Carried(bank, cache("cache"), cache("read_cache"))


def _read(folder: Path, of: object) -> tuple[Any, dict[str, np.ndarray]]:
    if not (folder / FILE).exists():
        return {"segments": 0, "tokens": 0}, {}
    return read_arrays(folder / FILE, of)


def _state(header: Any) -> State:
    return State(segments=header["segments"], tokens=header["tokens"])


def _cache_arrays(name: str, cache: Cache | None) -> dict[str, np.ndarray]:
    if cache is None:
        return {}
    arrays = {
        f"{name}/positions": cache.positions.cpu().numpy(),
        f"{name}/next_position": cache.next_position.cpu().numpy(),
    }
    for number, layer in enumerate(cache.layers):
        arrays |= {f"{name}/k{number}": _to_bits(layer.k), f"{name}/v{number}": _to_bits(layer.v)}
    return arrays


def _to_bits(value: Tensor) -> np.ndarray:
    """numpy has no bfloat16, whose bits are kept."""
    value = value.detach().cpu().contiguous()
    return (value.view(torch.uint16) if value.dtype is torch.bfloat16 else value).numpy()


def _from_bits(value: np.ndarray, like: Tensor) -> Tensor:
    tensor = torch.from_numpy(np.array(value))
    return (tensor.view(like.dtype) if like.dtype is torch.bfloat16 else tensor).to(like.device)
