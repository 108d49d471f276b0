"""`lm2 sweep`: replaces every unit of a grid in many documents."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import MOST, add_spec, errors_name, load_model, read_spec_and_folder, whole_number
from app.cli.shell.output import Output, example, provenance, table_files, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import note, progress
from probes.findings import mean

if TYPE_CHECKING:
    from lm2.weights.checkpoint import Checkpoint
    from probes.sweeps.result import SweepResult
    from probes.sweeps.spec import SweepSpec


def add_sweep(commands: Commands) -> None:
    parser = commands.add(
        "sweep",
        "replace slots, heads, blocks or gates one by one",
        _sweep,
        "Every unit is replaced in many documents. A stopped sweep resumes with the same folder.",
    )
    add_spec(parser, "results of each document, and tables")
    words = "how many units to list; JSON and tables have all"
    parser.add_argument("--top", type=whole_number(0, MOST), default=10, metavar="N", help=words)


def _sweep(chosen: argparse.Namespace) -> Output:
    from probes.sweeps.spec import SweepSpec

    if chosen.example:
        return example(SweepSpec(checkpoint="babi-lm2-qa1"))
    spec, out = read_spec_and_folder(chosen, "sweep", SweepSpec.from_json, "sweep.json")
    with errors_name(chosen.spec):
        return _run_sweep(spec, load_model(chosen, spec.checkpoint), out, chosen.top)


def _run_sweep(spec: "SweepSpec", checkpoint: "Checkpoint", out: Path, top: int) -> Output:
    from probes.sweeps.sweep import predict, sweep

    cost = predict(spec, checkpoint)
    note(
        f"{cost.documents} documents x {cost.units} units: {cost.naive:,.0f} segments the plain way, about"
        f" {_time(cost.naive_seconds)}; as planned {cost.planned:,.0f}, about {_time(cost.planned_seconds)}, less what"
        f" {out} holds already"
    )
    with progress("document") as on_document:
        result = sweep(spec, checkpoint, out, on_document)
    tables = {name: table.to_dict("records") for name, table in result.tables().items()}
    files = written(*table_files(out, *tables))
    del tables["values"]  # of every document: large, and in the files only
    return Output(document={**provenance(spec, checkpoint), **tables, **files}, lines=_lines(result, top, out))


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _lines(result: "SweepResult", top: int, out: Path) -> Iterator[str]:
    from probes.stats.effects import Redundancy

    spec, metric = result.spec, result.metric
    documents = f"{len(result.stories)} documents of {len(set(result.stories))} stories"
    if result.left_out:
        documents += (
            f"; {len(result.left_out)} left out for want of segments, of another story to take from, or of tokens"
        )
    yield (
        f"{spec.checkpoint} on {result.device}, {result.dtype}: {spec.grid.value}, {spec.replacement.value},"
        f" {spec.questions}, {documents}"
    )
    yield f"change of {result.label(metric)}, mean with 95 % interval clustered by story"
    if result.screening is not None:
        screen = result.screening
        counted = f"{len(result.measured)} of {len(result.parts)} units measured"
        yield f"screened: r {screen.r:.2f}, slope {screen.slope:.2f} of measured on screened effects; {counted}"
    ranking, effects = result.ranking(), dict(zip(result.measured, result.effects(metric)))
    if ranking is None:
        yield (
            "no ranking: the estimates do not agree with the measurements, so units that matter may have been missed"
        )
    for unit in (ranking or ())[:top]:
        effect = effects[unit]
        yield f"  {result.parts[unit].label:<24} {mean(effect):+.3f}  q {effect.q:.3f}"
    for joint, effect in zip(result.joints, result.joint_effects(metric)):
        beside = f"   sum of single effects {mean(effect.singles):+.3f}" if isinstance(effect, Redundancy) else ""
        yield (
            f"  {joint.label + ', at once':<24}"
            f" {mean(effect.joint if isinstance(effect, Redundancy) else effect):+.3f}{beside}"
        )
    yield f"{out} has values, units, joints and curves as .csv and .parquet; spec {spec.digest[:10]}"
