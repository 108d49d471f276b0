"""`lm2 ablate` and `lm2 experiment`: interventions on one text, and experiments over many questions."""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.shell.arguments import (
    MOST,
    add_checkpoint,
    add_device,
    add_questions,
    add_seed,
    add_segment_length,
    check_file,
    errors_name,
    load_model,
    read_spec,
    whole_number,
)
from app.cli.shell.output import Output, provenance, table_lines, write_file, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress
from probes.experiments.registry import EXPERIMENTS, experiment

if TYPE_CHECKING:
    from lm2.runs.spec import RunSpec
    from lm2.weights.checkpoint import Checkpoint
    from probes.experiments.experiment import ExperimentReport, ExperimentSpec
    from probes.experiments.side_by_side import SeedsReport


def add_ablate(commands: Commands) -> None:
    parser = commands.add("ablate", "run a spec exported by a screen: a text or an experiment", _ablate)
    words = "spec of a run or an experiment, as exported by a screen"
    parser.add_argument("spec", type=Path, metavar="SPEC.json", help=words)
    words = "tokens to list, largest change of prediction first"
    parser.add_argument("--show", type=whole_number(0, MOST), default=10, metavar="N", help=words)
    add_device(parser)
    _add_out(parser)


def add_experiment(commands: Commands) -> None:
    parser = commands.add("experiment", "ablate the memory over many questions, with a control", _experiment)
    words = f"list describes each: {', '.join(EXPERIMENTS)}"
    parser.add_argument("name", choices=("list", *EXPERIMENTS), metavar="NAME", help=words)
    add_checkpoint(parser, required=False)
    words = "seeds of one recipe, instead of --checkpoint: the spread between them beside each one's interval"
    parser.add_argument("--checkpoints", metavar="A,B,C", help=words)
    add_segment_length(parser)
    add_questions(parser)
    add_seed(parser, "of all random draws")
    _add_out(parser)


def _add_out(parser: argparse.ArgumentParser) -> None:
    words = "write the result, with its spec and digests (default: not written)"
    parser.add_argument("--out", type=Path, metavar="FILE.json", help=words)


def _ablate(chosen: argparse.Namespace) -> Output:
    from lm2.runs.spec import RunSpec
    from probes.experiments.experiment import ExperimentSpec

    check_file(chosen.out)
    spec = read_spec(
        chosen.spec, lambda values: (ExperimentSpec if "experiment" in values else RunSpec).from_json(values)
    )
    with errors_name(chosen.spec):
        checkpoint = load_model(chosen, spec.checkpoint)
        if isinstance(spec, RunSpec):
            return _compare(checkpoint, spec, chosen)
        return _perform(checkpoint, spec, chosen.out)


def _experiment(chosen: argparse.Namespace) -> Output:
    from lm2.tasks.sets.question_set import pinned
    from probes.experiments.experiment import ExperimentSpec

    if chosen.name == "list":
        every = list(map(experiment, EXPERIMENTS))
        fields = ("title", "question", "control")
        return Output(
            document=[{"experiment": each.key, **{name: getattr(each, name) for name in fields}} for each in every],
            lines=[f"{each.key:>12}  {each.question} Control: {each.control}." for each in every],
        )
    check_file(chosen.out)
    if (chosen.checkpoint is None) == (chosen.checkpoints is None):
        raise ValueError(
            "name a model with --checkpoint, e.g. --checkpoint babi-lm2-qa1, or seeds of one recipe with --checkpoints"
        )
    names = [chosen.checkpoint] if chosen.checkpoints is None else chosen.checkpoints.split(",")
    checkpoints = [load_model(chosen, name) for name in names]
    specs = [
        ExperimentSpec(
            experiment=chosen.name,
            checkpoint=checkpoint.name,
            questions=pinned(chosen.questions),
            count=chosen.n,
            segment_length=chosen.segment_length,
            seed=chosen.seed,
        )
        for checkpoint in checkpoints
    ]
    if chosen.checkpoints is None:
        return _perform(checkpoints[0], specs[0], chosen.out)
    return _perform_on_seeds(checkpoints, specs, chosen.out)


def _perform(checkpoint: "Checkpoint", spec: "ExperimentSpec", out: Path | None) -> Output:
    from probes.experiments.experiment import perform

    with progress("document") as on_document:
        report = perform(checkpoint, spec, on_document)
    return Output(document=_saved(report.to_json(), out), lines=_report_lines(report))


def _perform_on_seeds(
    checkpoints: Sequence["Checkpoint"], specs: Sequence["ExperimentSpec"], out: Path | None
) -> Output:
    from probes.experiments.experiment import perform
    from probes.experiments.side_by_side import SeedsReport, check_seeds

    check_seeds(checkpoints)
    reports = []
    for checkpoint, spec in zip(checkpoints, specs):
        with progress("document", checkpoint.name) as on_document:
            reports.append(perform(checkpoint, spec, on_document))
    report = SeedsReport(reports=tuple(reports))
    return Output(document=_saved(report.to_json(), out), lines=_seeds_lines(report))


def _seeds_lines(report: "SeedsReport") -> Iterator[str]:
    definition = experiment(report.reports[0].spec.experiment)
    yield f"{definition.title}: {definition.question}"
    for each in report.reports:
        yield f"{each.spec.checkpoint} on {each.device}, {each.dtype}; spec {each.spec.digest[:10]}"
    for findings in report.findings:
        yield from table_lines(findings)
    yield from (f"{sentence}." for sentence in report.apart)


def _report_lines(report: "ExperimentReport") -> Iterator[str]:
    spec = report.spec
    place = f"{spec.checkpoint} on {report.device}, {report.dtype}; spec {spec.digest[:10]}"
    definition = experiment(spec.experiment)
    yield f"{definition.title}: {definition.question} {place}"
    for findings in report.findings:
        yield from table_lines(findings)


def _compare(checkpoint: "Checkpoint", spec: "RunSpec", chosen: argparse.Namespace) -> Output:
    import numpy as np

    from app.views.run.text import softmax
    from lm2.runs.runner import run
    from probes.causal.compare import compare

    with progress("segment", "clean") as on_segment:
        before = run(checkpoint, replace(spec, interventions=()), on_segment=on_segment)
    with progress("segment", "ablated") as on_segment:
        after = run(checkpoint, spec, on_segment=on_segment)
    comparison = compare(before, after)
    kl, pieces = comparison.kl, before.tokens.shown
    likeliest = {}
    for name, trace in (("before", before), ("after", after)):
        probabilities = softmax(trace.logits[-1])
        likeliest[name] = [
            (checkpoint.tokenizer.shown(int(token)), float(probabilities[token]))
            for token in np.argsort(-probabilities)[:5]
        ]
    changed = [{"token": int(i), "piece": pieces[i], "kl": float(kl[i])} for i in comparison.top(chosen.show)]
    result = {**provenance(spec, checkpoint), "next": likeliest, "kl_mean": float(kl.mean()), "most_changed": changed}
    return Output(document=_saved(result, chosen.out), lines=_change_lines(checkpoint, spec, result, len(pieces)))


def _change_lines(checkpoint: "Checkpoint", spec: "RunSpec", result: dict[str, Any], count: int) -> Iterator[str]:
    yield (
        f"{checkpoint.name} on {checkpoint.device}, {checkpoint.dtype}; spec {spec.digest[:10]},"
        f" {len(spec.interventions)} interventions"
    )
    for name, tokens in result["next"].items():
        yield f"next token {name}: " + ", ".join(f"{piece!r} {probability:.3f}" for piece, probability in tokens)
    yield f"KL(clean || ablated), mean over {count} tokens: {result['kl_mean']:.4f} nats; largest:"
    for token in result["most_changed"]:
        yield f"  token {token['token']:>5} {token['piece']!r}: {token['kl']:.4f}"


def _saved(result: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """The result, after it was written to `out`, if there is one; then with the file's digest."""
    if out is None:
        return result
    write_file(out, json.dumps(result, indent=1))
    return {**result, **written(out)}
