"""Slots read through the model's own output head: what a slot would say if a token read it alone."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lm2.checkpoint import Checkpoint
from lm2.config import MemoryKind
from lm2.model import LM2
from lm2.runner import to_numpy


@dataclass(frozen=True, kw_only=True)
class SlotReadout:
    """Top tokens of each slot, beside random slots of the same norms."""

    tokens: Int[np.ndarray, "slot rank"]
    logits: Float[np.ndarray, "slot rank"]
    """Centred over the vocabulary."""
    random_top: Float[np.ndarray, "slot"]
    """95 % of random slots have a top logit below this."""
    exceeds: Float[np.ndarray, "slot"]
    """Share of random slots whose top logit is below this slot's."""


def read_out(checkpoint: Checkpoint, bank: Float[np.ndarray, "slot slot_dim"], layer: int, *, top: int, random: int, seed: int) -> SlotReadout:
    """What each slot says through block `layer`'s read path and the output head.

    A slot goes the way of a token that reads it alone: value projection, output gate, W_O, final norm, unembedding
    (RELEASE: the slot is what is added to the stream; TOKENS: the slot is a final state, and goes straight to the
    unembedding). `random` slots, drawn from `seed` with the norms of the
    bank's own, go the same way.

    Raises ValueError for a block without memory and for a bank of another shape.
    """
    config = checkpoint.config
    if layer not in config.memory_layers:
        raise ValueError(f"block {layer} has no memory; blocks {sorted(config.memory_layers)} have one")
    if bank.shape != (config.slots, config.slot_dim):
        raise ValueError(f"the bank must be [slot, slot_dim] = {(config.slots, config.slot_dim)}, not {bank.shape}")
    like = checkpoint.model.embed.weight
    drawn = np.random.default_rng(seed).standard_normal((random, config.slot_dim))
    norms = np.linalg.norm(bank, axis=-1)
    drawn *= (norms[np.arange(random) % config.slots] / np.linalg.norm(drawn, axis=-1))[:, None]
    with checkpoint.lock, torch.inference_mode():
        slots = torch.as_tensor(np.concatenate([bank, drawn]), dtype=like.dtype).to(like.device)
        logits = _logits(checkpoint.model, layer, slots)
        best = logits.topk(top, -1)
        values, tokens = to_numpy(best.values), best.indices.cpu().numpy()
    own, others = values[: config.slots], values[config.slots :, 0]
    return SlotReadout(
        tokens=tokens[: config.slots],
        logits=own,
        random_top=np.full(config.slots, np.quantile(others, 0.95)),
        exceeds=(others[None, :] < own[:, :1]).mean(1),
    )


def _logits(model: LM2, layer: int, slots: Float[Tensor, "slot slot_dim"]) -> Float[Tensor, "slot d_vocab"]:
    if model.config.memory is MemoryKind.TOKENS:
        logits = model.unembed(slots).float()
        return logits - logits.mean(-1, keepdim=True)
    added = slots
    if model.config.memory is MemoryKind.GATED:
        memory = model.blocks[layer].mem
        read = memory.read_v(memory.ln_read(slots))
        added = memory.o(memory.out_gate(read).sigmoid() * read)
    logits = model.unembed(model.ln_final(added)).float()
    return logits - logits.mean(-1, keepdim=True)
