"""Laws of charts of all kinds of results: JSON gives them back, they can be printed, and what is not there is
refused."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from app.charts import (
    AblationChart,
    BenchmarkChart,
    Chart,
    ExperimentChart,
    OfAblation,
    OfBenchmark,
    OfExperiment,
    OfPatching,
    OfProbe,
    OfSweep,
    OfUpdates,
    PatchingChart,
    ProbeChart,
    SlotChart,
    SteeringChart,
    SweepChart,
    UpdateChart,
)  # fmt: skip
from app.charts.chart import Computing
from app.export.figure_spec import FigureSpec
from app.export.files import FileFormat, bundle, render
from app.figures.print.figure import draw as printed
from app.figures.print.page import Paper
from app.figures.screen import draw
from app.figures.screen.html import interactive
from app.figures.theme import DARK, LIGHT
from app.server import results
from app.server.results import Kept
from app.views.kinds import Forest, Line, Strip, Table
from app.views.latex import latex
from app.views.study import ablations, experiments, sweeps
from lm2.intervals import Bounded
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import Freeze
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import Checkpoint
from probes.causal.patching import PatchSpec
from probes.causal.steering import Steering
from probes.experiments.experiment import ExperimentSpec
from probes.explain.spec import ExplainSpec
from probes.features.documents import Documents
from probes.features.examples import RowPosition
from probes.findings import Column, Findings, columns_of
from probes.probing.spec import ProbeSpec
from probes.stats.metrics import Metric
from probes.sweeps.grid import UnitGrid
from probes.sweeps.spec import SweepSpec

TEXT, DONOR = (
    "Mary moved to the garden. John went to the office.\fWhere is Mary?",
    "Mary went to the kitchen.\fWhere is Mary?",
)


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated stories are quick to have."""
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)


def charts(name: str) -> dict[str, tuple[Chart, ...]]:
    """One result of every kind, with all that is shown of it."""
    run = RunSpec(checkpoint=name, text=TEXT)
    sweep = SweepSpec(
        checkpoint=name,
        grid=UnitGrid.MEMORY_HEADS,
        count=4,
        segment_length=96,
        metrics=(Metric.LOGIT_DIFFERENCE, Metric.EXACT),
    )
    probe = ProbeSpec(
        checkpoint=name, documents=Documents(count=12), moment=RowPosition.SEGMENT, segment_length=48,
        sources=("bank:mean", "embed"), targets=("place of Mary",),
        baselines=("tokens",), strengths=(0.01,), folds=2, permutations=0,
    )  # fmt: skip
    explain = ExplainSpec(checkpoint=name, documents=Documents(count=6))
    patch = PatchSpec(checkpoint=name, text=TEXT, row=14, donor=DONOR, donor_row=8, own=5, other=7)
    return {
        "ablation": tuple(
            AblationChart(spec=replace(run, interventions=(Freeze(),)), shown=shown, marks=((1, 2, "fact"),),
                window=(2, 9)) for shown in OfAblation
        ),
        "sweep": tuple(SweepChart(spec=sweep, shown=shown, metric=Metric.EXACT, hide=False) for shown in OfSweep),
        "probe": tuple(ProbeChart(spec=probe, shown=shown, target="place of Mary",
            source="embed") for shown in OfProbe),
        "experiment": tuple(
            ExperimentChart(spec=ExperimentSpec(experiment="swap", checkpoint=name, count=4,
                segment_length=96), shown=shown)
            for shown in OfExperiment
        ),
        "slots": (SlotChart(spec=explain, slot=1, passages=2), SlotChart(spec=explain, slot=0, side="wrote")),
        "patching": tuple(PatchingChart(spec=patch, shown=shown) for shown in OfPatching),
        "updates": tuple(
            UpdateChart(spec=run, shown=shown, tokens=4, frozen=1, layer=2, probe=(3, 4, 5), before=0, after=2,
                token=5) for shown in OfUpdates
        ),
        "steering": (
            SteeringChart(spec=run, steering=Steering(toward="garden", away="office", layer=1), tokens=4),
        ),
        "benchmark": tuple(BenchmarkChart(shown=shown) for shown in OfBenchmark),
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["ablation", "sweep", "probe", "experiment", "slots", "patching", "updates", "steering", "benchmark"]
)
def test_json_gives_it_back_and_all_that_is_shown_can_be_printed(kind: str, gated: Checkpoint) -> None:
    found = {}
    for chart in charts(gated.name)[kind]:
        assert Chart.from_json(json.loads(json.dumps(chart.to_json()))) == chart
        if chart.result_key not in found:
            found[chart.result_key] = chart.result(gated, Computing())
        made = chart.computed(gated, found[chart.result_key])
        assert made.to_json()["numbers"] == chart.computed(gated, found[chart.result_key]).to_json()["numbers"]
        if isinstance(made.view, Table):
            assert latex(made.view).count(r"\\") == len(made.view.rows) + 1
        else:
            drawn = FigureSpec(charts=(chart,), page=Paper(venue="tmlr")).draw([made])
            assert render(drawn, FileFormat.SVG).startswith(b"<?xml") and interactive(drawn).endswith("</html>")


@pytest.mark.parametrize("kind", ["ablation", "patching", "updates"])
def test_a_screen_has_the_numbers_of_the_command_and_computes_no_part_twice(
    kind: str, gated: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm2.runs.runner

    specs, run, store = [], lm2.runs.runner.run, results.ResultCache(10**9)
    monkeypatch.setattr(results, "_store", lambda: store)
    wide = RunSpec(checkpoint=gated.name, text=TEXT, captures=tuple(map(Capture, (Site.READ_PATTERN, Site.BANK_POST))))
    Kept(anew=True).run(gated, wide)
    monkeypatch.setattr(
        lm2.runs.runner, "run", lambda *given, **named: (specs.append(given[1]), run(*given, **named))[1]
    )
    for chart in charts(gated.name)[kind]:
        shown = chart.computed(gated, chart.result(gated, Kept(anew=True))).to_json()
        assert chart.result(gated, Kept()), "all its parts are kept"
        assert TEXT not in [spec.text for spec in specs if not spec.interventions], "a run that has kept more serves"
        assert shown == chart.computed(gated, chart.result(gated, Computing())).to_json()
        specs.clear()


def test_what_a_screen_shows_is_what_the_chart_holds(gated: Checkpoint) -> None:
    [_, change] = charts(gated.name)["ablation"]
    found = change.result(gated, Computing())
    assert np.array_equal(change.view(gated, found).lines[1].values, ablations.lines(found).lines[1].values[2:9])
    [effects, *_] = charts(gated.name)["sweep"]
    swept = effects.result(gated, Computing())
    assert np.array_equal(
        effects.view(gated, swept).values, sweeps.effect_map(swept, Metric.EXACT, hide=False).values, equal_nan=True
    )


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [("probe", {"target": "place of Rex"}, "no target place of Rex; there are place of Mary"),
        ("probe", {"segment": 99}, "no segment 99"),
     ("sweep", {"metric": Metric.KL}, "no metric kl"), ("experiment", {"finding": 9}, "no finding 9"),
     ("slots", {"slot": 99}, r"no slot \('read', 99\)"),
     ("updates", {"after": 99}, "no bank 99"), ("updates", {"layer": 1}, "no block 1|block 1|blocks"),
     ("benchmark", {"task": "qa99"}, "no task qa99"),
     ("benchmark", {"metric": "luck"}, "no scoring luck")],
)  # fmt: skip
def test_what_is_not_there_is_refused_with_what_is(kind: str, fields: dict, said: str, gated: Checkpoint) -> None:
    chart = charts(gated.name)[kind][0]
    found = chart.result(gated, Computing())
    with pytest.raises(ValueError, match=said):
        replace(chart, **fields).view(gated, found)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [("sweep", {"hide": "yes"}, "hide must be true or false"), ("sweep", {"metric": "luck"}, "metric must be of"),
        ("probe", {"shown": "wall"}, "shown must be of"),
     ("slots", {"side": "heard"}, "those that read or wrote it"), ("updates", {"writes": "maybe"}, "writes must be"),
     ("updates", {"probe": "abc"}, "probe must be"),
     ("benchmark", {"task": 3}, "task must be a text"),
     ("experiment", {"spec": {"experiment": "dance", "checkpoint": "a"}}, "no experiment is called"),
     ("patching", {"spec": {}}, "PatchSpec cannot be made .*needs checkpoint")],
)  # fmt: skip
def test_a_chart_that_makes_no_sense_is_refused_in_a_sentence(
    kind: str, values: dict, said: str, gated: Checkpoint
) -> None:
    with pytest.raises(ValueError, match=said):
        Chart.from_json(charts(gated.name)[kind][0].to_json() | values)


def forest(count: int = 2) -> Forest:
    values = np.array([90.0, np.nan, 10.0])
    lines = tuple(
        Line(name=f"kind {at}", values=values - at, low=values - at - 5, high=values - at + 5) for at in range(count)
    )
    labels = ("nothing", "a long label that has to be broken into two lines (control)", "chance")
    return Forest(lines=lines, labels=labels, x_title="right (%), with 95 % interval", x_range=(0, 100))


@pytest.mark.parametrize("count", [1, 3])
def test_intervals_are_drawn_row_by_row_and_told_in_words(count: int) -> None:
    view = forest(count)
    drawn = printed(view, Paper(venue="icml"))
    [axes] = drawn.figure.axes
    assert [yticklabel.get_text().replace("\n", " ") for yticklabel in axes.get_yticklabels()] == list(view.labels)
    assert (axes.get_legend() is None) == (count == 1)
    again = bundle(drawn, {}, "")
    assert again == bundle(printed(view, Paper(venue="icml")), {}, "")
    for theme in (LIGHT, DARK):
        shown = draw.figure(view, theme).data
        assert len(shown) == count and np.array_equal(shown[0].x, view.lines[0].values, equal_nan=True)
    assert "nothing 90" in view.alt and "a long label" not in view.alt


def test_intervals_of_findings_share_the_first_columns_unit() -> None:
    headers = ("condition", Column("right", "%"), "change of logit", Column("own", "%"))
    rows = [("off", Bounded(10.0, 5.0, 15.0), Bounded(1.0, 0.5, 1.5), Bounded(20.0, 18.0, 22.0))]
    view = experiments.forest(Findings(title="", columns=columns_of(headers, rows), note=""))
    assert (
        [line.name for line in view.lines] == ["right (%)", "own (%)"]
        and view.labels == ("off",)
        and view.x_range == (0, 100)
    )
    assert list(view.lines[1].high) == [22.0]
    assert experiments.forest(Findings(title="", columns=columns_of(("a", "b"), [(1, 2)]), note="")) is None


def test_a_text_keeps_its_marks_where_it_is_cut(gated: Checkpoint) -> None:
    chart = charts(gated.name)["ablation"][0]
    view = replace(chart, window=(0, 5)).view(gated, chart.result(gated, Computing()))
    assert isinstance(view, Strip) and view.marks == ((1, 2, "fact"),)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Callable[[str], None]:
    from app.export import workspace

    monkeypatch.setenv(workspace.VARIABLE, str(tmp_path / "space"))
    return lambda name: workspace.save(name, {"figure": {"charts": []}})


def test_a_workspace_keeps_so_many_figures_and_says_so(
    kept: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.export import workspace

    monkeypatch.setattr(workspace, "MOST", 2)
    kept("a")
    kept("b")
    with pytest.raises(ValueError, match="2 figures are kept, and 2 are the most: delete one"):
        kept("c")
    kept("b")
    (workspace.figures() / "é.json").write_text("{}", encoding="utf-8")
    assert workspace.names() == ["a", "b"]


def test_a_workspace_keeps_figures_by_their_names(kept: Callable[[str], None]) -> None:
    from app.export import workspace

    assert workspace.names() == []
    kept("reads and writes")
    kept("Another-1")
    assert workspace.names() == ["Another-1", "reads and writes"] and workspace.read("Another-1") == {
        "figure": {"charts": []}
    }
    workspace.delete("Another-1")
    assert workspace.names() == ["reads and writes"]
    with pytest.raises(ValueError, match="no figure is called 'Another-1'"):
        workspace.read("Another-1")
    for name in ("", "../up", "a/b", ".hidden", "x" * 81, "end."):
        with pytest.raises(ValueError, match="a figure's name has"):
            kept(name)
    (workspace.figures() / "broken.json").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match="is not JSON"):
        workspace.read("broken")
