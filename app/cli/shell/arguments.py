"""Arguments that several commands take, declared and read one way."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lm2.files import read_json
from lm2.shown import shown

_Spec = TypeVar("_Spec")

MOST = 10**9
"""Of what there is no nearer bound for."""
MOST_SEED = 2**63 - 1

CHECKPOINT = "bundled name, folder (ours or Hugging Face's), .gguf file, or released .pt file"


def whole(least: int, most: int) -> Callable[[str], int]:
    """What reads an argument that is a whole number from `least` to `most`."""

    def read(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal()) or len(digits) > 19 or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number from {least:,} to {most:,}")
        return int(text)

    return read


def add_checkpoint(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The model of a command, and how it is opened."""
    parser.add_argument("--checkpoint", required=required, metavar="MODEL", help=CHECKPOINT)
    add_device(parser)


def add_models(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "--models", required=True, metavar="A,B,C", help=f"bundled names or paths, separated by commas{more}"
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", help="device: auto, cpu, cuda or mps (default %(default)s: the fastest)"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="number format of the computation"
    )


def add_segment_length(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--segment-length", type=whole(1, MOST), metavar="N", help="tokens per segment (default: the checkpoint's own)"
    )


def add_text(group: argparse._MutuallyExclusiveGroup, what: str) -> None:
    """A text, in one argument or in one for each segment; `given_text` reads both."""
    group.add_argument("--text", metavar="TEXT", help=f"{what}; a form feed in it opens a new segment")
    group.add_argument("--segments", nargs="+", metavar="TEXT", help=f"{what}; each argument is a segment of its own")


def given_text(chosen: argparse.Namespace) -> str:
    """The text that was given, with a form feed between segments. Raises ValueError for a segment without a
    character."""
    from lm2.text.tokens import BREAK

    if chosen.segments is None:
        if r"\f" in chosen.text:
            print(
                "lm2: note: \\f in --text is a backslash and an f, not a form feed; use --segments TEXT TEXT ..."
                " to give segments",
                file=sys.stderr,
            )
        return chosen.text
    if "" in chosen.segments:
        raise ValueError(
            f"--segments: text {chosen.segments.index('') + 1} of {len(chosen.segments)} is empty; expected at least"
            " one character"
        )
    return BREAK.join(chosen.segments)


def add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seed", type=whole(0, MOST_SEED), default=0, metavar="N", help=f"seed {what}")


def add_spec(parser: argparse.ArgumentParser, keeps: str) -> None:
    """A spec and the folder that gets what comes of it, or --example; `wanted` reads them. `keeps`: what the folder
    gets."""
    parser.add_argument(
        "spec",
        type=Path,
        nargs="?",
        metavar="SPEC.json",
        help="the spec, as printed by --example or exported by a screen",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"output folder for {keeps}")
    parser.add_argument("--example", action="store_true", help="print a spec to start from, and do nothing else")
    add_device(parser)


def wanted(
    chosen: argparse.Namespace, command: str, of: Callable[[dict[str, Any]], _Spec], *holds: str
) -> tuple[_Spec, Path]:
    """The spec, as `of` reads it, and the folder. `holds`: what a folder holds, any of it, in which the command has
    begun.

    Raises ValueError where one was not given, for a file that holds no such spec, and for a folder that cannot be
    written to.
    """
    if chosen.spec is None or chosen.out is None:
        raise ValueError(
            f"{command} needs SPEC.json and --out DIR; lm2 {command} --example prints a spec to start from"
        )
    spec = spec_in(chosen.spec, of)
    check_folder(chosen.out, *holds)
    return spec, chosen.out


def check_folder(path: Path, *holds: str) -> None:
    """Raise ValueError for a folder that cannot be written to, and for one with files of others in it. `holds`: names
    of which ours has one."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out {path} is a file, and must be a folder")
    if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in holds):
        raise ValueError(
            f"--out {path} holds other files, {next(path.iterdir()).name!r} among them: name a new folder, or one in"
            " which this has begun"
        )
    _check_writable(path)


def check_file(path: Path | None) -> None:
    """Raise ValueError for a file that cannot be written. None is written nowhere."""
    if path is not None and path.is_dir():
        raise ValueError(f"{path} is a folder, and must be a file to write to")
    if path is not None:
        _check_writable(path.parent)


def _check_writable(folder: Path) -> None:
    there = next(place for place in (folder, *folder.parents) if place.exists() or place == place.parent)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(f"nothing can be written to {folder}: {there}: {error.strerror}") from error


def task_named(text: str) -> int:
    """ "qa3" is 3. Raises ValueError for anything else."""
    digits = text.removeprefix("qa")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 2:
        raise ValueError(f"a task is written qa1, qa2, ..., with 2 digits at most, not {shown(text)}")
    return int(digits)


def spec_in(path: Path, of: Callable[[dict[str, Any]], _Spec]) -> _Spec:
    """The spec in a file, as `of` reads its JSON. Raises ValueError with the file's name for one that holds none."""
    values = read_spec(path)
    with asked_in(path):
        return of(values)


@contextmanager
def asked_in(path: Path) -> Iterator[None]:
    """What is done here was asked for in a file: an error that does not name it begins with its name."""
    try:
        yield
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def read_spec(path: Path) -> dict[str, Any]:
    """A spec's JSON. Raises ValueError for a file that holds none."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a spec, an object with fields, not a {type(values).__name__}")
    return values
