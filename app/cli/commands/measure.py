"""`lm2 recall`, `lm2 mmlu` and `lm2 parity`: accuracy, and agreement with the released code."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import (
    MOST,
    add_checkpoint,
    add_questions,
    add_segment_length,
    load_model,
    parse_task,
    whole_number,
)
from app.cli.shell.errors import Exit
from app.cli.shell.output import Output, identity
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress

if TYPE_CHECKING:
    from lm2.evaluation.recall import RecallReport
    from lm2.tasks.mmlu import Tally
    from lm2.tasks.prompt import Prompt

_TOLERANCE = 1e-5
"""Rounding in float32."""


def add_recall(commands: Commands) -> None:
    parser = commands.add("recall", "accuracy on the questions of a set, by distance in segments", _recall)
    add_checkpoint(parser)
    add_segment_length(parser)
    add_questions(parser)
    words = "a bAbI .txt file, folder or archive in the official format, whose questions are asked instead of a set's"
    parser.add_argument("--babi", type=Path, metavar="PATH", help=words)
    words = "of --babi, only this task of a folder or archive, qa1 to qa10 (default: all)"
    parser.add_argument("--task", metavar="qaN", help=words)
    words = "frozen: nothing is written; reset: a fresh bank at the question"
    parser.add_argument("--memory", choices=("on", "frozen", "reset"), default="on", help=words)
    words = "of --babi, only the last tenth of the stories, on which the bundled models were not trained"
    parser.add_argument("--validation", action="store_true", help=words)
    words = "of --babi, insert N more statements about others between facts and question, qa1 only (default: none)"
    parser.add_argument("--stretch", type=whole_number(0, MOST), metavar="N", help=words)


def add_mmlu(commands: Commands) -> None:
    parser = commands.add(
        "mmlu",
        "accuracy on MMLU, five-shot, by category",
        _mmlu,
        "The answer is the letter with the largest likelihood.",
    )
    add_checkpoint(parser)
    add_segment_length(parser)
    words = "folder or tar archive with dev/SUBJECT_dev.csv, ..."
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help=words)
    parser.add_argument("--split", choices=("val", "test"), default="val", help="which set of questions")
    words = "only the first N questions of each subject (default: all)"
    parser.add_argument("--samples", type=whole_number(1, MOST), metavar="N", help=words)


def add_parity(commands: Commands) -> None:
    parser = commands.add(
        "parity",
        "compare the RELEASE model with outputs of the released code",
        _parity,
        f"The exit code is 1 if a logit, gate or bank differs by more than {_TOLERANCE:g}.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.safetensors", help="recorded inputs, weights and outputs")


def _recall(chosen: argparse.Namespace) -> Output:
    from lm2.evaluation.recall import Memory, recall

    name, prompts = _recalled(chosen)
    checkpoint = load_model(chosen, chosen.checkpoint)
    with progress("question") as on_progress:
        report = recall(
            checkpoint,
            prompts,
            Memory(chosen.memory),
            segment_length=chosen.segment_length,
            on_question=partial(on_progress, total=len(prompts)),
        )
    rows = [{"distance": distance, **asdict(rate)} for distance, rate in report.by_distance.items()]
    document = {
        "checkpoint": checkpoint.name,
        **identity(checkpoint),
        "questions": name,
        "memory": chosen.memory,
        "segment_length": report.segment_length,
        **asdict(report.overall),
        "by_distance": rows,
        "skipped": report.skipped,
    }
    return Output(document=document, lines=_recall_lines(checkpoint.name, report))


def _recalled(chosen: argparse.Namespace) -> "tuple[str, Sequence[Prompt]]":
    """The name of what is asked, and the questions."""
    from lm2.tasks import babi, babi_files
    from lm2.tasks.sets.question_set import questions

    if chosen.babi is None:
        if chosen.task or chosen.validation or chosen.stretch is not None:
            raise ValueError("--task, --validation and --stretch are of a bAbI file's stories: give it with --babi")
        asked = questions(chosen.questions, chosen.n)
        return asked.name, asked.prompts
    stories = babi_files.read(chosen.babi, task=parse_task(chosen.task) if chosen.task else None)
    if chosen.validation:
        stories = babi.split(stories)[1]
    if chosen.stretch is not None:
        stories = babi.stretch_all(stories, statements=chosen.stretch)
    return str(chosen.babi), list(babi.prompts(stories))[: chosen.n]


def _recall_lines(name: str, report: "RecallReport") -> Iterator[str]:
    yield f"{name}, memory {report.memory.value}, segments of {report.segment_length} tokens"
    if report.skipped:
        yield f"{len(report.skipped)} skipped, such as {report.skipped[0]}"
    yield "distance  questions  stories  accuracy  95 % interval"
    for distance, rate in [("all", report.overall), *report.by_distance.items()]:
        yield (
            f"{distance!s:>8}  {rate.n:>9}  {rate.groups:>7}  {rate.accuracy:>8.1%}  {rate.low:.1%} to {rate.high:.1%}"
        )
    unknown = report.overall.n - sum(rate.n for rate in report.by_distance.values())
    if unknown:
        yield f"{unknown} of {report.overall.n} questions name no facts: their distance is not known"


def _mmlu(chosen: argparse.Namespace) -> Output:
    from lm2.tasks import mmlu

    subjects = [
        replace(subject, questions=subject.questions[: chosen.samples])
        for subject in mmlu.read(chosen.data, mmlu.Split(chosen.split))
    ]
    checkpoint = load_model(chosen, chosen.checkpoint)
    total = sum(len(subject.questions) for subject in subjects)
    with progress("question") as on_progress:
        on_question = partial(on_progress, total=total)
        report = mmlu.examine(checkpoint, subjects, segment_length=chosen.segment_length, on_question=on_question)
    rows = {"all": report.overall, **{category.value: tally for category, tally in report.by_category.items()}}
    title = f"{checkpoint.name}, MMLU {chosen.split}, {mmlu.SHOTS}-shot"
    document = {name: {**asdict(tally.rate), "always": tally.constants} for name, tally in rows.items()}
    return Output(document=document, lines=_mmlu_lines(title, rows))


def _mmlu_lines(title: str, rows: "dict[str, Tally]") -> Iterator[str]:
    yield title
    yield "category           questions  accuracy  95 % interval     always D  best letter"
    for name, tally in rows.items():
        rate, best, always = tally.rate, tally.best_constant, tally.constants
        interval = f"{rate.low:.1%} to {rate.high:.1%}"
        yield (
            f"{name:<17}  {rate.n:>9}  {rate.accuracy:>8.1%}  {interval:<16}  {always['D']:>8.1%}  {best}"
            f" {always[best]:.1%}"
        )


def _parity(chosen: argparse.Namespace) -> Output:
    from lm2.weights.released import parity

    largest = parity(chosen.file)
    line = f"largest differences over {largest.segments} segments: logits {largest.logits:.2e}"
    line += f", gates {largest.gates:.2e}, bank {largest.bank:.2e}"
    same = largest.worst <= _TOLERANCE
    return Output(
        document={**asdict(largest), "tolerance": _TOLERANCE, "same": same},
        lines=[line],
        code=Exit.DONE if same else Exit.FAILED,
    )
