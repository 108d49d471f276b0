"""Laws of the Benchmark screen: it shows the numbers of the table it was given."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.figures.screen.draw import figure
from app.figures.theme import LIGHT
from app.views import numbers
from app.views.study import benchmark
from lm2.evaluation.cells import Answered, EvaluationCell
from lm2.evaluation.recipes import Recipe
from lm2.evaluation.results import Results, read_results
from lm2.evaluation.tables import differences, table


def _said(outputs: list[str], targets: list[str]) -> list[Answered]:
    return [
        Answered(seed=0, story=str(at), question="?", target=t, output=o, tokens=9)
        for at, (o, t) in enumerate(zip(outputs, targets))
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    places, yes = ["kitchen", "garden"] * 10, ["yes", "no"] * 10
    done = {}
    for length in ("0k", "4k"):
        for task, targets in ((1, places), (6, yes)):
            done[EvaluationCell(model="good", task=f"qa{task}", length=length, samples=20)] = _said(targets, targets)
            done[EvaluationCell(model="poor", task=f"qa{task}", length=length, samples=20)] = _said(
                [targets[0]] * 20, targets
            )
    for name, rows in (("table", table(done)), ("differences", differences(done))):
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


@pytest.fixture
def results(folder: Path) -> Results:
    return read_results(folder)


@pytest.fixture
def by_recipe(tmp_path: Path) -> Path:
    """Two recipes of two seeds, of which the first are right, or the last, of 20 questions."""
    targets, done = ["kitchen", "garden"] * 10, {}
    for length in ("0k", "4k"):
        for model, right in (("a0", 20), ("a1", 10), ("b0", 10), ("b1", 0)):
            said = targets[:right] + ["hall"] * (20 - right)
            done[EvaluationCell(model=model, task="qa1", length=length, samples=20)] = _said(said, targets)
    recipes = Recipe(name="a", seeds=("a0", "a1")), Recipe(name="b", seeds=("b0", "b1"))
    for name, rows in (("table", table(done, recipes)), ("differences", differences(done, recipes))):
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


def test_seeds_are_thin_curves_beside_the_mean_of_their_recipe(by_recipe: Path) -> None:
    results = read_results(by_recipe)
    assert benchmark.pairs(results) == ["a - b", "b - a"]
    mean, other, _ = benchmark.curves(results, "qa1", "exact").lines
    assert (mean.name, list(mean.values), other.name) == ("a", [75, 75], "b")
    assert {seed.name: list(seed.values) for seed in mean.seeds} == {"a0": [100, 100], "a1": [50, 50]}
    lead, _ = benchmark.lead(results, "a - b", "qa1", "exact").lines
    assert [list(seed.values) for seed in lead.seeds] == [[50, 50], [50, 50]] and list(lead.values) == [50, 50]
    by_length = benchmark.by_length(results, "mean", "exact").as_columns()
    assert by_length["a, by seed (%)"] == ["100.0, 50.0"] * 2
    assert benchmark.by_task(results, "exact", "0k").as_columns()["b, by seed (%)"] == ["50.0, 0.0"] * 2
    ratios = benchmark.ratios(results, "a - b", "exact").as_columns()
    assert ratios["by seed (%)"] == ["+100.0, none"] * 2  # b1 is never right


def test_seeds_are_drawn_on_screen_and_in_print_and_are_among_the_numbers(by_recipe: Path) -> None:
    view = benchmark.curves(read_results(by_recipe), "qa1", "exact")
    assert numbers.table(view)["line"].to_pylist()[::2] == ["a", "a0", "a1", "b", "b0", "b1", "best constant answer"]
    drawn = figure(view, LIGHT)
    thin = [trace for trace in drawn.data if trace.name in ("a0", "a1", "b0", "b1")]
    assert len(thin) == 4 and not any(trace.showlegend for trace in thin)


def test_curves_are_the_table_in_percent(results: Results) -> None:
    view = benchmark.curves(results, "mean", "exact")
    assert view.ticks == ("0k", "4k")
    assert {line.name: list(line.values) for line in view.lines} == {
        "good": [100, 100],
        "poor": [50, 50],
        "best constant answer": [50, 50],
    }
    assert all((line.low <= line.values).all() for line in view.lines if line.low is not None)


def test_the_lead_is_in_points_and_the_ratio_in_percent(results: Results) -> None:
    assert list(benchmark.lead(results, "good - poor", "qa1", "exact").lines[0].values) == [50, 50]
    assert list(benchmark.lead(results, "poor - good", "mean", "exact").lines[0].values) == [-50, -50]
    ratios = benchmark.ratios(results, "good - poor", "exact").as_columns()
    assert ratios["ratio of means less 1 (%)"] == pytest.approx([100, 100])


def test_every_task_stands_beside_the_paper(results: Results) -> None:
    shown = benchmark.by_task(results, "exact", "4k").as_columns()
    assert shown["task"] == ["qa1", "qa6", "mean"]
    assert shown["paper: LM2-1.7B"] == ["46.0", "66.0", "55.9"]
    assert shown["best constant (%)"][0].startswith("50.0 ")


def test_the_papers_curves_have_its_lengths(results: Results) -> None:
    view = benchmark.printed_curves("mean")
    assert len(view.lines) == 3 and np.isfinite(view.lines[0].values).all()


def _script() -> None:
    from app.screens import benchmark
    from app.ui import state

    benchmark.render()
    state.publish()


def _page(**link: str) -> AppTest:
    test = AppTest.from_function(_script, default_timeout=60)
    for name, value in link.items():
        test.query_params[name] = value
    return test.run()


def test_the_screen_shows_a_folder_of_results(folder: Path) -> None:
    test = _page(results=str(folder))
    assert not test.exception and not test.error
    assert next(heading.value for heading in test.subheader) == "Measured here"
    assert any("headline gains" in note.value for note in test.markdown)
    test.selectbox(key="widget_shown").set_value("qa6").run()
    assert not test.exception and not any("headline gains" in note.value for note in test.markdown)


def test_one_model_alone_is_shown_without_a_difference(folder: Path) -> None:
    for name in ("table", "differences"):
        rows = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
        rows[(rows["model"] == "good") & (name == "table")].to_csv(folder / f"{name}.csv", index=False)
    test = _page(results=str(folder))
    assert not test.exception and not test.error
    assert not any("same items" in heading.value for heading in test.subheader)


def test_a_wrong_folder_is_explained(tmp_path: Path) -> None:
    test = _page(results=str(tmp_path))
    assert not test.exception
    assert any("table.csv is missing" in info.value for info in test.info)


def test_without_results_the_paper_is_shown_and_said_how_to_make_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lm2.evaluation.results.BUNDLED", tmp_path)
    test = _page()
    assert not test.exception
    assert any("lm2 eval" in info.value for info in test.info)
    assert [heading.value for heading in test.subheader] == [
        "Printed in the paper",
        "Before you read the paper's numbers",
    ]


def test_the_screen_shows_question_sets_in_the_place_of_tasks_and_no_lengths(tmp_path: Path) -> None:
    targets = ["kitchen", "garden"] * 10
    done = {
        EvaluationCell(model=model, task=name, samples=20): _said(outputs, targets)
        for name in ("babi:qa1", "mine.jsonl")
        for model, outputs in (("good", targets), ("poor", [targets[0]] * 20))
    }
    for name, rows in (("table", table(done)), ("differences", differences(done))):
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    view = benchmark.curves(read_results(tmp_path), "mean", "f1")
    assert view.ticks == ("babi:qa1", "mine.jsonl") and list(view.lines[0].values) == [100, 100]
    test = _page(results=str(tmp_path))
    assert not test.exception and not test.error
    headings = [heading.value for heading in test.subheader]
    assert "Every set" in headings and "Printed in the paper" not in headings


def test_the_screen_says_what_a_recipe_is(by_recipe: Path) -> None:
    test = _page(results=str(by_recipe))
    assert not test.exception and not test.error
    notes = " ".join(caption.value for caption in test.caption)
    assert "a is the mean over 2 models" in notes and "other stories and other seeds" in notes
    assert "seeds" not in " ".join(caption.value for caption in _page().caption)
