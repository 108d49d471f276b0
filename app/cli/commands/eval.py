"""`lm2 eval` and `lm2 language`: comparisons of models."""

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

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
        "compare models on BABILong-style tasks by length",
        _eval,
        "Tables have intervals and paired differences. A stopped evaluation resumes.",
    )
    add_models(parser)
    add_segment_length(parser)
    words = "a range, or a list such as qa1,qa3,qa7-qa9"
    parser.add_argument("--tasks", default="qa1-qa10", metavar="qaN-qaN", help=words)
    words = "tokens of facts and book text, plus 300: 0k,1k,2k,... 1M (default %(default)s: facts alone)"
    parser.add_argument("--lengths", default="0k", metavar="0k,1k", help=words)
    words = "items per task and seed, one number or one for each length"
    parser.add_argument("--samples", default="100", metavar="N", help=words)
    parser.add_argument("--seeds", type=whole_number(1, 1000), default=1, metavar="S", help="seeds 0..S-1 are pooled")
    words = (
        "folder or archive in the official bAbI layout, of which the test files are used, or else the"
        " last tenth of each file's stories (default: the data folder's, or else simulated stories)"
    )
    parser.add_argument("--babi-dir", type=Path, metavar="PATH", help=words)
    words = "text or folder of texts to hide facts in (default: the data folder's)"
    parser.add_argument("--books", type=Path, metavar="PATH", help=words)
    words = "bundled checkpoint or tokenizer.json whose tokens measure length"
    parser.add_argument("--length-tokenizer", default="babi-lm2", metavar="NAME", help=words)
    words = "instructed: the five-part prompt for pretrained models"
    parser.add_argument("--style", choices=("plain", "instructed"), default="plain", help=words)
    parser.add_argument("--workers", type=whole_number(1, 1000), metavar="N", help="processes (default: one per core)")
    words = "folder of answers and tables; answers already there are reused"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=words)
    words = "also write the tables as Markdown, next to the paper's (default: no)"
    parser.add_argument("--report", type=Path, metavar="FILE.md", help=words)


def add_language(commands: Commands) -> None:
    parser = commands.add("language", "bits per byte of a held-out text, on the same passages", _language)
    add_models(parser, "; the others are compared with the first")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="a UTF-8 text, plain or .xz")
    parser.add_argument("--passages", type=whole_number(2, MOST), default=40, metavar="N", help="number of passages")
    words = "characters per passage"
    parser.add_argument("--characters", type=whole_number(100, MOST), default=4000, metavar="N", help=words)


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
    from lm2.evaluation.report import markdown
    from lm2.evaluation.results import read_results
    from lm2.tasks.babilong import length_tokens

    check_folder(chosen.out, "cells")
    check_file(chosen.report)
    evaluation = _evaluation(chosen)

    def cost(cell: "EvaluationCell") -> int:
        """Roughly the tokens of a cell, for the progress bar."""
        return cell.samples * evaluation.seeds * max(200, length_tokens(cell.length))

    total, done = sum(map(cost, cells(evaluation))), 0
    with progress("token", scale=True) as on_progress:

        def on_cell(cell: "EvaluationCell", computed: bool) -> None:
            nonlocal done
            done += cost(cell)
            source = "" if computed else " (was there)"
            on_progress(done, total, f"{cell.model} qa{cell.task} {cell.length}{source}")

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
    from lm2.tasks import stories
    from lm2.tasks.babilong import length_tokens

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
        models=tuple(chosen.models.split(",")),
        tasks=parse_tasks(chosen.tasks),
        lengths=lengths,
        samples=_parse_samples(chosen.samples, len(lengths)),
        seeds=chosen.seeds,
        babi=None if babi is None else str(babi),
        books=None if books is None else str(books),
        length_tokenizer=chosen.length_tokenizer,
        style=Style(chosen.style),
        segment_length=chosen.segment_length,
        device=chosen.device,
        dtype=chosen.dtype,
    )


def _means(results: "Results", out: Path) -> Iterator[str]:
    for row in results.table[results.table["task"] == "mean"].itertuples():
        share = f"{100 * row.mean:5.1f} % ({100 * row.low:.1f} to {100 * row.high:.1f})"
        yield (
            f"{row.metric:>8} {row.length:>5}  {row.model:<14} {share}, n = {row.n}; "
            f"best constants {100 * row.constant_mean:.1f}, ceiling {100 * row.ceiling:.1f}"
        )
    yield f"{out / 'table.csv'} and {out / 'differences.csv'} have every task; the .parquet files have the same."


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
    defaults = dict.fromkeys(("models", "tasks", "lengths", "samples", "seeds", "babi_dir", "books"))
    defaults |= {"length_tokenizer": "babi-lm2", "style": "plain", "segment_length": None, "dtype": "float32"}
    values = {name: getattr(chosen, name) for name in defaults}
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in values.items() if value != defaults[name])
