"""`lm2 sweep`: every unit of a grid replaced in many documents."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import MOST, add_spec, asked_in, wanted, whole
from app.cli.shell.output import Output, specified, table_files, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import note, progress
from probes.findings import mean

if TYPE_CHECKING:
    from lm2.weights.checkpoint import Checkpoint
    from probes.sweeps.result import SweepResult
    from probes.sweeps.spec import SweepSpec

_EXAMPLE = "babi-lm2-qa1"


def add_sweep(commands: Commands) -> None:
    one = commands.add(
        "sweep",
        "replace slots, heads, blocks or gates one by one",
        _sweep,
        "Every unit is replaced in many documents. A stopped sweep resumes with the same folder.",
    )
    add_spec(one, "results of each document, and tables")
    one.add_argument(
        "--top", type=whole(0, MOST), default=10, metavar="N", help="how many units to list; JSON and tables have all"
    )


def _sweep(chosen: argparse.Namespace) -> Output:
    from lm2.weights.checkpoint import load
    from probes.sweeps.spec import SweepSpec

    if chosen.example:
        example = SweepSpec(checkpoint=_EXAMPLE).to_json()
        return Output(found=example, words=[json.dumps(example, indent=1)])
    spec, out = wanted(chosen, "sweep", SweepSpec.from_json, "sweep.json")
    with asked_in(chosen.spec):
        return _swept(spec, load(spec.checkpoint, chosen.device, chosen.dtype), out, chosen.top)


def _swept(spec: "SweepSpec", checkpoint: "Checkpoint", out: Path, top: int) -> Output:
    from probes.sweeps.sweep import predict, sweep

    cost = predict(spec, checkpoint)
    note(
        f"{cost.documents} documents x {cost.units} units: {cost.naive:,.0f} segments the plain way, about"
        f" {_time(cost.naive_seconds)}; as planned {cost.planned:,.0f}, about {_time(cost.planned_seconds)}, less what"
        f" {out} holds already"
    )
    with progress("document") as told:
        found = sweep(spec, checkpoint, out, told)
    tables = {name: table.to_dict("records") for name, table in found.tables().items()}
    # The values of every single document are in the files alone: they are what is large.
    told_alone = {name: rows for name, rows in tables.items() if name != "values"}
    result = {**specified(spec, checkpoint), **told_alone, **written(*table_files(out, *tables))}
    return Output(found=result, words=_words(found, top, out))


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _words(found: "SweepResult", top: int, out: Path) -> Iterator[str]:
    from probes.stats.effects import Redundancy

    spec, metric = found.spec, found.metric
    documents = f"{len(found.stories)} documents of {len(set(found.stories))} stories"
    documents += (
        f"; {len(found.left_out)} left out, which lack the segments or another story to take from"
        if found.left_out
        else ""
    )
    yield (
        f"{spec.checkpoint} on {found.device}, {found.dtype}: {spec.grid.value}, {spec.replacement.value},"
        f" qa{spec.task}, {documents}"
    )
    yield f"change of {metric.label}, mean with 95 % interval clustered by story"
    if found.screening is not None:
        screen = found.screening
        counted = f"{len(found.measured)} of {len(found.parts)} units measured"
        yield f"screened: r {screen.r:.2f}, slope {screen.slope:.2f} of measured on screened effects; {counted}"
    ranking, effects = found.ranking(), dict(zip(found.measured, found.effects(metric)))
    if ranking is None:
        yield (
            "no ranking: the estimates do not agree with the measurements, so units that matter may have been missed"
        )
    for unit in (ranking or ())[:top]:
        effect = effects[unit]
        yield f"  {found.parts[unit].label:<24} {mean(effect):+.3f}  q {effect.q:.3f}"
    for joint, effect in zip(found.joints, found.joint_effects(metric)):
        beside = f"   sum of single effects {mean(effect.singles):+.3f}" if isinstance(effect, Redundancy) else ""
        yield (
            f"  {joint.label + ', at once':<24}"
            f" {mean(effect.joint if isinstance(effect, Redundancy) else effect):+.3f}{beside}"
        )
    yield f"{out} has values, units, joints and curves as .csv and .parquet; spec {spec.digest[:10]}"
