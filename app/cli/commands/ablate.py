"""`lm2 ablate` and `lm2 experiment`: interventions on one text, and experiments over many questions."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.shell.arguments import (
    MOST,
    add_checkpoint,
    add_device,
    add_seed,
    add_segment_length,
    asked_in,
    check_file,
    spec_in,
    task_named,
    whole,
)
from app.cli.shell.output import Output, specified, table_lines, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress
from probes.experiments.registry import EXPERIMENTS, experiment

if TYPE_CHECKING:
    from lm2.runs.spec import RunSpec
    from lm2.weights.checkpoint import Checkpoint
    from probes.experiments.experiment import ExperimentReport, ExperimentSpec


def add_ablate(commands: Commands) -> None:
    one = commands.add("ablate", "run a spec exported by a screen: a text or an experiment", _ablate)
    one.add_argument(
        "spec", type=Path, metavar="SPEC.json", help="spec of a run or an experiment, as exported by a screen"
    )
    one.add_argument(
        "--show",
        type=whole(0, MOST),
        default=10,
        metavar="N",
        help="tokens to list, largest change of prediction first",
    )
    add_device(one)
    _add_out(one)


def add_experiment(commands: Commands) -> None:
    one = commands.add("experiment", "ablate the memory over many questions, with a control", _experiment)
    one.add_argument(
        "name", choices=("list", *EXPERIMENTS), metavar="NAME", help=f"list describes each: {', '.join(EXPERIMENTS)}"
    )
    add_checkpoint(one, required=False)
    add_segment_length(one)
    one.add_argument("--task", default="qa1", metavar="qaN", help="held-out questions of this bAbI task, qa1 to qa10")
    one.add_argument(
        "--questions",
        type=whole(1, MOST),
        default=64,
        metavar="N",
        help="their number; the last one of each story first",
    )
    add_seed(one, "of all random draws")
    _add_out(one)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.json",
        help="write the result, with its spec and digests (default: not written)",
    )


def _ablate(chosen: argparse.Namespace) -> Output:
    from lm2.runs.spec import RunSpec
    from lm2.weights.checkpoint import load
    from probes.experiments.experiment import ExperimentSpec

    check_file(chosen.out)
    spec = spec_in(
        chosen.spec, lambda values: (ExperimentSpec if "experiment" in values else RunSpec).from_json(values)
    )
    with asked_in(chosen.spec):
        checkpoint = load(spec.checkpoint, chosen.device, chosen.dtype)
        if isinstance(spec, RunSpec):
            return _by_hand(checkpoint, spec, chosen)
        return _perform(checkpoint, spec, chosen.out)


def _experiment(chosen: argparse.Namespace) -> Output:
    from lm2.weights.checkpoint import load
    from probes.experiments.experiment import ExperimentSpec

    if chosen.name == "list":
        return Output(
            found=[
                {"experiment": one.key, "title": one.title, "question": one.question, "control": one.control}
                for one in map(experiment, EXPERIMENTS)
            ],
            words=(f"{one.key:>12}  {one.question} Control: {one.control}." for one in map(experiment, EXPERIMENTS)),
        )
    check_file(chosen.out)
    if chosen.checkpoint is None:
        raise ValueError("name a model with --checkpoint, e.g. --checkpoint babi-lm2-qa1")
    checkpoint = load(chosen.checkpoint, chosen.device, chosen.dtype)
    spec = ExperimentSpec(
        experiment=chosen.name,
        checkpoint=checkpoint.name,
        task=task_named(chosen.task),
        questions=chosen.questions,
        segment_length=chosen.segment_length,
        seed=chosen.seed,
    )
    return _perform(checkpoint, spec, chosen.out)


def _perform(checkpoint: "Checkpoint", spec: "ExperimentSpec", out: Path | None) -> Output:
    from probes.experiments.experiment import perform

    with progress("document") as on_document:
        report = perform(checkpoint, spec, on_document)
    return Output(found=_kept(report.to_json(), out), words=_report(report))


def _report(report: "ExperimentReport") -> Iterator[str]:
    spec = report.spec
    place = f"{spec.checkpoint} on {report.device}, {report.dtype}; spec {spec.digest[:10]}"
    asked = experiment(spec.experiment)
    yield f"{asked.title}: {asked.question} {place}"
    for findings in report.findings:
        yield from table_lines(findings)


def _by_hand(checkpoint: "Checkpoint", spec: "RunSpec", chosen: argparse.Namespace) -> Output:
    import numpy as np

    from app.views.run.text import chances
    from lm2.runs.runner import run
    from probes.causal.compare import compare

    with progress("segment", "clean") as told:
        clean = run(checkpoint, replace(spec, interventions=()), on_segment=told)
    with progress("segment", "ablated") as told:
        found = compare(clean, run(checkpoint, spec, on_segment=told))
    piece, pieces = checkpoint.tokenizer.shown, found.before.tokens.shown
    last = {}
    for name, trace in (("before", found.before), ("after", found.after)):
        likely = chances(trace.logits[-1])
        last[name] = [(piece(int(token)), float(likely[token])) for token in np.argsort(-likely)[:5]]
    changed = [
        {"token": int(at), "piece": pieces[at], "kl": float(found.kl[at])} for at in found.top(max(0, chosen.show))
    ]
    result = {**specified(spec, checkpoint), "next": last, "kl_mean": float(found.kl.mean()), "most_changed": changed}
    return Output(found=_kept(result, chosen.out), words=_changes(checkpoint, spec, result, len(pieces)))


def _changes(checkpoint: "Checkpoint", spec: "RunSpec", result: dict[str, Any], tokens: int) -> Iterator[str]:
    yield (
        f"{checkpoint.name} on {checkpoint.device}, {checkpoint.dtype}; spec {spec.digest[:10]},"
        f" {len(spec.interventions)} interventions"
    )
    for name, likely in result["next"].items():
        yield f"next token {name}: " + ", ".join(f"{token!r} {chance:.3f}" for token, chance in likely)
    yield f"KL(clean || ablated), mean over {tokens} tokens: {result['kl_mean']:.4f} nats; largest:"
    for one in result["most_changed"]:
        yield f"  token {one['token']:>5} {one['piece']!r}: {one['kl']:.4f}"


def _kept(result: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """The result, which is written where that was asked for; then with what was written."""
    if out is None:
        return result
    from lm2.files import replace_file

    with replace_file(out) as aside:
        aside.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return {**result, **written(out)}
