"""Slot explanations as tables, as JSON and as Markdown."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lm2.intervals import Bounded
from lm2.markdown import table
from lm2.origin import made_by
from probes.explain.contexts import SlotContext
from probes.explain.describe import Trial
from probes.explain.explain import Described, Explanations, SlotExplanation
from probes.explain.scores import Text, Verdicts, ahead, pooled
from probes.explain.spec import Signal
from probes.findings import NOTHING, Cell, Column, Findings, cell_words, columns_of, mean, share

_TOLD = 5
"""Keywords of a slot in a summary."""
_DOING = {Signal.READ: "reading", Signal.WRITE: "writing"}


def summary(found: Explanations) -> Findings:
    """Every slot with the words that read and write it."""
    spec = found.spec
    rows = []
    for slot in sorted({slot.slot for slot in found.slots}):
        here = [found.of(signal, slot) for signal in spec.signals]
        rows.append((slot, *[cell for one in here for cell in (told(one), 100 * one.share)]))
    headers = [
        name for signal in spec.signals for name in (f"{signal.done} by", Column(f"share of {_DOING[signal]}", "%"))
    ]
    blocks = "all blocks that have a memory" if spec.block is None else f"block {spec.block}"
    note = (
        f"{found.shown} of {found.shown + found.scored} documents, {blocks}; the others are kept to test words and"
        " descriptions on. Words of which a slot has more than the other slots at q ≤ 0.05, the surest first, with how"
        " many times the odds. A slot without words is not told from the others by single words"
    )
    return Findings(title="Slots", columns=columns_of(("slot", *headers), rows), note=note)


def told(one: SlotExplanation) -> str:
    """A slot's keywords in short."""
    return ", ".join(f"{word.word} ×{np.exp(word.log_odds):.1f}" for word in one.significant[:_TOLD])


def words(one: SlotExplanation) -> Findings:
    """A slot's keywords with their intervals."""
    rows = []
    for word in one.keywords:
        odds, low, high, again = np.exp([word.log_odds, word.low, word.high, word.again]).tolist()
        rows.append((word.word, 100 * word.share, 100 * word.elsewhere, Bounded(odds, low, high), word.q, again))
    note = (
        "Odds of the word in the slot over its odds in the other slots, with a 95 % interval from a jackknife over"
        " stories; q for all words and slots together. The last column is from the other half of the stories, from"
        " which no word was chosen"
    )
    shares = (Column(f"of the slot's {_DOING[one.signal]}", "%"), Column("of the other slots'", "%"))
    headers = ("word", *shares, "odds ratio", "q", "odds ratio again")
    title = f"Words that {one.signal.value} slot {one.slot}"
    return Findings(title=title, columns=columns_of(headers, rows), note=note)


def descriptions(described: Sequence[Described]) -> Findings:
    """What a language model says of each slot, and how far that goes."""
    rows = []
    for one in described:
        rates = [_rate(one.of(trial, Text.DESCRIPTION)) for trial in Trial]
        rows.append((one.slot, one.signal.done, one.description or "(the reply could not be read)", *rates))
    headers = ("slot", "is", "by, says the language model", *(Column(trial.value, "%") for trial in Trial))
    note = (
        "Balanced accuracy on stories that the description was not made from, 95 % intervals clustered by story; chance"
        " is 50 %"
    )
    return Findings(title="Descriptions", columns=columns_of(headers, rows), note=note)


def scores(described: Sequence[Described]) -> Findings:
    """Descriptions beside texts that know nothing of the slot, over all slots."""
    rows: list[tuple[Cell | Bounded, ...]] = []
    for signal in dict.fromkeys(one.signal for one in described):
        for trial in Trial:
            here = [one for one in described if one.signal is signal and one.of(trial, Text.DESCRIPTION) is not None]
            if here:
                of = {text: [found for one in here if (found := one.of(trial, text)) is not None] for text in Text}
                rows += _compared(signal, trial, {text: pooled(verdicts) for text, verdicts in of.items()})
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
        f"{len({one.slot for one in described})} slots; detection: in which passages is the slot active; fuzzing: are"
        " the marked words the active ones. A reply that could not be read counts as wrong. 95 % intervals clustered"
        " by story; all texts are judged on the same passages"
    )
    return Findings(title="What the descriptions are worth", columns=columns_of(headers, rows), note=note)


def _compared(signal: Signal, trial: Trial, verdicts: Mapping[Text, Verdicts]) -> Iterator[tuple[Cell | Bounded, ...]]:
    """A row for each text."""
    for text, one in verdicts.items():
        lead = NOTHING if text is Text.DESCRIPTION else mean(ahead(verdicts[Text.DESCRIPTION], one), 100)
        yield (
            signal.done,
            trial.value,
            text.value,
            _rate(one),
            lead,
            100 * one.unread / len(one.right),
            len(one.right),
        )


def _rate(one: Verdicts | None) -> Cell | Bounded:
    return NOTHING if one is None else share(one.rate)


def tables(found: Explanations, described: Sequence[Described] = ()) -> tuple[Findings, ...]:
    """All slots at a glance, and what a language model made of them, where one was asked."""
    return (summary(found), *((descriptions(described), scores(described)) if described else ()))


def to_json(found: Explanations, described: Sequence[Described] = ()) -> dict[str, Any]:
    """Plain JSON; a number that is not there is null."""
    return _plain(
        {
            "spec": found.spec.to_json(),
            "spec_digest": found.spec.digest,
            "checkpoint_digest": found.checkpoint_digest,
            "corpus_digest": found.corpus_digest,
            "device": found.device,
            "dtype": found.dtype,
            "made": made_by(found.device, found.dtype),
            "documents": {"shown": found.shown, "scored": found.scored},
            "slots": [_slot(slot) for slot in found.slots],
            "described": [_described(one) for one in described],
            "tables": [table.to_json() for table in tables(found, described)],
        }
    )


def _slot(one: SlotExplanation) -> dict[str, Any]:
    items = [{"drawn": item.drawn.name.lower(), **_context(item.context)} for item in one.items]
    return {
        "signal": one.signal.value,
        "slot": one.slot,
        "share": one.share,
        "keywords": [vars(word) for word in one.keywords],
        "contexts": [_context(context) for context in one.contexts],
        "items": items,
    }


def _context(one: SlotContext) -> dict[str, Any]:
    """`values`: one for each token, whose characters in `text` are its span."""
    return {
        "story": one.group,
        "segment": one.segment,
        "token": one.start,
        "text": one.text,
        "marked": one.with_marks(),
        "peak": one.peak,
        "spans": one.spans,
        "values": [round(float(value), 6) for value in one.values],
    }


def _described(one: Described) -> dict[str, Any]:
    verdicts = [
        {
            "trial": each.trial.value,
            "text": each.text.name.lower(),
            "right": each.right,
            "stories": each.groups,
            "unread": each.unread,
        }
        for each in one.verdicts
    ]
    texts = {text.name.lower(): said for text, said in one.texts.items()}
    return {
        "signal": one.signal.value,
        "slot": one.slot,
        "description": one.description,
        "texts": texts,
        "verdicts": verdicts,
    }


def keyword_rows(found: Explanations) -> pd.DataFrame:
    """One row for each keyword of each slot."""
    return pd.DataFrame(
        [
            {"signal": slot.signal.value, "slot": slot.slot, **vars(word)}
            for slot in found.slots
            for word in slot.keywords
        ]
    )


def context_rows(found: Explanations) -> pd.DataFrame:
    """One row for each context of each slot."""
    kept = ("story", "segment", "token", "peak", "marked")
    rows = [
        ({"signal": slot.signal.value, "slot": slot.slot}, _context(context))
        for slot in found.slots
        for context in slot.contexts
    ]
    return pd.DataFrame([place | {name: values[name] for name in kept} for place, values in rows])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(found: Explanations, described: Sequence[Described], command: str) -> str:
    """The whole report. `command` is what made it, and makes it again."""
    spec = found.spec
    texts = spec.file or f"{spec.documents.origin.value} stories of " + ", ".join(
        f"qa{task}" for task in spec.documents.tasks
    )
    parts = [
        f"# What reads and writes the slots of {spec.checkpoint}",
        f"Made by\n\n```\n{command}\n```",
        (
            f"{found.shown} documents shown and {found.scored} to look again ({texts}); spec {spec.digest[:10]},"
            f" weights {found.checkpoint_digest[:10]}, texts {found.corpus_digest[:10]}."
        ),
        *[f"## {one.title}\n\n{_table(one)}\n\n{one.note}." for one in tables(found, described)],
    ]
    for slot in found.slots:
        parts += [f"## Slot {slot.slot}, {slot.signal.done}", "\n".join(map(_line, slot.contexts)), _table(words(slot))]
    return "\n\n".join(parts) + "\n"


def _line(one: SlotContext) -> str:
    return f"- {one.peak:.3g}: {_code(one.with_marks())} ({_code(one.group)}, segment {one.segment})"


def _table(found: Findings) -> str:
    return table([series.label for series in found.series], [list(map(_cell, row)) for row in found.rows])


def _cell(cell: Cell) -> str:
    return _code(cell) if isinstance(cell, str) and cell else cell_words(cell)


def _code(text: str) -> str:
    """Texts of others as they are: no link, picture or table of theirs comes to life."""
    return "`" + " ".join(text.replace("`", "'").split()).replace("|", "\\|") + "`"
