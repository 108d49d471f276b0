"""Laws of figures: one spec drives screen, file and command line, and a sidecar makes the same bytes again."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.charts import BenchmarkChart, ComputedChart, OfBenchmark, OfRun, OfSweep, RunChart, SweepChart
from app.cli.main import main
from app.export import sidecar as sidecars
from app.export.figure_spec import FigureSpec
from app.export.files import FileFormat, bundle, render
from app.figures.print.page import Grid, Panel, Paper
from app.figures.print.venues import Columns, Venue
from app.views.kinds import Heatmap
from app.views.run import memory
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.weights.checkpoint import Checkpoint, save
from probes.stats.metrics import Metric
from probes.sweeps import grid
from probes.sweeps.spec import SweepSpec

SITES = (
    Site.READ_PATTERN,
    Site.WRITE_PATTERN,
    Site.GATE_IN,
    Site.GATE_FORGET,
    Site.GATE_OUT,
    Site.BANK_PRE,
    Site.BANK_POST,
)


@pytest.fixture(scope="module")
def trace(gated: Checkpoint, text: str) -> Trace:
    return run(gated, RunSpec(checkpoint=gated.name, text=text, captures=tuple(map(Capture, SITES))))


def of(trace: Trace, shown: OfRun = OfRun.READS, **fields: object) -> RunChart:
    return RunChart(spec=trace.spec, shown=shown, **fields)


@pytest.mark.parametrize("shown", OfRun)
def test_json_gives_it_back_and_every_kind_can_be_printed(shown: OfRun, gated: Checkpoint, trace: Trace) -> None:
    gate = "out" if shown is OfRun.GATE_TOKENS else "forget"
    chart = of(trace, shown, gate=gate, layer=2, head="1", segment=0, slot=1, token=3, marks=((1, 3, "fact"),))
    spec = FigureSpec(charts=(chart,), page=Paper(venue=Venue.ACL, columns=Columns.DOUBLE, title="One"))
    back = FigureSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec and back.digest == spec.digest
    assert render(spec.draw([chart.computed(gated, trace)]), FileFormat.SVG, spec.digest).startswith(b"<?xml")


def test_the_numbers_are_those_of_the_screens_view(gated: Checkpoint, trace: Trace) -> None:
    made = of(trace, layer=0, head="max").computed(gated, trace)
    assert np.array_equal(made.view.values, memory.reads(trace, 0, "max", gated.config.memory).values)
    drawn = FigureSpec(charts=(made.chart,)).draw([made])
    assert drawn.views[0] is made.view


def test_a_window_keeps_its_columns_and_the_segments_that_it_touches(gated: Checkpoint, trace: Trace) -> None:
    whole, part = (of(trace, window=window).view(gated, trace) for window in (None, (5, 20)))
    assert np.array_equal(part.values, whole.values[:, 5:20]) and part.column_labels == whole.column_labels[5:20]
    assert part.boundaries == (0, 2, 9) and part.segment_labels == ("segment 0", "segment 1", "segment 2")


def test_a_window_of_a_text_and_of_a_curve_keeps_their_tokens(gated: Checkpoint, trace: Trace) -> None:
    whole, part = (
        of(trace, OfRun.TEXT, slot=2, marks=((3, 7, "fact"), (30, 31, "far")), window=window).view(gated, trace)
        for window in (None, (5, 20))
    )
    assert (
        part.pieces == whole.pieces[5:20]
        and np.array_equal(part.weights, whole.weights[5:20])
        and part.marks == ((0, 2, "fact"),)
    )
    curve, cut = (of(trace, OfRun.SURPRISE, window=window).view(gated, trace) for window in (None, (5, 20)))
    assert np.array_equal(cut.lines[0].values, curve.lines[0].values[5:20]) and cut.boundaries == part_boundaries(
        trace, 5, 20
    )


def part_boundaries(trace: Trace, first: int, stop: int) -> tuple[int, ...]:
    return tuple(
        max(segment.start, first) - first for segment in trace.segments if segment.start < stop and segment.end > first
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"layer": 1}, "no block 1; there are 0, 2"), ({"head": "7"}, "no head 7"), ({"segment": 99}, "no segment 99"),
        ({"window": (3, 3)}, "within 0 and"),
     ({"slot": 99}, "no slot 99"), ({"token": 999}, "no token 999"),
     ({"window": (0, 2), "shown": OfRun.NORMS}, "only views with tokens along")],
)  # fmt: skip
def test_a_missing_block_head_or_token_is_refused_with_those_that_exist(
    fields: dict, message: str, gated: Checkpoint, trace: Trace
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(of(trace), **fields).view(gated, trace)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"shown": "walls"}, "shown must be of"), ({"gate": "up"}, "gate must be of"),
        ({"window": [1]}, "window must hold 2 entries"), ({"marks": [[1, 2]]}, "marks must hold 3 entries"),
     ({"spec": 3}, "RunSpec is an object with fields, not 3"), ({"size": 3}, "RunChart cannot be made from"),
     ({"kind": "Wall"}, "no chart is called 'Wall'")],
)  # fmt: skip
def test_a_chart_that_makes_no_sense_is_refused_in_a_sentence(values: dict, message: str, trace: Trace) -> None:
    with pytest.raises(ValueError, match=message):
        FigureSpec.from_json({"charts": [of(trace).to_json() | values]})


def test_a_spec_without_charts_or_with_other_panels_is_refused(trace: Trace) -> None:
    with pytest.raises(ValueError, match=r"needs charts and has no fields \['chart'\]"):
        FigureSpec.from_json({"chart": []})
    with pytest.raises(ValueError, match="a page of 1 panels takes as many charts, not 2"):
        FigureSpec(charts=(of(trace), of(trace)))


def test_a_run_without_captures_has_no_figure_of_its_memory(gated: Checkpoint, text: str) -> None:
    spec = RunSpec(checkpoint=gated.name, text=text)
    plain = run(gated, spec)
    with pytest.raises(ValueError, match="captures nothing of a memory"):
        RunChart(shown=OfRun.READS, spec=spec).view(gated, plain)
    assert RunChart(shown=OfRun.TEXT, spec=spec).view(gated, plain).pieces == plain.tokens.shown


def written(folder: Path, spec: FigureSpec) -> Path:
    """The sidecar in the archive that the command makes from a spec."""
    (folder / "spec.json").write_text(json.dumps(spec.to_json()), encoding="utf-8")
    assert main(["figure", str(folder / "spec.json"), "-o", str(folder / "first.zip"), "--device", "cpu"]) == 0
    with zipfile.ZipFile(folder / "first.zip") as archive:
        archive.extractall(folder)
    return folder / "sidecar.json"


@pytest.fixture(scope="module")
def sidecar(gated: Checkpoint, trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sidecar of a figure with two panels, whose checkpoint can be opened by its path."""
    folder = tmp_path_factory.mktemp("figure")
    save(folder / "toy", gated.model, gated.tokenizer, "")
    charts = tuple(
        of(replace(trace, spec=replace(trace.spec, checkpoint=str(folder / "toy"))), shown)
        for shown in (OfRun.READS, OfRun.NORMS)
    )
    page = Grid(venue=Venue.ACL, columns=Columns.DOUBLE, across=2, panels=(Panel(), Panel()))
    return written(folder, FigureSpec(charts=charts, page=page))


def test_a_sidecar_makes_the_same_bytes_again_and_says_that_nothing_differs(sidecar: Path, capsys) -> None:
    for ending, first in ((".pdf", "fig.pdf"), (".svg", "fig.svg"), (".png", "fig-600.png"), (".zip", "first.zip")):
        again = sidecar.with_name(f"again{ending}")
        assert main(["figure", str(sidecar), "-o", str(again), "--device", "cpu"]) == 0
        assert again.read_bytes() == sidecar.with_name(first).read_bytes()
        assert "nothing differs from" in capsys.readouterr().out
    page = sidecar.with_name("again.html")
    assert main(["figure", str(sidecar), "-o", str(page), "--device", "cpu"]) == 0
    assert page.read_text(encoding="utf-8").count('<div id="figure-') == 2


def test_differences_are_listed_part_by_part(sidecar: Path, tmp_path: Path, capsys) -> None:
    record = json.loads(sidecar.read_text(encoding="utf-8"))
    record["made"][1] |= {"numbers": "0", "checkpoint_digest": "0", "device": "cuda"}
    record |= {"versions": record["versions"] | {"numpy": "0.1"}, "code_digest": "0"}
    (tmp_path / "other.json").write_text(json.dumps(record), encoding="utf-8")
    figure = ["figure", str(tmp_path / "other.json"), "-o", str(tmp_path / "again.pdf"), "--device", "cpu", "--json"]
    assert main(figure) == 0
    otherwise = json.loads(capsys.readouterr().out)["otherwise"]
    expected = [
        "the numbers of panel 2",
        "the checkpoint's weights of panel 2",
        "the device of panel 2 (was cuda, is cpu)",
        "the workbench's code",
    ]
    assert otherwise[:4] == expected
    assert otherwise[4].startswith("the versions of numpy (was 0.1, is ") and len(otherwise) == 5


def test_a_table_is_written_and_not_drawn(tmp_path: Path, capsys) -> None:
    sidecar = written(tmp_path, FigureSpec(charts=(BenchmarkChart(shown=OfBenchmark.LENGTHS),)))
    for ending in (".tex", ".md"):
        assert main(["figure", str(sidecar), "-o", str(tmp_path / f"again{ending}")]) == 0
        assert (tmp_path / f"again{ending}").read_bytes() == (tmp_path / f"table{ending}").read_bytes()
    assert main(["figure", str(sidecar), "-o", str(tmp_path / "again.pdf")]) == 2
    assert "a table is written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["-o", "fig.docx"], "a figure becomes one of .pdf"), (["-o", "fig.tex"], "a figure is drawn"),
     (["-o", "fig.pdf", "--results", "DIR"], "--results takes the folder of one result")],
)  # fmt: skip
def test_files_and_folders_that_no_figure_has_are_refused(
    arguments: list[str], message: str, gated: Checkpoint, trace: Trace, tmp_path: Path, capsys
) -> None:
    save(tmp_path / "toy", gated.model, gated.tokenizer, "")
    first = of(replace(trace, spec=replace(trace.spec, checkpoint=str(tmp_path / "toy"))))
    second = replace(first, spec=replace(first.spec, text="Mary went home."))
    spec = FigureSpec(charts=(first, second), page=Grid(venue=Venue.ACL, across=1, panels=(Panel(), Panel())))
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_json()), encoding="utf-8")
    assert main(["figure", str(tmp_path / "spec.json"), *arguments, "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err


def test_the_sidecar_names_what_the_figure_was_made_with(gated: Checkpoint, trace: Trace) -> None:
    made = of(trace).computed(gated, trace)
    spec = FigureSpec(charts=(made.chart,))
    record = sidecars.sidecar(spec, [made])
    [chart] = record["made"]
    assert (
        record["figure"] == spec.to_json()
        and chart["checkpoint_digest"] == gated.digest
        and chart["device"] == "cpu"
        and chart["seed"] == trace.spec.seed
    )
    assert sidecars.differences(record, record) == [] and bundle(spec.draw([made]), record, spec.digest)
    assert isinstance(made.view, Heatmap)
    other = ComputedChart(chart=made.chart, view=replace(made.view, values=made.view.values + 1), origin=made.origin)
    assert sidecars.differences(record, sidecars.sidecar(spec, [other])) == ["the numbers"]


def test_a_sweep_that_has_run_is_read_from_its_folder(gated: Checkpoint, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    save(tmp_path / "toy", gated.model, gated.tokenizer, "")
    sweep = SweepSpec(
        checkpoint=str(tmp_path / "toy"),
        grid=grid.UnitGrid.MEMORY_HEADS,
        count=4,
        segment_length=96,
        metrics=(Metric.LOGIT_DIFFERENCE, Metric.EXACT),
    )
    (tmp_path / "sweep.json").write_text(json.dumps(sweep.to_json()), encoding="utf-8")
    assert main(["sweep", str(tmp_path / "sweep.json"), "--out", str(tmp_path / "done"), "--device", "cpu"]) == 0
    spec = FigureSpec(charts=(SweepChart(spec=sweep, shown=OfSweep.EFFECTS, hide=False),))
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_json()), encoding="utf-8")
    digests = []
    for extra in ((), ("--results", str(tmp_path / "done"))):
        capsys.readouterr()
        command = f"figure {tmp_path / 'spec.json'} -o {tmp_path / 'fig.pdf'} --device cpu --json".split()
        assert main([*command, *extra]) == 0
        digests.append(json.loads(capsys.readouterr().out)["written"][0]["sha256"])
    assert digests[0] == digests[1]
    other = FigureSpec(charts=(SweepChart(spec=replace(sweep, count=5), shown=OfSweep.EFFECTS),))
    (tmp_path / "other.json").write_text(json.dumps(other.to_json()), encoding="utf-8")
    command[1] = str(tmp_path / "other.json")
    assert main([*command, *extra]) == 2
    assert "holds the results of another sweep" in capsys.readouterr().err


def test_last_bits_are_no_other_numbers_and_one_cell_is(gated: Checkpoint, trace: Trace) -> None:
    """Another processor or number of threads adds numbers in another order."""
    made = of(trace).computed(gated, trace)
    spec, draw = FigureSpec(charts=(made.chart,)), np.random.default_rng(0)

    def beside(values: np.ndarray) -> list[str]:
        other = ComputedChart(chart=made.chart, view=replace(made.view, values=values), origin=made.origin)
        record = json.loads(json.dumps(sidecars.sidecar(spec, [made])))
        return sidecars.differences(record, sidecars.sidecar(spec, [other]))

    values = made.view.values.astype(np.float32)
    assert beside(values * (1 + 3e-7 * draw.standard_normal(values.shape).astype(np.float32))) == []
    for at in draw.integers(0, values.size, 20):
        changed = values.copy()
        changed.ravel()[at] += 0.001 * np.abs(values).max()
        assert beside(changed) == ["the numbers"]
    assert beside(np.where(np.arange(values.size).reshape(values.shape) == 3, np.nan, values)) == ["the numbers"]
    assert beside(values[::-1]) == ["the numbers"]


def test_an_earlier_sidecar_knows_a_checkpoint_by_its_weights_and_stays_silent(gated: Checkpoint, trace: Trace) -> None:
    known = replace(gated, digest="whole", weights_digest="weights")
    made = of(trace).computed(known, trace)
    spec = FigureSpec(charts=(made.chart,))
    now = sidecars.sidecar(spec, [made])
    kept = {
        name: value
        for name, value in now["made"][0].items()
        if name not in ("setup_digest", "weights_digest", "numbers_sha256")
    }
    old = {name: value for name, value in now.items() if name not in ("processor", "threads")}
    old["made"] = [kept | {"checkpoint_digest": "weights", "numbers": now["made"][0]["numbers_sha256"]}]
    assert sidecars.differences(old, now) == []
    old["made"] = [old["made"][0] | {"checkpoint_digest": "others"}]
    assert sidecars.differences(old, now) == ["the checkpoint's weights"]


def test_another_configuration_is_not_reported_as_other_weights(gated: Checkpoint, trace: Trace) -> None:
    made = of(trace).computed(replace(gated, digest="one", weights_digest="weights"), trace)
    now = sidecars.sidecar(FigureSpec(charts=(made.chart,)), [made])
    record = now | {"made": [now["made"][0] | {"checkpoint_digest": "other", "setup_digest": "other"}]}
    assert sidecars.differences(record, now) == ["the checkpoint's configuration or tokenizer"]
    record = now | {"processor": "another", "threads": 99}
    assert [line.partition(" (was")[0] for line in sidecars.differences(record, now)] == [
        "the processor",
        "the number of threads",
    ]
