"""`lm2 questions`: what a question set holds, written to a file, and the sets that are built in."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import MOST, add_checkpoint, add_segment_length, check_file, load_model, whole_number
from app.cli.shell.errors import Exit
from app.cli.shell.output import Output, identity, written
from app.cli.shell.parser import Commands

if TYPE_CHECKING:
    from lm2.tasks.prompt import Prompt
    from lm2.tasks.sets.description import Description, Spread

_MOST_NAMES = 8
"""Names of labels that a line lists."""


def add_question_sets(commands: Commands) -> None:
    branch = commands.branch("questions", "check, make and list question sets", "COMMAND")
    parser = branch.add(
        "check",
        "count what a question set holds, for one model, and tell every mistake of a file with its line",
        _check,
        "The exit code is 2 if the file has mistakes. The columns of a file are context, question, answers and, if any,"
        " facts, statements, rivals or choices, group and labels.",
    )
    parser.add_argument("questions", metavar="SET", help="a file, or a built-in set such as pairs:?n=8")
    add_checkpoint(parser)
    add_segment_length(parser)
    _add_count(parser)
    parser = branch.add("make", "write the questions of a set to a file", _make)
    parser.add_argument("questions", metavar="SET", help="a built-in set such as simulated:qa1, or a file")
    _add_count(parser)
    words = "the file to write, ending in .jsonl, .csv or .parquet"
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help=words)
    branch.add("list", "the built-in sets, with their options and defaults", _list)


def _add_count(parser: argparse.ArgumentParser) -> None:
    words = "only the first N questions (default: all of a file, 64 of a built-in set)"
    parser.add_argument("-n", "--n", type=whole_number(1, MOST), metavar="N", help=words)


def _check(chosen: argparse.Namespace) -> Output:
    from lm2.tasks.sets.description import describe

    name, prompts, mistakes = _read(chosen.questions, chosen.n)
    checkpoint = load_model(chosen, chosen.checkpoint)
    description, refusal = None, ""
    try:
        description = describe(checkpoint, prompts, chosen.segment_length) if prompts else None
    except ValueError as error:
        if not mistakes:
            raise
        refusal = str(error)
    segment_length = chosen.segment_length or checkpoint.config.segment_length
    document = {
        "questions": name,
        "checkpoint": checkpoint.name,
        **identity(checkpoint),
        "segment_length": segment_length,
        **(_document(description) if description else {"items": 0, "refusal": refusal}),
        "mistakes": list(mistakes),
    }
    title = f"{name}, read by {checkpoint.name} in segments of {segment_length} tokens"
    return Output(
        document=document,
        lines=_check_lines(title, description, refusal, mistakes),
        code=Exit.MISTAKE if mistakes else Exit.DONE,
    )


def _read(name: str, count: int | None) -> "tuple[str, Sequence[Prompt], Sequence[str]]":
    """A set's name, questions and mistakes; those of a file with mistakes are all that are right."""
    from lm2.tasks.sets import files
    from lm2.tasks.sets.question_set import file_of, pinned, questions

    path = file_of(name)
    if path is not None:
        name = pinned(name)
        file = files.read(Path(path))
        if file.mistakes:
            return name, file.prompts, file.mistakes
    question_set = questions(name, count)
    return question_set.name, question_set.prompts, ()


def _document(description: "Description") -> dict[str, object]:
    return {name: value._asdict() if hasattr(value, "_asdict") else value for name, value in vars(description).items()}


def _check_lines(title: str, description: "Description | None", refusal: str, mistakes: Sequence[str]) -> Iterator[str]:
    yield title
    if description is None:
        yield f"items     none{f': {refusal}' if refusal else ''}"
    else:
        yield from _description_lines(description)
    yield f"mistakes  {len(mistakes) or 'none'}"
    yield from mistakes


def _description_lines(counts: "Description") -> Iterator[str]:
    names = ", ".join(counts.label_names[:_MOST_NAMES])
    if len(counts.label_names) > _MOST_NAMES:
        names += f" and {len(counts.label_names) - _MOST_NAMES} more"
    yield f"items     {counts.items:,} in {counts.groups:,} groups"
    yield f"segments  {_spread(counts.segments)} an item"
    yield f"context   {_spread(counts.context_tokens)} tokens"
    yield f"answer    {_spread(counts.answer_tokens)} tokens; {counts.one_token_answers:,} answers are one token"
    yield f"facts     {counts.facts:,} items have them"
    yield f"rivals    {counts.rivals:,} items have them"
    yield f"labels    {counts.labels:,} items have them{f': {names}' if names else ''}"
    guess = "" if counts.guess_share is None else f"; one over answer and rivals {counts.guess_share:.1%}"
    yield f"chance    best constant answer {counts.constant!r} {counts.constant_share:.1%}{guess}"
    yield f"skipped   {len(counts.skipped) or 'none'}"
    yield from counts.skipped


def _spread(spread: "Spread") -> str:
    return f"least {spread.least:,}, median {spread.median:,g}, most {spread.most:,}"


def _make(chosen: argparse.Namespace) -> Output:
    from lm2.tasks.sets.files import check_ending
    from lm2.tasks.sets.question_set import questions, write

    check_ending(chosen.out)
    check_file(chosen.out)
    made = questions(chosen.questions, chosen.n)
    write(made.prompts, chosen.out)
    return Output(
        document={"questions": made.name, "items": len(made), "digest": made.digest, **written(chosen.out)},
        lines=[f"{len(made):,} questions of {made.name} written to {chosen.out}"],
    )


def _list(chosen: argparse.Namespace) -> Output:
    from lm2.tasks.sets.built_in import BUILT_IN

    return Output(
        document=[
            {"kind": kind.kind, "form": kind.form, "summary": kind.summary, "options": kind.options()}
            for kind in BUILT_IN.values()
        ],
        lines=_list_lines(),
    )


def _list_lines() -> Iterator[str]:
    from lm2.tasks.sets.built_in import BUILT_IN

    for kind in BUILT_IN.values():
        options = ", ".join(
            name if default is None else f"{name}={default}" for name, default in kind.options().items()
        )
        yield f"{kind.kind + ':':<11} {kind.summary}"
        yield f"{'':11} followed by {kind.form}"
        yield f"{'':11} options: {options or 'none'}"
