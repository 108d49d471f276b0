"""Answers of two stories' runs, and of one with activations of the other."""

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
    """An answer and its first token."""

    words: str
    token: int
    whole: bool
    """Whether the token is all of it."""


@dataclass(frozen=True, kw_only=True)
class PatchedAnswer:
    """Where a text is to be answered, and the reply."""

    row: int
    """The token after which the answer is predicted."""
    segment: int
    """The token's segment."""
    reply: Reply
    known: bool
    """Whether `reply` is the true answer; otherwise it is the model's."""


def patched_answer(trace: Trace, context: Context, tokenizer: Tokenizer) -> PatchedAnswer:
    """The answer to the text's last question, or what follows a text without questions."""
    if context.quizzes:
        quiz = context.quizzes[-1]
        row = tokenizer.answer_at(trace.tokens, quiz.end, quiz.answer)[0]
        reply = reply_of(trace, context, quiz.answer, tokenizer)
    else:
        row = len(trace.tokens) - 1
        reply = top_reply(trace, row, tokenizer)
    segment = next(segment.index for segment in trace.segments if row < segment.end)
    return PatchedAnswer(row=row, segment=segment, reply=reply, known=bool(context.quizzes))


def reply_of(trace: Trace, context: Context, words: str, tokenizer: Tokenizer) -> Reply:
    """A reply to the text's last question. Raises ValueError if the tokenizer has no token for it."""
    token = tokenizer.answer_at(trace.tokens, context.quizzes[-1].end, words)[1]
    return Reply(words=words, token=token, whole=text.is_whole(tokenizer, token, words))


def top_reply(trace: Trace, row: int, tokenizer: Tokenizer) -> Reply:
    """The model's likeliest reply after a token."""
    token = int(trace.logits[row].argmax())
    return Reply(words=visible(tokenizer.shown(token).removeprefix(" ")), token=token, whole=True)


def answers(runs: Sequence[tuple[str, Trace, int]], replies: Sequence[tuple[str, Reply]]) -> Table:
    """Probability of each named reply's first token in each run (name, trace, row)."""
    chances = [text.probabilities(trace, row) for _, trace, row in runs]
    rows = tuple((name, reply.words, *(float(chance[reply.token]) for chance in chances)) for name, reply in replies)
    of = "" if all(reply.whole for _, reply in replies) else ", first token"
    return Table(columns=columns_of(("answer of", "answer", *(f"{name}{of}" for name, _, _ in runs)), rows))


def logit_difference(
    logits: Float[np.ndarray, "*rows d_vocab"], own: Reply, other: Reply
) -> Float[np.ndarray, "*rows"]:
    """Logit of the reply `other` minus that of `own`."""
    return logits[..., other.token].astype(np.float64) - logits[..., own.token]


def reading(runs: Sequence[tuple[str, Trace, int]], layers: Sequence[int]) -> Heatmap:
    """Read weights of the slots where the answer is predicted, mean over heads, in each run (name, trace, row)."""
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
        high=float(max(values.max(), 1e-9)),
        row_kinds=tuple(rows),
        column_noun="slot",
    )


def slots(changes: Float[np.ndarray, slot]) -> Bars:
    """The change of the logit difference by each slot of the donor's bank alone."""
    return Bars(
        values=changes,
        labels=tuple(map(str, range(len(changes)))),
        x_title="slot of the donor's bank",
        y_title="change of the logit difference, donor's answer less own (logits)",
    )
