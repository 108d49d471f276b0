"""Comparison -> what a text's predictions were and what they have become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from app.choices.context import Context
from app.choices.toggles import Toggles
from app.views.kinds import Line, Lines, Strip, Table, token_labels, visible
from app.views.run import text
from probes.findings import columns_of
from probes.stats.metrics import Answer, Metric, measure

if TYPE_CHECKING:
    from lm2.runs.trace import Trace
    from lm2.text.tokens import Tokenizer
    from probes.causal.compare import Comparison


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One combination of toggles that has run."""

    toggles: Toggles
    digest: str
    """Of its spec."""
    answer: float
    """Probability of the true answer, mean over questions; NaN without any."""
    kl: float
    """Mean over tokens, in nats."""


def ran(trace: Trace, kl: float, toggles: Toggles, context: Context, tokenizer: Tokenizer) -> Ran:
    chances = [text.probabilities(trace, row)[first] for row, first in _asked(trace, context, tokenizer)]
    return Ran(
        toggles=toggles, digest=trace.spec.digest, answer=float(np.mean(chances)) if chances else float("nan"), kl=kl
    )


def runs(history: Sequence[Ran]) -> Table:
    """What was toggled and what became of it; without a question there are no answers to show."""
    asked = not all(np.isnan(ran.answer) for ran in history)
    rows = [
        ("; ".join(ran.toggles.words) or "nothing", *([ran.answer] if asked else []), ran.kl, ran.digest[:10])
        for ran in history
    ]
    headers = ("toggled", *(["answer probability"] if asked else []), "KL, mean (nats)", "spec")
    return Table(columns=columns_of(headers, rows))


def _asked(trace: Trace, context: Context, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """For each question, the row of the logits that predicts its answer, and the answer's first token."""
    return [tokenizer.answer_at(trace.tokens, quiz.end, quiz.answer) for quiz in context.quizzes]


def asked_at(found: Comparison, context: Context, tokenizer: Tokenizer) -> int:
    """The token behind which the last question is answered; the text's last one where there is no question."""
    return _asked(found.after, context, tokenizer)[-1][0] if context.quizzes else len(found.after.tokens) - 1


def quizzes(found: Comparison, context: Context, tokenizer: Tokenizer, answers: Sequence[str]) -> Table:
    """Each question before and after.

    The logit difference is that of the true answer's first token, less the mean of the first tokens of the other
    `answers`, those left out for which the tokenizer has none; NaN where there are none.
    """
    rows = []
    for quiz, (row, first) in zip(context.quizzes, _asked(found.before, context, tokenizer)):
        others = (replace(quiz, answer=answer) for answer in answers)
        firsts = {
            tokenizer.answer_at(found.before.tokens, other.end, other.answer)[1]
            for other in others
            if other.answerable(found.before.tokens, tokenizer)
        }
        foils = tuple(sorted(firsts - {first}))
        said, chances, differences = [], [], []
        for trace in (found.before, found.after):
            chance = text.probabilities(trace, row)
            said.append(tokenizer.shown(int(chance.argmax())).strip())
            chances.append(float(chance[first]))
            logits = trace.logits[row : row + 1]
            differences.append(
                measure(Metric.LOGIT_DIFFERENCE, Answer(ids=(first,), foils=foils), logits, logits)
                if foils
                else float("nan")
            )
        rows.append((quiz.question, quiz.answer, *said, *chances, *differences))
    headers = (
        "question",
        "true answer",
        "says, before",
        "says, after",
        "probability, before",
        "probability, after",
        "logit difference, before",
        "logit difference, after",
    )
    return Table(columns=columns_of(headers, rows))


def strip(found: Comparison, marks: text.Marks, tokenizer: Tokenizer) -> Strip:
    """The text, coloured by how far what was expected after each token has moved."""
    most = float(found.kl.max())
    return Strip(
        pieces=found.after.tokens.shown,
        segment_of=text.segment_of(found.after),
        weights=found.kl,
        # As in the plain strip: the notes of a very long text would be more bytes than the text.
        notes=tuple(_note(found, tokenizer, token) for token in range(len(found.kl) if len(found.kl) <= 4_000 else 0)),
        marks=marks,
        legend=f"KL(before || after) of what is expected after each token, in nats; largest is {most:.3g}",
        high=max(most, 1e-9),
    )


def _note(found: Comparison, tokenizer: Tokenizer, token: int) -> str:
    before, after = (_said(trace, tokenizer, token) for trace in (found.before, found.after))
    return f"KL {found.kl[token]:.3g} nats; next: {before}" + (f" → {after}" if after != before else "")


def _said(trace: Trace, tokenizer: Tokenizer, token: int) -> str:
    return visible(tokenizer.shown(int(trace.logits[token].argmax())))


def lines(found: Comparison) -> Lines:
    return Lines(
        lines=(
            Line(name="log-probability of the token that follows, after less before", values=found.change),
            Line(name="KL(before || after)", values=found.kl),
        ),
        ticks=token_labels(found.after.tokens.shown),
        x_title="token",
        y_title="nats",
        boundaries=text.boundaries(found.after),
    )


def most_changed(found: Comparison, tokenizer: Tokenizer, count: int = 10) -> Table:
    """The tokens behind which most has moved."""
    pieces, where = found.after.tokens.shown, text.segment_of(found.after)
    rows = tuple(
        (
            int(at),
            visible(pieces[at]),
            where[at],
            float(found.kl[at]),
            _said(found.before, tokenizer, at),
            _said(found.after, tokenizer, at),
            visible(pieces[at + 1]) if at + 1 < len(pieces) else "",
            float(found.change[at]),
        )
        for at in found.top(count)
    )
    headers = (
        "token",
        "text",
        "segment",
        "KL (nats)",
        "expected before",
        "expected after",
        "what follows",
        "its log-probability, change (nats)",
    )
    return Table(columns=columns_of(headers, rows))
