"""Walk and rereading -> a text as it is written, and the same probe read from the bank before and after. Rows are
slots, columns tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from app.views.kinds import Heatmap, Line, Lines, Strip, Table, slot_labels, token_labels, visible
from app.views.run import text
from app.views.run.memory import over, over_heads, read_title
from probes.findings import columns_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from probes.causal.updates import Rereading, TracedGeneration


def strip(walk: TracedGeneration, marks: tuple[tuple[int, int, str], ...], piece_of: Callable[[int], str]) -> Strip:
    """The prompt and what was written behind it; each new token tells what else it might have been."""
    notes = [""] * len(walk.prompt)
    for row in walk.logits:
        best = np.argsort(-row)[:3]
        notes.append(
            "chosen from: "
            + ", ".join(
                f"{visible(piece_of(int(at)))} {chance:.0%}" for at, chance in zip(best, text.softmax(row)[best])
            )
        )
    where = [segment.index for segment in walk.segments for _ in segment.ids]
    return Strip(
        pieces=walk.pieces,
        segment_of=(*where, where[-1]),  # the last token has not been fed
        weights=None,
        notes=tuple(notes),
        marks=(*marks, (len(walk.prompt), len(walk.pieces), "written by the model")),
        legend="coloured by segment; what the model wrote is underlined",
    )


def where(walk: TracedGeneration, step: int) -> str:
    """Where a new token was predicted, and who had written to the bank by then."""
    place, segment = walk.predictor(step), walk.segment_of(step)
    said = (
        f"Token {step + 1} was predicted from {visible(walk.pieces[place])!r}, token {place} of the text, in segment"
        f" {segment}. It reads {_left(walk, segment)}."
    )
    if walk.closed(step):
        said += f" Segment {segment - 1} had just been closed" + (
            " and written." if walk.writes(segment - 1) else ", and not written."
        )
    return said


def bank(walk: TracedGeneration, written: int) -> str:
    """Which bank this is: the one that `written` segments left."""
    return _left(walk, written) + (
        " (still open)" if written == len(walk.segments) and walk.writes(written - 1) else ""
    )


def _left(walk: TracedGeneration, segments: int) -> str:
    last = max((at for at in range(segments) if walk.writes(at)), default=None)
    return "the fresh bank" if last is None else f"the bank after segment {last}"


def steps(on: TracedGeneration, off: TracedGeneration, piece_of: Callable[[int], str]) -> Table:
    """Both walks token by token: what was chosen, and how far the two distributions are apart while the texts are the
    same."""
    rows, same = [], True
    for step, (token, other) in enumerate(zip(on.ids, off.ids)):
        chances, others = text.softmax(on.logits[step]), text.softmax(off.logits[step])
        rows.append(
            (
                step + 1,
                f"segment {on.segment_of(step) - 1}" if on.closed(step) else "",
                visible(piece_of(token)),
                float(chances[token]),
                visible(piece_of(other)),
                float(others[other]),
                float(np.abs(chances - others).sum() / 2) if same else np.nan,
            )
        )
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
    """The slots read when each new token was chosen."""
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
        low=0.0,
        high=float(max(values.max(), 1e-9)),
        row_noun="slot",
        column_noun="token",
        boundaries=tuple(starts),
        segment_labels=tuple(f"segment {walk.segment_of(step)}" for step in starts),
    )


def reading(read: Rereading, layer: int, head: str, bank: int, beside: int) -> Heatmap:
    """The probe's reading of one bank, on a colour scale that also holds its reading of the bank `beside`."""
    values = _map(read, layer, head, bank)
    return _heatmap(
        read,
        values,
        read_title(layer, head),
        0.0,
        float(max(values.max(), _map(read, layer, head, beside).max(), 1e-9)),
    )


def difference(read: Rereading, layer: int, head: str, before: int, after: int) -> Heatmap:
    """The second map less the first; the colour scale is never so narrow that rounding would show."""
    values = _map(read, layer, head, after) - _map(read, layer, head, before)
    most = float(max(np.abs(values).max(), 1e-3))
    return _heatmap(read, values, f"{read_title(layer, head)}, after less before", -most, most, diverging=True)


def most_moved(read: Rereading, layer: int, head: str, before: int, after: int) -> Table:
    """The probe's tokens, those whose reading changed most first, with the slots that lost and gained most."""
    moved = over_heads(read.moved(before, after)[read.layers.index(layer)], head)
    change = _map(read, layer, head, after) - _map(read, layer, head, before)
    rows = []
    for token in np.argsort(-moved, kind="stable"):
        lost, gained = int(change[:, token].argmin()), int(change[:, token].argmax())
        still = moved[token] == 0
        rows.append(
            (
                int(token),
                visible(read.pieces[token]),
                float(moved[token]),
                "" if still else f"slot {lost} {change[lost, token]:+.3f}",
                "" if still else f"slot {gained} {change[gained, token]:+.3f}",
            )
        )
    return Table(columns=columns_of(("token", "text", "share moved", "lost most", "gained most"), rows))


def course(readings: dict[str, Rereading], layer: int, head: str, before: int) -> Lines:
    """How far the probe's reading is from that of the bank `before`, by the number of segments that have written."""

    def moved(read: Rereading, bank: int) -> float:
        return float(over_heads(read.moved(before, bank)[read.layers.index(layer)], head).mean())

    values = {
        name: np.array([moved(read, bank) for bank in range(len(read.patterns))]) for name, read in readings.items()
    }
    return _by_bank(values, f"share of reading moved, block {layer}, {over(head)}, mean over tokens")


def expected(readings: dict[str, Rereading], token: int, said: str) -> Lines:
    """Probability of one token behind the probe, by the number of segments that have written."""
    values = {name: np.array([text.softmax(row)[token] for row in read.logits]) for name, read in readings.items()}
    return _by_bank(values, f"probability of {said}")


def _by_bank(values: dict[str, np.ndarray], title: str) -> Lines:
    """One line a walk; walks can differ in their number of segments, and shorter lines end early."""
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
