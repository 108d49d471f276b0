"""The items of a cell: questions of bAbI or of the simulator, their facts hidden in books."""

import hashlib
import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from lm2.evaluation.cells import Evaluation, EvaluationCell, short_digest
from lm2.files import State, state
from lm2.tasks.babi import prompts
from lm2.tasks.babilong import Library, Mixture, fits, length_tokens, mix
from lm2.tasks.prompt import Prompt
from lm2.tasks.simulator import simulate
from lm2.tasks.stories import files_state, stories_in
from lm2.text.tokens import Tokenizer
from lm2.weights import bundled


def mixtures(evaluation: Evaluation, cell: EvaluationCell) -> Iterator[tuple[int, Mixture]]:
    """The items of a cell with their seeds; the same for every model, and as far as they fit for every length."""
    length = length_tokens(cell.length)
    tokenizer = _tokenizer(evaluation.length_tokenizer)
    library = (
        _library(evaluation.books, files_state(Path(evaluation.books)), tokenizer)
        if length and evaluation.books
        else None
    )
    for seed in range(evaluation.seeds):
        items = [prompt for prompt in _items(evaluation.babi, cell.task, cell.samples, seed) if fits(prompt, length)]
        if not items:
            raise ValueError(f"no item of qa{cell.task} fits into {cell.length}: choose a longer length")
        random.Random(f"{seed}/qa{cell.task}").shuffle(items)
        for prompt in items[: cell.samples]:
            yield seed, mix(prompt, length, library, tokenizer, seed=seed)


def _items(babi: str | None, task: int, samples: int, seed: int) -> list[Prompt]:
    if babi is not None:
        return list(prompts(stories_in(Path(babi), task)))
    return list(prompts([simulate(task, seed=10**6 * (seed + 1) + at).story for at in range(samples)]))


def _tokenizer(name: str) -> Tokenizer:
    path = bundled.FOLDER / name / "tokenizer.json" if name in bundled.bundled_names() else Path(name)
    return _read_tokenizer(path, state(path))


@lru_cache(maxsize=2)
def _read_tokenizer(path: Path, found: State) -> Tokenizer:
    return Tokenizer.load(path)


@lru_cache(maxsize=2)
def _library(books: str, found: State, tokenizer: Tokenizer) -> Library:
    return Library.read(Path(books), tokenizer)


def key_of(evaluation: Evaluation, cell: EvaluationCell) -> dict[str, object]:
    """What the answers of a cell depend on, apart from the model."""
    return {
        "task": cell.task,
        "length": cell.length,
        "samples": cell.samples,
        "seeds": evaluation.seeds,
        "babi": _digest_of(evaluation.babi),
        "books": _digest_of(evaluation.books) if length_tokens(cell.length) else None,
        "length_tokenizer": short_digest(_tokenizer(evaluation.length_tokenizer).to_json()),
        "style": evaluation.style.value,
        "segment_length": evaluation.segment_length,
        "dtype": evaluation.dtype,
    }


def _digest_of(path: str | None) -> str | None:
    return None if path is None else _data_digest(path, files_state(Path(path)))


@lru_cache(maxsize=8)
def _data_digest(path: str, found: State) -> str:
    """Of the names and contents of the files under a path."""
    files = sorted(file for file in Path(path).rglob("*") if file.is_file()) if Path(path).is_dir() else [Path(path)]
    every = hashlib.sha256()
    for file in files:
        every.update(file.name.encode())
        every.update(hashlib.sha256(file.read_bytes()).digest())
    return every.hexdigest()[:16]
