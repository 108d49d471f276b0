"""Adding a memory to a trained model without one."""

import hashlib

import safetensors.torch
import torch

from lm2.model.kinds.gated import grafted
from lm2.model.lm2 import LM2
from lm2.weights.checkpoint import Checkpoint
from lm2.weights.folder import digest_of_model


def graft(
    checkpoint: Checkpoint,
    *,
    slots: int,
    slot_dim: int,
    memory_heads: int,
    memory_layers: tuple[int, ...],
    generator: torch.Generator,
) -> Checkpoint:
    """The same model with an untrained GATED memory. Its W_O is zero, so all logits stay the same until training.

    The other weights of the memory are drawn from `generator` (on the CPU). The attention window does not change.

    Raises ValueError for a model that already has a memory, and for sizes that cannot be built.
    """
    before = checkpoint.config
    if before.memory_layers:
        raise ValueError(
            f"{checkpoint.name!r} has a memory of kind {before.memory.value!r} already; a memory is grafted onto a "
            "model without one"
        )
    config = grafted(before, slots=slots, slot_dim=slot_dim, memory_heads=memory_heads, memory_layers=memory_layers)
    with torch.random.fork_rng(devices=()):  # building layers draws from torch's global generator
        model = LM2(config)
    model.initialise(generator)
    model.load_weights(model.weights() | checkpoint.model.weights())
    config.memory.design.silence(model)
    like = checkpoint.model.embed.weight
    model.to(device=like.device, dtype=like.dtype)
    weights = safetensors.torch.save({name: weight.contiguous().cpu() for name, weight in model.weights().items()})
    weights_digest = hashlib.sha256(weights).hexdigest()
    blocks = ", ".join(map(str, memory_layers))
    added = (
        f"Grafted onto it, untrained and silent: a memory of {slots} slots of {slot_dim}, {memory_heads} heads, in"
        f" blocks {blocks}."
    )
    return Checkpoint(
        name=f"{checkpoint.name} + memory",
        model=model,
        tokenizer=checkpoint.tokenizer,
        digest=digest_of_model(config, checkpoint.tokenizer, weights_digest),
        weights_digest=weights_digest,
        card=f"{checkpoint.card.rstrip()}\n\n{added}\n".lstrip(),
    )
