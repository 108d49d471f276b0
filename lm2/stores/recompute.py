"""Read patterns from queries and bank, by the model's own arithmetic."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from lm2.model.block import BlockMemory
from lm2.sealed import read_arrays, write_arrays
from lm2.stores.arrays import decode, encode
from lm2.stores.header import Header
from lm2.stores.layout import StoreLayout
from lm2.weights.checkpoint import Checkpoint, Dtype

_FILE = "weights.npz"


def write_weights(folder: Path, checkpoint: Checkpoint, header: Header) -> None:
    """Keep the weights that patterns are recomputed with, so that a store can be read without its checkpoint."""
    layout, arrays = header.layout, {}
    for plan in layout.maps:
        for name in checkpoint.config.memory.design.read_weights if plan.recomputed else ():
            weight = checkpoint.model.blocks[plan.layer].mem.get_parameter(name)
            arrays[f"{plan.layer}/{name}"] = encode(weight.detach().float().cpu().numpy(), layout.dtype)
    write_arrays(folder / _FILE, {}, arrays, header.to_json())


def read_memories(folder: Path, header: Header) -> dict[int, BlockMemory]:
    """The memory of each block, of which only the weights that patterns are recomputed with mean anything."""
    layout = header.layout
    _, arrays = read_arrays(folder / _FILE, header.to_json())
    memories: dict[int, BlockMemory] = {}
    for plan in layout.maps:
        if plan.recomputed:
            with torch.device("meta"):
                memory = memories[plan.layer] = layout.config.memory.design.block(layout.config, plan.layer)
            for name in layout.config.memory.design.read_weights:
                owner, _, weight = name.rpartition(".")
                value = _tensor(decode(arrays[f"{plan.layer}/{name}"], layout.dtype), layout)
                setattr(memory.get_submodule(owner), weight, nn.Parameter(value, requires_grad=False))
    return memories


def read_pattern(
    memory: BlockMemory, layout: StoreLayout, queries: np.ndarray, bank: np.ndarray, head: int
) -> Float[np.ndarray, "segment token slot"]:
    """One head's read pattern in segments of one length: from queries [segment, token, d_head] and the banks [segment,
    slot, slot_dim] that they begin with."""
    with torch.inference_mode():
        return memory.read_pattern(_tensor(queries, layout), _tensor(bank, layout), head).float().numpy()


def _tensor(values: np.ndarray, layout: StoreLayout) -> torch.Tensor:
    return torch.from_numpy(np.array(values)).to(Dtype(layout.dtype).torch)
