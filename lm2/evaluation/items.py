"""The items of a cell: the questions of a set, or of bAbI or the simulator with their facts hidden in books."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from lm2.evaluation.cells import Answered, Evaluation, EvaluationCell, Style, short_digest
from lm2.files import State
from lm2.tasks.babi import prompts as prompts_of
from lm2.tasks.babilong import Mixture, fits, length_tokens, mix
from lm2.tasks.books import length_tokenizer, read_library
from lm2.tasks.encoded_prompt import NoTokenError, encode_prompt
from lm2.tasks.instructions import instructed_prompt, plain_prompt
from lm2.tasks.prompt import Prompt
from lm2.tasks.sets.question_set import questions
from lm2.tasks.simulator import simulate
from lm2.tasks.stories import files_state, stories_in
from lm2.weights.checkpoint import Checkpoint


class AskedItem(NamedTuple):
    text: str
    """What the model reads."""
    answered: Answered
    """Without the output."""


def items(evaluation: Evaluation, cell: EvaluationCell, checkpoint: Checkpoint) -> list[AskedItem]:
    """The items of a cell; the same for every model, but for those of a set that its tokenizer cannot take."""
    if cell.length:
        put = plain_prompt if evaluation.style is Style.PLAIN else instructed_prompt
        return [
            AskedItem(
                put(mixture),
                Answered(
                    seed=seed,
                    story=mixture.story_id,
                    question=mixture.question,
                    target=mixture.answer,
                    tokens=mixture.tokens,
                ),
            )
            for seed, mixture in mixtures(evaluation, cell)
        ]
    return set_items(evaluation, questions(cell.task, evaluation.count).prompts, checkpoint)


def set_items(evaluation: Evaluation, prompts: Sequence[Prompt], checkpoint: Checkpoint) -> list[AskedItem]:
    """The items of a set's questions."""
    with_rivals = all(prompt.rivals for prompt in prompts)
    return [_item(checkpoint, prompt, prompt.rivals if with_rivals else (), evaluation) for prompt in prompts]


def _item(checkpoint: Checkpoint, prompt: Prompt, rivals: tuple[str, ...], evaluation: Evaluation) -> AskedItem:
    tokens, skipped = 0, ""
    try:
        encoded = encode_prompt(checkpoint, replace(prompt, rivals=rivals), evaluation.segment_length)
        tokens = encoded.answer.start
    except NoTokenError as error:
        skipped = str(error)
    answered = Answered(
        story=prompt.group,
        question=prompt.question,
        target=prompt.answer,
        accepted=prompt.answers[1:],
        rivals=rivals,
        tokens=tokens,
        skipped=skipped,
    )
    return AskedItem(prompt.text, answered)


def cost(evaluation: Evaluation, cell: EvaluationCell) -> int:
    """Roughly the tokens that a cell's model reads."""
    if cell.length:
        return cell.samples * evaluation.seeds * max(200, length_tokens(cell.length))
    return sum(len(prompt.text) // 4 + 1 for prompt in questions(cell.task, evaluation.count).prompts)


def mixtures(evaluation: Evaluation, cell: EvaluationCell) -> Iterator[tuple[int, Mixture]]:
    """The items of a task and length with their seeds; as far as they fit, the same for every length."""
    length = length_tokens(cell.length)
    tokenizer = length_tokenizer(evaluation.length_tokenizer)
    library = read_library(Path(evaluation.books), tokenizer) if length and evaluation.books else None
    for seed in range(evaluation.seeds):
        prompts = [prompt for prompt in _prompts(evaluation.babi, cell, seed) if fits(prompt, length)]
        if not prompts:
            raise ValueError(f"no item of {cell.task} fits into {cell.length}: choose a longer length")
        random.Random(f"{seed}/{cell.task}").shuffle(prompts)
        for prompt in prompts[: cell.samples]:
            yield seed, mix(prompt, length, library, tokenizer, seed=seed)


def _prompts(babi: str | None, cell: EvaluationCell, seed: int) -> list[Prompt]:
    task = _number(cell)
    if babi is not None:
        return list(prompts_of(stories_in(Path(babi), task)))
    first = 10**6 * (seed + 1)
    return list(prompts_of([simulate(task, seed=first + index).story for index in range(cell.samples)]))


def _number(cell: EvaluationCell) -> int:
    return int(cell.task.removeprefix("qa"))


def key_of(evaluation: Evaluation, cell: EvaluationCell) -> dict[str, object]:
    """What the answers of a cell depend on, apart from the model."""
    if not cell.length:
        asked = questions(cell.task, evaluation.count)
        return {
            "questions": asked.name,
            "digest": asked.digest,
            "segment_length": evaluation.segment_length,
            "dtype": evaluation.dtype,
        }
    return {
        "task": _number(cell),
        "length": cell.length,
        "samples": cell.samples,
        "seeds": evaluation.seeds,
        "babi": _digest_of(evaluation.babi),
        "books": _digest_of(evaluation.books) if length_tokens(cell.length) else None,
        "length_tokenizer": short_digest(length_tokenizer(evaluation.length_tokenizer).to_json()),
        "style": evaluation.style.value,
        "segment_length": evaluation.segment_length,
        "dtype": evaluation.dtype,
    }


def _digest_of(path: str | None) -> str | None:
    return None if path is None else _data_digest(path, files_state(Path(path)))


@lru_cache(maxsize=8)
def _data_digest(path: str, _state: State) -> str:
    """Of the names and contents of the files under a path."""
    files = sorted(file for file in Path(path).rglob("*") if file.is_file()) if Path(path).is_dir() else [Path(path)]
    every = hashlib.sha256()
    for file in files:
        every.update(file.name.encode())
        every.update(hashlib.sha256(file.read_bytes()).digest())
    return every.hexdigest()[:16]
