"""The text of a trace, and the model's predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from app.choices.context import Context
from app.views.kinds import Line, Lines, Strip, Table, token_labels, visible
from lm2.text.tokens import Tokenizer
from probes.findings import columns_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lm2.runs.trace import Trace


Marks = tuple[tuple[int, int, str], ...]
"""Token ranges (first, one past the last) with a label for each."""


def segment_of(trace: Trace) -> tuple[int, ...]:
    """The segment of each token."""
    return tuple(segment.index for segment in trace.segments for _ in segment.ids)


def boundaries(trace: Trace) -> tuple[int, ...]:
    return tuple(segment.start for segment in trace.segments)


def segment_labels(trace: Trace) -> tuple[str, ...]:
    return tuple(f"segment {segment.index}" for segment in trace.segments)


def marks(trace: Trace, context: Context) -> Marks:
    """The context's marks as token ranges."""
    ranges = []
    for start, end, label in context.marks:
        tokens = trace.tokens.within(start, end)
        if tokens:
            ranges.append((tokens[0], tokens[-1] + 1, label))
    return tuple(ranges)


def probabilities(trace: Trace, token: int) -> Float[np.ndarray, d_vocab]:
    """The model's distribution over what follows `token`."""
    return softmax(trace.logits[token])


def softmax(logits: Float[np.ndarray, d_vocab]) -> Float[np.ndarray, d_vocab]:
    """Probabilities from logits, computed in float64."""
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def surprise_line(trace: Trace) -> Lines:
    """The surprise of each token."""
    return Lines(
        lines=(Line(name="surprise", values=trace.surprisal),),
        ticks=token_labels(trace.tokens.shown),
        x_title="token",
        y_title="surprise (bits)",
        boundaries=boundaries(trace),
    )


def strip(
    trace: Trace,
    marks: Marks,
    tokenizer: Tokenizer,
    *,
    weights: np.ndarray | None = None,
    high: float = 1.0,
    legend: str = "coloured by segment",
) -> Strip:
    """The text, with the model's prediction as a note at each token. `high`: upper end of the weights' colour scale."""
    notes = []
    # A very long text has no notes, which would be larger than the text; a table has those of the chosen token.
    for token in range(len(trace.tokens) if len(trace.tokens) <= 4_000 else 0):
        chances = probabilities(trace, token)
        best = np.argpartition(-chances, 3)[:3]
        best = best[np.argsort(-chances[best])]
        notes.append("next: " + ", ".join(f"{visible(tokenizer.shown(int(i)))} {chances[i]:.0%}" for i in best))
    return Strip(
        pieces=trace.tokens.shown,
        segment_of=segment_of(trace),
        weights=weights,
        notes=tuple(notes),
        marks=marks,
        legend=legend,
        high=high,
    )


def is_whole(tokenizer: Tokenizer, token: int, answer: str) -> bool:
    """Whether an answer's first token is all of it."""
    return tokenizer.piece(token).strip().casefold() == answer.strip().casefold()


def quizzes(trace: Trace, context: Context, tokenizer: Tokenizer) -> Table:
    """Each question with its true answer, the probability of the answer's first token, and the model's top token. If an
    answer has several tokens, others may begin with the same one, so the first alone is not counted as right."""
    rows, more = [], False
    for quiz in context.quizzes:
        row, first = tokenizer.answer_at(trace.tokens, quiz.end, quiz.answer)
        chances = probabilities(trace, row)
        top = int(chances.argmax())
        right = "no" if top != first else "yes" if is_whole(tokenizer, first, quiz.answer) else "its first token"
        words = tokenizer.shown(top).strip()
        rows.append((quiz.question, quiz.answer, float(chances[first]), words, float(chances[top]), right))
        more |= not is_whole(tokenizer, first, quiz.answer)
    probability = "its first token's probability" if more else "its probability"
    headers = ("question", "true answer", probability, "model says", "with probability", "right")
    return Table(columns=columns_of(headers, rows))


def next_tokens(trace: Trace, tokenizer: Tokenizer, token: int, count: int = 10) -> Table:
    """The likeliest tokens after a token."""
    chances = probabilities(trace, token)
    rows = [(visible(tokenizer.shown(int(i))), float(chances[i])) for i in np.argsort(-chances)[:count]]
    return Table(columns=columns_of(("next token", "probability"), rows))


def compare_next_tokens(
    first: Float[np.ndarray, d_vocab],
    second: Float[np.ndarray, d_vocab],
    names: tuple[str, str],
    piece_of: Callable[[int], str],
    count: int = 8,
) -> Table:
    """The likeliest tokens of two next-token distributions, which are given as logits, side by side."""
    chances = np.stack([softmax(first), softmax(second)])
    rows = [(visible(piece_of(int(i))), *chances[:, i].tolist()) for i in np.argsort(-chances.max(0))[:count]]
    return Table(columns=columns_of(("next token", *names), rows))
