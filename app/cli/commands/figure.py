"""`lm2 figure`: makes a figure or table again from its sidecar, or from a spec."""

import argparse
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.shell.arguments import add_device, check_file, errors_name, load_model, read_spec
from app.cli.shell.output import Output, example, write_file, written
from app.cli.shell.parser import Commands
from app.cli.shell.progress import progress

if TYPE_CHECKING:
    from app.charts import Chart
    from app.export.figure_spec import FigureSpec
    from app.figures.print.figure import PrintFigure
    from app.views.kinds import Table
    from lm2.weights.checkpoint import Checkpoint

_IMAGES = {".pdf": "PDF", ".svg": "SVG", ".png": "PNG_600"}
"""Endings of files, and names of their `FileFormat`."""
_ENDINGS = (*_IMAGES, ".html", ".tex", ".md", ".zip")


def add_figure(commands: Commands) -> None:
    parser = commands.add(
        "figure",
        "make a figure or table again from its sidecar",
        _figure,
        "The same sidecar gives the same bytes on the same machine. Differences from where it was made are listed.",
    )
    words = 'sidecar exported by "For a paper" on a screen, or a spec as printed by --example'
    parser.add_argument("sidecar", type=Path, nargs="?", metavar="SIDECAR.json", help=words)
    words = ".pdf, .svg, .png (600 dots per inch) or interactive .html; for a table, .tex or .md; or a .zip of all"
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help=words)
    words = "take the results that a sweep, probe or eval wrote there, instead of computing them again"
    parser.add_argument("--results", type=Path, metavar="DIR", help=words)
    parser.add_argument("--example", action="store_true", help="print a spec to start from, and do nothing else")
    add_device(parser)


def _figure(chosen: argparse.Namespace) -> Output:
    from app.charts.chart import Computing
    from app.export.figure_spec import FigureSpec
    from app.export.files import bundle, table_bundle
    from app.export.sidecar import check, differences, sidecar
    from app.views.kinds import Table

    if chosen.example:
        return example(_example_spec())
    if chosen.sidecar is None or chosen.out is None:
        raise ValueError("figure needs SIDECAR.json and -o FILE; lm2 figure --example prints a spec to start from")
    ending = chosen.out.suffix.lower()
    if ending not in _ENDINGS:
        raise ValueError(f"{chosen.out}: a figure becomes one of {', '.join(_ENDINGS)}, by the file's ending")
    check_file(chosen.out)

    def parse(values: dict[str, Any]) -> tuple[dict[str, Any], FigureSpec]:
        check(values)
        return values, FigureSpec.from_json(values.get("figure", values))

    before, spec = read_spec(chosen.sidecar, parse)
    if chosen.results is not None and len({chart.result_key for chart in spec.charts}) > 1:
        raise ValueError(
            "--results takes the folder of one result, and this figure shows several: leave it out to compute"
            " them again"
        )

    def result_of(chart: "Chart", checkpoint: "Checkpoint | None") -> Any:
        with progress("step", chart.words) as on_step:
            return chart.result(checkpoint, Computing(on_step=on_step, folder=chosen.results))

    with errors_name(chosen.sidecar):
        charts = list(spec.compute(cache(partial(load_model, chosen)), result_of))
    now = sidecar(spec, charts)
    if isinstance(charts[0].view, Table) and len(charts) == 1:
        content = table_bundle(charts[0].view, now) if ending == ".zip" else _table(charts[0].view, ending)
    else:
        drawn = spec.draw(charts)
        content = bundle(drawn, now, spec.digest) if ending == ".zip" else _image(drawn, spec, ending)
    write_file(chosen.out, content)
    changes = differences(before, now)
    contents = (f"{chart.words} of {chart.checkpoint or 'an evaluation'}" for chart in spec.charts)
    lines = [f"{chosen.out} has {', '.join(contents)}; figure {spec.digest[:10]}"]
    lines += [f"differs from {chosen.sidecar}: {line}" for line in changes]
    lines += [f"nothing differs from {chosen.sidecar}"] if "figure" in before and not changes else []
    return Output(document={**now, "otherwise": changes, **written(chosen.out)}, lines=lines)


def _image(drawn: "PrintFigure", spec: "FigureSpec", ending: str) -> str | bytes:
    from app.export.files import FileFormat, render
    from app.figures.screen.html import interactive

    if ending == ".html":
        return interactive(drawn)
    if ending not in _IMAGES:
        raise ValueError(f"a figure is drawn: {', '.join((*_IMAGES, '.html', '.zip'))}, not written as {ending}")
    return render(drawn, FileFormat[_IMAGES[ending]], spec.digest)


def _table(view: "Table", ending: str) -> str:
    from app.views.latex import latex, markdown

    if ending not in (".tex", ".md"):
        raise ValueError(f"a table is written: .tex, .md or .zip, not drawn as {ending}")
    return latex(view) if ending == ".tex" else markdown(view)


def _example_spec() -> "FigureSpec":
    from app.charts import OfRun, RunChart
    from app.export.figure_spec import FigureSpec
    from lm2.model.sites import Site
    from lm2.runs.capture import Capture
    from lm2.runs.spec import RunSpec

    text = "Mary moved to the garden. John went to the office.\fWhere is Mary?"
    spec = RunSpec(checkpoint="babi-lm2-qa1", text=text, captures=(Capture(Site.READ_PATTERN),))
    return FigureSpec(charts=(RunChart(shown=OfRun.READS, spec=spec),))
