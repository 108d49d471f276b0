"""Models x tasks x lengths: what each answers on BABILong-style items, kept answer by answer, and the table it makes.

A cell (one model, task and length) is one JSON file in the output folder, written whole or not at all; an evaluation
that was stopped goes on with the cells that are missing, and cells whose question has changed are asked again.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import cast

import pandas as pd
from joblib import Parallel, delayed, parallel_config

from lm2.evaluation.answer_store import AnsweringModel, AnswerStore
from lm2.evaluation.cells import Answered, Evaluation, EvaluationCell, Style, cells
from lm2.evaluation.items import key_of, mixtures
from lm2.evaluation.results import DIFFERENCES, TABLE, seal_results
from lm2.evaluation.tables import differences, table
from lm2.files import write_table
from lm2.model.finite import of_model
from lm2.runs.generation import answers
from lm2.tasks.babilong import Mixture, length_tokens
from lm2.tasks.instructions import instructed_prompt, plain_prompt
from lm2.weights.checkpoint import Checkpoint, load

_LOG = logging.getLogger(__name__)
_ANSWER_TOKENS = 20
_ROWS = 32
"""Texts read side by side."""


def evaluate(
    evaluation: Evaluation,
    out: Path,
    *,
    workers: int = 1,
    on_cell: Callable[[EvaluationCell, bool], None] | None = None,
) -> None:
    """Ask every cell that `out` does not hold yet, and write the tables.

    `workers` processes share the cells, a thread each; short lengths come first for one, long ones for several.
    `on_cell` hears each cell and whether it had to be asked.

    Raises ValueError for a model, task or length that is not there, and for what `mix` refuses.
    """
    models = {name: AnsweringModel.of(load(name, evaluation.device, evaluation.dtype)) for name in evaluation.models}
    store, missing = AnswerStore(out), []
    held = _held(evaluation, store, models)
    if store.foreign:
        what = ", ".join(dict.fromkeys(words for changed in store.foreign.values() for words in changed))
        _LOG.warning(
            "%d cells in %s were answered where %s differed; they stay as they are, and another folder asks them anew",
            len(store.foreign),
            out,
            what,
        )
    for cell, found in held.items():
        if found is None:
            missing.append(cell)
        elif on_cell is not None:
            on_cell(cell, False)
    # joblib's processes are fresh ones, and do not run the calling script again: neither CUDA nor OpenMP survives a
    # fork.
    with parallel_config(backend="loky", inner_max_num_threads=1):
        together = Parallel(workers, return_as="generator_unordered")
        groups = list(_side_by_side(evaluation, missing))
        if workers > 1:  # the longest first, or one process would be left with them at the end while the others wait
            groups.sort(key=lambda few: -length_tokens(few[0].length))
        work = (delayed(_ask_cells)(evaluation, few, out, models[few[0].model]) for few in groups)
        for asked in cast("Iterator[Sequence[EvaluationCell]]", together(work)):
            if on_cell is not None:
                for cell in asked:
                    on_cell(cell, True)
    _write_tables(evaluation, out, models)


def _side_by_side(evaluation: Evaluation, missing: Sequence[EvaluationCell]) -> Iterator[list[EvaluationCell]]:
    """Cells of one model and length that are asked together: few long texts alone would leave most of a batch empty."""
    for _, group in itertools.groupby(missing, key=lambda cell: (cell.model, cell.length)):
        found = list(group)
        rows = evaluation.seeds * sum(cell.samples for cell in found)
        each = math.ceil(len(found) / min(len(found), math.ceil(rows / _ROWS)))
        yield from (found[at : at + each] for at in range(0, len(found), each))


def _ask_cells(
    evaluation: Evaluation, cells: Sequence[EvaluationCell], out: Path, model: AnsweringModel
) -> Sequence[EvaluationCell]:
    checkpoint = _loaded(cells[0].model, evaluation.device, evaluation.dtype, model.digest)
    items = [(cell, seed, mixture) for cell in cells for seed, mixture in mixtures(evaluation, cell)]
    say = plain_prompt if evaluation.style is Style.PLAIN else instructed_prompt
    answered: dict[EvaluationCell, list[Answered]] = {cell: [] for cell in cells}
    for at in range(0, len(items), _ROWS):
        rows = items[at : at + _ROWS]
        texts = [say(mixture) for _, _, mixture in rows]
        with of_model(checkpoint.name):
            said = answers(
                checkpoint, texts, max_tokens=_ANSWER_TOKENS, stop=".", segment_length=evaluation.segment_length
            )
        for (cell, seed, mixture), output in zip(rows, said):
            answered[cell].append(_answered(seed, mixture, output))
    for cell, found in answered.items():
        AnswerStore(out).put(cell.file, key_of(evaluation, cell), model, [asdict(one) for one in found])
    return cells


def _answered(seed: int, mixture: Mixture, output: str) -> Answered:
    return Answered(
        seed=seed,
        story=mixture.story_id,
        question=mixture.question,
        target=mixture.answer,
        output=output.strip(),
        tokens=mixture.tokens,
    )


@lru_cache(maxsize=2)
def _loaded(name: str, device: str, dtype: str, digest: str) -> Checkpoint:
    """Raises ValueError where it is not the one of that digest any more."""
    found = load(name, device, dtype)
    if found.digest != digest:
        raise ValueError(f"the files of {name!r} have changed since the evaluation began: start it again")
    return found


def _held(
    evaluation: Evaluation, store: AnswerStore, models: dict[str, AnsweringModel]
) -> dict[EvaluationCell, list[Answered] | None]:
    """The answers of finished cells; None where one is missing, damaged, or answers another question."""
    found: dict[EvaluationCell, list[Answered] | None] = {}
    for cell in cells(evaluation):
        answers = store.get(cell.file, key_of(evaluation, cell), models[cell.model])
        try:
            found[cell] = None if answers is None else [Answered(**answer) for answer in answers]
        except TypeError:  # an earlier version's, which nothing vouches for
            found[cell] = None
    return found


def _write_tables(evaluation: Evaluation, out: Path, models: dict[str, AnsweringModel]) -> None:
    """table.csv, table.parquet: a row per model x task x length x metric. differences.csv, differences.parquet: models
    in pairs."""
    done = {cell: found for cell, found in _held(evaluation, AnswerStore(out), models).items() if found}
    for name, rows, columns in (("table", table(done), TABLE), ("differences", differences(done), DIFFERENCES)):
        write_table(pd.DataFrame(rows, columns=list(columns)), out, name)
    seal_results(out, {name: model._asdict() for name, model in models.items()})
