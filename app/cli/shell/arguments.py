"""Arguments that several commands share, and how they are read."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lm2.files import read_json
from lm2.shown import shown

if TYPE_CHECKING:
    from lm2.weights.checkpoint import Checkpoint

_Spec = TypeVar("_Spec")

MOST = 10**9
"""For counts without a smaller bound."""

CHECKPOINT = "bundled name, folder (ours or Hugging Face's), .gguf file, or released .pt file"


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `least` to `most`."""

    def read(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal()) or len(digits) > 19 or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number from {least:,} to {most:,}")
        return int(text)

    return read


def add_checkpoint(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("--checkpoint", required=required, metavar="MODEL", help=CHECKPOINT)
    add_device(parser)


def add_models(parser: argparse.ArgumentParser, more: str = "") -> None:
    """`more`: what the help says after the form of the argument."""
    words = f"bundled names or paths, separated by commas{more}"
    parser.add_argument("--models", required=True, metavar="A,B,C", help=words)
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    words = "device: auto, cpu, cuda or mps (default %(default)s: the fastest)"
    parser.add_argument("--device", default="auto", help=words)
    words = "number format of the computation; float16 needs a GPU"
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help=words)


def load_model(chosen: argparse.Namespace, name: str) -> "Checkpoint":
    """The checkpoint of a name, on the chosen device."""
    from lm2.weights.checkpoint import load

    return load(name, chosen.device, chosen.dtype)


def add_segment_length(parser: argparse.ArgumentParser) -> None:
    words = "tokens per segment (default: the checkpoint's own)"
    parser.add_argument("--segment-length", type=whole_number(1, MOST), metavar="N", help=words)


def add_bos(parser: argparse.ArgumentParser) -> None:
    words = "begin the text with the tokenizer's begin-of-text token or not (default: as the tokenizer has it)"
    parser.add_argument("--bos", action=argparse.BooleanOptionalAction, help=words)


def add_text(group: argparse._MutuallyExclusiveGroup, what: str) -> None:
    """A text as one argument, or as one for each segment; `read_text_argument` reads both."""
    group.add_argument("--text", metavar="TEXT", help=f"{what}; a form feed in it opens a new segment")
    group.add_argument("--segments", nargs="+", metavar="TEXT", help=f"{what}; each argument is a segment of its own")


def read_text_argument(chosen: argparse.Namespace) -> str:
    """The text, with a form feed between segments. Raises ValueError for an empty segment."""
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


def add_questions(parser: argparse.ArgumentParser) -> None:
    """A question set and how many of its questions are asked."""
    words = "a built-in set such as babi:qa1 or pairs:?n=16, or a file (.jsonl, .csv, .parquet); default %(default)s"
    parser.add_argument("--questions", type=question_set, default="babi:qa1", metavar="SET", help=words)
    words = "questions, from the first on (default: all of a file's, 64 of a built-in set)"
    parser.add_argument("-n", "--n", type=whole_number(1, MOST), metavar="N", help=words)


def add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seed", type=whole_number(0, 2**63 - 1), default=0, metavar="N", help=f"seed {what}")


def question_set(text: str) -> str:
    """The type of an argument that names a question set. A number was once how many are asked."""
    if text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"`--questions` names a question set, such as babi:qa1; how many are asked is --n {text[:9]}"
        )
    return text


def add_documents(parser: argparse.ArgumentParser) -> None:
    """Documents other than a spec's; `with_documents` reads them."""
    words = "question set to read instead of the spec's documents: babi:qa1, pairs:?n=16, a file or a folder"
    parser.add_argument("--questions", type=question_set, metavar="SET", help=words)
    words = "read the first COUNT questions of each set"
    parser.add_argument("-n", "--n", type=whole_number(1, MOST), metavar="COUNT", help=words)


def with_documents(spec: Any, chosen: argparse.Namespace) -> Any:
    """A spec that reads the chosen documents. Raises ValueError for a question set or a number that there is not."""
    from probes.features.documents import Documents

    if chosen.questions is not None:
        return replace(spec, documents=Documents(questions=(chosen.questions,), count=chosen.n))
    return spec if chosen.n is None else replace(spec, documents=replace(spec.documents, count=chosen.n))


def add_spec(parser: argparse.ArgumentParser, content: str) -> None:
    """A spec and an output folder, or --example; `read_spec_and_folder` reads them. `content`: of the folder."""
    words = "the spec, as printed by --example or exported by a screen"
    parser.add_argument("spec", type=Path, nargs="?", metavar="SPEC.json", help=words)
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"output folder for {content}")
    parser.add_argument("--example", action="store_true", help="print a spec to start from, and do nothing else")
    add_device(parser)


def read_spec_and_folder(
    chosen: argparse.Namespace, command: str, parse: Callable[[dict[str, Any]], _Spec], *started: str
) -> tuple[_Spec, Path]:
    """The spec and the output folder. `started`: as for `check_folder`.

    Raises ValueError if one is missing, if the file does not hold such a spec, and if the folder cannot be used.
    """
    if chosen.spec is None or chosen.out is None:
        raise ValueError(
            f"{command} needs SPEC.json and --out DIR; lm2 {command} --example prints a spec to start from"
        )
    spec = read_spec(chosen.spec, parse)
    check_folder(chosen.out, *started)
    return spec, chosen.out


def check_folder(path: Path, *started: str) -> None:
    """Raise ValueError if a folder cannot be written to, or holds files but none of those named in `started`, at least
    one of which is there once the command has begun."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out {path} is a file, and must be a folder")
    if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in started):
        raise ValueError(
            f"--out {path} holds other files, {next(path.iterdir()).name!r} among them: name a new folder, or one in"
            " which this has begun"
        )
    _check_writable(path)


def check_file(path: Path | None) -> None:
    """Raise ValueError if a file cannot be written; None is not written."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder, and must be a file to write to")
    _check_writable(path.parent)


def _check_writable(folder: Path) -> None:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists() or parent == parent.parent)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"nothing can be written to {folder}: {existing}: {error.strerror}") from error


def parse_task(text: str) -> int:
    """ "qa3" is 3. Raises ValueError for anything else."""
    digits = text.removeprefix("qa")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 2:
        raise ValueError(f"a task is written qa1, qa2, ..., with 2 digits at most, not {shown(text)}")
    return int(digits)


def read_spec(path: Path, parse: Callable[[dict[str, Any]], _Spec]) -> _Spec:
    """What `parse` makes of a file's JSON object. Raises ValueError with the file's name if it holds no such spec."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a spec, an object with fields, not a {type(values).__name__}")
    with errors_name(path):
        return parse(values)


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """A ValueError that does not name the file whose spec is carried out gets its name in front."""
    try:
        yield
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
