"""`make figures` recomputes every figure and table of the README and the pages that shows the bundled models.

Each is a spec in `docs/figures`, which `lm2 figure` takes, too. Figures become PNG files next to their specs; tables
are inserted into the pages between `<!-- NAME -->` and `<!-- end -->`. Held-out stories come from the folder
LM2_DATA_DIR.
Names given as arguments select the figures and tables to make.
"""

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from app.charts import Chart
from app.charts.chart import Computing
from app.cli.shell.progress import note, progress
from app.export.figure_spec import FigureSpec
from app.export.files import FileFormat, render
from app.views.kinds import Table
from app.views.latex import markdown
from lm2.files import replace_file
from lm2.weights.checkpoint import Checkpoint, load

DOCS = Path(__file__).parent
PAGES = (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md")))


def main(names: list[str]) -> None:
    found: dict[Any, Any] = {}  # several figures show the same result
    open_model = cache(lambda name: load(name, "cpu"))
    for path in [DOCS / "figures" / f"{name}.json" for name in names] or sorted((DOCS / "figures").glob("*.json")):
        spec = FigureSpec.from_json(json.loads(path.read_text(encoding="utf-8")))
        made = list(spec.compute(open_model, _result_of, found))
        if isinstance(made[0].view, Table):
            pages = [page for page in PAGES if _insert(page, path.stem, markdown(made[0].view))]
            note(
                f"{path.stem}: a table in"
                f" {', '.join(str(page.relative_to(DOCS.parent)) for page in pages) or 'no page'}"
            )
        else:
            with replace_file(path.with_suffix(".png")) as aside:
                aside.write_bytes(render(spec.draw(made), FileFormat.PNG_300, spec.digest))
            note(f"{path.stem}: {path.with_suffix('.png').name}")


def _result_of(chart: Chart, checkpoint: Checkpoint | None) -> Any:
    with progress("step", chart.words) as on_step:
        return chart.result(checkpoint, Computing(on_step=on_step))


def _insert(page: Path, name: str, table: str) -> bool:
    """Insert the table into the page, and return whether the page has a place for it."""
    text = page.read_text(encoding="utf-8")
    place = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not place.search(text):
        return False
    with replace_file(page) as aside:
        aside.write_text(place.sub(lambda match: f"{match[1]}{table}{match[2]}", text), encoding="utf-8")
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
