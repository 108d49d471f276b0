"""Arguments that several commands take, declared and read one way."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lm2.files import read_json

CHECKPOINT = "bundled name, folder (ours or Hugging Face's), .gguf file, or released .pt file"


def add_checkpoint(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The model of a command, and how it is opened."""
    parser.add_argument("--checkpoint", required=required, metavar="MODEL", help=CHECKPOINT)
    add_device(parser)


def add_models(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument("--models", required=True, metavar="A,B,C", help=f"bundled names or paths, with commas between them{more}")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="where it runs: auto, cpu, cuda or mps (default %(default)s: the fastest)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="numbers it computes in (default %(default)s)")


def add_segment_length(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--segment-length", type=int, metavar="N", help="tokens of a segment (default: the checkpoint's own)")


def add_text(group: argparse._MutuallyExclusiveGroup, what: str) -> None:
    """A text, in one argument or in one for each segment; `given_text` reads both."""
    group.add_argument("--text", metavar="TEXT", help=f"{what}; a form feed in it opens a new segment")
    group.add_argument("--segments", nargs="+", metavar="TEXT", help=f"{what}, each argument a segment of its own")


def given_text(chosen: argparse.Namespace) -> str:
    """The text that was given, with a form feed between segments. Raises ValueError for a segment without a character."""
    from lm2.tokens import BREAK

    if chosen.segments is None:
        if r"\f" in chosen.text:
            print(r"lm2: note: \f in --text is a backslash and an f, no form feed; --segments TEXT TEXT ... opens segments", file=sys.stderr)
        return chosen.text
    if "" in chosen.segments:
        raise ValueError(f"--segments: text {chosen.segments.index('') + 1} of {len(chosen.segments)} is empty; expected at least one character")
    return BREAK.join(chosen.segments)


def add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=f"seed {what} (default %(default)s)")


def add_spec(parser: argparse.ArgumentParser, keeps: str) -> None:
    """A spec and the folder that gets what comes of it, or --example; `wanted` reads them. `keeps`: what the folder gets."""
    parser.add_argument("spec", type=Path, nargs="?", metavar="SPEC.json", help="what to do, as --example or a screen hands it out")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"folder that gets {keeps}")
    parser.add_argument("--example", action="store_true", help="print a spec to begin with, and do nothing")
    add_device(parser)


def wanted(chosen: argparse.Namespace, command: str) -> tuple[dict[str, Any], Path]:
    """The spec's JSON and the folder. Raises ValueError where one was not given, and for a file that holds no spec."""
    if chosen.spec is None or chosen.out is None:
        raise ValueError(f"{command} needs SPEC.json and --out DIR; lm2 {command} --example prints a spec to begin with")
    return read_spec(chosen.spec), chosen.out


def task_named(text: str) -> int:
    """"qa3" is 3. Raises ValueError for anything else."""
    digits = text.removeprefix("qa")
    if not digits.isdecimal():
        raise ValueError(f"a task is written qa1, qa2, ..., not {text!r}")
    return int(digits)


def read_spec(path: Path) -> dict[str, Any]:
    """A spec's JSON. Raises ValueError for a file that holds none."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a spec, an object with fields, not a {type(values).__name__}")
    return values
