"""`lm2 probe`: what linear probes read from a model's memory and residual stream, with controls."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.shell.arguments import (
    add_documents,
    add_spec,
    check_file,
    errors_name,
    load_model,
    read_spec,
    read_spec_and_folder,
    with_documents,
)
from app.cli.shell.output import Output, example, provenance, skipped_lines, table_files, write_file, written
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
    parser = commands.add(
        "probe",
        "fit linear probes to memory and residual stream, with controls",
        _probe,
        "A stopped probe resumes with the same folder.",
    )
    add_spec(parser, "predictions of each source, tables and figures")
    add_documents(parser)
    words = "only write the rows, to be labelled by hand, and fit nothing"
    parser.add_argument("--rows", type=Path, metavar="FILE.csv", help=words)
    words = "also print the results of every segment; JSON and tables always have them"
    parser.add_argument("--segments", action="store_true", help=words)


def _probe(chosen: argparse.Namespace) -> Output:
    from probes.probing.fit import probe
    from probes.probing.plan import ProbePlan
    from probes.probing.spec import ProbeSpec

    if chosen.example:
        return example(with_documents(ProbeSpec.from_json(_EXAMPLE), chosen))
    check_file(chosen.rows)
    if chosen.spec is not None and chosen.rows is not None:
        spec, out = read_spec(chosen.spec, ProbeSpec.from_json), None
    else:
        spec, out = read_spec_and_folder(chosen, "probe", ProbeSpec.from_json, "probe.json")
    spec = with_documents(spec, chosen)
    with errors_name(chosen.spec):
        checkpoint = load_model(chosen, spec.checkpoint)
        plan = ProbePlan.of(spec, checkpoint)
        if out is None:
            return _rows(plan, chosen.rows)
        note(plan.cost)
        spec = plan.spec
        with progress("source") as on_source:
            probed = probe(spec, checkpoint, out, on_source, plan)
    _draw(probed, out / "figures")
    tables = probed.tables()
    files = written(*table_files(out, *tables), out / "figures")
    document = {
        **provenance(spec, checkpoint),
        "cells": tables["cells"].to_dict("records"),
        "skipped": plan.examples.skipped,
        **files,
    }
    return Output(document=document, lines=_lines(probed, out, segments=chosen.segments))


def _rows(plan: "ProbePlan", path: Path) -> Output:
    from lm2.files import csv_text

    write_file(path, csv_text(plan.examples.table()))
    line = f"{path} has {len(plan.examples):,} rows; give it a column label and name it as the spec's labels"
    skipped = plan.examples.skipped
    document = {"rows": len(plan.examples), "skipped": skipped, **written(path)}
    return Output(document=document, lines=[*skipped_lines(skipped), line])


def _draw(result: "ProbeResult", folder: Path) -> None:
    """A figure for each target: a map of sources and segments, beside curves of the source that is best most often."""
    from app.export.files import FileFormat, render
    from app.figures.print.figure import compose
    from app.figures.print.page import Grid, Panel
    from app.figures.print.venues import Columns, Venue
    from app.views.study import probes

    probed, plan = probes.statistics(result), result.plan
    page = Grid(venue=Venue.ICML, columns=Columns.DOUBLE, panels=(Panel(), Panel()), across=2)
    for target in plan.labels:
        folds = probed.best[target].chosen if target in probed.best else (1,)
        best = plan.sources[folds.index(max(folds))]
        drawn = compose((probes.score_map(probed, target), probes.curves(probed, best, target)), page)
        for form, ending in ((FileFormat.PDF, "pdf"), (FileFormat.PNG_300, "png")):
            path = folder / f"{str(target).translate(str.maketrans(' /', '--'))}.{ending}"
            write_file(path, render(drawn, form, plan.spec.digest))


def _lines(result: "ProbeResult", out: Path, *, segments: bool) -> Iterator[str]:
    from probes.probing.result import ALL

    plan, spec = result.plan, result.plan.spec
    yield from skipped_lines(plan.examples.skipped)
    yield (
        f"{spec.checkpoint} on {result.device}, {result.dtype}: {spec.family.value} probes, {spec.folds} folds of whole"
        " groups"
    )
    yield (
        "held out, 95 % intervals clustered by group; selectivity is balanced accuracy minus that of the"
        " control task; bits beyond each baseline"
    )
    for target in plan.labels:
        yield f"\n{target} ({len(plan.labels[target].names)} classes)"
        for source in (*plan.sources, *plan.baselines):
            for segment in (ALL, *(result.segments if segments else ())):
                yield f"  {_cell(result.cells[source, target, segment])}"
        if len(plan.sources) > 1:
            best = result.best(target)
            names = ", ".join(f"{source} in {count}" for source, count in zip(plan.sources, best.chosen) if count)
            yield f"  best source, chosen in each fold without it: {best.estimate} ({names} of {spec.folds} folds)"
    unconverged = sum(reading.unconverged for reading in result.readings.values())
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
