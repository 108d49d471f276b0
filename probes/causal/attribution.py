"""Direct logit attribution: the parts of the stream that one prediction's logit is the sum of, the memory's among them.

A logit is a direction times the final stream over the final norm's scale. Held at the scale it had, it is linear in the
stream, and the stream is a sum: embedding, and each block's attention, memory and MLP (Elhage et al. 2021). What is
attributed is the direct path alone: a part that works by what later blocks make of it shows little here, and ablating
it shows more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from jaxtyping import Float

from lm2.model.config import LM2Config
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.loop import to_numpy
from lm2.runs.runner import prepare, run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace, read_only
from lm2.weights.checkpoint import Checkpoint
from probes.stats.effects import Effect, effects_of_units


class LogitPart(Enum):
    """What adds to the stream."""

    EMBED = "embedding"
    ATTENTION = "attention"
    """To tokens. Memory tokens that are attended to count as memory."""
    MEMORY = "memory"
    MLP = "MLP"


@dataclass(frozen=True, kw_only=True)
class Component:
    """One term of the stream."""

    part: LogitPart
    layer: int | None
    """Its block; None for the embedding."""

    @property
    def label(self) -> str:
        return self.part.value if self.layer is None else f"block {self.layer} {self.part.value}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """What each part adds to one logit, or to the answer's logit minus the mean of its foils'.

    Sums hold to rounding, and where no edit of the run stands between the terms and their sum.
    """

    components: tuple[Component, ...]
    """In the order in which they add to the stream."""
    values: Float[np.ndarray, "component"]
    heads: Float[np.ndarray, "block head"]
    """A block's attention by head; the heads, and the bias of the output where there is one, sum to the block's
    component."""
    slots: Float[np.ndarray, "memory_block head slot"] | None
    """A block's memory by memory head and slot, which sum to the block's component: read pattern times value, through
    the way out, with the output gate as it was, though it depends on all that is read. None where what a memory adds is
    no sum over slots (RELEASE), or where no site keeps the terms (TOKENS)."""
    logit: float
    """As the model computed it."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(component.label for component in self.components)

    @property
    def total(self) -> float:
        """The sum of the components; what it lacks of the logit, an edit added to the stream itself."""
        return float(self.values.sum())


def attribute(checkpoint: Checkpoint, spec: RunSpec, row: int, *, token: int, foils: Sequence[int] = ()) -> Attribution:
    """What the prediction behind token place `row` is made of, in the run that `spec` says; its captures are replaced.

    Args:
        token: id whose logit is taken apart.
        foils: ids whose mean logit is subtracted from it; none, the logit alone.

    Raises ValueError for a row or ids that are not there, for a token among its foils, and as `run` does.
    """
    tokens, segments = prepare(checkpoint, spec)
    if row not in range(len(tokens)):
        raise ValueError(f"there is no row {row}; this run predicts from rows 0..{len(tokens) - 1}")
    outside = [index for index in (token, *foils) if index not in range(checkpoint.config.d_vocab)]
    if outside or token in foils:
        raise ValueError(
            f"token {token} and foils {tuple(foils)} must be different ids of 0..{checkpoint.config.d_vocab - 1}"
        )
    segment = next(segment for segment in segments if row < segment.end)
    captures = tuple(Capture(site, segments=(segment.index,)) for site in _sites(checkpoint.config))
    trace = run(checkpoint, replace(spec, captures=captures))
    with torch.inference_mode():
        directions = to_numpy(checkpoint.model.tokens_to_residual_directions(torch.tensor([token, *foils]))).astype(
            float
        )
    direction = directions[0] - (directions[1:].mean(0) if len(foils) else 0)
    logits = trace.logits[row].astype(float)
    token_at = _Token(checkpoint, trace, segment.index, row - segment.start, direction)
    components, values, heads = token_at.components()
    return Attribution(
        components=components,
        values=read_only(values),
        heads=read_only(heads),
        slots=read_only(token_at.slots()) if checkpoint.config.memory.design.terms_by_slot else None,
        logit=float(logits[token] - (logits[list(foils)].mean() if len(foils) else 0)),
    )


def _sites(config: LM2Config) -> tuple[Site, ...]:
    found = [Site.EMBED, Site.ATTN_OUT, Site.ATTN_Z, Site.MLP_OUT, Site.LN_FINAL_SCALE, Site.MEM_OUT]
    if config.memory.design.terms_by_slot:
        found += [Site.READ_PATTERN, Site.READ_V, Site.GATE_OUT]
    if config.memory.design.bank_in_stream:
        found += [Site.ATTN_PATTERN, Site.ATTN_V]
    return tuple(site for site in found if site.layers(config))


class _Token:
    """One token of a run, seen along a direction of the final stream."""

    def __init__(
        self, checkpoint: Checkpoint, trace: Trace, segment: int, place: int, direction: Float[np.ndarray, "d_model"]
    ) -> None:
        self._checkpoint, self._trace, self._segment, self._place = checkpoint, trace, segment, place
        self._direction = direction / float(self._of(Site.LN_FINAL_SCALE)[0])

    def _of(self, site: Site, layer: int | None = None) -> np.ndarray:
        """What a site holds for the token; its token axis comes first."""
        return self._trace.at(site, segment=self._segment, layer=layer)[self._place].astype(float)

    def components(
        self,
    ) -> tuple[tuple[Component, ...], Float[np.ndarray, "component"], Float[np.ndarray, "block head"]]:
        found = [(Component(part=LogitPart.EMBED, layer=None), self._of(Site.EMBED) @ self._direction)]
        heads = []
        for layer in range(self._checkpoint.config.n_layers):
            attention, memory = self._of(Site.ATTN_OUT, layer) @ self._direction, None
            heads.append(self._heads(layer, self._of(Site.ATTN_Z, layer)))
            if layer in Site.MEM_OUT.layers(self._checkpoint.config):
                memory = self._of(Site.MEM_OUT, layer) @ self._direction
            elif layer in self._checkpoint.config.memory_layers:
                read = self._heads(layer, self._of(Site.ATTN_Z, layer) - self._from_tokens(layer))
                memory = read.sum()
                attention, heads[-1] = attention - memory, heads[-1] - read
            found.append((Component(part=LogitPart.ATTENTION, layer=layer), attention))
            if memory is not None:
                found.append((Component(part=LogitPart.MEMORY, layer=layer), memory))
            found.append((Component(part=LogitPart.MLP, layer=layer), self._of(Site.MLP_OUT, layer) @ self._direction))
        return tuple(component for component, _ in found), np.array([value for _, value in found]), np.stack(heads)

    def _heads(self, layer: int, z: Float[np.ndarray, "head d_head"]) -> Float[np.ndarray, "head"]:
        """What each attention head adds along the direction through its rows of W_O."""
        return np.einsum(
            "he,hed,d->h", z, to_numpy(self._checkpoint.model.blocks[layer].attn.W_O), self._direction, optimize=True
        )

    def _from_tokens(self, layer: int) -> Float[np.ndarray, "head d_head"]:
        """Attention to the tokens of the segment; where slots are rows of the stream, the rest of z is from them."""
        pattern = self._trace.at(Site.ATTN_PATTERN, segment=self._segment, layer=layer)[:, self._place]
        v = self._trace.at(Site.ATTN_V, segment=self._segment, layer=layer)
        return np.einsum("hk,khe->he", pattern, v.repeat(len(pattern) // v.shape[1], axis=1), dtype=float)

    def slots(self) -> Float[np.ndarray, "memory_block head slot"]:
        """What each slot adds along the direction, by memory head, with the output gate as it was."""
        config, found = self._checkpoint.config, []
        for layer in sorted(config.memory_layers):
            gate = self._of(Site.GATE_OUT, layer) if Site.GATE_OUT.layers(config) else None
            back = config.memory.design.pull_back(self._checkpoint.model.blocks[layer].mem, self._direction, gate)
            pattern = self._trace.at(Site.READ_PATTERN, segment=self._segment, layer=layer)[:, self._place]
            v = self._trace.at(Site.READ_V, segment=self._segment, layer=layer)
            found.append(pattern * np.einsum("she,he->hs", v, back.reshape(v.shape[1:])))
        return np.stack(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanAttribution:
    """Attributions of many predictions, averaged."""

    components: tuple[Component, ...]
    effects: tuple[Effect, ...]
    """What each component adds, with its interval; the p values ask whether it adds anything."""
    logit: float
    """The mean logit, which the components' means sum to."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(component.label for component in self.components)


def average(attributions: Sequence[Attribution], groups: Sequence[str], *, seed: int = 0) -> MeanAttribution:
    """The mean over predictions; `groups` names for each the story it belongs to.

    Raises ValueError when there is none, or when they are of models with other parts.
    """
    if len({attribution.components for attribution in attributions}) != 1:
        raise ValueError(
            f"a mean needs attributions to the same components, not {len(attributions)} to"
            f" {[len(one.values) for one in attributions]}"
        )
    values = np.stack([attribution.values for attribution in attributions], axis=1)
    return MeanAttribution(
        components=attributions[0].components,
        effects=effects_of_units(values, groups, seed),
        logit=float(np.mean([attribution.logit for attribution in attributions])),
    )
