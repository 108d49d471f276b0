"""`lm2 sweep`: every unit of a grid replaced in many documents."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli_arguments import add_device, read_spec
from app.cli_progress import progress

if TYPE_CHECKING:
    from probes.effects import Effect
    from probes.sweep_result import SweepResult

_EXAMPLE = "babi-lm2-qa1"


def add_sweep(commands: "argparse._SubParsersAction") -> None:
    one = commands.add_parser("sweep", help="replace slots, heads, blocks or gates one by one in many documents; goes on where it was stopped")
    one.add_argument("spec", type=Path, nargs="?", metavar="SPEC.json", help="a sweep's spec; --example prints one to begin with")
    one.add_argument("--out", type=Path, metavar="DIR", help="keeps each document's results as they come, and the tables; the same folder goes on")
    one.add_argument("--top", type=int, default=10, metavar="N", help="units to list (default 10)")
    add_device(one)
    one.add_argument("--example", action="store_true", help="print a spec and do nothing")
    one.set_defaults(command=_sweep)


def _sweep(chosen: argparse.Namespace) -> None:
    from lm2.checkpoint import load
    from probes.sweep_spec import SweepSpec
    from probes.sweeps import predict, sweep

    if chosen.example:
        print(json.dumps(SweepSpec(checkpoint=_EXAMPLE).to_json(), indent=1))
        return
    if chosen.spec is None or chosen.out is None:
        raise ValueError("a sweep needs SPEC.json and --out DIR; lm2 sweep --example prints a spec to begin with")
    spec = SweepSpec.from_json(read_spec(chosen.spec))
    checkpoint = load(spec.checkpoint, chosen.device, chosen.dtype)
    cost = predict(spec, checkpoint)
    print(
        f"{cost.documents} documents x {cost.units} units: {cost.naive:,.0f} segments the plain way, about {_time(cost.naive_seconds)}; "
        f"as planned {cost.planned:,.0f}, about {_time(cost.planned_seconds)}, less what {chosen.out} holds already",
        flush=True,
    )
    with progress("document") as told:
        found = sweep(spec, checkpoint, chosen.out, told)
    _show(found, chosen.top)
    print(f"{chosen.out} has values, units, joints and curves as .csv and .parquet; spec {spec.digest[:10]}")


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _show(found: "SweepResult", top: int) -> None:
    from probes.effects import Redundancy

    spec, metric = found.spec, found.metric
    documents = f"{len(found.stories)} documents of {len(set(found.stories))} stories"
    documents += f"; {len(found.left_out)} left out, which lack the segments or another story to take from" if found.left_out else ""
    print(f"{spec.checkpoint} on {found.device}, {found.dtype}: {spec.grid.value}, {spec.replacement.value}, qa{spec.task}, {documents}")
    print(f"change of {metric.label}, mean with 95 % interval clustered by story")
    if found.screening is not None:
        screen = found.screening
        counted = f"{len(found.measured)} of {len(found.parts)} units measured"
        print(f"screened: r {screen.r:.2f}, slope {screen.slope:.2f} of measured on screened effects; {counted}")
    ranking, effects = found.ranking(), dict(zip(found.measured, found.effects(metric)))
    if ranking is None:
        print("no ranking: the screen may have missed what matters, since it does not agree with what was measured")
    for unit in (ranking or ())[:top]:
        effect = effects[unit]
        print(f"  {found.parts[unit].label:<24} {_interval(effect)}  q {effect.q:.3f}")
    for joint, effect in zip(found.joints, found.joint_effects(metric)):
        beside = f"   sum of single effects {_interval(effect.singles)}" if isinstance(effect, Redundancy) else ""
        print(f"  {joint.label + ', at once':<24} {_interval(effect.joint if isinstance(effect, Redundancy) else effect)}{beside}")


def _interval(effect: "Effect") -> str:
    return f"{effect.mean:+.3f} ({effect.low:+.3f} to {effect.high:+.3f})"
