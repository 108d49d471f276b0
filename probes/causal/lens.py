"""Slots read through the model's own output head: what a slot would say if a token read it alone, and whether that is
the answer."""

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
    """95 % of random slots have a top logit below this."""
    exceeds: Float[np.ndarray, "slot"]
    """Share of random slots whose top logit is below this slot's."""


def read_out(
    checkpoint: Checkpoint, bank: Float[np.ndarray, "slot slot_dim"], layer: int, *, top: int, random: int, seed: int
) -> SlotReadout:
    """What each slot says through block `layer`'s read path and the output head.

    A slot goes the way of a token that reads it alone: value projection, output gate, W_O, final norm, unembedding
    (RELEASE: the slot is what is added to the stream; TOKENS: the slot is a final state, and goes straight to the
    unembedding). `random` slots, drawn from `seed` with the norms of the bank's own, go the same way.

    Raises ValueError for a block without memory and for a bank of another shape.
    """
    _check(checkpoint, bank, layer)
    slots = len(bank)
    drawn = _drawn(bank, random, np.random.default_rng(seed))
    with checkpoint.lock, torch.inference_mode():
        best = _said(checkpoint, layer, np.concatenate([bank, drawn])).topk(top, -1)
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
    """Where a stored answer stands in what each slot says. Ranks count from 1, and a tie counts against the answer."""

    weights: Float[np.ndarray, "slot"]
    """How much each slot is read."""
    candidates: int
    rank: Int[np.ndarray, "slot"]
    """Among the candidate answers."""
    vocabulary_rank: Int[np.ndarray, "slot"]
    """Among all tokens."""
    random_rank: Int[np.ndarray, "random"]
    """Among the candidates, in what random slots of the same norms say."""
    other_rank: Int[np.ndarray, "slot"]
    """Among the candidates, in what the slots of another story's bank say."""

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
    """Whether the slots say the answer, through block `layer` as in `read_out`.

    Args:
        weights: how much each slot is read where the answer is predicted; not used but to say which is read most.
        candidates: ids of the answers that there could be; `truth`, the right one, is one of them.
        other: the bank of another story, whose slots know other answers.
        random: how many random slots, drawn from `seed`, are asked as well.

    Raises ValueError as `read_out` does, for weights that are not one a slot, and for a truth that is no candidate.
    """
    _check(checkpoint, bank, layer)
    _check(checkpoint, other, layer)
    slots = len(bank)
    if weights.shape != (slots,):
        raise ValueError(f"weights must be one for each of {slots} slots, not of shape {weights.shape}")
    if truth not in candidates or len(set(candidates)) != len(candidates):
        raise ValueError(f"the candidates must be different ids, the truth {truth} among them, not {tuple(candidates)}")
    asked = np.concatenate([bank, other, _drawn(bank, random, np.random.default_rng(seed))])
    with checkpoint.lock, torch.inference_mode():
        logits = _said(checkpoint, layer, asked)
        everywhere = (logits >= logits[:, truth, None]).sum(-1).cpu().numpy()
        rank = (logits[:, list(candidates)] >= logits[:, truth, None]).sum(-1).cpu().numpy()
    return SlotDecoding(
        weights=weights,
        candidates=len(candidates),
        rank=rank[:slots],
        vocabulary_rank=everywhere[:slots],
        random_rank=rank[2 * slots :],
        other_rank=rank[slots : 2 * slots],
    )


def _check(checkpoint: Checkpoint, bank: Float[np.ndarray, "slot slot_dim"], layer: int) -> None:
    config = checkpoint.config
    if layer not in config.memory_layers:
        raise ValueError(f"block {layer} has no memory; blocks {sorted(config.memory_layers)} have one")
    if bank.shape != (config.slots, config.slot_dim):
        raise ValueError(f"the bank must be [slot, slot_dim] = {(config.slots, config.slot_dim)}, not {bank.shape}")


def _drawn(
    bank: Float[np.ndarray, "slot slot_dim"], count: int, rng: np.random.Generator
) -> Float[np.ndarray, "count slot_dim"]:
    """Random slots with the norms of the bank's own, in turn."""
    drawn = rng.standard_normal((count, bank.shape[1]))
    norms = np.linalg.norm(bank, axis=-1)
    return drawn * (norms[np.arange(count) % len(bank)] / np.linalg.norm(drawn, axis=-1))[:, None]


def _said(
    checkpoint: Checkpoint, layer: int, slots: Float[np.ndarray, "slot slot_dim"]
) -> Float[Tensor, "slot d_vocab"]:
    """What slots say, in logits centred over the vocabulary. Whoever asks holds the lock and is in inference mode."""
    model, like = checkpoint.model, checkpoint.model.embed.weight
    added = torch.as_tensor(slots, dtype=like.dtype).to(like.device)
    logits = model.unembed(model.config.memory.design.slot_states(model, layer, added)).float()
    return logits - logits.mean(-1, keepdim=True)
