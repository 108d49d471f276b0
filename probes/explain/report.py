"""Slot explanations as tables, as JSON and as Markdown."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from lm2.intervals import Bounded
from lm2.markdown import table
from lm2.origin import made_by
from probes.explain.contexts import SlotContext
from probes.explain.describe import Trial
from probes.explain.explain import Described, Explanations, SlotExplanation
from probes.explain.scores import Text, ahead, pooled
from probes.explain.spec import Signal
from probes.findings import NOTHING, Cell, Column, Findings, cell_words, columns_of, mean, share

_KEYWORDS = 5
"""Of a slot in the summary."""
_DOING = {Signal.READ: "reading", Signal.WRITE: "writing"}


def summary(explanations: Explanations) -> Findings:
    """Every slot with the words that read and write it."""
    spec = explanations.spec
    rows = []
    for slot in sorted({slot.slot for slot in explanations.slots}):
        sides = [explanations.of(signal, slot) for signal in spec.signals]
        rows.append((slot, *[cell for side in sides for cell in (odds_of(side), 100 * side.share)]))
    headers = [
        name for signal in spec.signals for name in (f"{signal.done} by", Column(f"share of {_DOING[signal]}", "%"))
    ]
    blocks = "all blocks that have a memory" if spec.block is None else f"block {spec.block}"
    note = (
        f"{explanations.shown} of {explanations.shown + explanations.scored} documents, {blocks}; the others are kept"
        " to test words and descriptions on. Words of which a slot has more than the other slots at q ≤ 0.05, the"
        " surest first, with how many times the odds. A slot without words is not told from the others by single words"
    )
    return Findings(title="Slots", columns=columns_of(("slot", *headers), rows), note=note)


def odds_of(slot: SlotExplanation) -> str:
    """A slot's surest keywords with their odds ratios."""
    return ", ".join(f"{word.word} ×{np.exp(word.log_odds):.1f}" for word in slot.significant[:_KEYWORDS])


def words(slot: SlotExplanation) -> Findings:
    """A slot's keywords with their intervals."""
    rows = []
    for word in slot.keywords:
        odds, low, high, again = np.exp([word.log_odds, word.low, word.high, word.again]).tolist()
        rows.append((word.word, 100 * word.share, 100 * word.elsewhere, Bounded(odds, low, high), word.q, again))
    note = (
        "Odds of the word in the slot over its odds in the other slots, with a 95 % interval from a jackknife over"
        " stories; q for all words and slots together. The last column is from the other half of the stories, from"
        " which no word was chosen"
    )
    shares = (Column(f"of the slot's {_DOING[slot.signal]}", "%"), Column("of the other slots'", "%"))
    headers = ("word", *shares, "odds ratio", "q", "odds ratio again")
    title = f"Words that {slot.signal.value} slot {slot.slot}"
    return Findings(title=title, columns=columns_of(headers, rows), note=note)


def descriptions(described: Sequence[Described]) -> Findings:
    """A language model's description of each slot, with its scores."""
    rows = []
    for slot in described:
        verdicts = (slot.of(trial, Text.DESCRIPTION) for trial in Trial)
        rates = [NOTHING if verdict is None else share(verdict.rate) for verdict in verdicts]
        rows.append((slot.slot, slot.signal.done, slot.description or "(the reply could not be read)", *rates))
    headers = ("slot", "is", "by, says the language model", *(Column(trial.value, "%") for trial in Trial))
    note = (
        "Balanced accuracy on stories that the description was not made from, 95 % intervals clustered by story; chance"
        " is 50 %"
    )
    return Findings(title="Descriptions", columns=columns_of(headers, rows), note=note)


def scores(described: Sequence[Described]) -> Findings:
    """Scores of the descriptions over all slots, beside texts that know nothing of the slot."""
    rows: list[tuple[Cell | Bounded, ...]] = []
    for signal, trial in product(dict.fromkeys(slot.signal for slot in described), Trial):
        judged = {
            text: [verdicts for slot in described if slot.signal is signal and (verdicts := slot.of(trial, text))]
            for text in Text
        }
        if not judged[Text.DESCRIPTION]:
            continue
        over_slots = {text: pooled(verdicts) for text, verdicts in judged.items()}
        for text, verdicts in over_slots.items():
            lead = NOTHING if text is Text.DESCRIPTION else mean(ahead(over_slots[Text.DESCRIPTION], verdicts), 100)
            rows.append(
                (
                    signal.done,
                    trial.value,
                    text.value,
                    share(verdicts.rate),
                    lead,
                    100 * verdicts.unread / len(verdicts.right),
                    len(verdicts.right),
                )
            )
    headers = (
        "slots",
        "trial",
        "text",
        Column("right", "%"),
        Column("description ahead by", "points"),
        Column("replies not read", "%"),
        "passages",
    )
    note = (
        f"{len({slot.slot for slot in described})} slots; detection: in which passages is the slot active; fuzzing: are"
        " the marked words the active ones. A reply that could not be read counts as wrong. 95 % intervals clustered"
        " by story; all texts are judged on the same passages"
    )
    return Findings(title="What the descriptions are worth", columns=columns_of(headers, rows), note=note)


def tables(explanations: Explanations, described: Sequence[Described] = ()) -> tuple[Findings, ...]:
    """A summary of all slots, and the descriptions of a language model if one was asked."""
    return (summary(explanations), *((descriptions(described), scores(described)) if described else ()))


def to_json(explanations: Explanations, described: Sequence[Described] = ()) -> dict[str, Any]:
    """Plain JSON; a missing number is null."""
    return _plain(
        {
            "spec": explanations.spec.to_json(),
            "spec_digest": explanations.spec.digest,
            "checkpoint_digest": explanations.checkpoint_digest,
            "corpus_digest": explanations.corpus_digest,
            "device": explanations.device,
            "dtype": explanations.dtype,
            "made": made_by(explanations.device, explanations.dtype),
            "documents": {"shown": explanations.shown, "scored": explanations.scored},
            "skipped": explanations.skipped,
            "slots": [_slot(slot) for slot in explanations.slots],
            "described": [_described(slot) for slot in described],
            "tables": [table.to_json() for table in tables(explanations, described)],
        }
    )


def _slot(slot: SlotExplanation) -> dict[str, Any]:
    return {
        "signal": slot.signal.value,
        "slot": slot.slot,
        "share": slot.share,
        "keywords": [vars(word) for word in slot.keywords],
        "contexts": [_context(context) for context in slot.contexts],
        "items": [{"drawn": item.drawn.name.lower(), **_context(item.context)} for item in slot.items],
    }


def _context(context: SlotContext) -> dict[str, Any]:
    """`values` and `spans` have an entry for each token; a span is its characters in `text`."""
    return {
        "story": context.group,
        "segment": context.segment,
        "token": context.start,
        "text": context.text,
        "marked": context.with_marks(),
        "peak": context.peak,
        "spans": context.spans,
        "values": [round(float(value), 6) for value in context.values],
    }


def _described(slot: Described) -> dict[str, Any]:
    return {
        "signal": slot.signal.value,
        "slot": slot.slot,
        "description": slot.description,
        "texts": {text.name.lower(): judged for text, judged in slot.texts.items()},
        "verdicts": [
            {
                "trial": verdict.trial.value,
                "text": verdict.text.name.lower(),
                "right": verdict.right,
                "stories": verdict.groups,
                "unread": verdict.unread,
            }
            for verdict in slot.verdicts
        ],
    }


def keyword_rows(explanations: Explanations) -> pd.DataFrame:
    """One row for each keyword of each slot."""
    return pd.DataFrame(
        [
            {"signal": slot.signal.value, "slot": slot.slot, **vars(word)}
            for slot in explanations.slots
            for word in slot.keywords
        ]
    )


def context_rows(explanations: Explanations) -> pd.DataFrame:
    """One row for each context of each slot."""
    rows = [
        {"signal": slot.signal.value, "slot": slot.slot, **_context(context)}
        for slot in explanations.slots
        for context in slot.contexts
    ]
    return pd.DataFrame(rows, columns=["signal", "slot", "story", "segment", "token", "peak", "marked"])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(explanations: Explanations, described: Sequence[Described], command: str) -> str:
    """The report in full. `command` makes it again."""
    spec = explanations.spec
    parts = [
        f"# What reads and writes the slots of {spec.checkpoint}",
        f"Made by\n\n```\n{command}\n```",
        (
            f"{explanations.shown} documents shown and {explanations.scored} to look again"
            f" ({spec.file or spec.documents.words}); spec {spec.digest[:10]}, weights"
            f" {explanations.checkpoint_digest[:10]}, texts {explanations.corpus_digest[:10]}."
        ),
        *[f"## {table.title}\n\n{_table(table)}\n\n{table.note}." for table in tables(explanations, described)],
    ]
    for slot in explanations.slots:
        parts += [f"## Slot {slot.slot}, {slot.signal.done}", "\n".join(map(_line, slot.contexts)), _table(words(slot))]
    return "\n\n".join(parts) + "\n"


def _line(context: SlotContext) -> str:
    return f"- {context.peak:.3g}: {_code(context.with_marks())} ({_code(context.group)}, segment {context.segment})"


def _table(findings: Findings) -> str:
    return table([series.label for series in findings.series], [list(map(_cell, row)) for row in findings.rows])


def _cell(cell: Cell) -> str:
    return _code(cell) if isinstance(cell, str) and cell else cell_words(cell)


def _code(text: str) -> str:
    """Text as Markdown code, in which no link, picture or table works."""
    return "`" + " ".join(text.replace("`", "'").split()).replace("|", "\\|") + "`"
