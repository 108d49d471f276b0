"""Models x tasks x lengths: what each answers on BABILong-style items, kept answer by answer, and the table it makes.

A cell (one model, task and length) is one JSON file in the output folder, written whole or not at all; an evaluation
that was stopped goes on with the cells that are missing, and cells whose question has changed are asked again.
"""

import hashlib
import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, parallel_config

from lm2.evaluation.answer_store import AnsweringModel, AnswerStore
from lm2.evaluation.results import DIFFERENCES, TABLE, seal_results
from lm2.files import State, state, write_table
from lm2.intervals import bootstrap, difference, rate
from lm2.model.finite import of_model
from lm2.runs.generation import answers
from lm2.tasks.babi import BabiError, Prompt, Story, prompts, read, split
from lm2.tasks.babilong import (
    Library,
    Mixture,
    exact_score,
    fits,
    instructed_prompt,
    length_tokens,
    mix,
    official_score,
    plain_prompt,
)
from lm2.tasks.simulator import simulate
from lm2.text.tokens import Tokenizer
from lm2.weights import bundled
from lm2.weights.checkpoint import Checkpoint, load

_LOG = logging.getLogger(__name__)
METRICS = {"official": official_score, "exact": exact_score}
_ANSWER_TOKENS = 20
_ROWS = 32
"""Texts read side by side."""


class Style(Enum):
    """How a question is put to a model."""

    PLAIN = "plain"
    """Mixture and question, as models trained here know it."""
    INSTRUCTED = "instructed"
    """Instruction, examples, form, context, question: for pretrained models."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that an evaluation's numbers depend on, apart from the files it reads."""

    models: tuple[str, ...]
    """Names or paths, as `lm2.load` takes them."""
    tasks: tuple[int, ...]
    lengths: tuple[str, ...]
    samples: tuple[int, ...]
    """Items of a task and seed, for each length."""
    seeds: int = 1
    """Seeds 0..seeds-1 are pooled; each draws its own items and mixes them anew."""
    babi: str | None = None
    """A folder or archive of bAbI files: its test files if it has any, else the last tenth of each file's stories.
    None: the simulator."""
    books: str | None = None
    """A text or folder of texts to hide facts in; not needed at 0k."""
    length_tokenizer: str = "babi-lm2"
    """The bundled checkpoint, or tokenizer.json, whose tokenizer counts lengths."""
    style: Style = Style.PLAIN
    segment_length: int | None = None
    """None: each checkpoint's own."""
    device: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not (self.models and self.tasks and self.lengths) or self.seeds < 1 or min(self.samples, default=0) < 1:
            raise ValueError(f"an evaluation needs models, tasks, lengths, samples and a seed, not {self}")
        if len(self.samples) != len(self.lengths):
            raise ValueError(f"{len(self.lengths)} lengths need as many numbers of samples, not {len(self.samples)}")
        for length in self.lengths:
            length_tokens(length)
        outside = [task for task in self.tasks if not 1 <= task <= 10]
        if outside:
            raise ValueError(f"tasks are qa1 to qa10, not {', '.join(f'qa{task}' for task in outside)}")


@dataclass(frozen=True, kw_only=True)
class EvaluationCell:
    """One model, task and length."""

    model: str
    task: int
    length: str
    samples: int

    @property
    def file(self) -> str:
        name = self.model if self.model in bundled.bundled_names() else f"{Path(self.model).stem}-{_short(self.model)}"
        return f"{name}/qa{self.task}-{self.length}.json"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One item and what a model said."""

    seed: int
    story: str
    """Items of one story share their facts: they count as one group."""
    question: str
    target: str
    output: str
    tokens: int
    """Of facts and book."""


def cells(evaluation: Evaluation) -> list[EvaluationCell]:
    """Short lengths first."""
    return [
        EvaluationCell(model=model, task=task, length=length, samples=samples)
        for length, samples in zip(evaluation.lengths, evaluation.samples)
        for model in evaluation.models
        for task in evaluation.tasks
    ]


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
        for asked in together(delayed(_ask_cells)(evaluation, few, out, models[few[0].model]) for few in groups):
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
        AnswerStore(out).put(cell.file, _key(evaluation, cell), model, [asdict(one) for one in found])
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


def mixtures(evaluation: Evaluation, cell: EvaluationCell) -> Iterator[tuple[int, Mixture]]:
    """The items of a cell with their seeds; the same for every model, and as far as they fit for every length."""
    length = length_tokens(cell.length)
    tokenizer = _tokenizer(evaluation.length_tokenizer)
    library = _library(evaluation.books, _state(evaluation.books), tokenizer) if length and evaluation.books else None
    for seed in range(evaluation.seeds):
        items = [prompt for prompt in _items(evaluation.babi, cell.task, cell.samples, seed) if fits(prompt, length)]
        if not items:
            raise ValueError(f"no item of qa{cell.task} fits into {cell.length}: choose a longer length")
        random.Random(f"{seed}/qa{cell.task}").shuffle(items)
        for prompt in items[: cell.samples]:
            yield seed, mix(prompt, length, library, tokenizer, seed=seed)


def _items(babi: str | None, task: int, samples: int, seed: int) -> list[Prompt]:
    if babi is not None:
        return list(prompts(_stories(babi, task, _state(babi))))
    return list(prompts([simulate(task, seed=10**6 * (seed + 1) + at).story for at in range(samples)]))


@lru_cache(maxsize=64)
def _stories(path: str, task: int, found: State) -> tuple[Story, ...]:
    """Test files if there are any, else the held-out tenth of training files; of `en` where a folder holds several
    sets."""
    for source in _sources(Path(path)):
        for folder in (None, "en"):
            try:
                every = read(source, task=task, folder=folder)
            except BabiError as error:
                problem = error
                continue
            tests = tuple(story for story in every if story.id.rpartition(":")[0].endswith("_test"))
            return tests or split(every)[1]
    raise problem


def _sources(path: Path) -> list[Path]:
    """A folder of archives is read archive by archive, the largest first."""
    if not path.is_dir() or next(path.rglob("qa*.txt"), None):
        return [path]
    return sorted(path.glob("*.tar.*"), key=lambda file: -file.stat().st_size) or [path]


def _tokenizer(name: str) -> Tokenizer:
    path = bundled.FOLDER / name / "tokenizer.json" if name in bundled.bundled_names() else Path(name)
    return _read_tokenizer(path, state(path))


@lru_cache(maxsize=2)
def _read_tokenizer(path: Path, found: State) -> Tokenizer:
    return Tokenizer.load(path)


@lru_cache(maxsize=2)
def _library(books: str, found: State, tokenizer: Tokenizer) -> Library:
    return Library.read(Path(books), tokenizer)


def _state(path: str) -> State:
    """Of all files under a path: the last parameter, `found`, of what is remembered of them."""
    return state(*sorted(Path(path).rglob("*"))) if Path(path).is_dir() else state(Path(path))


def _key(evaluation: Evaluation, cell: EvaluationCell) -> dict[str, object]:
    """What the answers of a cell depend on, apart from the model."""
    return {
        "task": cell.task, "length": cell.length, "samples": cell.samples, "seeds": evaluation.seeds,
        "babi": _digest_of(evaluation.babi),
        "books": _digest_of(evaluation.books) if length_tokens(cell.length) else None,
        "length_tokenizer": _short(_tokenizer(evaluation.length_tokenizer).to_json()), "style": evaluation.style.value,
        "segment_length": evaluation.segment_length, "dtype": evaluation.dtype,
    }  # fmt: skip


def _digest_of(path: str | None) -> str | None:
    return None if path is None else _data_digest(path, _state(path))


@lru_cache(maxsize=8)
def _data_digest(path: str, found: State) -> str:
    """Of the names and contents of the files under a path."""
    files = sorted(file for file in Path(path).rglob("*") if file.is_file()) if Path(path).is_dir() else [Path(path)]
    every = hashlib.sha256()
    for file in files:
        every.update(file.name.encode())
        every.update(hashlib.sha256(file.read_bytes()).digest())
    return every.hexdigest()[:16]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _held(
    evaluation: Evaluation, store: AnswerStore, models: dict[str, AnsweringModel]
) -> dict[EvaluationCell, list[Answered] | None]:
    """The answers of finished cells; None where one is missing, damaged, or answers another question."""
    found: dict[EvaluationCell, list[Answered] | None] = {}
    for cell in cells(evaluation):
        answers = store.get(cell.file, _key(evaluation, cell), models[cell.model])
        try:
            found[cell] = None if answers is None else [Answered(**one) for one in answers]
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


def table(done: dict[EvaluationCell, list[Answered]]) -> list[dict[str, object]]:
    """Tidy rows. Shares are of 1, with 95 % intervals clustered by story.

    `constant` is the answer that would be right most often on the task's items of all lengths if it were always given,
    and `constant_mean` how often it is right on these items; `ceiling` is what printing every target would score. Rows
    of task "mean" hold the unweighted mean over tasks, of lengths at which all of a model's tasks were asked.
    """
    rows = []
    all_items: dict[int, list[Answered]] = {}
    for cell, found in done.items():
        all_items.setdefault(cell.task, []).extend(found)
    constants = {
        (task, metric): best_constant(task, items, metric) for task, items in all_items.items() for metric in METRICS
    }
    for cell, found in done.items():
        for metric, score in METRICS.items():
            right = [score(cell.task, one.question, one.target, one.output) for one in found]
            constant = constants[cell.task, metric]
            constant_mean = float(np.mean([score(cell.task, one.question, one.target, constant) for one in found]))
            rows.append({
                "model": cell.model, "task": f"qa{cell.task}", "length": cell.length, "metric": metric,
                **_renamed(asdict(rate(right, [one.story for one in found]))), "constant": constant,
                "constant_mean": constant_mean,
                "ceiling": float(np.mean([score(cell.task, one.question, one.target, one.target) for one in found])),
            })  # fmt: skip
    return rows + [row for group in _by_length(done) for row in _mean_rows(*group, rows)]


def best_constant(task: int, items: Sequence[Answered], metric: str) -> str:
    """The one answer that would score best on these items."""
    score = METRICS[metric]
    counts = Counter((one.question, one.target) for one in items)
    totals = {
        said: sum(n * score(task, question, target, said) for (question, target), n in counts.items())
        for said in {one.target for one in items}
    }
    return max(sorted(totals), key=totals.__getitem__)


def differences(done: dict[EvaluationCell, list[Answered]]) -> list[dict[str, object]]:
    """Every model minus every other on the same items, by task and in the mean over tasks, and the ratio of those means
    less 1."""
    rows = []
    for length, by_model in _by_length(done):
        for one, other in [(a, b) for a in by_model for b in by_model if a != b]:
            tasks = [cell.task for cell in by_model[one]]
            if tasks != [cell.task for cell in by_model[other]]:
                continue
            for metric in METRICS:
                pairs = [_paired(a, b, done, metric) for a, b in zip(by_model[one], by_model[other])]
                for task, (mine, theirs, groups) in zip(tasks, pairs):
                    rows.append(
                        _row(
                            one,
                            other,
                            f"qa{task}",
                            length,
                            metric,
                            "difference",
                            asdict(difference(mine, theirs, groups)),
                        )
                    )
                rows += _mean_differences(one, other, length, metric, pairs)
    return rows


def _row(
    one: str, other: str, task: str, length: str, metric: str, kind: str, values: dict[str, object]
) -> dict[str, object]:
    return {"model": one, "baseline": other, "task": task, "length": length, "metric": metric, "kind": kind, **values}


def _renamed(values: dict[str, object]) -> dict[str, object]:
    return {"mean" if name == "accuracy" else name: value for name, value in values.items()}


_Pair = tuple[list[bool], list[bool], list[str]]


def _paired(
    one: EvaluationCell, other: EvaluationCell, done: dict[EvaluationCell, list[Answered]], metric: str
) -> _Pair:
    score = METRICS[metric]
    mine, theirs = done[one], done[other]
    if [(a.seed, a.story, a.question) for a in mine] != [(b.seed, b.story, b.question) for b in theirs]:
        raise ValueError(f"{one.file} and {other.file} hold different items, which cannot be paired")
    scores = [[score(one.task, a.question, a.target, a.output) for a in answered] for answered in (mine, theirs)]
    return scores[0], scores[1], [a.story for a in mine]


def _by_length(done: dict[EvaluationCell, list[Answered]]) -> Iterator[tuple[str, dict[str, list[EvaluationCell]]]]:
    """For each length, each model's cells by task; models that lack a task that they have at another length are left
    out."""
    all_tasks: dict[str, set[int]] = {}
    for cell in done:
        all_tasks.setdefault(cell.model, set()).add(cell.task)
    for length in dict.fromkeys(cell.length for cell in done):
        by_model: dict[str, list[EvaluationCell]] = {}
        for cell in sorted((cell for cell in done if cell.length == length), key=lambda cell: cell.task):
            by_model.setdefault(cell.model, []).append(cell)
        yield length, {model: found for model, found in by_model.items() if len(found) == len(all_tasks[model])}


def _mean_rows(
    length: str, by_model: dict[str, list[EvaluationCell]], rows: Sequence[dict[str, object]]
) -> Iterator[dict[str, object]]:
    """Means over tasks. Tasks have different stories, so their intervals' halves add up as squares (Zou and Donner
    2008)."""
    for model in by_model:
        for metric in METRICS:
            one = [row for row in rows if (row["model"], row["length"], row["metric"]) == (model, length, metric)]
            mean = float(np.mean([row["mean"] for row in one]))
            below, above = (
                float(np.sqrt(sum((row["mean"] - row[end]) ** 2 for row in one))) / len(one) for end in ("low", "high")
            )
            yield {
                "model": model, "task": "mean", "length": length, "metric": metric, "n": sum(row["n"] for row in one),
                "groups": sum(row["groups"] for row in one), "mean": mean, "low": mean - below, "high": mean + above,
                "constant": "",
                "constant_mean": float(np.mean([row["constant_mean"] for row in one])),
                "ceiling": float(np.mean([row["ceiling"] for row in one])),
            }  # fmt: skip


def _mean_differences(
    one: str, other: str, length: str, metric: str, pairs: Sequence[_Pair]
) -> Iterator[dict[str, object]]:
    """The difference of the means over tasks, and the ratio of those means less 1, resampling whole stories within each
    task.

    No interval (nan) where a task has one story alone: nothing is known of its spread.
    """
    unknown = any(len(set(groups)) < 2 for _, _, groups in pairs)
    drawn = [
        bootstrap(np.array([mine, theirs], float).T, groups, seed=at) for at, (mine, theirs, groups) in enumerate(pairs)
    ]
    means = np.mean(drawn, axis=0)
    non_padding = np.mean([[np.mean(mine), np.mean(theirs)] for mine, theirs, _ in pairs], axis=0)
    counts = {"n": sum(len(mine) for mine, _, _ in pairs), "groups": sum(len(set(groups)) for _, _, groups in pairs)}
    low, high = (np.nan, np.nan) if unknown else np.quantile(means[:, 0] - means[:, 1], [0.025, 0.975])
    yield _row(
        one,
        other,
        "mean",
        length,
        metric,
        "difference",
        {**counts, "mean": float(non_padding[0] - non_padding[1]), "low": float(low), "high": float(high)},
    )
    if non_padding[1] > 0 and (means[:, 1] > 0).all():
        low, high = (np.nan, np.nan) if unknown else np.quantile(means[:, 0] / means[:, 1] - 1, [0.025, 0.975])
        yield _row(
            one,
            other,
            "mean",
            length,
            metric,
            "ratio",
            {**counts, "mean": float(non_padding[0] / non_padding[1] - 1), "low": float(low), "high": float(high)},
        )
