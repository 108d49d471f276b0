"""Laws of what is kept: files and links that version 0.1 wrote are opened, and say what they said.

`tests/museum` holds one of each kind; its README says what wrote them. Where names of files, classes and columns
change, these laws stay: they compare specifications by their digests, and numbers by their values.
"""

import csv
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator
from enum import Enum
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import lm2
from app.choices.links import write
from app.choices.selection import LINKS
from app.cli.main import main
from app.export import workspace
from app.export.figure_spec import FigureSpec
from lm2.training.train import TrainingConfig
from probes.experiments.experiment import ExperimentSpec
from probes.explain.spec import ExplainSpec
from probes.probing.fit import probe
from probes.probing.spec import ProbeSpec
from probes.sweeps.spec import SweepSpec
from probes.sweeps.sweep import sweep

MUSEUM = Path(__file__).parent / "museum"
KINDS = {
    "run": lm2.RunSpec,
    "experiment": ExperimentSpec,
    "sweep": SweepSpec,
    "probe": ProbeSpec,
    "explain": ExplainSpec,
    "figure": FigureSpec,
    "training": TrainingConfig,
}
"""Of specifications, by their folders."""
TOLERANCE = 1e-4
"""Of numbers that are computed again, relative: another machine adds up in another order."""

PERFORMED = ("attribution", "capacity", "decoding", "gates", "overwrites", "permutation", "slots")
"""Experiments that take a fraction of a second."""
FOILS = ("attribution", "gates")
"""Those whose numbers stand against other answers, of which only those of as many tokens are foils by now."""

Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def museum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints and files are named as seen from the museum; stories are the simulator's."""
    monkeypatch.chdir(MUSEUM)
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)


@pytest.fixture
def copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The museum where it may be written to."""
    shutil.copytree(MUSEUM, tmp_path / "museum")
    monkeypatch.chdir(tmp_path / "museum")
    return tmp_path / "museum"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command; what it finds, as JSON."""

    def run(*arguments: str) -> Any:
        capsys.readouterr()
        code = main([*arguments, "--json"])
        told = capsys.readouterr()
        assert code == 0, told.err
        return json.loads(told.out)

    return run


def read(path: str | Path) -> Any:
    return json.loads((MUSEUM / path).read_text(encoding="utf-8"))


def names(folder: str, ending: str = ".json") -> list[str]:
    return sorted(path.stem for path in (MUSEUM / folder).glob(f"*{ending}"))


def contents(folder: Path, ending: str = "") -> dict[Path, bytes]:
    """The files of a folder and of those in it."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob(f"*{ending}") if path.is_file()}


def leaves(value: Any) -> Iterator[Any]:
    """What stands in JSON, in its order, whatever the fields are called."""
    if isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from leaves(one)
    else:
        yield value


def cells(path: Path) -> list[Any]:
    """What stands in a table, row by row, whatever the columns are called; a missing number is None."""
    with path.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return [plain(cell) for row in rows for cell in row]


def plain(cell: str) -> str | float | None:
    try:
        number = float(cell)
    except ValueError:
        return cell or None
    return None if math.isnan(number) else number


def same(found: Any, kept: Any) -> bool:
    """Whether both say the same, numbers to the tolerance."""
    there, here = list(leaves(kept)), list(leaves(found))
    return len(there) == len(here) and all(map(_alike, here, there))


def _alike(one: Any, other: Any) -> bool:
    numbers = (int, float)
    if isinstance(one, numbers) and isinstance(other, numbers):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return one == other


@pytest.mark.parametrize("name", read("specs/digests.json"))
def test_a_specification_of_every_kind_is_read_and_is_the_same(name: str) -> None:
    spec = KINDS[name.partition("/")[0]].from_json(read(f"specs/{name}.json"))
    assert spec.digest == read("specs/digests.json")[name]
    assert spec.to_json() == read(f"specs/{name}.json")


def test_every_public_name_and_every_hook_is_there() -> None:
    kept = read("names.json")
    assert all(getattr(lm2, name) is not None for name in kept["public"])
    assert {name: lm2.Site[name].template for name in kept["hooks"]} == kept["hooks"]


@pytest.mark.parametrize("name", read("checkpoints/digests.json"))
def test_a_checkpoint_of_every_memory_is_opened_and_computes_the_same(name: str) -> None:
    kept = read("checkpoints/digests.json")[name]
    checkpoint = lm2.load(f"checkpoints/{name}", "cpu")
    assert (checkpoint.digest, checkpoint.weights_digest) == (kept["digest"], kept["weights_digest"])
    trace = lm2.run(checkpoint, lm2.RunSpec(checkpoint=checkpoint.name, text="Mary moved.\fWhere is Mary?"))
    np.testing.assert_allclose(trace.logits[-1, : len(kept["logits"])], kept["logits"], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", names("traces", ".npz"))
def test_a_trace_is_opened_and_is_what_its_specification_gives(name: str, tmp_path: Path) -> None:
    kept = lm2.Trace.load(MUSEUM / f"traces/{name}.npz")
    checkpoint = lm2.load(kept.spec.checkpoint, "cpu")
    assert kept.checkpoint_digest == checkpoint.digest
    kept.save(tmp_path / "again.npz")
    for found in (lm2.run(checkpoint, kept.spec), lm2.Trace.load(tmp_path / "again.npz")):
        assert found.spec == kept.spec and found.tokens == kept.tokens and found.segments == kept.segments
        assert list(found.records) == list(kept.records)
        for one, other in zip((found.logits, found.bank, *found.records.values()), _arrays(kept)):
            np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)


def _arrays(trace: lm2.Trace) -> tuple[Any, ...]:
    return (trace.logits, trace.bank, *trace.records.values())


def test_every_intervention_does_what_it_did(command: Command) -> None:
    assert same(
        command("ablate", "specs/run/changes.json", "--show", "2", "--device", "cpu"), read("results/ablate.json")
    )


def _opened(queries: list[dict[str, str]]) -> None:
    import streamlit as st

    from app.ui import state

    found = []
    for query in queries:
        for name in ("selection", "notices", "digests"):
            st.session_state.pop(name, None)
        st.query_params.from_dict(query)
        state.current()
        state.write_link()
        found.append((state.current(), st.session_state["notices"], st.query_params.to_dict()))
    st.session_state["opened"] = found


def _pages() -> None:
    import streamlit as st

    from app.main import pages

    st.session_state["pages"] = [page.url_path for page in pages]


def _ablations() -> None:
    from app.screens.one_text import ablations
    from app.ui import sidebar, state

    sidebar.render()
    ablations.render()
    state.publish()


FORMER: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"exam_task": 2}, {"set": "babi:qa2"}),
    ({"exam_task": 3}, {"set": "babi:qa3"}),
    (
        {"probe_tasks": [1, 6], "probe_origin": "held out", "probe_seed": 3},
        {"probe_sets": "babi:qa1\nbabi:qa6", "probe_draws": 3},
    ),
    ({"probe_seed": 3}, {"probe_sets": "simulated:qa1?seed=3", "probe_draws": 3}),
)
"""What links call otherwise than this version, and what that stands for here."""


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    for former, now in FORMER:
        if former.items() <= values.items():
            return {name: value for name, value in values.items() if name not in former} | now
    return values


def test_a_link_to_every_screen_chooses_the_same() -> None:
    links = read("links.json")
    test = AppTest.from_function(_opened, args=([link["query"] for link in links],), default_timeout=120).run()
    assert not test.exception
    for link, (chosen, notices, written) in zip(links, test.session_state["opened"]):
        values = {name: attrgetter(field.path)(chosen) for name, field in LINKS.items()}
        other = {name: _written(value) for name, value in values.items() if value != LINKS[name].default}
        selection = _renamed(link["selection"])
        assert other == selection
        former = set(link["selection"]) - set(selection)
        query = {name: value for name, value in link["query"].items() if name not in former}
        query |= {name: write(value) for name, value in selection.items() if name not in link["selection"]}
        assert not notices and written == query, link["screen"]


def _written(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else list(value) if isinstance(value, tuple) else value


def _page(script: Callable[[], None], screen: str) -> AppTest:
    test = AppTest.from_function(script, default_timeout=120)
    for name, value in next(link["query"] for link in read("links.json") if link["screen"] == screen).items():
        test.query_params[name] = value
    return test.run()


def test_every_screen_that_a_link_leads_to_has_its_address_and_the_first_opens() -> None:
    test = _page(_pages, "memory")
    assert not (test.exception or test.error or test.warning)
    assert {link["screen"] for link in read("links.json")} <= set(test.session_state["pages"])


def test_a_link_with_every_toggle_opens_on_what_its_maker_saw() -> None:
    test = _page(_ablations, "ablations")
    assert not (test.exception or test.error or test.warning)


@pytest.mark.parametrize("name", names("sidecars"))
def test_a_figure_of_every_kind_of_chart_is_made_again_with_the_same_numbers(
    name: str, command: Command, copy: Path
) -> None:
    ending = "md" if name == "benchmark" else "svg"
    results = ("--results", name) if name in ("sweep", "probe") else ()
    found = command("figure", f"sidecars/{name}.json", "-o", f"{name}.{ending}", "--device", "cpu", *results)
    kept = read(f"sidecars/{name}.json")
    assert found["figure"] == kept["figure"] and found["figure_digest"] == kept["figure_digest"]
    told = ("the numbers", "the checkpoint", "the evaluation")
    assert not [line for line in found["otherwise"] if line.startswith(told)]


def test_a_figure_that_is_kept_by_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LM2_WORKSPACE", "workspace")
    assert workspace.names() == ["Each slot alone - no. 1"]
    assert workspace.read("Each slot alone - no. 1") == read("sidecars/patching.json")


def test_a_bundle_is_made_again_from_the_sidecar_in_it(command: Command, copy: Path) -> None:
    with zipfile.ZipFile(MUSEUM / "bundle/table.zip") as kept:
        kept.extractall("kept")
    found = command("figure", "kept/sidecar.json", "-o", "table.zip", "--device", "cpu")
    assert "the numbers" not in found["otherwise"]
    with zipfile.ZipFile("table.zip") as made:
        made.extractall("made")
    assert set(contents(copy / "made")) == set(contents(copy / "kept"))
    assert same(cells(copy / "made/data.csv"), cells(copy / "kept/data.csv"))


def test_files_of_labels_and_every_source_and_target_are_read(command: Command, tmp_path: Path) -> None:
    rows = {
        name: command("probe", f"specs/probe/{name}.json", "--rows", str(tmp_path / f"{name}.csv"))["rows"]
        for name in ("labels", "sources")
    }
    assert rows == {"labels": 57, "sources": 295}


def test_a_sweep_is_opened_and_has_the_same_tables(copy: Path) -> None:
    documents = contents(copy / "sweep/documents")
    spec = SweepSpec.from_json(read("specs/sweep/slots.json"))
    sweep(spec, lm2.load(spec.checkpoint, "cpu"), Path("sweep"))
    assert contents(copy / "sweep/documents") == documents
    for name in names("sweep", ".csv"):
        assert same(cells(copy / f"sweep/{name}.csv"), cells(MUSEUM / f"sweep/{name}.csv")), name


def test_a_probe_is_opened_and_has_the_same_tables(copy: Path) -> None:
    readings = contents(copy / "probe/readings")
    spec = ProbeSpec.from_json(read("specs/probe/labels.json"))
    probe(spec, lm2.load(spec.checkpoint, "cpu"), Path("probe"))
    assert contents(copy / "probe/readings") == readings
    for name in names("probe", ".csv"):
        assert same(cells(copy / f"probe/{name}.csv"), cells(MUSEUM / f"probe/{name}.csv")), name


def test_an_evaluation_is_opened_and_nothing_is_asked_again(command: Command, copy: Path) -> None:
    kept = contents(copy / "eval/cells", ".json")
    models = "checkpoints/gated,checkpoints/tokens"
    asked = ("--tasks", "qa1,qa2", "--lengths", "0k", "--samples", "2", "--workers", "1", "--device", "cpu")
    command("eval", "--models", models, *asked, "--out", "eval")
    assert contents(copy / "eval/cells", ".json") == kept
    for name in names("eval", ".csv"):
        assert same(cells(copy / f"eval/{name}.csv"), cells(MUSEUM / f"eval/{name}.csv")), name


def test_explanations_are_made_again_from_what_a_language_model_said(command: Command, copy: Path) -> None:
    transcripts = contents(copy / "explain/transcripts")
    found = command("explain", "explain/spec.json", "--out", "explain", "--replay", "--device", "cpu")
    assert contents(copy / "explain/transcripts") == transcripts
    kept = read("explain/explanations.json")
    assert found["spec_digest"] == kept["spec_digest"] and found["corpus_digest"] == kept["corpus_digest"]
    assert same([found["slots"], found["described"]], [kept["slots"], kept["described"]])


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    command: Command, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = command("train", "training/config.json", "--out", "training/out")
    assert found["loss"] == pytest.approx(read("training/finished.json")["loss"], rel=1e-3)
    assert "step 5" in caplog.text and "step 4" not in caplog.text
    assert lm2.load("training/out/checkpoint", "cpu").digest == found["checkpoint_digest"]


@pytest.mark.parametrize("name", [name for name in names("results") if name != "ablate"])
def test_an_experiment_that_is_kept_says_what_it_was(name: str) -> None:
    kept = read(f"results/{name}.json")
    assert ExperimentSpec.from_json(kept["spec"]).digest == kept["spec_digest"]


@pytest.mark.parametrize("name", PERFORMED)
def test_an_experiment_finds_what_it_found(name: str, command: Command) -> None:
    arguments = ("--checkpoint", "checkpoints/gated", "--n", "4", "--segment-length", "24", "--device", "cpu")
    found, kept = command("experiment", name, *arguments), read(f"results/experiment-{name}.json")
    for one, other in zip(found["findings"], kept["findings"], strict=True):
        if name in FOILS:
            assert [row[0] for row in one["rows"]] == [row[0] for row in other["rows"]]
        else:
            assert same(one["rows"], other["rows"]), one["title"]
