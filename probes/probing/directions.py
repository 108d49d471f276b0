"""What a probe's direction would say: a class's weights, taken as a vector of the model, on the way that such vectors
have to the vocabulary."""

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
from probes.features.sources import AtToken, Condition, OfSlots, Source

_STREAM = (Site.EMBED, Site.RESID_MID, Site.RESID_POST, Site.ATTN_OUT, Site.MLP_OUT, Site.MEM_OUT)
"""What is in the stream, or added to it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Spoken:
    """The tokens that each class's direction puts first."""

    tokens: Int[np.ndarray, "class rank"]
    logits: Float[np.ndarray, "class rank"]
    """Of a direction of length 1, centred over the vocabulary."""
    way: str
    """What it went through, in words."""


def spoken(checkpoint: Checkpoint, source: Source, direction: Float[np.ndarray, "d class"], top: int = 8) -> Spoken:
    """What the output head makes of each class's direction, in the units of the source, less the mean over classes.

    A direction of the stream goes through the final norm's gain and the unembedding. One of slots goes through a
    block's read path first, the one that the source is read by or the last with a memory: as in
    `probes.causal.lens.read_out`, but for norms, of which only the gain is taken, and the output gate, which is left
    out. Both depend on what else is there, and a direction stands alone. RELEASE adds slots to the stream as they are;
    slots of TOKENS are final states, whose way is the unembedding.

    It is the probe's weights that are shown: what they say need not be what the model makes of it, nor what varies in
    the features along with the class (Haufe et al. 2014).

    Raises ValueError where features are no vector of the stream or of slots, and for a model that was not trained.
    """
    if source.condition is Condition.UNTRAINED:
        raise ValueError("the output head of a model that was not trained says nothing")
    centred = direction - direction.mean(1, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=0), 1e-12)
    like = checkpoint.model.embed.weight
    with checkpoint.lock, torch.inference_mode():
        logits, way = _said(checkpoint, source, torch.as_tensor(unit.T, dtype=like.dtype).to(like.device))
        best = (logits - logits.mean(-1, keepdim=True)).topk(min(top, logits.shape[-1]), -1)
        return Spoken(tokens=best.indices.cpu().numpy(), logits=to_numpy(best.values), way=way)


def _said(
    checkpoint: Checkpoint, source: Source, vectors: Float[Tensor, "class d"]
) -> tuple[Float[Tensor, "class d_vocab"], str]:
    """Logits, and the way in words."""
    model, config, design = checkpoint.model, checkpoint.config, checkpoint.config.memory.design
    found = None
    if isinstance(source, OfSlots) and source.site in (None, Site.CANDIDATE) and not isinstance(source.view, Sketch):
        layer = source.view.layer if isinstance(source.view, ReadWeighted) else max(config.memory_layers)
        found = design.slot_directions(model, layer, vectors)
    elif isinstance(source, AtToken) and source.site is Site.READ and source.layer is not None:
        found = design.read_directions(model, source.layer, vectors)
    elif isinstance(source, AtToken) and source.site in _STREAM:
        found = model.ln_final.w * vectors, OUTPUT
    if found is None:
        raise ValueError(
            f"the features of {source.own} are no vector of the stream or of a slot, so its directions have no way to"
            " the vocabulary"
        )
    final, way = found
    return model.unembed(final).float(), way
