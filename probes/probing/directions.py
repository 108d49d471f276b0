"""The vocabulary tokens of a probe's directions, taken as vectors of the model."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lm2.model.memory import OUTPUT
from lm2.model.sites import Site
from lm2.runs.loop import to_numpy
from lm2.weights.checkpoint import Checkpoint
from probes.features.slot_views import ReadWeighted, Sketch
from probes.features.sources import Condition, SlotSource, Source, TokenSource

_STREAM = (Site.EMBED, Site.RESID_MID, Site.RESID_POST, Site.ATTN_OUT, Site.MLP_OUT, Site.MEM_OUT)
"""Sites of the residual stream, or of what is added to it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TopTokens:
    """The tokens with the highest logits for each class's direction."""

    tokens: Int[np.ndarray, "class rank"]
    logits: Float[np.ndarray, "class rank"]
    """For a direction of length 1, centred over the vocabulary."""
    path: str
    """From the direction to the vocabulary, in words."""


def top_tokens(
    checkpoint: Checkpoint, source: Source, direction: Float[np.ndarray, "d class"], top: int = 8
) -> TopTokens:
    """The output head's top tokens for each class's direction, in the source's units, less the mean over classes.

    A direction of the stream goes through the final norm's gain and the unembedding. One of slots first goes through
    the read path of a block: the source's or, without one, the last with a memory. Unlike in
    `probes.causal.lens.read_out`, only the gain of norms is applied, and no output gate: both depend on other
    activations. RELEASE adds slots to the stream as they are; slots of TOKENS are final states, which are only
    unembedded.

    These are the probe's weights. They need not show what the model does with the direction, nor what varies in the
    features along with the class (Haufe et al. 2014).

    Raises ValueError if features are not vectors of the stream or of slots, and for an untrained model.
    """
    if source.condition is Condition.UNTRAINED:
        raise ValueError("the output head of an untrained model says nothing")
    centred = direction - direction.mean(1, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=0), 1e-12)
    like = checkpoint.model.embed.weight
    with checkpoint.lock, torch.inference_mode():
        logits, path = _logits(checkpoint, source, torch.as_tensor(unit.T, dtype=like.dtype).to(like.device))
        best = (logits - logits.mean(-1, keepdim=True)).topk(min(top, logits.shape[-1]), -1)
        return TopTokens(tokens=best.indices.cpu().numpy(), logits=to_numpy(best.values), path=path)


def _logits(
    checkpoint: Checkpoint, source: Source, vectors: Float[Tensor, "class d"]
) -> tuple[Float[Tensor, "class d_vocab"], str]:
    """Logits, and the path in words."""
    model, config, design = checkpoint.model, checkpoint.config, checkpoint.config.memory.design
    final = None
    if isinstance(source, SlotSource) and source.site in (None, Site.CANDIDATE) and not isinstance(source.view, Sketch):
        layer = source.view.layer if isinstance(source.view, ReadWeighted) else max(config.memory_layers)
        final = design.slot_directions(model, layer, vectors)
    elif isinstance(source, TokenSource) and source.site is Site.READ and source.layer is not None:
        final = design.read_directions(model, source.layer, vectors)
    elif isinstance(source, TokenSource) and source.site in _STREAM:
        final = model.ln_final.w * vectors, OUTPUT
    if final is None:
        raise ValueError(
            f"the features of {source.name} are not vectors of the stream or of a slot, so its directions have no path"
            " to the vocabulary"
        )
    vectors, path = final
    return model.unembed(vectors).float(), path
