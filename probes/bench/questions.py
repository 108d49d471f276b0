"""Benchmark of question sets: a file's questions through an experiment beside bAbI's of as many segments, by turns in
one process."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompts
from lm2.tasks.sets import question_set
from lm2.weights.checkpoint import Checkpoint, load
from probes.experiments.ablation.policies import policies

CHECKPOINT, BABI = "babi-lm2-qa1", "babi:qa1"
_WRITTEN = "simulated:qa1?statements=10"
"""What the file holds: documents of `SEGMENTS`."""
QUESTIONS, ROUNDS, SEGMENTS = 1_000, 50, 6


@dataclass(frozen=True, kw_only=True)
class AskedSet:
    """CPU seconds that one set took."""

    questions: int
    different: int
    """Of bAbI's questions, few have as many segments: they are asked again and again."""
    tokens: tuple[int, ...]
    """Read in each round."""
    reading_seconds: float
    """To read and encode as many questions of the set, of whatever length."""
    policies_seconds: tuple[float, ...]
    """In each round."""

    @property
    def question_seconds(self) -> tuple[float, ...]:
        """For one question, by round; reading is divided among all."""
        count = self.questions / len(self.tokens)
        return tuple(self.reading_seconds / self.questions + seconds / count for seconds in self.policies_seconds)

    @property
    def token_seconds(self) -> tuple[float, ...]:
        count = self.questions / len(self.tokens)
        return tuple(seconds * count / tokens for seconds, tokens in zip(self.question_seconds, self.tokens))


@dataclass(frozen=True, kw_only=True)
class QuestionsBench:
    file: AskedSet
    babi: AskedSet

    @property
    def question_ratios(self) -> tuple[float, ...]:
        """A question of the file over one of bAbI, by round."""
        return _ratios(self.file.question_seconds, self.babi.question_seconds)

    @property
    def token_ratios(self) -> tuple[float, ...]:
        return _ratios(self.file.token_seconds, self.babi.token_seconds)

    def to_json(self) -> dict[str, Any]:
        ratios = {"question_ratios": self.question_ratios, "token_ratios": self.token_ratios}
        medians = {name.removesuffix("s"): statistics.median(values) for name, values in ratios.items()}
        return {"checkpoint": CHECKPOINT, "file": vars(self.file), "babi": vars(self.babi), **ratios, **medians}


def bench_questions(on_question: Callable[[int, int], None] = lambda done, total: None) -> QuestionsBench:
    """Ask both sets in rounds by turns, each first in every second round. `on_question` is called with (questions asked
    of both sets, questions to ask)."""
    checkpoint, asked = load(CHECKPOINT, "cpu"), 0

    def on_document() -> None:
        nonlocal asked
        asked += 1
        on_question(asked, 2 * QUESTIONS)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "questions.jsonl"
        question_set.write(question_set.questions(_WRITTEN, QUESTIONS).prompts, path)
        encoded, reading = zip(*(_read(checkpoint, name) for name in (str(path), BABI)))
    pools = [[prompt for prompt in prompts if len(prompt.segments) == SEGMENTS] for prompts in encoded]
    asked_of = [list(islice(cycle(pool), QUESTIONS)) for pool in pools]
    count = QUESTIONS // ROUNDS
    seconds: list[list[float]] = [[], []]
    for number in range(ROUNDS):
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.process_time()
            policies(checkpoint, asked_of[which][number * count : (number + 1) * count], on_document=on_document)
            seconds[which].append(time.process_time() - began)
    file, babi = (
        AskedSet(
            questions=len(prompts),
            different=len(pool),
            tokens=tuple(
                sum(len(prompt.tokens) for prompt in prompts[number * count : (number + 1) * count])
                for number in range(ROUNDS)
            ),
            reading_seconds=read,
            policies_seconds=tuple(each),
        )
        for prompts, pool, read, each in zip(asked_of, pools, reading, seconds)
    )
    return QuestionsBench(file=file, babi=babi)


def _read(checkpoint: Checkpoint, name: str) -> tuple[list[EncodedPrompt], float]:
    """The questions, and the CPU seconds until they are there."""
    began = time.process_time()
    encoded, _ = encode_prompts(checkpoint, question_set.questions(name, QUESTIONS).prompts)
    return encoded, time.process_time() - began


def _ratios(ours: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
    return tuple(mine / other for mine, other in zip(ours, others, strict=True))
