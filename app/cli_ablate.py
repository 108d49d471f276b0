"""`lm2 ablate` and `lm2 experiment`: interventions on one text, and experiments over many questions."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli_arguments import add_device, read_spec, task_named

if TYPE_CHECKING:
    from lm2.checkpoint import Checkpoint
    from lm2.spec import RunSpec
    from probes.experiments import ExperimentSpec, Report
    from probes.tables import Cell, Findings


def add_ablate(commands: "argparse._SubParsersAction") -> None:
    one = commands.add_parser("ablate", help="run a spec of the workbench again: one text under interventions, or an experiment")
    one.add_argument("spec", type=Path, metavar="SPEC.json", help="a run's or an experiment's spec, as the screens hand it out")
    one.add_argument("--show", type=int, default=10, metavar="N", help="tokens to list whose prediction changed most (default 10)")
    _output(one)
    one.set_defaults(command=_ablate)


def add_experiment(commands: "argparse._SubParsersAction") -> None:
    one = commands.add_parser("experiment", help="ablate a memory over many questions, beside a control; `lm2 experiment list` names them")
    one.add_argument("name", help="policies, gates, swap, ... or list")
    one.add_argument("--checkpoint", help="bundled name or path")
    one.add_argument("--task", default="qa1", help="questions of this bAbI task, held out (default qa1)")
    one.add_argument("--questions", type=int, default=64, metavar="N", help="the last one of each story first (default 64)")
    one.add_argument("--segment-length", type=int, help="tokens (default: the checkpoint's own)")
    one.add_argument("--seed", type=int, default=0, help="for whatever is drawn (default 0)")
    _output(one)
    one.set_defaults(command=_experiment)


def _output(parser: argparse.ArgumentParser) -> None:
    add_device(parser)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the result, with its spec and digests")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _ablate(chosen: argparse.Namespace) -> None:
    from lm2.checkpoint import load
    from lm2.spec import RunSpec
    from probes.experiments import ExperimentSpec

    values = read_spec(chosen.spec)
    spec = (ExperimentSpec if "experiment" in values else RunSpec).from_json(values)
    checkpoint = load(spec.checkpoint, chosen.device, chosen.dtype)
    if isinstance(spec, RunSpec):
        _by_hand(checkpoint, spec, chosen)
    else:
        _perform(checkpoint, spec, chosen)


def _experiment(chosen: argparse.Namespace) -> None:
    from lm2.checkpoint import load
    from probes.experiments import Experiment, ExperimentSpec

    if chosen.name == "list":
        for one in Experiment:
            print(f"{one.key:>12}  {one.question} Control: {one.control}.")
        return
    experiment = Experiment.of(chosen.name)
    if chosen.checkpoint is None:
        raise ValueError("name a model with --checkpoint, e.g. --checkpoint babi-lm2-qa1")
    checkpoint = load(chosen.checkpoint, chosen.device, chosen.dtype)
    spec = ExperimentSpec(
        experiment=experiment, checkpoint=checkpoint.name, task=task_named(chosen.task), questions=chosen.questions,
        segment_length=chosen.segment_length, seed=chosen.seed,
    )  # fmt: skip
    _perform(checkpoint, spec, chosen)


def _perform(checkpoint: "Checkpoint", spec: "ExperimentSpec", chosen: argparse.Namespace) -> None:
    from tqdm import tqdm

    from probes.experiments import perform

    with tqdm(unit="document", disable=None) as bar:
        report = perform(checkpoint, spec, lambda done: bar.update(done - bar.n))
    _hand_out(report.to_json(), chosen)
    if not chosen.json:
        _show(report)


def _show(report: "Report") -> None:
    spec = report.spec
    print(f"{spec.experiment.title}: {spec.experiment.question} {spec.checkpoint} on {report.device}, {report.dtype}; spec {spec.digest[:10]}")
    for found in report.findings:
        show_findings(found)


def show_findings(found: "Findings") -> None:
    """Print one table. Columns of words begin at their left, those of numbers end at their right."""
    print(f"\n{found.title}")
    cells = [found.columns, *[tuple(map(_cell, row)) for row in found.rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(found.columns))]
    words = [at == 0 or any(isinstance(row[at], str) for row in found.rows) for at in range(len(found.columns))]
    for row in cells:
        print("  ".join(cell.ljust(width) if left else cell.rjust(width) for cell, width, left in zip(row, widths, words)).rstrip())
    print(f"{found.note}.")


def _cell(value: "Cell") -> str:
    return ("" if value != value else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}") if isinstance(value, float) else str(value)


def _by_hand(checkpoint: "Checkpoint", spec: "RunSpec", chosen: argparse.Namespace) -> None:
    from dataclasses import replace

    import numpy as np

    from app.views.text import chances
    from lm2.runner import run
    from probes.compare import compare

    found = compare(run(checkpoint, replace(spec, interventions=())), run(checkpoint, spec))
    piece, pieces = checkpoint.tokenizer.piece, found.before.tokens.pieces
    last = {}
    for name, trace in (("before", found.before), ("after", found.after)):
        likely = chances(trace.logits[-1])
        last[name] = [(piece(int(token)), float(likely[token])) for token in np.argsort(-likely)[:5]]
    changed = [{"token": int(at), "piece": pieces[at], "kl": float(found.kl[at])} for at in found.top(max(0, chosen.show))]
    result = {
        "spec": spec.to_json(), "spec_digest": spec.digest, "checkpoint_digest": checkpoint.digest, "device": checkpoint.device,
        "dtype": checkpoint.dtype, "next": last, "kl_mean": float(found.kl.mean()), "most_changed": changed,
    }  # fmt: skip
    _hand_out(result, chosen)
    if chosen.json:
        return
    print(f"{checkpoint.name} on {checkpoint.device}, {checkpoint.dtype}; spec {spec.digest[:10]}, {len(spec.interventions)} interventions")
    for name, tokens in last.items():
        print(f"next token {name}: " + ", ".join(f"{token!r} {chance:.3f}" for token, chance in tokens))
    print(f"KL(clean || ablated), mean over {len(pieces)} tokens: {result['kl_mean']:.4f} nats; largest:")
    for one in changed:
        print(f"  token {one['token']:>5} {one['piece']!r}: {one['kl']:.4f}")


def _hand_out(result: dict[str, Any], chosen: argparse.Namespace) -> None:
    if chosen.out is not None:
        from lm2.atomic import replace_file

        with replace_file(chosen.out) as aside:
            aside.write_text(json.dumps(result, indent=1), encoding="utf-8")
    if chosen.json:
        print(json.dumps(result))
