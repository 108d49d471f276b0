"""`lm2 recall`, `lm2 mmlu` and `lm2 parity`: what a model gets right."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import MOST, add_checkpoint, add_segment_length, task_named, whole
from app.cli.shell.errors import Exit
from app.cli.shell.output import Output, opened
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress

if TYPE_CHECKING:
    from lm2.evaluation.recall import RecallReport
    from lm2.tasks.mmlu import Tally

_TOLERANCE = 1e-5
"""Rounding in float32, and no more."""


def add_recall(commands: Commands) -> None:
    one = commands.add("recall", "accuracy on the questions of a bAbI file, by distance in segments", _recall)
    add_checkpoint(one)
    add_segment_length(one)
    one.add_argument(
        "--babi", type=Path, required=True, metavar="PATH", help="a .txt file, folder or archive in the official format"
    )
    one.add_argument("--task", metavar="qaN", help="only this task of a folder or archive, qa1 to qa10 (default: all)")
    one.add_argument(
        "--memory",
        choices=("on", "frozen", "reset"),
        default="on",
        help="frozen: nothing is written; reset: a fresh bank at the question",
    )
    one.add_argument(
        "--validation",
        action="store_true",
        help="only the last tenth of the stories, on which the bundled models were not trained",
    )
    one.add_argument(
        "--stretch",
        type=whole(0, MOST),
        metavar="N",
        help="insert N more statements about other people between facts and question, qa1 only (default: none)",
    )


def add_mmlu(commands: Commands) -> None:
    one = commands.add(
        "mmlu",
        "accuracy on MMLU, five-shot, by category",
        _mmlu,
        "The answer is the letter with the largest likelihood.",
    )
    add_checkpoint(one)
    add_segment_length(one)
    one.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="folder or tar archive with dev/SUBJECT_dev.csv, ..."
    )
    one.add_argument("--split", choices=("val", "test"), default="val", help="which set of questions")
    one.add_argument(
        "--samples", type=whole(1, MOST), metavar="N", help="only the first N questions of each subject (default: all)"
    )


def add_parity(commands: Commands) -> None:
    one = commands.add(
        "parity",
        "compare the RELEASE model with outputs of the released code",
        _parity,
        f"The exit code is 1 if a logit, gate or bank differs by more than {_TOLERANCE:g}.",
    )
    one.add_argument("file", type=Path, metavar="FILE.safetensors", help="recorded inputs, weights and outputs")


def _recall(chosen: argparse.Namespace) -> Output:
    from lm2.evaluation.recall import Memory, recall
    from lm2.tasks import babi, babi_files
    from lm2.weights.checkpoint import load

    found = babi_files.read(chosen.babi, task=task_named(chosen.task) if chosen.task else None)
    if chosen.validation:
        found = babi.split(found)[1]
    if chosen.stretch is not None:
        found = babi.stretch_all(found, statements=chosen.stretch)
    prompts = list(babi.prompts(found))
    checkpoint = load(chosen.checkpoint, chosen.device, chosen.dtype)
    with progress("question") as told:
        report = recall(
            checkpoint,
            prompts,
            Memory(chosen.memory),
            segment_length=chosen.segment_length,
            on_question=lambda done: told(done, len(prompts)),
        )
    rows = [{"distance": distance, **asdict(rate)} for distance, rate in report.by_distance.items()]
    told_as_json = {
        "checkpoint": checkpoint.name,
        **opened(checkpoint),
        "memory": chosen.memory,
        "segment_length": report.segment_length,
        **asdict(report.overall),
        "by_distance": rows,
    }
    return Output(found=told_as_json, words=_recalled(checkpoint.name, report))


def _recalled(name: str, report: "RecallReport") -> Iterator[str]:
    yield (
        f"{name}, memory {report.memory.value}, segments of {report.segment_length} tokens, each question in a segment"
        " of its own"
    )
    yield "distance  questions  stories  accuracy  95 % interval"
    for distance, rate in [("all", report.overall), *report.by_distance.items()]:
        yield (
            f"{distance!s:>8}  {rate.n:>9}  {rate.groups:>7}  {rate.accuracy:>8.1%}  {rate.low:.1%} to {rate.high:.1%}"
        )


def _mmlu(chosen: argparse.Namespace) -> Output:
    from lm2.tasks import mmlu
    from lm2.weights.checkpoint import load

    subjects = [
        replace(subject, questions=subject.questions[: chosen.samples])
        for subject in mmlu.read(chosen.data, mmlu.Split(chosen.split))
    ]
    checkpoint = load(chosen.checkpoint, chosen.device, chosen.dtype)
    total = sum(len(subject.questions) for subject in subjects)
    with progress("question") as told:
        report = mmlu.examine(
            checkpoint, subjects, segment_length=chosen.segment_length, on_question=lambda done: told(done, total)
        )
    rows = {"all": report.overall, **{category.value: found for category, found in report.by_category.items()}}
    title = f"{checkpoint.name}, MMLU {chosen.split}, {mmlu.SHOTS}-shot"
    found = {name: {**asdict(tally.rate), "always": tally.constants} for name, tally in rows.items()}
    return Output(found=found, words=_examined(title, rows))


def _examined(title: str, rows: "dict[str, Tally]") -> Iterator[str]:
    yield title
    yield "category           questions  accuracy  95 % interval     always D  best letter"
    for name, found in rows.items():
        rate, best, always = found.rate, found.best_constant, found.constants
        interval = f"{rate.low:.1%} to {rate.high:.1%}"
        yield (
            f"{name:<17}  {rate.n:>9}  {rate.accuracy:>8.1%}  {interval:<16}  {always['D']:>8.1%}  {best}"
            f" {always[best]:.1%}"
        )


def _parity(chosen: argparse.Namespace) -> Output:
    from lm2.weights.released import parity

    found = parity(chosen.file)
    words = (
        f"largest differences over {found.segments} segments: logits {found.logits:.2e}, gates {found.gates:.2e}, bank"
        f" {found.bank:.2e}"
    )
    same = found.worst <= _TOLERANCE
    return Output(
        found={**asdict(found), "tolerance": _TOLERANCE, "same": same},
        words=[words],
        code=Exit.DONE if same else Exit.FAILED,
    )
