"""The bank of a trace: norms, changes and similarity of its slots, and the tokens that they promote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from app.views.kinds import Heatmap, Table, slot_labels, visible
from app.views.run import text
from lm2.model.sites import Site
from probes.findings import columns_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lm2.runs.trace import Trace
    from probes.causal.lens import SlotReadout


def banks(trace: Trace, layers: tuple[int, ...]) -> Float[np.ndarray, "segment slot slot_dim"]:
    """The bank at the start and after each segment."""
    start = trace.at(Site.BANK_PRE, segment=0, layer=layers[0])
    return np.stack([start, *(after(trace, layers, segment.index) for segment in trace.segments)])


def after(trace: Trace, layers: tuple[int, ...], segment: int) -> Float[np.ndarray, "slot slot_dim"]:
    """The bank after a segment."""
    return trace.at(Site.BANK_POST, segment=segment, layer=layers[-1])


def norms(trace: Trace, layers: tuple[int, ...]) -> Heatmap:
    values = np.linalg.norm(banks(trace, layers), axis=-1).T
    return Heatmap(
        values=values,
        row_labels=slot_labels(len(values)),
        column_labels=("start", *(f"after {label}" for label in text.segment_labels(trace))),
        row_title="slot",
        column_title="bank after segment",
        ticks=("start", *(str(segment.index) for segment in trace.segments)),
        value_title="slot norm (Euclidean, in the bank's units)",
        high=float(max(values.max(), 1e-9)),
        row_noun="slot",
        column_noun="segment",
        column_kinds=("start", *("after" for _ in trace.segments)),
    )


def changes(trace: Trace, layers: tuple[int, ...]) -> Heatmap:
    """The distance by which each segment moved each slot."""
    values = np.linalg.norm(np.diff(banks(trace, layers), axis=0), axis=-1).T
    return Heatmap(
        values=values,
        row_labels=slot_labels(len(values)),
        column_labels=text.segment_labels(trace),
        row_title="slot",
        column_title="segment",
        ticks=tuple(str(segment.index) for segment in trace.segments),
        value_title="change of slot (Euclidean, in the bank's units)",
        high=float(max(values.max(), 1e-9)),
        row_noun="slot",
        column_noun="segment",
    )


def similarity(trace: Trace, layers: tuple[int, ...], segment: int) -> Heatmap:
    """Cosines between slots after a segment."""
    bank = after(trace, layers, segment)
    unit = bank / np.maximum(np.linalg.norm(bank, axis=-1, keepdims=True), 1e-9)
    labels = slot_labels(len(bank))
    return Heatmap(
        values=unit @ unit.T,
        row_labels=labels,
        column_labels=labels,
        ticks=tuple(map(str, range(len(bank)))),
        row_title="slot",
        column_title="slot",
        value_title=f"cosine after segment {segment}",
        low=-1.0,
        high=1.0,
        diverging=True,
        row_noun="slot",
        column_noun="slot",
    )


def readout(read: SlotReadout, piece_of: Callable[[int], str]) -> Table:
    """Each slot's top tokens, beside the top logit of random slots of the same norm."""
    rows = []
    for slot in range(len(read.tokens)):
        tokens = ", ".join(
            f"{visible(piece_of(int(token)))} {logit:+.2f}"
            for token, logit in zip(read.tokens[slot], read.logits[slot])
        )
        rows.append(
            (slot, tokens, float(read.logits[slot, 0]), float(read.random_top[slot]), float(read.exceeds[slot]))
        )
    return Table(columns=columns_of(("slot", "top tokens (logit)", "top logit", "random 95 %", "above random"), rows))
