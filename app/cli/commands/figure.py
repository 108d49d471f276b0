"""`lm2 figure`: a figure or table made again from its sidecar, or from a spec."""

import argparse
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.shell.arguments import add_device, asked_in, check_file, read_spec, spec_in
from app.cli.shell.output import Output, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress

if TYPE_CHECKING:
    from app.charts import Chart, ComputedChart
    from app.export.figure_spec import FigureSpec
    from app.figures.print.figure import PrintFigure
    from app.views.kinds import Table
    from lm2.weights.checkpoint import Checkpoint

_DRAWN = {".pdf": "PDF", ".svg": "SVG", ".png": "PNG_600"}
_ENDINGS = (*_DRAWN, ".html", ".tex", ".md", ".zip")


def add_figure(commands: Commands) -> None:
    one = commands.add(
        "figure",
        "make a figure or table again from its sidecar",
        _figure,
        "The same sidecar gives the same bytes on the same machine. Differences from where it was made are listed.",
    )
    one.add_argument(
        "sidecar",
        type=Path,
        nargs="?",
        metavar="SIDECAR.json",
        help='sidecar exported by "For a paper" on a screen, or a spec as printed by --example',
    )
    one.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help=".pdf, .svg, .png (600 dots per inch) or interactive .html; for a table, .tex or .md; or a .zip of all",
    )
    one.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="take the results that a sweep, probe or eval wrote there, instead of computing them again",
    )
    one.add_argument("--example", action="store_true", help="print a spec to start from, and do nothing else")
    add_device(one)


def _figure(chosen: argparse.Namespace) -> Output:
    from app.charts.chart import Computing
    from app.export.figure_spec import FigureSpec
    from app.export.files import bundle, table_bundle
    from app.export.sidecar import check, differences, sidecar
    from app.views.kinds import Table
    from lm2.files import replace_file
    from lm2.weights.checkpoint import load

    if chosen.example:
        return Output(found=_example(), words=[json.dumps(_example(), indent=1)])
    if chosen.sidecar is None or chosen.out is None:
        raise ValueError("figure needs SIDECAR.json and -o FILE; lm2 figure --example prints a spec to start from")
    ending = chosen.out.suffix.lower()
    if ending not in _ENDINGS:
        raise ValueError(f"{chosen.out}: a figure becomes one of {', '.join(_ENDINGS)}, by the file's ending")
    check_file(chosen.out)
    told = read_spec(chosen.sidecar)

    def figure(values: dict[str, Any]) -> FigureSpec:
        check(values)
        return FigureSpec.from_json(values.get("figure", values))

    spec = spec_in(chosen.sidecar, figure)
    if chosen.results is not None and len({chart.result_key for chart in spec.charts}) > 1:
        raise ValueError(
            "--results takes the folder of one result, and this figure shows several: leave it out to compute"
            " them again"
        )

    def result_of(chart: "Chart", checkpoint: "Checkpoint | None") -> Any:
        with progress("step", chart.words) as on_step:
            return chart.result(checkpoint, Computing(on_step=on_step, folder=chosen.results))

    with asked_in(chosen.sidecar):
        made = list(spec.made(cache(lambda name: load(name, chosen.device, chosen.dtype)), result_of))
    now = sidecar(spec, made)
    if isinstance(made[0].view, Table) and len(made) == 1:
        content = table_bundle(made[0].view, now) if ending == ".zip" else _written(made[0].view, ending)
    else:
        drawn = spec.drawn(made)
        content = bundle(drawn, now, spec.digest) if ending == ".zip" else _rendered(drawn, spec, ending)
    with replace_file(chosen.out) as aside:
        aside.write_bytes(content)
    otherwise = differences(told, now)
    words = [f"{chosen.out} has {', '.join(_said(one) for one in made)}; figure {spec.digest[:10]}"]
    words += [f"differs from {chosen.sidecar}: {line}" for line in otherwise]
    words += [f"nothing differs from {chosen.sidecar}"] if "figure" in told and not otherwise else []
    return Output(found={**now, "otherwise": otherwise, **written(chosen.out)}, words=words)


def _said(made: "ComputedChart") -> str:
    return f"{made.chart.words} of {made.chart.checkpoint or 'an evaluation'}"


def _rendered(drawn: "PrintFigure", spec: "FigureSpec", ending: str) -> bytes:
    from app.export.files import FileFormat, render
    from app.figures.screen.html import interactive

    if ending == ".html":
        return interactive(drawn).encode()
    if ending not in _DRAWN:
        raise ValueError(f"a figure is drawn: {', '.join((*_DRAWN, '.html', '.zip'))}, not written as {ending}")
    return render(drawn, FileFormat[_DRAWN[ending]], spec.digest)


def _written(view: "Table", ending: str) -> bytes:
    from app.views.latex import latex, markdown

    if ending not in (".tex", ".md"):
        raise ValueError(f"a table is written: .tex, .md or .zip, not drawn as {ending}")
    return (latex(view) if ending == ".tex" else markdown(view)).encode()


def _example() -> dict:
    from app.charts import OfRun, RunChart
    from app.export.figure_spec import FigureSpec
    from lm2.model.sites import Site
    from lm2.runs.capture import Capture
    from lm2.runs.spec import RunSpec

    text = "Mary moved to the garden. John went to the office.\fWhere is Mary?"
    spec = RunSpec(checkpoint="babi-lm2-qa1", text=text, captures=(Capture(Site.READ_PATTERN),))
    return FigureSpec(charts=(RunChart(shown=OfRun.READS, spec=spec),)).to_json()
