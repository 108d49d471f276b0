"""Many documents side by side, as rows of one batch; for models whose segments meet only through the bank."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lm2.model.config import LM2Config, MemoryKind
from lm2.model.finite import in_segments
from lm2.model.lm2 import LM2, SegmentOutput
from lm2.runs.runner import generate
from lm2.text.segments import is_full, pad, split_segments
from lm2.text.tokens import TokenSequence
from lm2.weights.checkpoint import Checkpoint


def meet_in_the_bank(config: LM2Config) -> bool:
    """Whether nothing but the bank goes from segment to segment, and segments may be padded: documents can then be read
    side by side."""
    return config.lookback == 0 and config.memory is not MemoryKind.RELEASE


def follow(model: LM2, documents: Sequence[Sequence[Sequence[int]]], bank: Tensor | None) -> Iterator[SegmentOutput]:
    """Feed documents segment by segment, all beginning with their row of `bank`.

    `documents`: the segments of each, the longest document first; rows drop out as documents end, so row i of every
    step is document i. Raises ValueError for another order, and NotFiniteError as `feed` does.
    """
    if any(len(one) < len(other) for one, other in zip(documents, documents[1:])):
        raise ValueError(
            f"documents must come longest first, not with {[len(document) for document in documents]} segments"
        )
    for at in range(len(documents[0]) if documents else 0):
        rows = [document[at] for document in documents if at < len(document)]
        ids, non_padding = pad(rows, device=model.embed.weight.device)
        with in_segments(at):
            output = model.segment(ids, None if bank is None else bank[: len(rows)], non_padding=non_padding)
        bank = output.bank
        yield output


def answers(
    checkpoint: Checkpoint,
    texts: Sequence[str],
    *,
    max_tokens: int,
    stop: str,
    segment_length: int | None = None,
) -> list[str]:
    """How the model continues each text greedily: until what is new spells `stop`, for at most `max_tokens` tokens.

    Equal to `generate`, text by text. Memory stays bounded however long the texts are, unless the model attends to all
    earlier tokens.

    Raises ValueError for an empty text.
    """
    if not meet_in_the_bank(checkpoint.config):
        return [
            generate(checkpoint, text, max_tokens=max_tokens, until=(stop,), segment_length=segment_length).text
            for text in texts
        ]
    length = segment_length or checkpoint.config.segment_length
    open_rows: list[_Open] = []
    documents = []
    for at, text in enumerate(texts):
        tokens = checkpoint.tokenizer.encode(text)
        segments = split_segments(tokens, length, checkpoint.config.segment_end)
        if not segments:
            raise ValueError("a text is empty: there is nothing to continue")
        documents.append([segment.ids for segment in segments[:-1]])
        open_rows.append(_Open(at, tokens, len(segments) - 1, list(segments[-1].ids)))
    open_rows.sort(key=lambda row: -len(documents[row.text]))
    model = checkpoint.model
    with checkpoint.lock, torch.inference_mode():
        fresh = model.fresh_bank(len(texts))
        for row, bank in zip(open_rows, [None] * len(texts) if fresh is None else fresh):
            row.bank = bank
        if fresh is not None:  # else nothing is carried over: only the open segments are seen
            for output in follow(model, [documents[row.text] for row in open_rows], fresh):
                for row, bank in zip(open_rows, output.bank):
                    row.bank = bank
        _write_on(checkpoint, open_rows, length, max_tokens, stop)
    return [row.said for row in sorted(open_rows, key=lambda row: row.text)]


class _Open:
    """The open segment of a text that is being continued."""

    def __init__(self, text: int, before: TokenSequence, index: int, ids: list[int]) -> None:
        self.text, self.before, self.index, self.ids = text, before, index, ids
        self.bank: Tensor | None = None
        self.new: list[int] = []
        self.said = ""
        """What the new tokens spell after the text."""


def _write_on(checkpoint: Checkpoint, rows: list[_Open], length: int, max_tokens: int, stop: str) -> None:
    """Write new tokens after each text. Open segments are short: feeding them whole costs less than keeping caches of
    uneven rows."""
    model, tokenizer, end = checkpoint.model, checkpoint.tokenizer, checkpoint.config.segment_end
    while rows:
        logits = _last_logits(model, rows)
        going = []
        for row, token in zip(rows, logits.argmax(-1).tolist()):
            row.new.append(token)
            row.said = tokenizer.decode_after(row.before.ids, row.new)
            if stop not in row.said and len(row.new) < max_tokens:
                going.append((row, token))
        full = [row for row, _ in going if is_full(len(row.ids), length, end, tokenizer.piece(row.ids[-1]))]
        if full:
            ids, non_padding = pad([row.ids for row in full], device=logits.device)
            with in_segments(*(row.index for row in full)):
                out = model.segment(ids, _banks(full), non_padding=non_padding)
            for at, row in enumerate(full):
                row.index, row.ids, row.bank = row.index + 1, [], None if out.bank is None else out.bank[at]
        for row, token in going:
            row.ids.append(token)
        rows = [row for row, _ in going]


def _last_logits(model: LM2, rows: Sequence[_Open]) -> Tensor:
    ids, non_padding = pad([row.ids for row in rows], device=model.embed.weight.device)
    with in_segments(*(row.index for row in rows)):
        final = model.segment(ids, _banks(rows), non_padding=non_padding, write=False).final
        return model.unembed(final[torch.arange(len(rows), device=ids.device), non_padding.sum(1) - 1])


def _banks(rows: Sequence[_Open]) -> Tensor | None:
    banks = [row.bank for row in rows if row.bank is not None]
    return torch.stack(banks) if banks else None
