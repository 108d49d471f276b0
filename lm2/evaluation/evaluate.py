"""Models x question sets, or x tasks x lengths: what each model answers, kept answer by answer, and the tables of it.

A cell (one model and set, or one model, task and length) is one JSON file in the output folder, written whole or not
at all; an evaluation that was stopped goes on with the cells that are missing, and cells whose question has changed are
asked again.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import cast

import pandas as pd
from joblib import Parallel, delayed, parallel_config

from lm2.evaluation.answer_store import AnsweringModel, AnswerStore
from lm2.evaluation.cells import Answered, Evaluation, EvaluationCell, cells
from lm2.evaluation.items import AskedItem, cost, items, key_of, set_items
from lm2.evaluation.results import DIFFERENCES, RECIPE, SKIPPED, TABLE, seal_results
from lm2.evaluation.tables import Row, differences, table
from lm2.files import write_table
from lm2.model.finite import of_model
from lm2.runs.generation import answers
from lm2.runs.likelihood import log_likelihoods
from lm2.shown import shown
from lm2.tasks.sets.question_set import QuestionSet
from lm2.weights.bundled import path_of
from lm2.weights.checkpoint import Checkpoint, load

_LOG = logging.getLogger(__name__)
_ANSWER_TOKENS = 20
"""At least; in a set, as many as its longest answer has."""
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

    A model whose files are not there, as those of a recipe's further seeds may not be, needs no asking if `out` holds
    all its answers; that it is not there is logged.

    `workers` processes share the cells, a thread each; short lengths come first for one, long ones for several.
    `on_cell` hears each cell and whether it had to be asked.

    Raises ValueError for a model, set, task or length that is not there, and for what `mix` refuses.
    """
    store, missing = AnswerStore(out), []
    models = {name: _model(evaluation, store, name) for name in evaluation.models}
    held = _held(evaluation, store, models)
    if store.foreign:
        what = ", ".join(dict.fromkeys(words for changed in store.foreign.values() for words in changed))
        _LOG.warning(
            "%d cells in %s were answered where %s differed; they stay as they are, and another folder asks them anew",
            len(store.foreign),
            out,
            what,
        )
    for cell, answered in held.items():
        if answered is None:
            if not path_of(cell.model).exists():
                raise ValueError(
                    f"{shown(cell.model)} is not there, and neither is its answers' file {cell.file} in {out}"
                )
            missing.append(cell)
        elif on_cell is not None:
            on_cell(cell, False)
    # joblib's processes are fresh ones, and do not run the calling script again: neither CUDA nor OpenMP survives a
    # fork.
    with parallel_config(backend="loky", inner_max_num_threads=1):
        together = Parallel(workers, return_as="generator_unordered")
        groups = list(_side_by_side(evaluation, missing))
        if workers > 1:  # the longest first, or one process would be left with them at the end while the others wait
            groups.sort(key=lambda few: -sum(cost(evaluation, cell) for cell in few))
        work = (delayed(_ask_cells)(evaluation, few, out, models[few[0].model]) for few in groups)
        for asked in cast("Iterator[Sequence[EvaluationCell]]", together(work)):
            if on_cell is not None:
                for cell in asked:
                    on_cell(cell, True)
    _write_tables(evaluation, out, models)


def _model(evaluation: Evaluation, store: AnswerStore, name: str) -> AnsweringModel:
    """The model of this name; where its files are not there, the one that gave the answers which are kept.

    Raises ValueError where neither is there, and for files that cannot be opened.
    """
    if not path_of(name).exists():
        author = store.author(cell.file for cell in cells(evaluation) if cell.model == name)
        if author is not None:
            _LOG.warning("%s is not there: its tables are made from the answers that are kept", name)
            return author
    return AnsweringModel.of(load(name, evaluation.device, evaluation.dtype))


def _side_by_side(evaluation: Evaluation, missing: Sequence[EvaluationCell]) -> Iterator[list[EvaluationCell]]:
    """Cells of one model and length that are asked together: few long texts alone would leave most of a batch empty.
    A set is asked alone."""
    for (_, length), group in itertools.groupby(missing, key=lambda cell: (cell.model, cell.length)):
        few = list(group)
        rows = evaluation.seeds * sum(cell.samples for cell in few)
        each = math.ceil(len(few) / min(len(few), math.ceil(rows / _ROWS))) if length else 1
        yield from (few[at : at + each] for at in range(0, len(few), each))


def _ask_cells(
    evaluation: Evaluation, cells: Sequence[EvaluationCell], out: Path, model: AnsweringModel
) -> Sequence[EvaluationCell]:
    checkpoint = _loaded(cells[0].model, evaluation.device, evaluation.dtype, model.digest)
    by_cell = {cell: items(evaluation, cell, checkpoint) for cell in cells}
    answered = iter(_ask(evaluation, checkpoint, [item for few in by_cell.values() for item in few]))
    for cell, few in by_cell.items():
        AnswerStore(out).put(
            cell.file, key_of(evaluation, cell), model, [next(answered).to_json() for _ in range(len(few))]
        )
    return cells


def ask_set(
    checkpoint: Checkpoint,
    asked: QuestionSet,
    segment_length: int | None = None,
    on_item: Callable[[int, int], None] | None = None,
) -> tuple[list[Answered], list[Row]]:
    """What a loaded checkpoint answers to a set, and its rows of the table, as `evaluate` has both. `on_item` hears how
    many of how many questions have been asked.

    Raises ValueError as `run` does.
    """
    evaluation = Evaluation(
        models=(checkpoint.name,), sets=(asked.name,), count=len(asked), segment_length=segment_length
    )
    cell = EvaluationCell(model=checkpoint.name, task=asked.name, samples=len(asked))
    answered = _ask(evaluation, checkpoint, set_items(evaluation, asked.prompts, checkpoint), on_item)
    return answered, [row for row in table({cell: answered}) if row["task"] == cell.task]


def _ask(
    evaluation: Evaluation,
    checkpoint: Checkpoint,
    every: Sequence[AskedItem],
    on_item: Callable[[int, int], None] | None = None,
) -> list[Answered]:
    """The items with what the checkpoint answers; those that are skipped, without."""
    asked = [item for item in every if not item.answered.skipped]
    max_tokens, stop = _ANSWER_TOKENS, "."
    if evaluation.sets:
        accepted = {answer for item in asked for answer in item.answered.answers}
        max_tokens = max([max_tokens, *(len(checkpoint.tokenizer.encode(f" {answer}")) for answer in accepted)])
        stop = "\n" if any("." in answer.rstrip(".") for answer in accepted) else stop
    answered: list[Answered] = []
    for start in range(0, len(asked), _ROWS):
        rows = asked[start : start + _ROWS]
        texts = [item.text for item in rows]
        with of_model(checkpoint.name):
            outputs = answers(
                checkpoint, texts, max_tokens=max_tokens, stop=stop, segment_length=evaluation.segment_length
            )
            for item, output in zip(rows, outputs):
                answered.append(_answered(checkpoint, item, output.strip(), evaluation.segment_length))
        if on_item is not None:
            on_item(len(answered), len(asked))
    in_order = iter(answered)
    return [item.answered if item.answered.skipped else next(in_order) for item in every]


def _answered(checkpoint: Checkpoint, item: AskedItem, output: str, segment_length: int | None) -> Answered:
    rivals = item.answered.rivals
    pairs = [(item.text, f" {answer}") for answer in (item.answered.target, *rivals)] if rivals else []
    likelihoods = log_likelihoods(checkpoint, pairs, segment_length=segment_length)
    return replace(item.answered, output=output, log_probabilities=tuple(each.log_probability for each in likelihoods))


@lru_cache(maxsize=2)
def _loaded(name: str, device: str, dtype: str, digest: str) -> Checkpoint:
    """Raises ValueError where it is not the one of that digest any more."""
    checkpoint = load(name, device, dtype)
    if checkpoint.digest != digest:
        raise ValueError(f"the files of {name!r} have changed since the evaluation began: start it again")
    return checkpoint


def _held(
    evaluation: Evaluation, store: AnswerStore, models: dict[str, AnsweringModel]
) -> dict[EvaluationCell, list[Answered] | None]:
    """The answers of finished cells; None where one is missing, damaged, or answers another question."""
    by_cell: dict[EvaluationCell, list[Answered] | None] = {}
    for cell in cells(evaluation):
        answers = store.get(cell.file, key_of(evaluation, cell), models[cell.model])
        try:
            by_cell[cell] = None if answers is None else list(map(Answered.from_json, answers))
        except TypeError:  # an earlier version's, which nothing vouches for
            by_cell[cell] = None
    return by_cell


def _write_tables(evaluation: Evaluation, out: Path, models: dict[str, AnsweringModel]) -> None:
    """table.csv, table.parquet: a row per recipe or model, set (or task and length) and metric. differences.csv,
    differences.parquet: these in pairs."""
    done = {cell: answered for cell, answered in _held(evaluation, AnswerStore(out), models).items() if answered}
    for cell, answered in done.items():
        if all(item.skipped for item in answered):
            _LOG.warning(
                "%s can be asked none of the %d questions of %s: %s",
                cell.model,
                len(answered),
                cell.task,
                answered[0].skipped,
            )
    recipes = evaluation.recipes
    columns = (*TABLE, *([SKIPPED] if evaluation.sets else []), *([RECIPE] if recipes else []))
    both = (("table", table(done, recipes), columns), ("differences", differences(done, recipes), DIFFERENCES))
    for name, rows, names in both:
        write_table(pd.DataFrame(rows, columns=list(names)), out, name)
    seal_results(out, {name: model._asdict() for name, model in models.items()})
