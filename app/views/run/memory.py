"""Reads and writes of a trace. In all maps, rows are slots and columns are tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from app.views.kinds import Bars, Heatmap, Table, slot_labels, token_labels, visible
from app.views.run import text
from lm2.model.config import LM2Config, MemoryKind
from lm2.model.sites import Site
from probes.findings import columns_of

if TYPE_CHECKING:
    from lm2.runs.trace import Trace

Map = Float[np.ndarray, "slot token"]


def layers(trace: Trace, config: LM2Config) -> tuple[int, ...]:
    """The blocks whose memory was captured."""
    return tuple(sorted({place.layer for _, place in trace.records} & set(config.memory_layers)))


def over_heads(values: Float[np.ndarray, "head *rest"], head: str) -> Float[np.ndarray, "*rest"]:
    """One head's values, or their "mean" or "max" over heads."""
    if head == "mean":
        return values.mean(0)
    return values.max(0) if head == "max" else values[int(head)]


def read_map(trace: Trace, layer: int, head: str) -> Map:
    """Share of each token's read that goes to each slot. Columns sum to 1, except for head "max"."""
    return over_heads(trace.across(Site.READ_PATTERN, layer=layer).swapaxes(1, 2), head)


def write_map(trace: Trace, layer: int, head: str) -> Map:
    """Share of each slot's write that comes from each token. Rows sum to 1 within a segment, except for head "max"."""
    return over_heads(trace.across(Site.WRITE_PATTERN, layer=layer), head)


def read_title(layer: int, head: str) -> str:
    return f"read weight, block {layer}, {over(head)} (share)"


def over(head: str) -> str:
    """The heads in words."""
    return f"{head} over heads" if head in ("mean", "max") else f"head {head}"


def _heatmap(trace: Trace, values: Map, title: str, masked: np.ndarray | None = None) -> Heatmap:
    return Heatmap(
        values=values,
        row_labels=slot_labels(len(values)),
        column_labels=token_labels(trace.tokens.shown),
        row_title="slot",
        column_title="token",
        value_title=title,
        high=float(max(values.max(), 1e-9)),
        boundaries=text.boundaries(trace),
        segment_labels=text.segment_labels(trace),
        masked=masked,
        row_noun="slot",
        column_noun="token",
    )


def reads(trace: Trace, layer: int, head: str, kind: MemoryKind) -> Heatmap:
    values = read_map(trace, layer, head)
    masked = None
    if kind.design.slots_are_tokens:  # token i of a segment sees slots 0..i
        position = np.concatenate([np.arange(len(segment.ids)) for segment in trace.segments])
        masked = np.arange(len(values))[:, None] > position[None, :]
    return _heatmap(trace, values, read_title(layer, head), masked)


def writes(trace: Trace, layer: int, head: str) -> Heatmap:
    return _heatmap(trace, write_map(trace, layer, head), f"write weight, block {layer}, {over(head)} (share)")


def multiples(trace: Trace, site: Site, layers: tuple[int, ...]) -> Float[np.ndarray, "layer head slot token"]:
    """A map for each block and head, followed by the mean and the maximum over heads."""
    rows = []
    for layer in layers:
        patterns = trace.across(site, layer=layer)
        patterns = patterns.swapaxes(1, 2) if site is Site.READ_PATTERN else patterns
        rows.append(np.concatenate([patterns, patterns.mean(0, keepdims=True), patterns.max(0, keepdims=True)]))
    return np.stack(rows)


def slot_colours(view: Heatmap, slot: int, side: str, *, relative: bool) -> tuple[Float[np.ndarray, token], float, str]:
    """A slot's row of the map as colours of the text, with the upper end of their scale and a legend. `side`: whether
    tokens "read" or "wrote" the slot. The scale is the map's; if `relative`, it ends at the slot's largest weight."""
    weights = view.unmasked[slot]
    most = float(np.nanmax(weights, initial=0.0))
    scale = (
        f"colours relative to this slot's largest, {most:.3g}"
        if relative
        else f"colours as in the map of all slots; this slot's largest is {most:.3g}"
    )
    return (
        weights,
        max(most, 1e-9) if relative else view.high,
        f"how much each token {side} slot {slot}: {view.value_title}; {scale}",
    )


def slots_of_token(trace: Trace, layer: int, head: str, token: int) -> Bars:
    """The read weights of one token."""
    values = read_map(trace, layer, head)[:, token]
    labels = tuple(map(str, range(len(values))))
    return Bars(values=values, labels=labels, x_title="slot", y_title=read_title(layer, head))


def tokens_of_slot(trace: Trace, values: Map, slot: int, count: int = 8) -> Table:
    """The tokens with the largest weight for a slot."""
    best = np.argsort(-values[slot])[:count]
    segments = text.segment_of(trace)
    rows = [(int(i), visible(trace.tokens.shown[i]), segments[i], float(values[slot, i])) for i in best]
    return Table(columns=columns_of(("token", "text", "segment", "weight"), rows))


def heads(trace: Trace, layers: tuple[int, ...]) -> Table:
    """Statistics of each block and head's read: its entropy in bits, mean over tokens, with 2 to its power (effective
    slots), and the mutual information of token and slot in bits (selectivity), 0 if all tokens read alike."""
    rows = []
    for layer in layers:
        for head, pattern in enumerate(trace.across(Site.READ_PATTERN, layer=layer).astype(np.float64)):
            entropy = float(_entropy(pattern).mean())
            mean = pattern.mean(0)
            top = int(mean.argmax())
            rows.append((layer, head, entropy, 2**entropy, float(_entropy(mean)) - entropy, top, float(mean[top])))
    headers = (
        "block",
        "head",
        "entropy (bits)",
        "effective slots",
        "selectivity (bits)",
        "slot read most",
        "its share",
    )
    return Table(columns=columns_of(headers, rows))


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log2(np.clip(p, 1e-12, None))).sum(-1)
