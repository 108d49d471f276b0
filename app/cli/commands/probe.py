"""`lm2 probe`: what can be read off a model's memory and stream, by linear probes beside their controls."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import add_spec, asked_in, check_file, spec_in, wanted
from app.cli.shell.output import Output, specified, table_files, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import note, progress

if TYPE_CHECKING:
    from probes.probing.plan import ProbePlan
    from probes.probing.result import ProbeCell, ProbeResult

_EXAMPLE = {
    "checkpoint": "babi-lm2-qa1",
    "documents": {"kind": "Documents", "tasks": [1], "count": 600, "seed": 100_000},
    "sources": ["bank:mean", "bank:sketch256"],
    "targets": ["place of *"],
}


def add_probe(commands: Commands) -> None:
    one = commands.add(
        "probe",
        "fit linear probes to memory and residual stream, with controls",
        _probe,
        "A stopped probe resumes with the same folder.",
    )
    add_spec(one, "predictions of each source, tables and figures")
    one.add_argument(
        "--rows", type=Path, metavar="FILE.csv", help="only write the rows, to be labelled by hand, and fit nothing"
    )
    one.add_argument(
        "--segments",
        action="store_true",
        help="also print the results of every segment; JSON and tables always have them",
    )


def _probe(chosen: argparse.Namespace) -> Output:
    from lm2.weights.checkpoint import load
    from probes.probing.fit import probe
    from probes.probing.plan import ProbePlan
    from probes.probing.spec import ProbeSpec

    if chosen.example:
        example = ProbeSpec.from_json(_EXAMPLE).to_json()
        return Output(found=example, words=[json.dumps(example, indent=1)])
    rows_alone = chosen.spec is not None and chosen.rows is not None
    check_file(chosen.rows)
    spec, out = (
        (spec_in(chosen.spec, ProbeSpec.from_json), None)
        if rows_alone
        else wanted(chosen, "probe", ProbeSpec.from_json, "probe.json")
    )
    with asked_in(chosen.spec):
        checkpoint = load(spec.checkpoint, chosen.device, chosen.dtype)
        plan = ProbePlan.of(spec, checkpoint)
        if out is None:
            return _rows(plan, chosen.rows)
        note(plan.cost)
        with progress("source") as told:
            found = probe(spec, checkpoint, out, told, plan)
    _draw(found, out / "figures")
    tables = found.tables()
    files = written(*table_files(out, *tables), out / "figures")
    result = {**specified(spec, checkpoint), "cells": tables["cells"].to_dict("records"), **files}
    return Output(found=result, words=_words(found, out, segments=chosen.segments))


def _rows(plan: "ProbePlan", path: Path) -> Output:
    from lm2.files import csv_text, replace_file

    with replace_file(path) as aside:
        aside.write_text(csv_text(plan.examples.table()), encoding="utf-8", newline="")
    words = f"{path} has {len(plan.examples):,} rows; give it a column label and name it as the spec's labels"
    return Output(found={"rows": len(plan.examples), **written(path)}, words=[words])


def _draw(found: "ProbeResult", folder: Path) -> None:
    """Of every target: the map of sources and segments, beside the curves of the source that is best most often."""
    from app.export.files import FileFormat, render
    from app.figures.print.figure import compose
    from app.figures.print.page import Grid, Panel
    from app.figures.print.venues import Columns, Venue
    from app.views.study import probes
    from lm2.files import replace_file

    probed, plan = probes.gather(found), found.plan
    page = Grid(venue=Venue.ICML, columns=Columns.DOUBLE, panels=(Panel(), Panel()), across=2)
    for target in plan.labels:
        chosen = probed.best[target].chosen if target in probed.best else (1,)
        views = (
            probes.score_map(probed, target),
            probes.curves(probed, plan.sources[chosen.index(max(chosen))], target),
        )
        drawn = compose(views, page)
        for form, ending in ((FileFormat.PDF, "pdf"), (FileFormat.PNG_300, "png")):
            with replace_file(folder / f"{str(target).translate(str.maketrans(' /', '--'))}.{ending}") as aside:
                aside.write_bytes(render(drawn, form, plan.spec.digest))


def _words(found: "ProbeResult", out: Path, *, segments: bool) -> Iterator[str]:
    from probes.probing.result import ALL

    plan, spec = found.plan, found.plan.spec
    yield (
        f"{spec.checkpoint} on {found.device}, {found.dtype}: {spec.family.value} probes, {spec.folds} folds of whole"
        " groups"
    )
    yield (
        "held out, 95 % intervals clustered by group; selectivity is balanced accuracy minus that of the"
        " control task; bits beyond each baseline"
    )
    for target in plan.labels:
        yield f"\n{target} ({len(plan.labels[target].names)} classes)"
        for source in (*plan.sources, *plan.baselines):
            for segment in (ALL, *(found.segments if segments else ())):
                yield f"  {_cell(found.cells[source, target, segment])}"
        if len(plan.sources) > 1:
            best = found.best(target)
            names = ", ".join(f"{source} in {count}" for source, count in zip(plan.sources, best.chosen) if count)
            yield f"  best source, chosen in each fold without it: {best.estimate} ({names} of {spec.folds} folds)"
    unconverged = sum(reading.unconverged for reading in found.readings.values())
    if unconverged:
        yield f"\n{unconverged} probes did not converge: their cells are marked with !"
    yield f"{out} has cells, metrics and examples as .csv and .parquet, and figures; spec {spec.digest[:10]}"


def _cell(cell: "ProbeCell") -> str:
    where = cell.source.label if cell.segment == "all" else f"  segment {cell.segment}"
    words = f"{where + ' !' * bool(cell.unconverged):<24} {cell.score.headline.label} {cell.headline}"
    words += (
        f", chance {cell.score.chance:.3f}, n {cell.score.n} in {cell.score.groups} groups; selectivity"
        f" {cell.selectivity}"
    )
    if cell.gains:
        words += "; bits beyond " + ", ".join(f"{name} {gain}" for name, gain in cell.gains.items())
    if cell.segment == "all" and cell.compression == cell.compression:
        words += f"; compression {cell.compression:.2f}"
    return words if cell.p != cell.p else f"{words}; p {cell.p:.3f}, q {cell.q:.3f}"
