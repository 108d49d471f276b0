"""`lm2 probe`: what can be read off a model's memory and stream, by linear probes beside their controls."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli_arguments import add_device, read_spec
from app.cli_progress import progress

if TYPE_CHECKING:
    from probes.probe_plan import ProbePlan
    from probes.probe_result import Cell, ProbeResult

_EXAMPLE = {
    "checkpoint": "babi-lm2-qa1", "documents": {"kind": "Documents", "tasks": [1], "count": 600, "seed": 100_000},
    "sources": ["bank:mean", "bank:sketch256"], "targets": ["place of *"],
}  # fmt: skip


def add_probe(commands: "argparse._SubParsersAction") -> None:
    one = commands.add_parser("probe", help="read what stories tell off memory and stream, with controls and baselines; goes on where it was stopped")
    one.add_argument("spec", type=Path, nargs="?", metavar="SPEC.json", help="a probe's spec; --example prints one to begin with")
    one.add_argument("--out", type=Path, metavar="DIR", help="keeps each source's predictions as they come, tables and figures; the same folder goes on")
    one.add_argument("--rows", type=Path, metavar="FILE.csv", help="write the rows alone, to be labelled by hand, and read nothing")
    one.add_argument("--segments", action="store_true", help="tell of every segment, not of all together alone")
    one.add_argument("--json", action="store_true", help="print the table of cells as JSON")
    add_device(one)
    one.add_argument("--example", action="store_true", help="print a spec and do nothing")
    one.set_defaults(command=_probe)


def _probe(chosen: argparse.Namespace) -> None:
    from lm2.checkpoint import load
    from probes.probe_plan import ProbePlan
    from probes.probe_spec import ProbeSpec
    from probes.probing import probe

    if chosen.example:
        print(json.dumps(ProbeSpec.from_json(_EXAMPLE).to_json(), indent=1))
        return
    if chosen.spec is None or (chosen.out is None and chosen.rows is None):
        raise ValueError("a probe needs SPEC.json and --out DIR; lm2 probe --example prints a spec to begin with")
    spec = ProbeSpec.from_json(read_spec(chosen.spec))
    checkpoint = load(spec.checkpoint, chosen.device, chosen.dtype)
    plan = ProbePlan.of(spec, checkpoint)
    if chosen.rows is not None:
        _write_rows(plan, chosen.rows)
        return
    if not chosen.json:
        print(plan.cost, flush=True)
    with progress("source") as told:
        found = probe(spec, checkpoint, chosen.out, told, plan)
    if chosen.json:
        print(found.tables()["cells"].to_json(orient="records"))
        return
    _show(found, segments=chosen.segments)
    _draw(found, chosen.out / "figures")
    print(f"{chosen.out} has cells, metrics and examples as .csv and .parquet, and figures; spec {spec.digest[:10]}")


def _write_rows(plan: "ProbePlan", path: Path) -> None:
    from lm2.atomic import replace_file

    with replace_file(path) as aside:
        plan.examples.table().to_csv(aside, index=False)
    print(f"{path} has {len(plan.examples):,} rows; give it a column label and name it as the spec's labels")


def _draw(found: "ProbeResult", folder: Path) -> None:
    """Of every target: the map of sources and segments, beside the curves of the source that is best most often."""
    from app.export import Form, render
    from app.figures.page import Grid, Panel
    from app.figures.paper import compose
    from app.figures.venues import Columns, Venue
    from app.views import probes
    from lm2.atomic import replace_file

    probed, plan = probes.gather(found), found.plan
    page = Grid(venue=Venue.ICML, columns=Columns.DOUBLE, panels=(Panel(), Panel()), across=2)
    for target in plan.labels:
        chosen = probed.best[target].chosen if target in probed.best else (1,)
        views = (probes.score_map(probed, target), probes.curves(probed, plan.sources[chosen.index(max(chosen))], target))
        drawn = compose(views, page)
        for form, ending in ((Form.PDF, "pdf"), (Form.PNG_300, "png")):
            with replace_file(folder / f"{str(target).translate(str.maketrans(' /', '--'))}.{ending}") as aside:
                aside.write_bytes(render(drawn, form, plan.spec.digest))


def _show(found: "ProbeResult", *, segments: bool) -> None:
    from probes.probe_result import ALL

    plan = found.plan
    print(f"{plan.spec.checkpoint} on {found.device}, {found.dtype}: {plan.spec.family.value} probes, {plan.spec.folds} folds of whole groups")
    print("held out, 95 % intervals clustered by group; selectivity is balanced accuracy less that of the control task; bits beyond each baseline")
    for target in plan.labels:
        print(f"\n{target} ({len(plan.labels[target].names)} classes)")
        for source in (*plan.sources, *plan.baselines):
            for segment in (ALL, *(found.segments if segments else ())):
                print(f"  {_cell(found.cells[source, target, segment])}")
        if len(plan.sources) > 1:
            best = found.best(target)
            names = ", ".join(f"{source} in {count}" for source, count in zip(plan.sources, best.chosen) if count)
            print(f"  best source, chosen in each fold without it: {best.estimate} ({names} of {plan.spec.folds} folds)")
    unconverged = sum(reading.unconverged for reading in found.readings.values())
    if unconverged:
        print(f"\n{unconverged} probes did not converge: their cells are marked with !")


def _cell(cell: "Cell") -> str:
    where = cell.source.label if cell.segment == "all" else f"  segment {cell.segment}"
    words = f"{where + ' !' * bool(cell.unconverged):<24} {cell.score.headline.label} {cell.headline}, chance {cell.score.chance:.3f}, n {cell.score.n}"
    words += f" in {cell.score.groups} groups; selectivity {cell.selectivity}"
    if cell.gains:
        words += "; bits beyond " + ", ".join(f"{name} {gain}" for name, gain in cell.gains.items())
    if cell.segment == "all" and cell.compression == cell.compression:
        words += f"; compression {cell.compression:.2f}"
    return words if cell.p != cell.p else f"{words}; p {cell.p:.3f}, q {cell.q:.3f}"
