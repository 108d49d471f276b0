"""Laws of "For a paper" and of the Figure screen: what is handed out is what is shown, and figures are kept by name."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pages import finished, told
from streamlit.testing.v1 import AppTest

from app.charts import ComputedChart, OfRun, RunChart
from app.export import workspace
from app.export.figure_spec import FigureSpec
from app.export.sidecar import sidecar
from app.figures.print.page import Annotation, Grid, Panel
from app.server import results
from app.ui.export_panel import PlacedPanel
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.runner import run
from lm2.runs.spec import RunSpec
from lm2.weights.checkpoint import load

TEXT = "Mary moved to the garden. John went to the office.\fWhere is Mary?"


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv(workspace.VARIABLE, str(tmp_path / "space"))
    results.jobs.clear()
    yield
    results.jobs.clear()


@pytest.fixture(scope="module")
def made() -> tuple[ComputedChart, ...]:
    checkpoint = load("babi-lm2-qa1", "cpu")
    spec = RunSpec(
        checkpoint=checkpoint.name,
        text=TEXT,
        captures=(Capture(Site.READ_PATTERN), Capture(Site.BANK_PRE), Capture(Site.BANK_POST)),
    )
    trace = run(checkpoint, spec)
    return tuple(
        RunChart(spec=spec, shown=shown, slot=2).computed(checkpoint, trace)
        for shown in (OfRun.READS, OfRun.TEXT, OfRun.NORMS)
    )


def _figure_script() -> None:
    from app.screens import figure
    from app.ui import state

    figure.render()
    state.publish()


def _page(placed: tuple[PlacedPanel, ...]) -> AppTest:
    test = AppTest.from_function(_figure_script, default_timeout=120)
    test.session_state["kept_figure"] = list(placed)
    return test.run()


def test_an_empty_figure_says_what_to_do() -> None:
    test = _page(())
    assert "Add to the figure" in told(test) and not test.exception


def test_panels_are_titled_moved_and_taken_out(made: tuple[ComputedChart, ...]) -> None:
    test = _page(
        tuple(
            PlacedPanel(made=computed_chart, panel=Panel(title=computed_chart.chart.words)) for computed_chart in made
        )
    )
    assert not test.exception and [one.label.partition(":")[0] for one in test.expander][:3] == ["a", "b", "c"]
    next(one for one in test.text_input if one.label == "Title" and one.value == "reads").set_value(
        "Who reads what"
    ).run()
    assert [one.panel.title for one in test.session_state["kept_figure"]] == ["Who reads what", "text", "norms"]
    later = [button for button in test.button if button.icon == ":material/arrow_downward:"]
    later[0].click().run()
    assert [one.panel.title for one in test.session_state["kept_figure"]] == ["text", "Who reads what", "norms"]
    out = [button for button in test.button if button.icon == ":material/delete:"]
    out[2].click().run()
    assert [one.panel.title for one in test.session_state["kept_figure"]] == [
        "text",
        "Who reads what",
    ] and not test.exception


def test_what_does_not_fit_is_explained_and_loses_nothing(made: tuple[ComputedChart, ...]) -> None:
    placed = tuple(PlacedPanel(made=made[0], panel=Panel()) for _ in range(12))
    test = AppTest.from_function(_figure_script, default_timeout=120)
    test.session_state["kept_figure"] = list(placed)
    test.query_params["across"] = "1"
    test.run()
    assert "does not fit" in told(test) and "choose fewer" in told(test) and not test.exception
    assert len(test.session_state["kept_figure"]) == 12


def test_a_figure_is_kept_by_name_and_opened_again(made: tuple[ComputedChart, ...]) -> None:
    test = _page(
        tuple(
            PlacedPanel(made=computed_chart, panel=Panel(title=computed_chart.chart.words))
            for computed_chart in made[::2]
        )
    )
    test.query_params.clear()
    next(one for one in test.text_input if one.label == "Name").set_value("banks 1").run()
    next(button for button in test.button if button.label == "Save").click().run()
    assert workspace.names() == ["banks 1"] and "lm2 figure" in test.success[0].value
    again = _page(())
    next(one for one in again.selectbox if one.label == "Saved figures").set_value("banks 1").run()
    next(button for button in again.button if button.label == "Open").click().run()
    next(button for button in again.button if button.label.startswith("Compute its 2")).click().run()
    finished(again)
    placed = again.session_state["kept_figure"]
    assert [one.panel.title for one in placed] == ["reads", "norms"] and not again.exception
    assert [one.made.to_json()["numbers"] for one in placed] == [
        computed_chart.to_json()["numbers"] for computed_chart in made[::2]
    ]


def test_a_name_that_is_no_files_is_refused_in_a_sentence(made: tuple[ComputedChart, ...]) -> None:
    test = _page((PlacedPanel(made=made[0], panel=Panel()),))
    next(one for one in test.text_input if one.label == "Name").set_value("../up").run()
    next(button for button in test.button if button.label == "Save").click().run()
    assert "a figure's name has letters" in told(test) and workspace.names() == [] and not test.exception


def test_a_broken_figure_is_explained(made: tuple[ComputedChart, ...]) -> None:
    workspace.save("old", {"figure": {"charts": [{"kind": "Wall"}]}})
    test = _page(())
    next(one for one in test.selectbox if one.label == "Saved figures").set_value("old").run()
    next(button for button in test.button if button.label == "Open").click().run()
    assert "no chart is called 'Wall'" in told(test) and not test.exception
    next(button for button in test.button if button.label == "Delete").click().run()
    assert workspace.names() == []


def test_annotations_are_kept_with_the_figure(made: tuple[ComputedChart, ...]) -> None:
    panel = Panel(title="reads", annotations=(Annotation(x=3, y=2, text="here"),))
    page = Grid(venue="icml", across=1, panels=(panel,))
    spec = FigureSpec(charts=(made[0].chart,), page=page)
    back = FigureSpec.from_json(sidecar(spec, made[:1])["figure"])
    assert back.page.panels[0].annotations[0].text == "here"
    assert any(text.get_text() == "here" for text in back.draw(made[:1]).figure.axes[0].texts)


def _hand_out_script() -> None:
    from app.charts import BenchmarkChart, OfBenchmark
    from app.charts.chart import Computing
    from app.ui import export_panel

    chart = BenchmarkChart(shown=OfBenchmark.LENGTHS)
    found = chart.result(None, Computing())
    export_panel._choose({"Models by length": chart.computed(None, found)}, export_panel.Stretch.LINEAR)


def test_a_table_is_shown_as_latex_and_as_markdown() -> None:
    test = AppTest.from_function(_hand_out_script, default_timeout=60).run()
    assert not test.exception and r"\toprule" in test.code[0].value
    test.segmented_control(key="written_Models by length").set_value("Markdown").run()
    assert test.code[0].value.startswith("| length")


def _panel_script() -> None:
    import streamlit as st

    from app.ui import export_panel

    export_panel._choose({"Reads": st.session_state["made"]}, export_panel.Stretch.SQRT)


def test_a_window_of_tokens_is_handed_out_and_added(made: tuple[ComputedChart, ...]) -> None:
    test = AppTest.from_function(_panel_script, default_timeout=60)
    test.session_state["made"] = made[0]
    test.run()
    assert not test.exception
    test.slider[0].set_value((2, 6)).run()
    next(button for button in test.button if button.label == "Add to the figure").click().run()
    [placed] = test.session_state["kept_figure"]
    assert placed.made.chart == replace(made[0].chart, window=(2, 7)) and placed.made.view.values.shape[1] == 5
    assert placed.panel.stretch.value == "sqrt" and placed.panel.title == "Reads"
