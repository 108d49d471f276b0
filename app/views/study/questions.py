"""Views of a question set: its questions, their lengths and answers, and the mistakes of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from app.views.kinds import Bars, Strip, Table
from app.views.texts import shortened
from lm2.intervals import Bounded
from lm2.tasks.babilong import same_answer
from probes.findings import Column, columns_of

if TYPE_CHECKING:
    from pathlib import Path

    from lm2.evaluation.cells import Answered
    from lm2.evaluation.tables import Row
    from lm2.tasks.encoded_prompt import EncodedPrompt
    from lm2.tasks.prompt import Prompt
    from lm2.tasks.sets.description import Description, Spread

_CHARACTERS = 120
"""Of a text in a table."""
_MOST_ANSWERS = 20
_BARS = 20


def items(prompts: Sequence[Prompt], encoded: Sequence[EncodedPrompt | None]) -> Table:
    """A row for each question; None for one that the model cannot be asked."""
    skips = None in encoded
    rows = [
        (
            number,
            shortened(prompt.question, _CHARACTERS),
            shortened(" / ".join(prompt.answers), _CHARACTERS),
            *(["no" if item is None else "yes"] * skips),
            *((0, 0, 0) if item is None else (len(item.tokens), len(item.segments), len(item.answer))),
            len(prompt.statement_spans),
            len(prompt.support),
            len(prompt.rivals),
            len(prompt.labels),
            shortened(prompt.group, _CHARACTERS),
        )
        for number, (prompt, item) in enumerate(zip(prompts, encoded, strict=True))
    ]
    headers = (
        "number", "question", "accepted answers", *(["can be asked"] * skips), "tokens", "segments", "answer's tokens",
        "statements", "facts", "rivals", "labels", "group",
    )  # fmt: skip
    return Table(columns=columns_of(headers, rows))


def mistakes(sentences: Sequence[str], path: Path) -> Table:
    """A row for each mistake of a file, with its line."""
    rows = []
    for sentence in sentences:
        line, _, mistake = sentence.removeprefix(f"{path}:").partition(": ")
        rows.append((line, mistake))
    return Table(columns=columns_of(("line", "mistake"), rows))


def summary(description: Description) -> Table:
    """The set in numbers."""
    guess = description.guess_share
    rows = [
        ("can be asked", f"{description.items:,}"),
        ("groups", f"{description.groups:,}"),
        ("segments", _spread(description.segments)),
        ("tokens, context", _spread(description.context_tokens)),
        ("tokens, answer", _spread(description.answer_tokens)),
        ("one-token answers", f"{description.one_token_answers:,}"),
        ("with facts", f"{description.facts:,}"),
        ("with rivals", f"{description.rivals:,}"),
        ("with labels", f"{description.labels:,}"),
        ("labels", shortened(", ".join(description.label_names), _CHARACTERS) or "none"),
        ("best constant", f"{shortened(description.constant, 40)}: {description.constant_share:.1%} right"),
        ("guess of rivals", "no rivals named" if guess is None else f"{guess:.1%} right"),
    ]
    return Table(columns=columns_of(("the questions", "number"), rows))


def _spread(spread: Spread) -> str:
    if spread.least == spread.most:
        return f"{spread.least:,}"
    return f"{spread.least:,} to {spread.most:,}, median {spread.median:,g}"


def answers(prompts: Sequence[Prompt]) -> Bars:
    """How often each answer is the true one; the least frequent together."""
    counts = Counter(prompt.answer for prompt in prompts).most_common()
    labels, values = [shortened(answer, 20) for answer, _ in counts], [count for _, count in counts]
    if len(counts) > _MOST_ANSWERS:
        labels[_MOST_ANSWERS:] = [f"{len(counts) - _MOST_ANSWERS:,} others"]
        values[_MOST_ANSWERS:] = [sum(values[_MOST_ANSWERS:])]
    return Bars(values=np.array(values, float), labels=tuple(labels), x_title="answer", y_title="questions")


def lengths(items: Sequence[EncodedPrompt]) -> Bars:
    """How many questions have about so many tokens."""
    tokens = np.array([len(item.tokens) for item in items])
    edges = np.unique(np.linspace(tokens.min(), tokens.max() + 1, _BARS + 1).astype(int))
    values, _ = np.histogram(tokens, edges)
    labels = tuple(f"{low:,}-{high - 1:,}" if high - low > 1 else f"{low:,}" for low, high in pairwise(edges))
    x_title = "tokens of context, question and answer"
    return Bars(values=values.astype(float), labels=labels, x_title=x_title, y_title="questions")


def strip(item: EncodedPrompt) -> Strip:
    """A question as the model reads it, with its answer after it."""
    marks = [
        (fact.start, fact.stop, "supporting fact") for fact in sorted(set(item.facts), key=lambda fact: fact.start)
    ]
    marks += [(item.question.start, item.question.stop, "question"), (item.answer.start, item.answer.stop, "answer")]
    return Strip(
        pieces=item.tokens.shown,
        segment_of=tuple(segment.index for segment in item.segments for _ in segment.ids),
        weights=None,
        notes=(),
        marks=tuple(marks),
        legend="coloured by segment",
    )


def scores(rows: Sequence[Row]) -> Table:
    """How often a model is right, by each rule."""
    cells = [
        (
            row["metric"],
            Bounded(100 * row["mean"], 100 * row["low"], 100 * row["high"]),
            100 * row["constant_mean"],
            shortened(row["constant"], 40) or "guess among rivals",
            row["n"],
            row["groups"],
        )
        for row in rows
    ]
    headers = ("rule", Column("right", "%"), Column("by chance", "%"), "chance is", "questions", "groups")
    return Table(columns=columns_of(headers, cells))


def replies(answered: Sequence[Answered]) -> Table:
    """What a model says to each question."""
    rows = [
        (
            number,
            shortened(item.question, _CHARACTERS),
            shortened(" / ".join(item.answers), _CHARACTERS),
            shortened(item.output, _CHARACTERS) if not item.skipped else "",
            "not asked" if item.skipped else "yes" if any(same_answer(a, item.output) for a in item.answers) else "no",
        )
        for number, item in enumerate(answered)
    ]
    return Table(columns=columns_of(("number", "question", "accepted answers", "the model says", "right"), rows))
