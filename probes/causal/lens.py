"""Slots decoded through the model's own output head, as if a token read one slot alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lm2.runs.loop import to_numpy
from lm2.weights.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class SlotReadout:
    """Top tokens of each slot, beside random slots of the same norms."""

    tokens: Int[np.ndarray, "slot rank"]
    logits: Float[np.ndarray, "slot rank"]
    """Centred over the vocabulary."""
    random_top: Float[np.ndarray, "slot"]
    """The 95 % quantile of random slots' top logits."""
    exceeds: Float[np.ndarray, "slot"]
    """Share of random slots whose top logit is below this slot's."""


def read_out(
    checkpoint: Checkpoint, bank: Float[np.ndarray, "slot slot_dim"], layer: int, *, top: int, random: int, seed: int
) -> SlotReadout:
    """The top tokens of each slot through block `layer`'s read path and the output head.

    A slot is decoded as what a token adds that reads it alone: value projection, output gate, W_O, final norm,
    unembedding. In RELEASE the slot itself is added to the stream; in TOKENS it is a final state and goes to the
    unembedding. `random` slots, drawn with `seed` and with the norms of the bank's own, are decoded as well.

    Raises ValueError for a block without memory and for a bank of another shape.
    """
    _check(checkpoint, bank, layer)
    slots = len(bank)
    with checkpoint.lock, torch.inference_mode():
        best = _logits(checkpoint, layer, np.concatenate([bank, _random_slots(bank, random, seed)])).topk(top, -1)
        values, tokens = to_numpy(best.values), best.indices.cpu().numpy()
    own, others = values[:slots], values[slots:, 0]
    return SlotReadout(
        tokens=tokens[:slots],
        logits=own,
        random_top=np.full(slots, np.quantile(others, 0.95)),
        exceeds=(others[None, :] < own[:, :1]).mean(1),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotDecoding:
    """Ranks of a stored answer among each slot's logits, from 1; ties count against the answer."""

    weights: Float[np.ndarray, "slot"]
    """How much each slot is read."""
    rank: Int[np.ndarray, "slot"]
    """Among the candidate answers."""
    vocabulary_rank: Int[np.ndarray, "slot"]
    """Among all tokens."""
    random_rank: Int[np.ndarray, "random"]
    """Among the candidates, in random slots of the same norms."""
    other_rank: Int[np.ndarray, "slot"]
    """Among the candidates, in the slots of another story's bank."""

    @property
    def most_read(self) -> int:
        return int(self.weights.argmax())


def decoding(
    checkpoint: Checkpoint,
    bank: Float[np.ndarray, "slot slot_dim"],
    layer: int,
    *,
    weights: Float[np.ndarray, "slot"],
    candidates: Sequence[int],
    truth: int,
    other: Float[np.ndarray, "slot slot_dim"],
    random: int = 256,
    seed: int = 0,
) -> SlotDecoding:
    """Whether the slots encode the answer, decoded through block `layer` as in `read_out`.

    Args:
        weights: how much each slot is read where the answer is predicted; only for `most_read`.
        candidates: ids of the possible answers, `truth` among them.
        other: the bank of another story.
        random: how many random slots, drawn with `seed`, are decoded as well.

    Raises ValueError as `read_out` does, unless there is a weight for each slot, and if no candidate is the truth.
    """
    _check(checkpoint, bank, layer)
    _check(checkpoint, other, layer)
    slots = len(bank)
    if weights.shape != (slots,):
        raise ValueError(f"weights must be one for each of {slots} slots, not of shape {weights.shape}")
    if truth not in candidates or len(set(candidates)) != len(candidates):
        raise ValueError(f"the candidates must be different ids, the truth {truth} among them, not {tuple(candidates)}")
    decoded = np.concatenate([bank, other, _random_slots(bank, random, seed)])
    with checkpoint.lock, torch.inference_mode():
        logits = _logits(checkpoint, layer, decoded)
        vocabulary_rank = (logits >= logits[:, truth, None]).sum(-1).cpu().numpy()
        rank = (logits[:, list(candidates)] >= logits[:, truth, None]).sum(-1).cpu().numpy()
    return SlotDecoding(
        weights=weights,
        rank=rank[:slots],
        vocabulary_rank=vocabulary_rank[:slots],
        random_rank=rank[2 * slots :],
        other_rank=rank[slots : 2 * slots],
    )


def _check(checkpoint: Checkpoint, bank: Float[np.ndarray, "slot slot_dim"], layer: int) -> None:
    config = checkpoint.config
    if layer not in config.memory_layers:
        raise ValueError(f"block {layer} has no memory; blocks {sorted(config.memory_layers)} have one")
    if bank.shape != (config.slots, config.slot_dim):
        raise ValueError(f"the bank must be [slot, slot_dim] = {(config.slots, config.slot_dim)}, not {bank.shape}")


def _random_slots(
    bank: Float[np.ndarray, "slot slot_dim"], count: int, seed: int
) -> Float[np.ndarray, "count slot_dim"]:
    """Random directions with the norms of the bank's slots, in turn."""
    drawn = np.random.default_rng(seed).standard_normal((count, bank.shape[1]))
    norms = np.resize(np.linalg.norm(bank, axis=-1), count)
    return drawn * (norms / np.linalg.norm(drawn, axis=-1))[:, None]


def _logits(
    checkpoint: Checkpoint, layer: int, slots: Float[np.ndarray, "slot slot_dim"]
) -> Float[Tensor, "slot d_vocab"]:
    """Centred over the vocabulary. The caller holds the lock and is in inference mode."""
    model, like = checkpoint.model, checkpoint.model.embed.weight
    added = torch.as_tensor(slots, dtype=like.dtype).to(like.device)
    logits = model.unembed(model.config.memory.design.slot_states(model, layer, added)).float()
    return logits - logits.mean(-1, keepdim=True)
