"""The forward pass of training: reads whole documents, asks the questions about them, and returns the loss."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lm2.model.lm2 import LM2
from lm2.runs.batched import Begun, run_batch
from lm2.text.segments import as_segments
from lm2.training.curriculum import TrainingDocument

Hits = dict[str, tuple[int, int]]
"""(right, asked) by kind of question. An answer is right where each of its tokens was the most probable one."""


class Rollout(nn.Module):
    """A module, so that data-parallel wrappers see one forward for one backward."""

    def __init__(self, model: LM2, begun: Begun = lambda stream, segments: stream) -> None:
        """`begun`: as for `run_batch`."""
        super().__init__()
        self.model, self._begun = model, begun

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
        # Without a bank, no question depends on what was read.
        read = [as_segments(document.segments) for document in documents] if banks[0] is not None or language else []
        writes = max((question.after for document in documents for question in document.questions), default=0)
        for ids, non_padding, output in run_batch(self.model, read, banks[0], writes=writes, begun=self._begun):
            banks.append(output.bank)
            if language and ids.shape[1] > 1:
                predicted = non_padding[:, 1:]
                logits = output.unembed(output.final[:, :-1][predicted]).float()
                losses.append(nn.functional.cross_entropy(logits, ids[:, 1:][predicted], reduction="none"))
        return banks, torch.cat(losses).mean() if losses else torch.zeros((), device=self.model.embed.weight.device)

    def _ask(self, documents: Sequence[TrainingDocument], banks: Sequence[Tensor | None]) -> tuple[Tensor, Hits]:
        """Each question is a row of a batch, which begins with its document's bank."""
        questions = [(i, question) for i, document in enumerate(documents) for question in document.questions]
        losses, owners, hits = [], [], {}
        existing = [bank for bank in banks if bank is not None]
        # Questions of similar length share a batch: padding costs as much as text.
        questions.sort(key=lambda pair: len(pair[1].ids))
        for _, group in itertools.groupby(questions, key=lambda pair: (len(pair[1].ids) - 1).bit_length()):
            batch = list(group)
            bank = torch.stack([existing[question.after][i] for i, question in batch]) if existing else None
            segments = [as_segments([question.ids], question.after) for _, question in batch]
            ids, _, output = next(run_batch(self.model, segments, bank, writes=0, begun=self._begun))
            places = [
                (row, len(question.ids) - 1 - back)
                for row, (_, question) in enumerate(batch)
                for back in range(question.answer)
            ]
            rows, columns = torch.tensor(places, device=ids.device).T
            logits, target = output.unembed(output.final[rows, columns - 1]).float(), ids[rows, columns]
            losses.append(nn.functional.cross_entropy(logits, target, reduction="none"))
            owners += [batch[row][0] for row, _ in places]
            wrong = set(rows[logits.argmax(-1) != target].tolist())
            for row, (_, question) in enumerate(batch):
                right, asked = hits.get(question.label, (0, 0))
                hits[question.label] = (right + (row not in wrong), asked + 1)
        owner = torch.tensor(owners, device=losses[0].device)
        weight = 1 / owner.bincount().clamp(min=1)[owner]
        return (torch.cat(losses) * weight).sum() / weight.sum(), hits
