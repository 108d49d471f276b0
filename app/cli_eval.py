"""`lm2 eval` and `lm2 language`: models beside models."""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from app.cli_arguments import add_device
from lm2 import stories


def add_eval(commands: "argparse._SubParsersAction") -> None:
    one = commands.add_parser("eval", help="accuracy of models on BABILong-style tasks by length, with intervals and paired differences")
    one.add_argument("--models", required=True, metavar="A,B,C", help="bundled names or paths")
    one.add_argument("--tasks", default="qa1-qa10", help="qa1-qa10 (default), or a list: qa1,qa3,qa7-qa9")
    one.add_argument("--lengths", default="0k", help="tokens of facts and book text, plus 300: 0k,1k,2k,... 1M (default 0k: facts alone)")
    one.add_argument("--samples", default="100", metavar="N", help="items of each task and seed, one number or one for each length (default 100)")
    one.add_argument("--seeds", type=int, default=1, metavar="S", help="seeds 0..S-1 are pooled (default 1)")
    one.add_argument("--babi-dir", type=Path, help="folder or archive in the official bAbI layout: its test files, else the last tenth "
                     "of each file's stories (default: the data folder's, else simulated stories)")  # fmt: skip
    one.add_argument("--books", type=Path, help="text or folder of texts to hide facts in (default: the data folder's books/test)")
    one.add_argument("--length-tokenizer", default="babi-lm2", help="bundled checkpoint or tokenizer.json that counts lengths (default babi-lm2)")
    one.add_argument("--style", choices=("plain", "instructed"), default="plain", help="instructed: the five-part prompt for pretrained models")
    one.add_argument("--segment-length", type=int, help="tokens (default: each checkpoint's own)")
    add_device(one)
    one.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1)), help="processes (default: one a core)")
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="answers and tables; what is there already is not asked again")
    one.add_argument("--report", type=Path, metavar="FILE.md", help="also write the tables as Markdown, beside the paper's")
    one.set_defaults(command=_eval)


def add_language(commands: "argparse._SubParsersAction") -> None:
    one = commands.add_parser("language", help="bits per byte of a held-out text, model beside model on the same passages")
    one.add_argument("--models", required=True, metavar="A,B,C", help="bundled names or paths; the others are measured against the first")
    one.add_argument("--text", type=Path, required=True, help="a UTF-8 text, plain or .xz")
    one.add_argument("--passages", type=int, default=40, help="how many (default 40)")
    one.add_argument("--characters", type=int, default=4000, help="of each (default 4000)")
    one.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")
    one.add_argument("--json", action="store_true")
    one.set_defaults(command=_language)


def tasks_named(text: str) -> tuple[int, ...]:
    """"qa1,qa3-qa5" is 1, 3, 4, 5. Raises ValueError for anything else."""
    found: list[int] = []
    for part in text.split(","):
        ends = [end.removeprefix("qa") for end in part.strip().split("-")]
        if len(ends) > 2 or not all(end.isdecimal() for end in ends):
            raise ValueError(f"tasks are written like qa1,qa3-qa5, not {text!r}")
        found += range(int(ends[0]), int(ends[-1]) + 1)
    return tuple(dict.fromkeys(found))


def _numbers(text: str, count: int) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"samples are whole numbers, not {text!r}")
    return tuple(map(int, parts)) * (count if len(parts) == 1 else 1)


def _eval(chosen: argparse.Namespace) -> None:
    from tqdm import tqdm

    from lm2.atomic import replace_file
    from lm2.babilong import length_tokens
    from lm2.evaluate import Cell, Evaluation, Style, cells, evaluate
    from lm2.report import markdown
    from lm2.results import read_results

    data = stories.data_folder()
    babi = chosen.babi_dir or (data / "babi" if data else None)
    books = chosen.books or (data / "books" / "test" if data else None)
    lengths = tuple(chosen.lengths.split(","))
    if books is None and any(map(length_tokens, lengths)):
        raise ValueError("lengths above 0k hide facts in books: give --books a text or a folder of texts, or set LM2_DATA_DIR to a folder with books/test")
    evaluation = Evaluation(
        models=tuple(chosen.models.split(",")), tasks=tasks_named(chosen.tasks), lengths=lengths, samples=_numbers(chosen.samples, len(lengths)),
        seeds=chosen.seeds, babi=None if babi is None else str(babi), books=None if books is None else str(books),
        length_tokenizer=chosen.length_tokenizer, style=Style(chosen.style), segment_length=chosen.segment_length,
        device=chosen.device, dtype=chosen.dtype,
    )  # fmt: skip

    def cost(cell: Cell) -> int:
        """Tokens, roughly: what the bar's time left is reckoned by."""
        return cell.samples * evaluation.seeds * max(200, length_tokens(cell.length))

    with tqdm(total=sum(map(cost, cells(evaluation))), unit="token", unit_scale=True, disable=None) as bar:

        def told(cell: Cell, asked: bool) -> None:
            bar.set_postfix_str(f"{cell.model} qa{cell.task} {cell.length}{'' if asked else ' (was there)'}", refresh=False)
            bar.update(cost(cell))

        evaluate(evaluation, chosen.out, workers=chosen.workers, on_cell=told)
    found = read_results(chosen.out)
    for row in found.table[found.table["task"] == "mean"].itertuples():
        print(
            f"{row.metric:>8} {row.length:>5}  {row.model:<14} {100 * row.mean:5.1f} % ({100 * row.low:.1f} to {100 * row.high:.1f}), n = {row.n}; "
            f"best constants {100 * row.constant_mean:.1f}, ceiling {100 * row.ceiling:.1f}"
        )
    print(f"{chosen.out / 'table.csv'} and {chosen.out / 'differences.csv'} have every task; the .parquet files the same.")
    if chosen.report:
        with replace_file(chosen.report) as path:
            path.write_text(markdown(found, f"lm2 eval {_shown(chosen)}"), encoding="utf-8")


def _language(chosen: argparse.Namespace) -> None:
    from tqdm import tqdm

    from lm2.babilong import read_text
    from lm2.checkpoint import load
    from lm2.language import compare, passages

    texts = passages(read_text(chosen.text), chosen.passages, chosen.characters)
    checkpoints = [load(name, chosen.device) for name in chosen.models.split(",")]
    with tqdm(total=len(texts) * len(checkpoints), unit="passage", disable=None) as bar:
        found = compare(checkpoints, texts, on_text=bar.update)
    if chosen.json:
        print(json.dumps([asdict(one) for one in found]))
        return
    print(f"{found[0].passages} passages of {chosen.text.name}, {found[0].bytes:,} bytes; 95 % intervals resample passages")
    for one in found:
        above = "" if one is found[0] else f"; {one.more:+.3f} ({one.more_low:+.3f} to {one.more_high:+.3f}) against {found[0].model}"
        print(f"{one.model:<14} {one.bits_per_byte:.3f} bits per byte ({one.low:.3f} to {one.high:.3f}), perplexity {one.token_perplexity:.1f} a token{above}")


def _shown(chosen: argparse.Namespace) -> str:
    """The arguments that decide the numbers: those always to be said, and those that were given."""
    always = {name: getattr(chosen, name) for name in ("models", "tasks", "lengths", "samples", "seeds")}
    usual = {"babi_dir": None, "books": None, "length_tokenizer": "babi-lm2", "style": "plain", "segment_length": None, "dtype": "float32"}
    given = {name: getattr(chosen, name) for name, default in usual.items() if getattr(chosen, name) != default}
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in {**always, **given}.items())
