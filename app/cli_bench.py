"""`lm2 bench`: what the program's short cuts save, measured beside the long way in the same run."""

import argparse
import json

from app.cli_progress import progress


def add_bench(commands: "argparse._SubParsersAction") -> None:
    one = commands.add_parser("bench", help="measure what short cuts save, beside the long way in the same run")
    kinds = one.add_subparsers(required=True, metavar="WHAT")
    sweep = kinds.add_parser("sweep", help="a knock-out sweep: a whole document for each unit, beside the planner")
    sweep.add_argument("--plain", type=int, metavar="N", help="run only N units the long way, and extrapolate (default: all)")
    sweep.add_argument("--json", action="store_true", help="print JSON")
    sweep.set_defaults(command=_sweep)
    probes = kinds.add_parser("probes", help="logistic probes of many targets: one by one by scikit-learn, beside all at once")
    probes.add_argument("--strength", type=float, default=0.01, metavar="C", help="scikit-learn's C of every fit (default 0.01)")
    probes.add_argument("--json", action="store_true", help="print JSON")
    probes.set_defaults(command=_probes)


def _sweep(chosen: argparse.Namespace) -> None:
    import torch

    from probes.bench import LAYERS, SEGMENT_LENGTH, SLOTS, bench_sweep

    torch.set_num_threads(1)  # CPU seconds of several threads hold what they spend waiting for each other
    with progress("unit", "the long way") as told:
        found = bench_sweep(chosen.plain, told)
    if chosen.json:
        print(json.dumps(found.to_json()))
        return
    print(
        f"{found.units} slot x block units at the last segment of a document of {found.tokens} tokens; untrained GATED model of {LAYERS} blocks, "
        f"{SLOTS} slots, segments of {SEGMENT_LENGTH} tokens; CPU seconds of one thread"
    )
    extrapolated = "" if found.plain_units == found.units else f"  (extrapolated from {found.plain_units} units)"
    differing = f"; largest difference of a logit {found.max_difference:.1e}"
    print(f"a whole document for each unit  {found.plain_seconds:9.3f} s{extrapolated}")
    print(f"planned, exact                  {found.exact_seconds:9.3f} s  {found.exact_speedup:6.1f} times faster{differing}")
    print(f"planned, answer's tokens alone  {found.answer_seconds:9.3f} s  {found.answer_speedup:6.1f} times faster")


def _probes(chosen: argparse.Namespace) -> None:
    from probes import bench_probes as bench

    with progress("fit", "scikit-learn") as told:
        found = bench.bench_probes(chosen.strength, told)
    if chosen.json:
        print(json.dumps(found.to_json()))
        return
    print(
        f"L2 logistic probes, {bench.CLASSES} classes, {bench.TRAIN:,} rows and {bench.TEST:,} held out, C {found.strength:g}, float32, "
        f"gradient at most {bench.TOLERANCE:g}; CPU seconds of one thread, scikit-learn's extrapolated from {bench.REFERENCE} targets"
    )
    print("    d targets scikit-learn   batched  faster  accuracy apart agreement unconverged")
    for row in found.rows:
        print(
            f"{row.d:5} {row.targets:7} {row.sklearn_seconds * row.targets:10.2f} s {row.batched_seconds:7.2f} s {row.speedup:6.1f}x "
            f"{row.accuracy_difference:14.4f} {row.agreement:9.4f} {row.unconverged:11}"
        )
    print(f"screen in closed form, d {bench.SCREEN_DIM}: {found.screen_fits:,} ridge fits, asked of held-out rows, in {found.screen_seconds:.2f} s")
