"""Training documents from question sets, whatever they are about: a context in segments, and the questions about it."""

import logging
from dataclasses import dataclass
from typing import Self

from lm2.shown import shown
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompts
from lm2.tasks.sets.question_set import questions
from lm2.training.curriculum import TrainingDocument, TrainingQuestion
from lm2.weights.checkpoint import Checkpoint

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QuestionLessons:
    """The documents of a question set: to train on, and held out. No group, and so no context, is in both."""

    training: tuple[TrainingDocument, ...]
    held_out: tuple[TrainingDocument, ...]

    @classmethod
    def of(cls, name: str, count: int | None, checkpoint: Checkpoint) -> Self:
        """The last tenth of the groups, and one at least, is held out. Questions that the tokenizer has no tokens for
        are left out, which is logged.

        Raises ValueError for a set that is not there, and for one of a single group.
        """
        asked = questions(name, count)
        encoded, skipped = encode_prompts(checkpoint, asked.prompts)
        for reason in skipped:
            _LOG.warning("%s", reason)
        groups = list(dict.fromkeys(prompt.prompt.group for prompt in encoded))
        if len(groups) < 2:
            raise ValueError(
                f"{shown(name)} has questions of one group alone; two are needed, as one of them is held out"
            )
        kept = set(groups[: -max(1, len(groups) // 10)])
        return cls(
            training=_documents([prompt for prompt in encoded if prompt.prompt.group in kept], name),
            held_out=_documents([prompt for prompt in encoded if prompt.prompt.group not in kept], name),
        )


def _documents(prompts: list[EncodedPrompt], label: str) -> tuple[TrainingDocument, ...]:
    """Questions of a group that come after the same segments share a document."""
    asked: dict[tuple[str, tuple[tuple[int, ...], ...]], list[TrainingQuestion]] = {}
    for prompt in prompts:
        last = prompt.segment_of(prompt.answer.start - 1)  # from which the answer's first token is predicted
        ids = prompt.tokens.ids[prompt.segments[last].start : prompt.answer.stop]
        question = TrainingQuestion(after=last, ids=ids, answer=len(prompt.answer), label=label)
        segments = tuple(segment.ids for segment in prompt.segments[:last])
        asked.setdefault((prompt.prompt.group, segments), []).append(question)
    return tuple(
        TrainingDocument(segments=segments, questions=tuple(questions_after))
        for (_, segments), questions_after in asked.items()
    )
