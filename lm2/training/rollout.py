"""A model over whole documents: the banks that they leave, and what is said to the questions about them."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lm2.model.lm2 import LM2
from lm2.runs.batched import run_batch
from lm2.text.segments import numbered
from lm2.training.curriculum import TrainingDocument

Hits = dict[str, tuple[int, int]]
"""(right, asked) by kind of question. Right is an answer whose every token was the most probable one."""


class Rollout(nn.Module):
    """A model over whole documents, so that data-parallel wrappers see one forward for one backward."""

    def __init__(self, model: LM2) -> None:
        super().__init__()
        self.model = model

    def forward(self, documents: Sequence[TrainingDocument], language_weight: float) -> tuple[Tensor, Hits]:
        """Mean cross-entropy of the answers' tokens, each document counting alike, plus weighted next-token loss."""
        documents = sorted(documents, key=lambda document: -len(document.segments))
        banks, language = self._read(documents, language=language_weight > 0)
        loss, hits = self._ask(documents, banks)
        return loss + language_weight * language if language_weight else loss, hits

    def _read(self, documents: Sequence[TrainingDocument], *, language: bool) -> tuple[list[Tensor | None], Tensor]:
        """The banks of all documents after 0, 1, 2 ... segments, longest documents first, and the mean next-token
        loss."""
        banks = [self.model.fresh_bank(len(documents))]
        losses = []
        read = [numbered(document.segments) for document in documents]
        if banks[0] is None and not language:  # no question will know what was read
            read = []
        writes = max((question.after for document in documents for question in document.asked), default=0)
        for ids, non_padding, output in run_batch(self.model, read, banks[0], writes=writes):
            banks.append(output.bank)
            if language and ids.shape[1] > 1:
                followed = non_padding[:, 1:]
                logits = output.unembed(output.final[:, :-1][followed]).float()
                losses.append(nn.functional.cross_entropy(logits, ids[:, 1:][followed], reduction="none"))
        nothing = torch.zeros((), device=self.model.embed.weight.device)
        return banks, torch.cat(losses).mean() if losses else nothing

    def _ask(self, documents: Sequence[TrainingDocument], banks: Sequence[Tensor | None]) -> tuple[Tensor, Hits]:
        """Each question is a row of its own, which begins with the bank of its document."""
        asked = [(row, question) for row, document in enumerate(documents) for question in document.asked]
        losses, owners, hits = [], [], {}
        kept = [bank for bank in banks if bank is not None]
        # Rows of like length go together: padding costs as much as text.
        asked.sort(key=lambda pair: len(pair[1].ids))
        for _, group in itertools.groupby(asked, key=lambda pair: (len(pair[1].ids) - 1).bit_length()):
            rows = list(group)
            bank = torch.stack([kept[question.after][row] for row, question in rows]) if kept else None
            segments = [numbered([question.ids], question.after) for _, question in rows]
            ids, _, output = next(run_batch(self.model, segments, bank, writes=0))
            places = [
                (at, len(question.ids) - 1 - back)
                for at, (_, question) in enumerate(rows)
                for back in range(question.answer)
            ]
            row, column = torch.tensor(places, device=ids.device).T
            logits, target = output.unembed(output.final[row, column - 1]).float(), ids[row, column]
            losses.append(nn.functional.cross_entropy(logits, target, reduction="none"))
            owners += [rows[at][0] for at, _ in places]
            right = (logits.argmax(-1) == target).tolist()
            for at, (_, question) in enumerate(rows):
                got, count = hits.get(question.label, (0, 0))
                hits[question.label] = (
                    got + all(hit for hit, (place, _) in zip(right, places) if place == at),
                    count + 1,
                )
        owner = torch.tensor(owners, device=losses[0].device)
        weight = 1 / owner.bincount().clamp(min=1)[owner]
        return (torch.cat(losses) * weight).sum() / weight.sum(), hits
