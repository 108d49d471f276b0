"""Laws of the notebooks."""

import json
import multiprocessing
import re
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import pytest
from run_notebook import run_notebook

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MOST_BYTES = 60_000
LIBRARIES = ["run_notebook", "transformer_lens", "pandas", "matplotlib.figure", "sklearn.linear_model"]


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    """A process for each notebook, forked from one that has imported libraries, for which each would need 7 s, and
    nothing of ours."""
    clean = multiprocessing.get_context("forkserver")
    clean.set_forkserver_preload(LIBRARIES)
    with ProcessPoolExecutor(1, mp_context=clean, max_tasks_per_child=1) as pool:
        yield pool


def test_there_are_nine_in_order() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02}_" for number in range(1, 10)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_clean(processes: Executor, path: Path) -> None:
    processes.submit(run_notebook, path).result()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_holds_its_outputs_and_says_at_its_end_what_was_learned(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert path.stat().st_size <= MOST_BYTES
    assert len(outputs) >= len(code) / 2 and not any(output["output_type"] == "error" for output in outputs)
    assert cells[0]["cell_type"] == cells[-1]["cell_type"] == "markdown" and "".join(cells[0]["source"]).startswith(
        "# "
    )
    assert len("".join(cells[-1]["source"])) > 100


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_numbers_of_the_last_cell_are_among_the_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    printed = json.dumps(
        [
            output.get("text", output.get("data", {}).get("text/plain", ""))
            for cell in cells
            for output in cell.get("outputs", ())
        ]
    )
    told = re.findall(r"(?<![\w.])\d+\.\d+", "".join(cells[-1]["source"]))
    assert [number for number in told if number not in printed] == []
