"""`lm2 figure`: a figure made again from its sidecar, or from a spec."""

import argparse
import json
from pathlib import Path

from app.cli_answer import Answer, opened, written
from app.cli_arguments import add_device, read_spec
from app.cli_progress import progress
from app.cli_tree import Commands

_ENDINGS = {".pdf": "PDF", ".svg": "SVG", ".png": "PNG_600", ".pgf": "PGF"}


def add_figure(commands: Commands) -> None:
    one = commands.add(
        "figure", "make a figure again from its sidecar", _figure,
        "The same sidecar gives the same bytes on the same machine; what was otherwise where it was made is told in lines.",
    )  # fmt: skip
    one.add_argument("sidecar", type=Path, nargs="?", metavar="SIDECAR.json", help="what the Export button hands out, or --example")
    one.add_argument("-o", "--out", type=Path, metavar="FILE", help="a .pdf, .svg, .png (600 dots to an inch), .pgf, or .zip with all of it")
    one.add_argument("--example", action="store_true", help="print a spec to begin with, and do nothing")
    add_device(one)


def _figure(chosen: argparse.Namespace) -> Answer:
    from app.export import Form, bundle, render
    from app.figure_spec import FigureSpec
    from app.figures.paper import draw
    from app.sidecar import differences, sidecar
    from lm2.atomic import replace_file
    from lm2.checkpoint import load
    from lm2.runner import run

    if chosen.example:
        return Answer(found=_example(), words=[json.dumps(_example(), indent=1)])
    if chosen.sidecar is None or chosen.out is None:
        raise ValueError("figure needs SIDECAR.json and -o FILE; lm2 figure --example prints a spec to begin with")
    ending = chosen.out.suffix.lower()
    if ending not in (*_ENDINGS, ".zip"):
        raise ValueError(f"{chosen.out}: a figure becomes one of {', '.join((*_ENDINGS, '.zip'))}, by the file's ending")
    told = read_spec(chosen.sidecar)
    spec = FigureSpec.from_json(told.get("figure", told))
    checkpoint = load(spec.run.checkpoint, chosen.device, chosen.dtype)
    with progress("segment") as on_segment:
        trace = run(checkpoint, spec.run, on_segment=on_segment)
    view = spec.view(checkpoint, trace)
    now, drawn = sidecar(spec, checkpoint, view), draw(view, spec.page)
    with replace_file(chosen.out) as aside:
        aside.write_bytes(bundle(drawn, now, spec.digest) if ending == ".zip" else render(drawn, Form[_ENDINGS[ending]], spec.digest))
    otherwise = differences(told, now)
    known = "figure" in told
    words = [f"{chosen.out} has {spec.shown.value} of {spec.run.checkpoint}; figure {spec.digest[:10]}"]
    words += [f"otherwise than in {chosen.sidecar}: {line}" for line in otherwise]
    words += [f"nothing is otherwise than in {chosen.sidecar}"] if known and not otherwise else []
    return Answer(found={**now, **opened(checkpoint), "otherwise": otherwise, **written(chosen.out)}, words=words)


def _example() -> dict:
    from app.figure_spec import FigureSpec, Shown
    from lm2.capture import Capture
    from lm2.sites import Site
    from lm2.spec import RunSpec

    text = "Mary moved to the garden. John went to the office.\fWhere is Mary?"
    spec = RunSpec(checkpoint="babi-lm2-qa1", text=text, captures=(Capture(Site.READ_PATTERN),))
    return FigureSpec(shown=Shown.READS, run=spec).to_json()
