"""`lm2 eval` and `lm2 language`: comparisons of models."""

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.shell.arguments import (
    MOST,
    add_models,
    add_segment_length,
    check_file,
    check_folder,
    load_model,
    whole_number,
)
from app.cli.shell.output import Output, table_files, write_file, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress
from lm2.shown import shown

if TYPE_CHECKING:
    from lm2.evaluation.cells import Evaluation, EvaluationCell
    from lm2.evaluation.perplexity import Measured
    from lm2.evaluation.results import Results


def add_eval(commands: Commands) -> None:
    parser = commands.add(
        "eval",
        "compare models on question sets or BABILong-style tasks",
        _eval,
        "Tables have intervals and paired differences. A stopped evaluation resumes.",
    )
    add_models(parser, "; NAME=A,NAME=B makes A and B seeds of one recipe, which has their mean and spread")
    add_segment_length(parser)
    words = "question sets, such as babi:qa1,mmlu:astronomy,mine.jsonl (default: BABILong's tasks, with what follows)"
    parser.add_argument("--sets", metavar="A,B", help=words)
    words = "of each set, the first N questions (default: all of a file's, 64 of a built-in set)"
    parser.add_argument("-n", "--n", type=whole_number(1, MOST), metavar="N", help=words)
    words = "a range, or a list such as qa1,qa3,qa7-qa9 (default: qa1-qa10)"
    parser.add_argument("--tasks", metavar="qaN-qaN", help=words)
    words = "tokens of facts and book text, plus 300: 0k,1k,2k,... 1M (default 0k: facts alone)"
    parser.add_argument("--lengths", metavar="0k,1k", help=words)
    words = "items per task and seed, one number or one for each length (default: 100)"
    parser.add_argument("--samples", metavar="N", help=words)
    words = "seeds 0..S-1 are pooled (default: 1)"
    parser.add_argument("--seeds", type=whole_number(1, 1000), metavar="S", help=words)
    words = (
        "folder or archive in the official bAbI layout, of which the test files are used, or else the"
        " last tenth of each file's stories (default: the data folder's, or else simulated stories)"
    )
    parser.add_argument("--babi-dir", type=Path, metavar="PATH", help=words)
    words = "text or folder of texts to hide facts in (default: the data folder's)"
    parser.add_argument("--books", type=Path, metavar="PATH", help=words)
    words = "bundled checkpoint or tokenizer.json whose tokens measure length (default: babi-lm2)"
    parser.add_argument("--length-tokenizer", metavar="NAME", help=words)
    words = "instructed: the five-part prompt for pretrained models (default: plain)"
    parser.add_argument("--style", choices=("plain", "instructed"), help=words)
    parser.add_argument("--workers", type=whole_number(1, 1000), metavar="N", help="processes (default: one per core)")
    words = "folder of answers and tables; answers already there are reused"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=words)
    words = "also write the tables as Markdown, a grid's next to the paper's (default: no)"
    parser.add_argument("--report", type=Path, metavar="FILE.md", help=words)


def add_language(commands: Commands) -> None:
    parser = commands.add("language", "bits per byte of a held-out text, on the same passages", _language)
    add_models(parser, "; the others are compared with the first")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="a UTF-8 text, plain or .xz")
    parser.add_argument("--passages", type=whole_number(2, MOST), default=40, metavar="N", help="number of passages")
    words = "characters per passage"
    parser.add_argument("--characters", type=whole_number(100, MOST), default=4000, metavar="N", help=words)


_GRID = {
    "tasks": "qa1-qa10", "lengths": "0k", "samples": "100", "seeds": 1, "babi_dir": None, "books": None,
    "length_tokenizer": "babi-lm2", "style": "plain",
}  # fmt: skip
"""The arguments of BABILong's tasks by length, which are not those of question sets, with their defaults."""


def parse_sets(text: str) -> tuple[str, ...]:
    """ "babi:qa1,simulated:qa1?people=Anna,Paul" is two names: after a question mark, a comma begins a set only where a
    built-in one or a file follows."""
    from lm2.tasks.sets.question_set import BUILT_IN, file_of

    names: list[str] = []
    for piece in text.split(","):
        path = None if piece.partition(":")[0] in BUILT_IN or not piece.strip() else file_of(piece)
        if names and "?" in names[-1] and path is not None and not Path(path).exists():
            names[-1] += f",{piece}"
        else:
            names.append(piece)
    return tuple(names)


def parse_tasks(text: str) -> tuple[int, ...]:
    """ "qa1,qa3-qa5" is 1, 3, 4, 5. Raises ValueError for anything else."""
    tasks: list[int] = []
    for span in text.split(","):
        ends = [end.removeprefix("qa") for end in span.strip().split("-")]
        if len(ends) > 2 or not all(end.isascii() and end.isdecimal() and len(end) <= 2 for end in ends):
            raise ValueError(f"tasks are written like qa1,qa3-qa5, with 2 digits at most, not {shown(text)}")
        tasks += range(int(ends[0]), int(ends[-1]) + 1)
    return tuple(dict.fromkeys(tasks))


def _parse_samples(text: str, lengths: int) -> tuple[int, ...]:
    """A number for each length; a single one is for all."""
    numbers = text.split(",")
    if not all(number.strip().isascii() and number.strip().isdecimal() and len(number) <= 9 for number in numbers):
        raise ValueError(f"samples are whole numbers of 9 digits at most, not {shown(text)}")
    return tuple(map(int, numbers)) * (lengths if len(numbers) == 1 else 1)


def _eval(chosen: argparse.Namespace) -> Output:
    from lm2.evaluation.cells import cells
    from lm2.evaluation.evaluate import evaluate
    from lm2.evaluation.items import cost
    from lm2.evaluation.report import markdown
    from lm2.evaluation.results import read_results

    check_folder(chosen.out, "cells")
    check_file(chosen.report)
    evaluation = _evaluation(chosen)
    total, done = sum(cost(evaluation, cell) for cell in cells(evaluation)), 0
    with progress("token", scale=True) as on_progress:

        def on_cell(cell: "EvaluationCell", computed: bool) -> None:
            nonlocal done
            done += cost(evaluation, cell)
            source = "" if computed else " (was there)"
            on_progress(done, total, f"{cell.model} {cell.task} {cell.length}".rstrip() + source)

        evaluate(evaluation, chosen.out, workers=chosen.workers or os.cpu_count() or 1, on_cell=on_cell)
    results = read_results(chosen.out)
    files = table_files(chosen.out, "table", "differences")
    if chosen.report:
        write_file(chosen.report, markdown(results, f"lm2 eval {_arguments(chosen)} --out FOLDER"))
        files.append(chosen.report)
    tables = {name: getattr(results, name).to_dict("records") for name in ("table", "differences")}
    return Output(document={**tables, **written(*files)}, lines=_means(results, chosen.out))


def _evaluation(chosen: argparse.Namespace) -> "Evaluation":
    from lm2.evaluation.cells import Evaluation, Style
    from lm2.evaluation.recipes import read_models
    from lm2.tasks import stories
    from lm2.tasks.babilong import length_tokens

    models, recipes = read_models(chosen.models)
    model_options = {
        "recipes": recipes,
        "segment_length": chosen.segment_length,
        "device": chosen.device,
        "dtype": chosen.dtype,
    }
    if chosen.sets is not None:
        grid = [name for name in _GRID if getattr(chosen, name) is not None]
        if grid:
            option = grid[0].replace("_", "-")
            raise ValueError(f"--sets asks question sets, and --{option} is of BABILong's tasks: give one of them")
        return Evaluation(models=models, sets=parse_sets(chosen.sets), count=chosen.n, **model_options)
    if chosen.n is not None:
        raise ValueError("--n is how many questions of each set are asked, and needs --sets; of tasks it is --samples")
    for name, default in _GRID.items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, default)
    data = stories.data_folder()
    babi = chosen.babi_dir or (data / "babi" if data else None)
    books = chosen.books or (data / "books" / "test" if data else None)
    lengths = tuple(chosen.lengths.split(","))
    if books is None and any(map(length_tokens, lengths)):
        raise ValueError(
            "lengths above 0k hide facts in books: give --books a text or a folder of texts, "
            "or set LM2_DATA_DIR to a folder with books/test"
        )
    return Evaluation(
        models=models,
        tasks=parse_tasks(chosen.tasks),
        lengths=lengths,
        samples=_parse_samples(chosen.samples, len(lengths)),
        seeds=chosen.seeds,
        babi=None if babi is None else str(babi),
        books=None if books is None else str(books),
        length_tokenizer=chosen.length_tokenizer,
        style=Style(chosen.style),
        **model_options,
    )


def _means(results: "Results", out: Path) -> Iterator[str]:
    """Every set; or the means over tasks by length."""
    from lm2.evaluation.metrics import CHOICE

    def of(model: str) -> str:
        seeds = results.recipes.get(model)
        recipe = next((name for name, seeds in results.recipes.items() if model in seeds), None)
        if seeds:
            return f", mean of {len(seeds)} seeds" if len(seeds) > 1 else ", one seed"
        return f", a seed of {recipe}" if recipe else ""

    if not results.lengths:
        width = max(map(len, results.tasks))
        for row in results.table.itertuples():
            by_chance = f"{'guessed' if row.metric == CHOICE else 'best constant'} {100 * row.constant_mean:.1f}"
            skipped = f"; {row.skipped} skipped" if row.skipped else ""
            yield (
                f"{row.metric:>8} {row.task:<{width}}  {row.model:<14} {_share(row)}{of(row.model)}, n = {row.n}; "
                f"{by_chance}, ceiling {100 * row.ceiling:.1f}{skipped}"
            )
    for row in results.table[(results.table["task"] == "mean") & (results.table["length"] != "")].itertuples():
        yield (
            f"{row.metric:>8} {row.length:>5}  {row.model:<14} {_share(row)}{of(row.model)}, n = {row.n}; "
            f"best constants {100 * row.constant_mean:.1f}, ceiling {100 * row.ceiling:.1f}"
        )
    every = "task" if results.lengths else "set"
    yield f"{out / 'table.csv'} and {out / 'differences.csv'} have every {every}; the .parquet files have the same."


def _share(row: Any) -> str:
    return f"{100 * row.mean:5.1f} % ({100 * row.low:.1f} to {100 * row.high:.1f})"


def _language(chosen: argparse.Namespace) -> Output:
    from lm2.evaluation.perplexity import compare, passages
    from lm2.files import read_text

    texts = passages(read_text(chosen.text), chosen.passages, chosen.characters)
    checkpoints = [load_model(chosen, name) for name in chosen.models.split(",")]
    total, steps = len(texts) * len(checkpoints), count(1)
    with progress("passage") as on_passage:
        measured = compare(checkpoints, texts, on_text=lambda: on_passage(next(steps), total))
    return Output(document=list(map(asdict, measured)), lines=_language_lines(measured, chosen.text.name))


def _language_lines(measured: "list[Measured]", text: str) -> Iterator[str]:
    first = measured[0]
    yield f"{first.passages} passages of {text}, {first.bytes:,} bytes; 95 % intervals resample passages"
    for each in measured:
        bits = f"{each.bits_per_byte:.3f} bits per byte ({each.low:.3f} to {each.high:.3f})"
        more = f"; {each.more:+.3f} ({each.more_low:+.3f} to {each.more_high:+.3f}) against {first.model}"
        more = "" if each is first else more
        yield f"{each.model:<14} {bits}, perplexity {each.token_perplexity:.1f} a token{more}"


def _arguments(chosen: argparse.Namespace) -> str:
    """The arguments on which the numbers depend; of the later ones, those that are not the defaults."""
    defaults = dict.fromkeys(("models", "sets", "n", "tasks", "lengths", "samples", "seeds", "babi_dir", "books"))
    defaults |= {"length_tokenizer": "babi-lm2", "style": "plain", "segment_length": None, "dtype": "float32"}
    values = {name: getattr(chosen, name) for name in defaults}
    return " ".join(
        f"--{name.replace('_', '-')} {value}"
        for name, value in values.items()
        if value is not None and value != defaults[name]
    )
