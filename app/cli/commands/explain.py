"""`lm2 explain`: what reads and writes each slot over many texts, and what a language model makes of it."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import add_spec, asked_in, wanted
from app.cli.shell.output import Output, table_lines, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from probes.explain.explain import Described, Explanations
    from probes.explain.llm import Chat
    from probes.explain.spec import ExplainSpec

_EXAMPLE = "babi-lm2-qa1"


def add_explain(commands: Commands) -> None:
    one = commands.add(
        "explain",
        "find what reads and writes each slot most",
        _explain,
        "A language model can describe the slots. Nothing leaves this machine unless you give an address."
        " If LM2_LLM_KEY is set, it is sent there as a bearer token.",
    )
    add_spec(one, "spec.json, explanations.json, report.md and a language model's replies")
    one.add_argument(
        "--model-url",
        metavar="URL",
        help="OpenAI-compatible address of the language model, such as http://127.0.0.1:8000/v1 (default: none)",
    )
    one.add_argument("--model", metavar="NAME", help="the language model's name there (default: the spec's)")
    one.add_argument(
        "--replay", action="store_true", help="take descriptions from the transcripts in DIR; nobody is contacted"
    )


def _explain(chosen: argparse.Namespace) -> Output:
    from lm2.weights.checkpoint import load
    from probes.explain.explain import describe_slots, explain
    from probes.explain.report import to_json
    from probes.explain.spec import ExplainSpec

    if chosen.example:
        example = ExplainSpec(checkpoint=_EXAMPLE).to_json()
        return Output(found=example, words=[json.dumps(example, indent=1)])
    spec, out = wanted(chosen, "explain", ExplainSpec.from_json, "explanations.json", "transcripts")
    spec = spec if chosen.model is None else replace(spec, model=chosen.model)
    chat = _chat(spec, chosen)
    with asked_in(chosen.spec), progress("document") as told:
        found = explain(load(spec.checkpoint, chosen.device, chosen.dtype), spec, told)
    described: tuple[Described, ...] = ()
    files = _write(out, found, described)
    if chat is not None:
        with progress("reply") as told:
            described = describe_slots(found, chat, told)
        files = _write(out, found, described)
    return Output(found={**to_json(found, described), **written(*files)}, words=_words(found, described, out))


def _words(found: "Explanations", described: "Sequence[Described]", out: Path) -> "Iterator[str]":
    from probes.explain.report import tables

    for table in tables(found, described):
        yield from table_lines(table)
    yield f"\n{out / 'report.md'} has the contexts and every keyword; spec {found.spec.digest[:10]}"


def _chat(spec: "ExplainSpec", chosen: argparse.Namespace) -> "Chat | None":
    """The language model that is asked or replayed; None where none is."""
    from probes.explain.llm import Chat

    if chosen.replay and chosen.model_url is not None:
        raise ValueError("--replay contacts no server: give --replay or --model-url, not both")
    asked = chosen.replay or chosen.model_url is not None
    if spec.model is None:
        if asked:
            raise ValueError("no language model is named: give --model NAME, or name it in the spec")
        return None
    if not asked:
        raise ValueError(
            f"no address of {spec.model!r}: give it with --model-url, or replay its transcripts with --replay"
        )
    return Chat(spec.model, url=chosen.model_url, folder=chosen.out / "transcripts", seed=spec.seed)


def _write(folder: Path, found: "Explanations", described: "Sequence[Described]") -> list[Path]:
    """Spec, numbers and report, each whole or not at all; returns where they are."""
    from lm2.files import replace_file
    from probes.explain.report import markdown, to_json

    command = f"lm2 explain {folder / 'spec.json'} --out {folder}{' --replay' if described else ''}"
    files = {
        "spec.json": json.dumps(found.spec.to_json(), indent=1),
        "explanations.json": json.dumps(to_json(found, described)),
        "report.md": markdown(found, described, command),
    }
    for name, text in files.items():
        with replace_file(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
    return [folder / name for name in files]
