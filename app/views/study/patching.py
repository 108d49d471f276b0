"""Two stories' runs, and one with something of the other's in it -> what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from app.choices.context import Context
from app.views.kinds import Bars, Heatmap, Table, visible
from app.views.run import text
from lm2.model.sites import Site
from probes.findings import columns_of

if TYPE_CHECKING:
    from lm2.runs.trace import Trace
    from lm2.text.tokens import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer, and the token that it begins with."""

    words: str
    token: int


@dataclass(frozen=True, kw_only=True)
class PatchedAnswer:
    """Where a text is asked something, and what is right."""

    row: int
    """The token behind which the answer is expected."""
    segment: int
    """The one that this token is in."""
    reply: Reply
    known: bool
    """Whether `reply` is true; else it is what the model says."""


def asked(trace: Trace, context: Context, tokenizer: Tokenizer) -> PatchedAnswer:
    """The text's last question; a text without one is asked what follows it."""
    if context.quizzes:
        quiz = context.quizzes[-1]
        row, token = tokenizer.answer_at(trace.tokens, quiz.end, quiz.answer)
        reply = Reply(words=quiz.answer, token=token)
    else:
        row = len(trace.tokens) - 1
        reply = said(trace, row, tokenizer)
    segment = next(segment.index for segment in trace.segments if row < segment.end)
    return PatchedAnswer(row=row, segment=segment, reply=reply, known=bool(context.quizzes))


def replied(trace: Trace, context: Context, words: str, tokenizer: Tokenizer) -> Reply:
    """An answer to the text's last question. Raises ValueError where the tokenizer has no token for it."""
    return Reply(words=words, token=tokenizer.answer_at(trace.tokens, context.quizzes[-1].end, words)[1])


def said(trace: Trace, row: int, tokenizer: Tokenizer) -> Reply:
    """What the model expects most behind a token."""
    token = int(trace.logits[row].argmax())
    return Reply(words=visible(tokenizer.shown(token).removeprefix(" ")), token=token)


def answers(runs: Sequence[tuple[str, Trace, int]], replies: Sequence[tuple[str, Reply]]) -> Table:
    """Probability of each reply, which has a name, in each run (name, trace, row): that of its first token."""
    chances = [text.probabilities(trace, row) for _, trace, row in runs]
    rows = tuple((whose, reply.words, *(float(chance[reply.token]) for chance in chances)) for whose, reply in replies)
    return Table(columns=columns_of(("answer of", "answer", *(name for name, _, _ in runs)), rows))


def difference(logits: Float[np.ndarray, "*rows d_vocab"], own: Reply, other: Reply) -> Float[np.ndarray, "*rows"]:
    """Logit of the reply `other` less that of `own`."""
    return logits[..., other.token].astype(np.float64) - logits[..., own.token]


def reading(runs: Sequence[tuple[str, Trace, int]], layers: Sequence[int]) -> Heatmap:
    """How much of each slot is read where the answer is expected, mean over heads, in each run (name, trace, row)."""
    rows = {}
    for name, trace, row in runs:
        segment = next(segment for segment in trace.segments if row < segment.end)
        for layer in layers:
            pattern = trace.at(Site.READ_PATTERN, segment=segment.index, layer=layer)
            rows[f"{name}, block {layer}"] = pattern[:, row - segment.start].mean(0)
    values = np.stack(list(rows.values()))
    return Heatmap(
        values=values,
        row_labels=tuple(rows),
        column_labels=tuple(map(str, range(values.shape[1]))),
        row_title="",
        column_title="slot",
        value_title="read weight, mean over heads (share)",
        low=0.0,
        high=float(max(values.max(), 1e-9)),
        row_kinds=tuple(rows),
        column_noun="slot",
    )


def slots(changes: Float[np.ndarray, slot]) -> Bars:
    """What each slot of the donor's bank does alone to the logit difference, donor's answer less own."""
    return Bars(
        values=changes,
        labels=tuple(map(str, range(len(changes)))),
        x_title="slot of the donor's bank",
        y_title="change of the logit difference, donor's answer less own (logits)",
    )
