"""Trace -> the text and what the model expected of it."""

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
"""Token ranges (first, one past the last) with a word for each."""


def segment_of(trace: Trace) -> tuple[int, ...]:
    """The segment of each token."""
    return tuple(segment.index for segment in trace.segments for _ in segment.ids)


def boundaries(trace: Trace) -> tuple[int, ...]:
    return tuple(segment.start for segment in trace.segments)


def segment_labels(trace: Trace) -> tuple[str, ...]:
    return tuple(f"segment {segment.index}" for segment in trace.segments)


def marks(trace: Trace, context: Context) -> Marks:
    """The context's marks as token ranges."""
    found = []
    for start, end, word in context.marks:
        tokens = trace.tokens.within(start, end)
        if tokens:
            found.append((tokens[0], tokens[-1] + 1, word))
    return tuple(found)


def probabilities(trace: Trace, token: int) -> Float[np.ndarray, d_vocab]:
    """The model's distribution over what follows `token`."""
    return chances(trace.logits[token])


def chances(logits: Float[np.ndarray, d_vocab]) -> Float[np.ndarray, d_vocab]:
    """Probabilities from logits, computed in float64."""
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def surprise_line(trace: Trace) -> Lines:
    """How unexpected each token was."""
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
    """The text with, on hover, what the model expected next at each token. `high`: end of the weights' colour scale,
    which begins with 0."""
    notes = []
    # Notes of a very long text would be more bytes than the text; the table below the strip has them for the chosen
    # token.
    for token in range(len(trace.tokens) if len(trace.tokens) <= 4_000 else 0):
        chance = probabilities(trace, token)
        best = np.argpartition(-chance, 3)[:3]
        best = best[np.argsort(-chance[best])]
        notes.append("next: " + ", ".join(f"{visible(tokenizer.shown(int(at)))} {chance[at]:.0%}" for at in best))
    return Strip(
        pieces=trace.tokens.shown,
        segment_of=segment_of(trace),
        weights=weights,
        notes=tuple(notes),
        marks=marks,
        legend=legend,
        high=high,
    )


def quizzes(trace: Trace, context: Context, tokenizer: Tokenizer) -> Table:
    """Each question with its true answer, the answer's probability, and what the model says instead.

    The probability is that of the answer's first token, at the token before it. Of an answer of several tokens, saying
    the first is only a beginning: others may have it, too.
    """
    rows = []
    for quiz in context.quizzes:
        row, first = tokenizer.answer_at(trace.tokens, quiz.end, quiz.answer)
        chance = probabilities(trace, row)
        said = int(chance.argmax())
        whole = tokenizer.piece(first).strip().casefold() == quiz.answer.strip().casefold()
        right = "no" if said != first else "yes" if whole else "its first token"
        rows.append(
            (
                quiz.question,
                quiz.answer,
                float(chance[first]),
                tokenizer.shown(said).strip(),
                float(chance[said]),
                right,
            )
        )
    headers = ("question", "true answer", "its probability", "model says", "with probability", "right")
    return Table(columns=columns_of(headers, rows))


def next_tokens(trace: Trace, tokenizer: Tokenizer, token: int, count: int = 10) -> Table:
    """What the model expects behind a token."""
    chance = probabilities(trace, token)
    best = np.argsort(-chance)[:count]
    rows = [(visible(tokenizer.shown(int(at))), float(chance[at])) for at in best]
    return Table(columns=columns_of(("next token", "probability"), rows))


def beside(
    first: Float[np.ndarray, d_vocab],
    second: Float[np.ndarray, d_vocab],
    names: tuple[str, str],
    piece_of: Callable[[int], str],
    count: int = 8,
) -> Table:
    """Two next-token distributions side by side, given as logits: the tokens that one of them finds likeliest."""
    one, other = chances(first), chances(second)
    best = np.argsort(-np.maximum(one, other))[:count]
    rows = [(visible(piece_of(int(at))), float(one[at]), float(other[at])) for at in best]
    return Table(columns=columns_of(("next token", *names), rows))
