"""`lm2 eval` and `lm2 language`: models beside models."""

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import MOST, add_models, add_segment_length, check_file, check_folder, whole
from app.cli.shell.output import Output, table_files, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress
from lm2.shown import shown

if TYPE_CHECKING:
    from lm2.evaluation.cells import Evaluation, EvaluationCell
    from lm2.evaluation.perplexity import Measured
    from lm2.evaluation.results import Results


def add_eval(commands: Commands) -> None:
    one = commands.add(
        "eval",
        "compare models on BABILong-style tasks by length",
        _eval,
        "Tables have intervals and paired differences. A stopped evaluation resumes.",
    )
    add_models(one)
    add_segment_length(one)
    one.add_argument(
        "--tasks", default="qa1-qa10", metavar="qaN-qaN", help="a range, or a list such as qa1,qa3,qa7-qa9"
    )
    one.add_argument(
        "--lengths",
        default="0k",
        metavar="0k,1k",
        help="tokens of facts and book text, plus 300: 0k,1k,2k,... 1M (default %(default)s: facts alone)",
    )
    one.add_argument(
        "--samples", default="100", metavar="N", help="items per task and seed, one number or one for each length"
    )
    one.add_argument("--seeds", type=whole(1, 1000), default=1, metavar="S", help="seeds 0..S-1 are pooled")
    one.add_argument(
        "--babi-dir",
        type=Path,
        metavar="PATH",
        help="folder or archive in the official bAbI layout, of which the test files are used, or else the"
        " last tenth of each file's stories (default: the data folder's, or else simulated stories)",
    )
    one.add_argument(
        "--books",
        type=Path,
        metavar="PATH",
        help="text or folder of texts to hide facts in (default: the data folder's)",
    )
    one.add_argument(
        "--length-tokenizer",
        default="babi-lm2",
        metavar="NAME",
        help="bundled checkpoint or tokenizer.json whose tokens measure length",
    )
    one.add_argument(
        "--style",
        choices=("plain", "instructed"),
        default="plain",
        help="instructed: the five-part prompt for pretrained models",
    )
    one.add_argument("--workers", type=whole(1, 1000), metavar="N", help="processes (default: one per core)")
    one.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of answers and tables; answers already there are reused",
    )
    one.add_argument(
        "--report",
        type=Path,
        metavar="FILE.md",
        help="also write the tables as Markdown, next to the paper's (default: no)",
    )


def add_language(commands: Commands) -> None:
    one = commands.add("language", "bits per byte of a held-out text, on the same passages", _language)
    add_models(one, "; the others are compared with the first")
    one.add_argument("--text", type=Path, required=True, metavar="FILE", help="a UTF-8 text, plain or .xz")
    one.add_argument("--passages", type=whole(2, MOST), default=40, metavar="N", help="number of passages")
    one.add_argument("--characters", type=whole(100, MOST), default=4000, metavar="N", help="characters per passage")


def tasks_named(text: str) -> tuple[int, ...]:
    """ "qa1,qa3-qa5" is 1, 3, 4, 5. Raises ValueError for anything else."""
    found: list[int] = []
    for part in text.split(","):
        ends = [end.removeprefix("qa") for end in part.strip().split("-")]
        if len(ends) > 2 or not all(end.isascii() and end.isdecimal() and len(end) <= 2 for end in ends):
            raise ValueError(f"tasks are written like qa1,qa3-qa5, with 2 digits at most, not {shown(text)}")
        found += range(int(ends[0]), int(ends[-1]) + 1)
    return tuple(dict.fromkeys(found))


def _numbers(text: str, count: int) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdecimal() and len(part) <= 9 for part in parts):
        raise ValueError(f"samples are whole numbers of 9 digits at most, not {shown(text)}")
    return tuple(map(int, parts)) * (count if len(parts) == 1 else 1)


def _eval(chosen: argparse.Namespace) -> Output:
    from lm2.evaluation.cells import cells
    from lm2.evaluation.evaluate import evaluate
    from lm2.evaluation.report import markdown
    from lm2.evaluation.results import read_results
    from lm2.files import replace_file
    from lm2.tasks.babilong import length_tokens

    check_folder(chosen.out, "cells")
    check_file(chosen.report)
    evaluation = _evaluation(chosen)

    def cost(cell: "EvaluationCell") -> int:
        """Tokens, roughly: what the bar's time left is reckoned by."""
        return cell.samples * evaluation.seeds * max(200, length_tokens(cell.length))

    total, done = sum(map(cost, cells(evaluation))), 0
    with progress("token", scale=True) as told:

        def on_cell(cell: "EvaluationCell", asked: bool) -> None:
            nonlocal done
            done += cost(cell)
            told(done, total, f"{cell.model} qa{cell.task} {cell.length}{'' if asked else ' (was there)'}")

        evaluate(
            evaluation,
            chosen.out,
            workers=(os.cpu_count() or 1) if chosen.workers is None else chosen.workers,
            on_cell=on_cell,
        )
    found = read_results(chosen.out)
    files = table_files(chosen.out, "table", "differences")
    if chosen.report:
        with replace_file(chosen.report) as path:
            path.write_text(markdown(found, f"lm2 eval {_shown(chosen)} --out FOLDER"), encoding="utf-8")
        files.append(chosen.report)
    tables = {"table": found.table.to_dict("records"), "differences": found.differences.to_dict("records")}
    return Output(found={**tables, **written(*files)}, words=_means(found, chosen.out))


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
        tasks=tasks_named(chosen.tasks),
        lengths=lengths,
        samples=_numbers(chosen.samples, len(lengths)),
        seeds=chosen.seeds,
        babi=None if babi is None else str(babi),
        books=None if books is None else str(books),
        length_tokenizer=chosen.length_tokenizer,
        style=Style(chosen.style),
        segment_length=chosen.segment_length,
        device=chosen.device,
        dtype=chosen.dtype,
    )


def _means(found: "Results", out: Path) -> Iterator[str]:
    for row in found.table[found.table["task"] == "mean"].itertuples():
        share = f"{100 * row.mean:5.1f} % ({100 * row.low:.1f} to {100 * row.high:.1f})"
        yield (
            f"{row.metric:>8} {row.length:>5}  {row.model:<14} {share}, n = {row.n}; "
            f"best constants {100 * row.constant_mean:.1f}, ceiling {100 * row.ceiling:.1f}"
        )
    yield f"{out / 'table.csv'} and {out / 'differences.csv'} have every task; the .parquet files have the same."


def _language(chosen: argparse.Namespace) -> Output:
    from lm2.evaluation.perplexity import compare, passages
    from lm2.files import read_text
    from lm2.weights.checkpoint import load

    texts = passages(read_text(chosen.text), chosen.passages, chosen.characters)
    checkpoints = [load(name, chosen.device, chosen.dtype) for name in chosen.models.split(",")]
    total, steps = len(texts) * len(checkpoints), count(1)
    with progress("passage") as told:
        found = compare(checkpoints, texts, on_text=lambda: told(next(steps), total))
    return Output(found=[asdict(one) for one in found], words=_compared(found, chosen.text.name))


def _compared(found: "list[Measured]", text: str) -> Iterator[str]:
    yield f"{found[0].passages} passages of {text}, {found[0].bytes:,} bytes; 95 % intervals resample passages"
    for measured in found:
        above = (
            f"; {measured.more:+.3f} ({measured.more_low:+.3f} to {measured.more_high:+.3f}) against {found[0].model}"
        )
        above = "" if measured is found[0] else above
        bits = f"{measured.bits_per_byte:.3f} bits per byte ({measured.low:.3f} to {measured.high:.3f})"
        yield f"{measured.model:<14} {bits}, perplexity {measured.token_perplexity:.1f} a token{above}"


def _shown(chosen: argparse.Namespace) -> str:
    """The arguments that decide the numbers: those always to be said, and those that were given."""
    always = {name: getattr(chosen, name) for name in ("models", "tasks", "lengths", "samples", "seeds")}
    usual = {
        "babi_dir": None,
        "books": None,
        "length_tokenizer": "babi-lm2",
        "style": "plain",
        "segment_length": None,
        "dtype": "float32",
    }
    given = {name: getattr(chosen, name) for name, default in usual.items() if getattr(chosen, name) != default}
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in {**always, **given}.items())
