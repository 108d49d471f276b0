"""A text as the model continues it, and a probe's reads of the banks on the way. Rows of maps are slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from app.views.kinds import Heatmap, Line, Lines, Strip, Table, slot_labels, token_labels, visible
from app.views.run import text
from app.views.run.memory import over, over_heads, read_title
from lm2.runs.intervention_base import BankIntervention
from probes.findings import columns_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from probes.causal.updates import Rereading, TracedGeneration


def strip(walk: TracedGeneration, marks: tuple[tuple[int, int, str], ...], piece_of: Callable[[int], str]) -> Strip:
    """The prompt and its continuation, with the alternatives to each new token as notes."""
    notes = [""] * len(walk.prompt)
    for logits in walk.logits:
        chances = text.softmax(logits)
        top = ", ".join(f"{visible(piece_of(int(i)))} {chances[i]:.0%}" for i in np.argsort(-logits)[:3])
        notes.append(f"chosen from: {top}")
    segments = [segment.index for segment in walk.segments for _ in segment.ids]
    return Strip(
        pieces=walk.pieces,
        segment_of=(*segments, segments[-1]),  # the last token has not been fed
        weights=None,
        notes=tuple(notes),
        marks=(*marks, (len(walk.prompt), len(walk.pieces), "written by the model")),
        legend="coloured by segment; what the model wrote is underlined",
    )


def step_note(walk: TracedGeneration, step: int) -> str:
    """Where a new token was predicted, and from which bank."""
    place, segment = walk.predictor(step), walk.segment_of(step)
    changes = [
        change.words
        for change in walk.spec.interventions
        if isinstance(change, BankIntervention) and change.reaches(walk.segments[segment])
    ]
    changed = f", changed: {'; '.join(changes)}" if changes else ""
    words = (
        f"Token {step + 1} was predicted from {visible(walk.pieces[place])!r}, token {place} of the text, in segment"
        f" {segment}. It reads {_left(walk, segment)}{changed}."
    )
    if walk.closed(step):
        written = " and written" if walk.writes(segment - 1) else ", and not written"
        words += f" Segment {segment - 1} had just been closed{written}."
    return words


def bank_name(walk: TracedGeneration, written: int) -> str:
    """The bank after `written` segments, in words."""
    still_open = written == len(walk.segments) and walk.writes(written - 1)
    return f"{_left(walk, written)}{' (still open)' if still_open else ''}"


def _left(walk: TracedGeneration, segments: int) -> str:
    last = max(filter(walk.writes, range(segments)), default=None)
    return "the fresh bank" if last is None else f"the bank after segment {last}"


def steps(on: TracedGeneration, off: TracedGeneration, piece_of: Callable[[int], str]) -> Table:
    """The tokens that both walks chose, and the distance of their predictions while the texts are the same."""
    rows, same = [], True
    for step, (token, other) in enumerate(zip(on.ids, off.ids)):
        written = f"segment {on.segment_of(step) - 1}" if on.closed(step) else ""
        chances, others = text.softmax(on.logits[step]), text.softmax(off.logits[step])
        chosen = visible(piece_of(token)), float(chances[token]), visible(piece_of(other)), float(others[other])
        rows.append((step + 1, written, *chosen, float(np.abs(chances - others).sum() / 2) if same else np.nan))
        same = same and token == other
    headers = (
        "token",
        "bank just written by",
        "writes on",
        "probability (on)",
        "writes off",
        "probability (off)",
        "distance",
    )
    return Table(columns=columns_of(headers, rows))


def reads_by_step(walk: TracedGeneration, layer: int, head: str) -> Heatmap:
    """The slots read at each new token."""
    values = over_heads(walk.reads[:, walk.layers.index(layer)].swapaxes(0, 1), head).T
    starts = [0, *(step for step in range(len(walk.ids)) if walk.closed(step))]
    return Heatmap(
        values=values,
        row_labels=slot_labels(len(values)),
        column_labels=tuple(
            f"{step}: {visible(piece)}" for step, piece in enumerate(walk.pieces[len(walk.prompt) :], start=1)
        ),
        row_title="slot",
        column_title="chosen token",
        value_title=read_title(layer, head),
        high=float(max(values.max(), 1e-9)),
        row_noun="slot",
        column_noun="token",
        boundaries=tuple(starts),
        segment_labels=tuple(f"segment {walk.segment_of(step)}" for step in starts),
    )


def reading(read: Rereading, layer: int, head: str, bank: int, beside: int) -> Heatmap:
    """The probe's reads of one bank, on a colour scale shared with those of the bank `beside`."""
    values, others = _map(read, layer, head, bank), _map(read, layer, head, beside)
    return _heatmap(read, values, read_title(layer, head), 0.0, float(max(values.max(), others.max(), 1e-9)))


def difference(read: Rereading, layer: int, head: str, before: int, after: int) -> Heatmap:
    """The second map minus the first. The colour scale is never so narrow that rounding errors show."""
    values = _map(read, layer, head, after) - _map(read, layer, head, before)
    most = float(max(np.abs(values).max(), 1e-3))
    return _heatmap(read, values, f"{read_title(layer, head)}, after less before", -most, most, diverging=True)


def most_moved(read: Rereading, layer: int, head: str, before: int, after: int) -> Table:
    """The probe's tokens by the change of their reads, with the slots that lost and gained most."""
    moved = over_heads(read.moved(before, after)[read.layers.index(layer)], head)
    change = _map(read, layer, head, after) - _map(read, layer, head, before)
    rows = []
    for token in np.argsort(-moved, kind="stable"):
        lost, gained = int(change[:, token].argmin()), int(change[:, token].argmax())
        slots = [f"slot {slot} {change[slot, token]:+.3f}" if moved[token] else "" for slot in (lost, gained)]
        rows.append((int(token), visible(read.pieces[token]), float(moved[token]), *slots))
    return Table(columns=columns_of(("token", "text", "share moved", "lost most", "gained most"), rows))


def distance_curve(readings: dict[str, Rereading], layer: int, head: str, before: int) -> Lines:
    """The distance of the probe's reads from those of the bank `before`, by how many segments have written."""

    def moved(read: Rereading, bank: int) -> float:
        return float(over_heads(read.moved(before, bank)[read.layers.index(layer)], head).mean())

    values = {
        name: np.array([moved(read, bank) for bank in range(len(read.patterns))]) for name, read in readings.items()
    }
    return _by_bank(values, f"share of reading moved, block {layer}, {over(head)}, mean over tokens")


def probability_curve(readings: dict[str, Rereading], token: int, words: str) -> Lines:
    """Probability of one token after the probe, by how many segments have written."""
    values = {name: np.array([text.softmax(row)[token] for row in read.logits]) for name, read in readings.items()}
    return _by_bank(values, f"probability of {words}")


def _by_bank(values: dict[str, np.ndarray], title: str) -> Lines:
    """A line for each walk; walks can differ in their number of segments."""
    longest = max(map(len, values.values()))
    return Lines(
        lines=tuple(
            Line(name=f"writes {name}", values=np.concatenate([line, np.full(longest - len(line), np.nan)]))
            for name, line in values.items()
        ),
        ticks=tuple(map(str, range(longest))),
        x_title="segments that have written",
        y_title=title,
        y_range=(0.0, 1.0),
    )


def _map(read: Rereading, layer: int, head: str, bank: int) -> Float[np.ndarray, "slot token"]:
    return over_heads(read.patterns[bank, read.layers.index(layer)], head).T


def _heatmap(
    read: Rereading,
    values: Float[np.ndarray, "slot token"],
    title: str,
    low: float,
    high: float,
    *,
    diverging: bool = False,
) -> Heatmap:
    return Heatmap(
        values=values,
        row_labels=slot_labels(len(values)),
        column_labels=token_labels(read.pieces),
        row_title="slot",
        column_title="token of the probe",
        ticks=tuple(map(visible, read.pieces)),
        value_title=title,
        low=low,
        high=high,
        diverging=diverging,
        row_noun="slot",
        column_noun="token",
    )
