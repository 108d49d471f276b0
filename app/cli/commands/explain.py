"""`lm2 explain`: what reads and writes each slot over many texts, and a language model's descriptions of it."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import (
    add_documents,
    add_spec,
    errors_name,
    load_model,
    read_spec_and_folder,
    with_documents,
)
from app.cli.shell.output import Output, example, skipped_lines, table_lines, write_file, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from probes.explain.explain import Described, Explanations
    from probes.explain.llm import Chat
    from probes.explain.spec import ExplainSpec


def add_explain(commands: Commands) -> None:
    parser = commands.add(
        "explain",
        "find what reads and writes each slot most",
        _explain,
        "A language model can describe the slots. Nothing leaves this machine unless you give an address."
        " If LM2_LLM_KEY is set, it is sent there as a bearer token.",
    )
    add_spec(parser, "spec.json, explanations.json, report.md and a language model's replies")
    add_documents(parser)
    words = "OpenAI-compatible address of the language model, such as http://127.0.0.1:8000/v1 (default: none)"
    parser.add_argument("--model-url", metavar="URL", help=words)
    parser.add_argument("--model", metavar="NAME", help="the language model's name there (default: the spec's)")
    words = "take descriptions from the transcripts in DIR; nobody is contacted"
    parser.add_argument("--replay", action="store_true", help=words)


def _explain(chosen: argparse.Namespace) -> Output:
    from probes.explain.explain import describe_slots, explain
    from probes.explain.report import to_json
    from probes.explain.spec import ExplainSpec

    if chosen.example:
        return example(with_documents(ExplainSpec(checkpoint="babi-lm2-qa1"), chosen))
    spec, out = read_spec_and_folder(chosen, "explain", ExplainSpec.from_json, "explanations.json", "transcripts")
    if spec.file is not None and (chosen.questions, chosen.n) != (None, None):
        raise ValueError(f"the spec reads the texts of {spec.file}, and no questions: leave out --questions and --n")
    spec = with_documents(spec if chosen.model is None else replace(spec, model=chosen.model), chosen)
    chat = _chat(spec, chosen)
    with errors_name(chosen.spec), progress("document") as on_document:
        explanations = explain(load_model(chosen, spec.checkpoint), spec, on_document)
    described: tuple[Described, ...] = ()
    files = _write(out, explanations, described)  # kept if the language model fails
    if chat is not None:
        with progress("reply") as on_reply:
            described = describe_slots(explanations, chat, on_reply)
        files = _write(out, explanations, described)
    document = {**to_json(explanations, described), **written(*files)}
    return Output(document=document, lines=_lines(explanations, described, out))


def _lines(explanations: "Explanations", described: "Sequence[Described]", out: Path) -> "Iterator[str]":
    from probes.explain.report import tables

    yield from skipped_lines(explanations.skipped)
    for table in tables(explanations, described):
        yield from table_lines(table)
    yield f"\n{out / 'report.md'} has the contexts and every keyword; spec {explanations.spec.digest[:10]}"


def _chat(spec: "ExplainSpec", chosen: argparse.Namespace) -> "Chat | None":
    """The language model that is asked or replayed, or None."""
    from probes.explain.llm import Chat

    if chosen.replay and chosen.model_url is not None:
        raise ValueError("--replay contacts no server: give --replay or --model-url, not both")
    described = chosen.replay or chosen.model_url is not None
    if spec.model is None:
        if described:
            raise ValueError("no language model is named: give --model NAME, or name it in the spec")
        return None
    if not described:
        raise ValueError(
            f"no address of {spec.model!r}: give it with --model-url, or replay its transcripts with --replay"
        )
    return Chat(spec.model, url=chosen.model_url, folder=chosen.out / "transcripts", seed=spec.seed)


def _write(folder: Path, explanations: "Explanations", described: "Sequence[Described]") -> list[Path]:
    """Write spec, numbers and report; returns the files."""
    from probes.explain.report import markdown, to_json

    command = f"lm2 explain {folder / 'spec.json'} --out {folder}{' --replay' if described else ''}"
    files = {
        "spec.json": json.dumps(explanations.spec.to_json(), indent=1),
        "explanations.json": json.dumps(to_json(explanations, described)),
        "report.md": markdown(explanations, described, command),
    }
    for name, text in files.items():
        write_file(folder / name, text)
    return [folder / name for name in files]
