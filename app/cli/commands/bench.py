"""`lm2 bench`: the time that fast methods save, measured beside the plain ones in the same run."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.cli.shell.arguments import MOST, whole_number
from app.cli.shell.output import Output
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress

if TYPE_CHECKING:
    from probes.bench.capture import CaptureBench
    from probes.bench.planner import SweepBench
    from probes.bench.probes import ProbesBench
    from probes.bench.questions import QuestionsBench


def add_bench(commands: Commands) -> None:
    kinds = commands.branch("bench", "measure what the fast methods save over the plain ones", "WHAT")
    sweep = kinds.add("sweep", "a knock-out sweep: a whole document per unit, and the planner", _sweep)
    words = "units to run without the planner; the others are extrapolated (default: all)"
    sweep.add_argument("--plain", type=whole_number(1, MOST), metavar="N", help=words)
    probes = kinds.add("probes", "logistic probes: one by one with scikit-learn, and all at once", _probes)
    probes.add_argument("--strength", type=float, default=0.01, metavar="C", help="scikit-learn's C of every fit")
    kinds.add("questions", "an experiment on a file of questions, beside as many of bAbI's", _questions)
    capture = kinds.add("capture", "a run into a store, beside a bare one and TransformerLens' cache", _capture)
    words = "tokens of texts whose cost is measured, each in a process of its own (default: 1024 8192 65536 131072)"
    capture.add_argument("--lengths", type=whole_number(1, MOST), nargs="*", metavar="N", help=words)
    kinds.add("figures", "a heatmap of 512 x 512 for print: matplotlib's imshow, and ours", _figures)


def _figures(chosen: argparse.Namespace) -> Output:
    from app.export.bench import SIDE, bench_figure

    with progress("figure") as on_figure:
        bench = bench_figure(on_figure)
    lines = [
        f"a heatmap of {SIDE} x {SIDE}, {bench.width:g} in wide, to PDF; wall-clock seconds, median of 7",
        f"matplotlib's imshow  {bench.plain_seconds:.3f} s",
        f"ours                 {bench.own_seconds:.3f} s  {bench.ratio:.2f} times as long",
    ]
    return Output(document=bench.to_json(), lines=lines)


def _sweep(chosen: argparse.Namespace) -> Output:
    import torch

    from probes.bench.planner import bench_sweep

    torch.set_num_threads(1)  # threads count the CPU seconds in which they wait for each other
    with progress("unit", "the long way") as on_unit:
        bench = bench_sweep(chosen.plain, on_unit)
    return Output(document=bench.to_json(), lines=_sweep_lines(bench))


def _sweep_lines(bench: "SweepBench") -> Iterator[str]:
    from probes.bench.planner import LAYERS, SEGMENT_LENGTH, SLOTS

    yield (
        f"{bench.units} slot x block units at the last segment of a document of {bench.tokens} tokens; untrained GATED"
        f" model of {LAYERS} blocks, {SLOTS} slots, segments of {SEGMENT_LENGTH} tokens; CPU seconds of one thread"
    )
    extrapolated = "" if bench.plain_units == bench.units else f"  (extrapolated from {bench.plain_units} units)"
    differing = f"; largest difference of a logit {bench.max_difference:.1e}"
    yield f"a whole document for each unit  {bench.plain_seconds:9.3f} s{extrapolated}"
    yield (
        f"planned, exact                  {bench.exact_seconds:9.3f} s  {bench.exact_speedup:6.1f} times"
        f" faster{differing}"
    )
    yield f"planned, answer's tokens alone  {bench.answer_seconds:9.3f} s  {bench.answer_speedup:6.1f} times faster"


def _probes(chosen: argparse.Namespace) -> Output:
    from probes.bench.probes import bench_probes

    with progress("fit", "scikit-learn") as on_fit:
        bench = bench_probes(chosen.strength, on_fit)
    return Output(document=bench.to_json(), lines=_probes_lines(bench))


def _probes_lines(bench: "ProbesBench") -> Iterator[str]:
    from probes.bench.probes import CLASSES, REFERENCE, TEST, TOLERANCE, TRAIN

    yield (
        f"L2 logistic probes, {CLASSES} classes, {TRAIN:,} rows and {TEST:,} held out, C"
        f" {bench.strength:g}, float32, gradient at most {TOLERANCE:g}; CPU seconds of one thread, scikit-learn's"
        f" extrapolated from {REFERENCE} targets"
    )
    yield "    d targets scikit-learn   batched  faster  accuracy apart agreement unconverged"
    for row in bench.rows:
        yield (
            f"{row.d:5} {row.targets:7} {row.sklearn_seconds * row.targets:10.2f} s {row.batched_seconds:7.2f} s"
            f" {row.speedup:6.1f}x {row.accuracy_difference:14.4f} {row.agreement:9.4f} {row.unconverged:11}"
        )


def _questions(chosen: argparse.Namespace) -> Output:
    import torch

    from probes.bench.questions import bench_questions

    torch.set_num_threads(1)  # as in `_sweep`
    with progress("question", "of both sets") as on_question:
        bench = bench_questions(on_question)
    return Output(document=bench.to_json(), lines=_questions_lines(bench))


def _questions_lines(bench: "QuestionsBench") -> Iterator[str]:
    from statistics import median

    from probes.bench.questions import BABI, CHECKPOINT, SEGMENTS

    rounds = len(bench.question_ratios)
    yield (
        f"{bench.file.questions:,} questions of a JSONL file through policies on {CHECKPOINT}, beside as many of"
        f" {BABI}, all of {SEGMENTS} segments, in {rounds} rounds by turns; CPU time of one thread, medians"
    )
    for name, asked in (("file", bench.file), (BABI, bench.babi)):
        yield (
            f"{name:9} {asked.different:,} different, {sum(asked.tokens) / asked.questions:.2f} tokens a question;"
            f" {1e3 * median(asked.question_seconds):8.2f} ms a question, {1e3 * median(asked.token_seconds):6.3f} ms a"
            f" token; of it {1e3 * asked.reading_seconds / asked.questions:.2f} ms for reading and encoding a question"
        )
    for unit, ratios in (("question", bench.question_ratios), ("token", bench.token_ratios)):
        yield f"the file's over bAbI's, a {unit:8} {median(ratios):.3f}  ({min(ratios):.3f} to {max(ratios):.3f})"


def _capture(chosen: argparse.Namespace) -> Output:
    import torch

    from probes.bench.capture import LENGTHS, bench_capture

    torch.set_num_threads(1)  # as in `_sweep`
    with progress("measurement") as on_step:
        bench = bench_capture(LENGTHS if chosen.lengths is None else chosen.lengths, on_step)
    return Output(document=bench.to_json(), lines=_capture_lines(bench))


def _capture_lines(bench: "CaptureBench") -> Iterator[str]:
    from probes.bench.capture import CHECKPOINT, Way

    yield (
        f"{bench.tokens:,} tokens through {CHECKPOINT}, by turns of some segments: CPU seconds of one thread, least of"
        f" {len(bench.seconds[Way.BARE])} rounds; over those of the bare forward, median; most memory of a process"
    )
    bare = bench.peaks[Way.BARE]
    for way in Way:
        time = f"{min(bench.seconds[way]):7.2f} s  {bench.ratio(way):5.3f}"
        yield f"{way.value:23} {time}   {bench.peaks[way] / 1e6:7,.0f} MB  {bench.peaks[way] / bare:5.3f}"
    for cost in bench.lengths:
        yield (
            f"store of {cost.tokens:7,} tokens {cost.tokens_per_second:9,.0f} tokens a second"
            f"   {cost.peak_bytes / 1e6:7,.0f} MB"
        )
