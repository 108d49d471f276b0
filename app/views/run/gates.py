"""Trace -> the gates across the context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from app.views.kinds import Heatmap, Line, Lines, Table, slot_labels, token_labels
from app.views.run import text
from lm2.model.gates import GATES, Gate
from lm2.model.sites import Axis, Site
from probes.findings import columns_of

if TYPE_CHECKING:
    from lm2.runs.trace import Trace

CLOSED, OPEN = 0.05, 0.95
"""A gate value below CLOSED or above OPEN counts as saturated."""


def per_slot(trace: Trace, gate: str, layers: tuple[int, ...], gates: Mapping[str, Gate] = GATES) -> Heatmap:
    """Mean over features, of each of the gate's rows, at each write: segments in order, blocks in order within each."""
    site, rows = gates[gate].site, gates[gate].rows
    over = "" if site.axes[-1] is Axis.ONE else ", mean over features"
    columns = [(segment.index, layer) for segment in trace.segments for layer in layers]
    values = (
        np.stack([trace.across(site, layer=layer).mean(-1) for layer in layers], axis=1).reshape(len(columns), -1).T
    )
    return Heatmap(
        values=values,
        row_labels=slot_labels(len(values)),
        column_labels=tuple(f"segment {segment}, block {layer}" for segment, layer in columns),
        row_title=rows,
        column_title="block that writes, within each segment",
        value_title=f"{gate} gate ({gates[gate].share}){over}",
        low=0.0,
        high=1.0,
        boundaries=tuple(range(0, len(columns), len(layers))),
        segment_labels=text.segment_labels(trace),
        ticks=tuple(str(layer) for _, layer in columns),
        least=gates[gate].least,
        row_noun=rows,
        column_noun="segment",  # cells hold one block's columns of neighbouring segments
        column_kinds=tuple(layer for _, layer in columns),
    )


def per_token(trace: Trace, layers: tuple[int, ...]) -> Heatmap:
    """The output gate's mean over features, of each token in each block."""
    values = np.stack([trace.across(Site.GATE_OUT, layer=layer).mean(-1) for layer in layers])
    return Heatmap(
        values=values,
        row_labels=tuple(f"block {layer}" for layer in layers),
        column_labels=token_labels(trace.tokens.shown),
        row_title="block",
        column_title="token",
        value_title=f"out gate ({GATES['out'].share}), mean over features",
        low=0.0,
        high=1.0,
        boundaries=text.boundaries(trace),
        segment_labels=text.segment_labels(trace),
        row_kinds=layers,
        column_noun="token",
    )


def _entries(trace: Trace, gate: Gate, layer: int) -> Float[np.ndarray, "place entry"]:
    """All of a block's gate values, per segment, or per token for the output gate."""
    values = trace.across(gate.site, layer=layer)
    return values.reshape(len(values), -1)


def _axis(trace: Trace, gate: Gate) -> tuple[tuple[str, ...], str, tuple[int, ...]]:
    if gate.rows == "token":
        return token_labels(trace.tokens.shown), "token", text.boundaries(trace)
    return text.segment_labels(trace), "segment", ()


def spread(trace: Trace, gate: str, layer: int, gates: Mapping[str, Gate] = GATES) -> Lines:
    """Mean, median and the 10 % and 90 % quantiles of a block's gate across the context."""
    entries = _entries(trace, gates[gate], layer)
    low, middle, high = np.quantile(entries, (0.1, 0.5, 0.9), axis=1)
    ticks, x_title, boundaries = _axis(trace, gates[gate])
    return Lines(
        lines=(
            Line(name="median, with 10 % to 90 %", values=middle, low=low, high=high),
            Line(name="mean", values=entries.mean(1)),
        ),
        ticks=ticks,
        x_title=x_title,
        y_title=f"{gate} gate ({gates[gate].share}), block {layer}, over {gates[gate].over}",
        y_range=(0.0, 1.0),
        boundaries=boundaries,
    )


def saturation(trace: Trace, gate: str, layer: int, gates: Mapping[str, Gate] = GATES) -> Lines:
    """Share of a block's gate values below CLOSED and above OPEN across the context."""
    entries = _entries(trace, gates[gate], layer)
    ticks, x_title, boundaries = _axis(trace, gates[gate])
    return Lines(
        lines=(
            Line(name=f"closed (below {CLOSED})", values=(entries < CLOSED).mean(1)),
            Line(name=f"open (above {OPEN})", values=(entries > OPEN).mean(1)),
        ),
        ticks=ticks,
        x_title=x_title,
        y_title=f"share of {gate} gate values, block {layer}, over {gates[gate].over}",
        y_range=(0.0, 1.0),
        boundaries=boundaries,
    )


def summary(trace: Trace, gate: str, layers: tuple[int, ...], gates: Mapping[str, Gate] = GATES) -> Table:
    """Per block, over the whole context."""
    rows = []
    for layer in layers:
        values = _entries(trace, gates[gate], layer).ravel()
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
        rows.append(
            (
                layer,
                float(values.mean()),
                float(low),
                float(middle),
                float(high),
                float((values < CLOSED).mean()),
                float((values > OPEN).mean()),
            )
        )
    headers = ("block", "mean", "10 %", "median", "90 %", f"share below {CLOSED}", f"share above {OPEN}")
    return Table(columns=columns_of(headers, rows))
