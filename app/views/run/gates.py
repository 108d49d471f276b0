"""Gate values of a trace across the context."""

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
    """Mean over features of each row of a gate, by segment and by block within each segment."""
    site, rows = gates[gate].site, gates[gate].rows
    pooled = "" if site.axes[-1] is Axis.ONE else ", mean over features"
    columns = [(segment.index, layer) for segment in trace.segments for layer in layers]
    means = np.stack([trace.across(site, layer=layer).mean(-1) for layer in layers], axis=1)
    values = means.reshape(len(columns), -1).T
    return Heatmap(
        values=values,
        row_labels=slot_labels(len(values)),
        column_labels=tuple(f"segment {segment}, block {layer}" for segment, layer in columns),
        row_title=rows,
        column_title="block that writes, within each segment",
        value_title=f"{gate} gate ({gates[gate].share}){pooled}",
        boundaries=tuple(range(0, len(columns), len(layers))),
        segment_labels=text.segment_labels(trace),
        ticks=tuple(str(layer) for _, layer in columns),
        least=gates[gate].least,
        row_noun=rows,
        column_noun="segment",  # cells hold one block's columns of neighbouring segments
        column_kinds=tuple(layer for _, layer in columns),
    )


def per_token(trace: Trace, layers: tuple[int, ...]) -> Heatmap:
    """The output gate's mean over features, by block and token."""
    values = np.stack([trace.across(Site.GATE_OUT, layer=layer).mean(-1) for layer in layers])
    return Heatmap(
        values=values,
        row_labels=tuple(f"block {layer}" for layer in layers),
        column_labels=token_labels(trace.tokens.shown),
        row_title="block",
        column_title="token",
        value_title=f"out gate ({GATES['out'].share}), mean over features",
        boundaries=text.boundaries(trace),
        segment_labels=text.segment_labels(trace),
        row_kinds=layers,
        column_noun="token",
    )


def _entries(trace: Trace, gate: Gate, layer: int) -> Float[np.ndarray, "place entry"]:
    """All gate values of a block by segment, or by token for the output gate."""
    values = trace.across(gate.site, layer=layer)
    return values.reshape(len(values), -1)


def spread(trace: Trace, gate: str, layer: int, gates: Mapping[str, Gate] = GATES) -> Lines:
    """Mean, median and the 10 % and 90 % quantiles of a block's gate across the context."""
    entries = _entries(trace, gates[gate], layer)
    low, median, high = np.quantile(entries, (0.1, 0.5, 0.9), axis=1)
    lines = (
        Line(name="median, with 10 % to 90 %", values=median, low=low, high=high),
        Line(name="mean", values=entries.mean(1)),
    )
    return _lines(trace, gates[gate], lines, f"{gate} gate ({gates[gate].share}), block {layer}")


def saturation(trace: Trace, gate: str, layer: int, gates: Mapping[str, Gate] = GATES) -> Lines:
    """Share of a block's gate values below CLOSED and above OPEN across the context."""
    entries = _entries(trace, gates[gate], layer)
    lines = (
        Line(name=f"closed (below {CLOSED})", values=(entries < CLOSED).mean(1)),
        Line(name=f"open (above {OPEN})", values=(entries > OPEN).mean(1)),
    )
    return _lines(trace, gates[gate], lines, f"share of {gate} gate values, block {layer}")


def _lines(trace: Trace, gate: Gate, lines: tuple[Line, ...], quantity: str) -> Lines:
    by_token = gate.rows == "token"
    return Lines(
        lines=lines,
        ticks=token_labels(trace.tokens.shown) if by_token else text.segment_labels(trace),
        x_title="token" if by_token else "segment",
        y_title=f"{quantity}, over {gate.over}",
        y_range=(0.0, 1.0),
        boundaries=text.boundaries(trace) if by_token else (),
    )


def summary(trace: Trace, gate: str, layers: tuple[int, ...], gates: Mapping[str, Gate] = GATES) -> Table:
    """Statistics of each block's gate values over the whole context."""
    rows = []
    for layer in layers:
        values = _entries(trace, gates[gate], layer)
        numbers = values.mean(), *np.quantile(values, (0.1, 0.5, 0.9)), (values < CLOSED).mean(), (values > OPEN).mean()
        rows.append((layer, *map(float, numbers)))
    headers = ("block", "mean", "10 %", "median", "90 %", f"share below {CLOSED}", f"share above {OPEN}")
    return Table(columns=columns_of(headers, rows))
