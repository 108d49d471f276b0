"""Direct logit attribution: one prediction's logit as a sum over parts of the model, including the memory.

A logit is a direction times the final stream over the final norm's scale. With this scale held fixed it is linear in
the stream, which is a sum: embedding, and each block's attention, memory and MLP (Elhage et al. 2021). Only the direct
path is attributed. Parts that act through later blocks show little here, and more in an ablation.
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
    """What is added to the stream."""

    EMBED = "embedding"
    ATTENTION = "attention"
    """To tokens; attention to memory tokens counts as memory."""
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

    Sums hold to rounding, unless an edit of the run changes the stream after the terms are added.
    """

    components: tuple[Component, ...]
    """In the order in which they are added."""
    values: Float[np.ndarray, "component"]
    heads: Float[np.ndarray, "block head"]
    """A block's attention by head; they and any output bias sum to the block's component."""
    slots: Float[np.ndarray, "memory_block head slot"] | None
    """A block's memory by memory head and slot; they sum to the block's component. Read pattern times value, through
    output projection and output gate. The gate is held as it was although it depends on what is read. None if a memory
    adds no sum over slots (RELEASE) or no site has the terms (TOKENS)."""
    logit: float
    """As the model computed it."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(component.label for component in self.components)

    @property
    def total(self) -> float:
        """The sum of the components; an edit of the stream itself makes up the rest of the logit."""
        return float(self.values.sum())


def attribute(checkpoint: Checkpoint, spec: RunSpec, row: int, *, token: int, foils: Sequence[int] = ()) -> Attribution:
    """The attribution of the prediction at token `row` in a run of `spec`, without the spec's captures.

    Args:
        token: id whose logit is attributed.
        foils: ids whose mean logit is subtracted from it.

    Raises ValueError for a row or ids out of range, for a token among its foils, and as `run` does.
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
        directions = to_numpy(checkpoint.model.tokens_to_residual_directions(torch.tensor([token, *foils])))
    directions, logits = directions.astype(float), trace.logits[row].astype(float)
    direction = directions[0] - (directions[1:].mean(0) if len(foils) else 0)
    terms = _Terms(checkpoint, trace, segment.index, row - segment.start, direction)
    components, values, heads = terms.components()
    return Attribution(
        components=components,
        values=read_only(values),
        heads=read_only(heads),
        slots=read_only(terms.slots()) if checkpoint.config.memory.design.terms_by_slot else None,
        logit=float(logits[token] - (logits[list(foils)].mean() if len(foils) else 0)),
    )


def _sites(config: LM2Config) -> tuple[Site, ...]:
    sites = [Site.EMBED, Site.ATTN_OUT, Site.ATTN_Z, Site.MLP_OUT, Site.LN_FINAL_SCALE, Site.MEM_OUT]
    if config.memory.design.terms_by_slot:
        sites += [Site.READ_PATTERN, Site.READ_V, Site.GATE_OUT]
    if config.memory.design.bank_in_stream:
        sites += [Site.ATTN_PATTERN, Site.ATTN_V]
    return tuple(site for site in sites if site.layers(config))


class _Terms:
    """The terms of one token's final stream, along a direction."""

    def __init__(
        self, checkpoint: Checkpoint, trace: Trace, segment: int, token: int, direction: Float[np.ndarray, "d_model"]
    ) -> None:
        self._config, self._blocks = checkpoint.config, checkpoint.model.blocks
        self._trace, self._segment, self._token = trace, segment, token
        self._direction = direction / float(self._at(Site.LN_FINAL_SCALE)[0])

    def _at(self, site: Site, layer: int | None = None) -> np.ndarray:
        """The token's row of a site whose first axis is the token."""
        return self._trace.at(site, segment=self._segment, layer=layer)[self._token].astype(float)

    def components(
        self,
    ) -> tuple[tuple[Component, ...], Float[np.ndarray, "component"], Float[np.ndarray, "block head"]]:
        values = {Component(part=LogitPart.EMBED, layer=None): self._at(Site.EMBED) @ self._direction}
        by_head = []
        for layer in range(self._config.n_layers):
            z = self._at(Site.ATTN_Z, layer)
            heads, attention, memory = self._heads(layer, z), self._at(Site.ATTN_OUT, layer) @ self._direction, None
            if layer in Site.MEM_OUT.layers(self._config):
                memory = self._at(Site.MEM_OUT, layer) @ self._direction
            elif layer in self._config.memory_layers:
                read = self._heads(layer, z - self._from_tokens(layer))
                memory = read.sum()
                attention, heads = attention - memory, heads - read
            by_head.append(heads)
            mlp = self._at(Site.MLP_OUT, layer) @ self._direction
            for part, value in ((LogitPart.ATTENTION, attention), (LogitPart.MEMORY, memory), (LogitPart.MLP, mlp)):
                if value is not None:
                    values[Component(part=part, layer=layer)] = value
        return tuple(values), np.array([*values.values()]), np.stack(by_head)

    def _heads(self, layer: int, z: Float[np.ndarray, "head d_head"]) -> Float[np.ndarray, "head"]:
        """What each attention head adds through its rows of W_O."""
        return np.einsum("he,hed,d->h", z, to_numpy(self._blocks[layer].attn.W_O), self._direction, optimize=True)

    def _from_tokens(self, layer: int) -> Float[np.ndarray, "head d_head"]:
        """The part of z from the segment's tokens; if slots are rows of the stream, the rest is from them."""
        pattern = self._trace.at(Site.ATTN_PATTERN, segment=self._segment, layer=layer)[:, self._token]
        v = self._trace.at(Site.ATTN_V, segment=self._segment, layer=layer)
        return np.einsum("hk,khe->he", pattern, v.repeat(len(pattern) // v.shape[1], axis=1), dtype=float)

    def slots(self) -> Float[np.ndarray, "memory_block head slot"]:
        """What each slot adds, by memory head, with the output gate as it was."""
        design, slots = self._config.memory.design, []
        for layer in sorted(self._config.memory_layers):
            gate = self._at(Site.GATE_OUT, layer) if Site.GATE_OUT.layers(self._config) else None
            back = design.pull_back(self._blocks[layer].mem, self._direction, gate)
            pattern = self._trace.at(Site.READ_PATTERN, segment=self._segment, layer=layer)[:, self._token]
            v = self._trace.at(Site.READ_V, segment=self._segment, layer=layer)
            slots.append(pattern * np.einsum("she,he->hs", v, back.reshape(v.shape[1:])))
        return np.stack(slots)


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanAttribution:
    """The mean of many predictions' attributions."""

    components: tuple[Component, ...]
    effects: tuple[Effect, ...]
    """What each component adds, with its interval and a p value against adding nothing."""
    logit: float
    """The mean logit, to which the components' means sum."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(component.label for component in self.components)


def average(attributions: Sequence[Attribution], groups: Sequence[str], *, seed: int = 0) -> MeanAttribution:
    """The mean over predictions, whose stories are `groups`.

    Raises ValueError for no attributions, and for those of models with different parts.
    """
    if len({attribution.components for attribution in attributions}) != 1:
        raise ValueError(
            f"a mean needs attributions to the same components, not {len(attributions)} to"
            f" {[len(attribution.values) for attribution in attributions]}"
        )
    values = np.stack([attribution.values for attribution in attributions], axis=1)
    return MeanAttribution(
        components=attributions[0].components,
        effects=effects_of_units(values, groups, seed),
        logit=float(np.mean([attribution.logit for attribution in attributions])),
    )
