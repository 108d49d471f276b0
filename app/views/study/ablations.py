"""A text's predictions before and after an intervention."""

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
class AblationRecord:
    """A combination of toggles that has run, with its effects."""

    toggles: Toggles
    digest: str
    """The spec's digest."""
    answer: float
    """Probability of the true answer, mean over questions; NaN without questions."""
    kl: float
    """Mean over tokens, in nats."""
    first_token: bool
    """Whether the probability is that of the first token, as some answers have more."""


def record(trace: Trace, kl: float, toggles: Toggles, context: Context, tokenizer: Tokenizer) -> AblationRecord:
    places = _answers(trace, context, tokenizer)
    answers = [text.probabilities(trace, row)[first] for row, first in places]
    return AblationRecord(
        toggles=toggles,
        digest=trace.spec.digest,
        answer=float(np.mean(answers)) if answers else float("nan"),
        kl=kl,
        first_token=_more(places, context, tokenizer),
    )


def record_table(records: Sequence[AblationRecord]) -> Table:
    """The toggles and effects of each record; without questions there is no column of answers."""
    answers = not all(np.isnan(record.answer) for record in records)
    rows = [
        ("; ".join(record.toggles.words) or "nothing", *[record.answer] * answers, record.kl, record.digest[:10])
        for record in records
    ]
    probability = f"answer probability{', first token' if any(record.first_token for record in records) else ''}"
    headers = ("toggled", *[probability] * answers, "KL, mean (nats)", "spec")
    return Table(columns=columns_of(headers, rows))


def _answers(trace: Trace, context: Context, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """For each question, the row of logits that predicts its answer, and the answer's first token."""
    return [tokenizer.answer_at(trace.tokens, quiz.end, quiz.answer) for quiz in context.quizzes]


def _more(places: Sequence[tuple[int, int]], context: Context, tokenizer: Tokenizer) -> bool:
    """Whether some answer has more tokens than its first."""
    return not all(
        text.is_whole(tokenizer, first, quiz.answer) for (_, first), quiz in zip(places, context.quizzes, strict=True)
    )


def answer_position(comparison: Comparison, context: Context, tokenizer: Tokenizer) -> int:
    """The token after which the last question is answered, or the text's last token if there is no question."""
    trace = comparison.after
    return _answers(trace, context, tokenizer)[-1][0] if context.quizzes else len(trace.tokens) - 1


def quizzes(comparison: Comparison, context: Context, tokenizer: Tokenizer, answers: Sequence[str]) -> Table:
    """Each question before and after. The logit difference is the logit of the true answer's first token minus the mean
    over the first tokens of the other `answers` for which the tokenizer has tokens; NaN if there are none."""
    rows, places = [], _answers(comparison.before, context, tokenizer)
    for quiz, (row, first) in zip(context.quizzes, places):
        others = (replace(quiz, answer=answer) for answer in answers)
        firsts = {
            tokenizer.answer_at(comparison.before.tokens, other.end, other.answer)[1]
            for other in others
            if other.answerable(comparison.before.tokens, tokenizer)
        }
        foils = tuple(sorted(firsts - {first}))
        predictions, probabilities, differences = [], [], []
        for trace in (comparison.before, comparison.after):
            predictions.append(tokenizer.shown(int(trace.logits[row].argmax())).strip())
            probabilities.append(float(text.probabilities(trace, row)[first]))
            logits, answer = trace.logits[row : row + 1], Answer(ids=(first,), foils=foils)
            difference = measure(Metric.LOGIT_DIFFERENCE, answer, logits, logits) if foils else float("nan")
            differences.append(difference)
        rows.append((quiz.question, quiz.answer, *predictions, *probabilities, *differences))
    of = ", first token" if _more(places, context, tokenizer) else ""
    headers = (
        "question",
        "true answer",
        "says, before",
        "says, after",
        f"probability{of}, before",
        f"probability{of}, after",
        f"logit difference{of}, before",
        f"logit difference{of}, after",
    )
    return Table(columns=columns_of(headers, rows))


def strip(comparison: Comparison, marks: text.Marks, tokenizer: Tokenizer) -> Strip:
    """The text, coloured by how far the prediction after each token has moved."""
    most = float(comparison.kl.max())
    count = len(comparison.kl) if len(comparison.kl) <= 4_000 else 0  # as in the plain strip, a long text has no notes
    return Strip(
        pieces=comparison.after.tokens.shown,
        segment_of=text.segment_of(comparison.after),
        weights=comparison.kl,
        notes=tuple(_note(comparison, tokenizer, token) for token in range(count)),
        marks=marks,
        legend=f"KL(before || after) of what is expected after each token, in nats; largest is {most:.3g}",
        high=max(most, 1e-9),
    )


def _note(comparison: Comparison, tokenizer: Tokenizer, token: int) -> str:
    before, after = (_top_token(trace, tokenizer, token) for trace in (comparison.before, comparison.after))
    return f"KL {comparison.kl[token]:.3g} nats; next: {before}" + (f" → {after}" if after != before else "")


def _top_token(trace: Trace, tokenizer: Tokenizer, token: int) -> str:
    return visible(tokenizer.shown(int(trace.logits[token].argmax())))


def lines(comparison: Comparison) -> Lines:
    return Lines(
        lines=(
            Line(name="log-probability of the token that follows, after less before", values=comparison.change),
            Line(name="KL(before || after)", values=comparison.kl),
        ),
        ticks=token_labels(comparison.after.tokens.shown),
        x_title="token",
        y_title="nats",
        boundaries=text.boundaries(comparison.after),
    )


def most_changed(comparison: Comparison, tokenizer: Tokenizer, count: int = 10) -> Table:
    """The tokens after which predictions changed most."""
    pieces, segments = comparison.after.tokens.shown, text.segment_of(comparison.after)
    rows = []
    for i in comparison.top(count):
        token = int(i), visible(pieces[i]), segments[i], float(comparison.kl[i])
        predictions = (_top_token(trace, tokenizer, i) for trace in (comparison.before, comparison.after))
        following = visible(pieces[i + 1]) if i + 1 < len(pieces) else ""
        rows.append((*token, *predictions, following, float(comparison.change[i])))
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
