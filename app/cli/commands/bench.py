"""`lm2 bench`: what the program's short cuts save, measured beside the long way in the same run."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.cli.shell.arguments import MOST, whole
from app.cli.shell.output import Output
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress

if TYPE_CHECKING:
    from probes.bench.planner import SweepBench
    from probes.bench.probes import ProbesBench


def add_bench(commands: Commands) -> None:
    kinds = commands.branch("bench", "measure what the fast methods save over the plain ones", "WHAT")
    sweep = kinds.add("sweep", "a knock-out sweep: a whole document per unit, and the planner", _sweep)
    sweep.add_argument(
        "--plain",
        type=whole(1, MOST),
        metavar="N",
        help="units to run without the planner; the others are extrapolated (default: all)",
    )
    probes = kinds.add("probes", "logistic probes: one by one with scikit-learn, and all at once", _probes)
    probes.add_argument("--strength", type=float, default=0.01, metavar="C", help="scikit-learn's C of every fit")
    kinds.add("figures", "a heatmap of 512 x 512 for print: matplotlib's imshow, and ours", _figures)


def _figures(chosen: argparse.Namespace) -> Output:
    from app.export.bench import SIDE, bench_figure

    with progress("figure") as told:
        found = bench_figure(told)
    words = [
        f"a heatmap of {SIDE} x {SIDE}, {found.width:g} in wide, to PDF; wall-clock seconds, median of 7",
        f"matplotlib's imshow  {found.plain_seconds:.3f} s",
        f"ours                 {found.own_seconds:.3f} s  {found.ratio:.2f} times as long",
    ]
    return Output(found=found.to_json(), words=words)


def _sweep(chosen: argparse.Namespace) -> Output:
    import torch

    from probes.bench.planner import bench_sweep

    torch.set_num_threads(1)  # CPU seconds of several threads hold what they spend waiting for each other
    with progress("unit", "the long way") as told:
        found = bench_sweep(chosen.plain, told)
    return Output(found=found.to_json(), words=_swept(found))


def _swept(found: "SweepBench") -> Iterator[str]:
    from probes.bench.planner import LAYERS, SEGMENT_LENGTH, SLOTS

    yield (
        f"{found.units} slot x block units at the last segment of a document of {found.tokens} tokens; untrained GATED"
        f" model of {LAYERS} blocks, {SLOTS} slots, segments of {SEGMENT_LENGTH} tokens; CPU seconds of one thread"
    )
    extrapolated = "" if found.plain_units == found.units else f"  (extrapolated from {found.plain_units} units)"
    differing = f"; largest difference of a logit {found.max_difference:.1e}"
    yield f"a whole document for each unit  {found.plain_seconds:9.3f} s{extrapolated}"
    yield (
        f"planned, exact                  {found.exact_seconds:9.3f} s  {found.exact_speedup:6.1f} times"
        f" faster{differing}"
    )
    yield f"planned, answer's tokens alone  {found.answer_seconds:9.3f} s  {found.answer_speedup:6.1f} times faster"


def _probes(chosen: argparse.Namespace) -> Output:
    from probes.bench.probes import bench_probes

    with progress("fit", "scikit-learn") as told:
        found = bench_probes(chosen.strength, told)
    return Output(found=found.to_json(), words=_probed(found))


def _probed(found: "ProbesBench") -> Iterator[str]:
    from probes.bench import probes as bench

    yield (
        f"L2 logistic probes, {bench.CLASSES} classes, {bench.TRAIN:,} rows and {bench.TEST:,} held out, C"
        f" {found.strength:g}, float32, gradient at most {bench.TOLERANCE:g}; CPU seconds of one thread, scikit-learn's"
        f" extrapolated from {bench.REFERENCE} targets"
    )
    yield "    d targets scikit-learn   batched  faster  accuracy apart agreement unconverged"
    for row in found.rows:
        yield (
            f"{row.d:5} {row.targets:7} {row.sklearn_seconds * row.targets:10.2f} s {row.batched_seconds:7.2f} s"
            f" {row.speedup:6.1f}x {row.accuracy_difference:14.4f} {row.agreement:9.4f} {row.unconverged:11}"
        )
