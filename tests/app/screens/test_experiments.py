"""Laws of the Experiments screen: every experiment can be chosen, run in the background, and met again by its link."""

import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from pages import finished
from planted import CONTROL, QUESTION, plant
from streamlit.testing.v1 import AppTest
from toys import REMEMBERING

from app.charts import ExperimentChart, OfExperiment
from app.server import results
from app.server.jobs import JobPhase
from app.views.study import experiments as views
from lm2.intervals import Bounded
from lm2.tasks.simulator import simulate
from probes.experiments import experiment as experiments
from probes.experiments.experiment import ExperimentReport, ExperimentSpec, perform
from probes.experiments.registry import EXPERIMENTS, experiment
from probes.findings import Column, Findings, columns_of

ROWS = ((1, 10.0, 5.0, 15.0), (2, 20.0, 12.0, 28.0))
COLUMNS = columns_of(("slots", Column("donor", "%")), [(slots, Bounded(*donor)) for slots, *donor in ROWS])
FOUND = Findings(title="Whose?", columns=COLUMNS, note="Two pairs", curve=True)


def test_a_curve_is_drawn_from_the_columns_it_names() -> None:
    view = views.curve(FOUND)
    assert view.ticks == ("1", "2") and view.x_title == "slots"
    (line,) = view.lines
    assert [list(line.values), list(line.low), list(line.high)] == [[10, 20], [5, 12], [15, 28]]
    assert views.curve(Findings(title="", columns=columns_of(("a",), [("b",)]), note="")) is None


def reported(spec: ExperimentSpec) -> ExperimentReport:
    return ExperimentReport(
        spec=spec,
        checkpoint_digest="",
        device="cpu",
        dtype="float32",
        questions_digest="",
        skipped=(),
        findings=(FOUND,),
    )


def test_a_table_has_the_findings_rows() -> None:
    chart = ExperimentChart(spec=ExperimentSpec(experiment="swap", checkpoint="a"), shown=OfExperiment.TABLE)
    report = reported(chart.spec)
    view = chart.view(None, report)
    assert view.columns == FOUND.columns and view.rows == ROWS


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Simulated stories, which are quick to have, and no jobs of other tests."""
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    results.jobs.clear()
    yield
    results.jobs.clear()


SEVERAL = ("gates", "swap", "forgetting", "capacity", "overwrites", "interference")
"""Those that read more documents, or fewer, than there are questions."""


@pytest.mark.parametrize("key", SEVERAL)
def test_the_documents_told_beforehand_are_about_those_that_run(key: str, gated) -> None:
    heard: list[int] = []
    spec = ExperimentSpec(experiment=key, checkpoint=gated.name, questions="babi:qa2", count=4, segment_length=96)
    perform(gated, spec, lambda done, expected: heard.append(done))
    assert len(heard) <= spec.documents <= 2 * len(heard)


def _script() -> None:
    from app.screens.many_questions import experiments
    from app.ui import state

    experiments.render()
    state.publish()


def _page(**link: str) -> AppTest:
    test = AppTest.from_function(_script, default_timeout=60)
    for name, value in {"exam_questions": "3", **link}.items():
        test.query_params[name] = value
    return test.run()


def _press(test: AppTest, label: str) -> AppTest:
    next(button for button in test.button if button.label.startswith(label)).click().run()
    assert not test.exception
    return test


def _words(test: AppTest) -> str:
    return " ".join(element.value for element in (*test.markdown, *test.caption, *test.info))


@pytest.mark.parametrize("key", EXPERIMENTS)
def test_every_experiment_says_what_it_asks_and_its_control_before_it_runs(key: str, gated, folder) -> None:
    test = _page(experiment=key, checkpoint=folder(gated))
    assert not test.exception
    assert experiment(key).question in _words(test) and experiment(key).control in _words(test)
    assert any(button.label.startswith("Run ") for button in test.button)


def test_a_new_experiment_is_offered_and_runs(gated, folder, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = plant(tmp_path, monkeypatch)
    test = _page(experiment=key, checkpoint=folder(gated))
    assert "A dance" in test.selectbox(key="widget_experiment").options
    assert QUESTION in _words(test) and CONTROL in _words(test)
    rows = finished(_press(test, "Run about 3 documents")).dataframe[0].value
    assert list(rows) == ["step", "danced (%)", "danced_low (%)", "danced_high (%)"] and len(rows) == 3


@pytest.mark.parametrize("toy", REMEMBERING)
def test_an_experiment_runs_and_its_link_shows_the_result_to_others(toy: str, folder, request) -> None:
    path = folder(request.getfixturevalue(toy))
    test = finished(_press(_page(checkpoint=path, experiment="permutation"), "Run"))
    assert [heading.value for heading in test.subheader] == ["Slots permuted"]
    rows = test.dataframe[0].value
    assert len(rows) == 2 and rows["right (%)"].between(0, 100).all()
    other = _page(checkpoint=path, experiment="permutation")
    assert other.dataframe[0].value.equals(rows) and not any(button.label.startswith("Run") for button in other.button)


def test_a_model_without_gates_is_explained_by_the_experiment_itself(rmt, folder) -> None:
    test = finished(_press(_page(checkpoint=folder(rmt), experiment="gates"), "Run"))
    assert "no gates to clamp" in _words(test) and not test.exception


def test_a_model_without_a_memory_is_explained(plain, folder) -> None:
    test = _page(checkpoint=folder(plain))
    assert "no memory" in _words(test) and not test.button


def test_more_questions_than_there_are_are_explained(gated, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    stories = [simulate(1, seed=seed, questions=5).story for seed in range(3)]
    monkeypatch.setattr("lm2.tasks.stories.held_out", lambda task, count: stories)
    test = _page(checkpoint=folder(gated), exam_questions="16")
    assert "has 15 questions, not 16" in _words(test) and not test.exception and not test.button


def test_the_url_says_what_was_chosen(gated, folder) -> None:
    test = _page(checkpoint=folder(gated))
    test.selectbox(key="widget_experiment").set_value("swap").run()
    test.number_input(key="widget_exam_seed").set_value(5).run()
    assert (test.query_params["experiment"], test.query_params["exam_seed"]) == ("swap", "5")


def test_every_result_names_its_spec_and_the_command_that_runs_it_again(gated, folder) -> None:
    test = _page(checkpoint=folder(gated), experiment="swap", set="babi:qa2")
    command = test.code[0].value
    digest = command.removeprefix("lm2 ablate swap-").removesuffix(".json")
    assert len(digest) == 10 and f"Spec {digest}" in _words(test)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An experiment that stops behind its first document until the event is set."""
    go_on = threading.Event()

    def perform(checkpoint, spec, on_document) -> ExperimentReport:
        for done in (1, 2, 3):
            on_document(done, 3)
            go_on.wait(20)
        return reported(spec)

    monkeypatch.setattr(experiments, "perform", perform)
    yield go_on
    go_on.set()


def test_progress_is_shown_and_cancel_stops_the_experiment(slow: threading.Event, gated, folder) -> None:
    test = _press(_page(checkpoint=folder(gated)), "Run")
    assert not test.dataframe
    _press(test, "Cancel")
    slow.set()
    finished(test)
    assert "Stopped after 2 documents" in _words(test) and not test.dataframe
    finished(_press(test, "Run"))
    assert len(test.dataframe[0].value) == 2


def test_a_second_session_joins_the_job_of_the_first(slow: threading.Event, gated, folder) -> None:
    path = folder(gated)
    first = _press(_page(checkpoint=path), "Run")
    second = _page(checkpoint=path)
    assert any(button.label == "Cancel" for button in second.button)
    slow.set()
    assert finished(first).dataframe[0].value.equals(finished(second).dataframe[0].value)
    assert (
        results.jobs().find(next(iter(results.jobs()._jobs))).phase is JobPhase.FINISHED
        and len(results.jobs()._jobs) == 1
    )


def test_an_experiments_results_are_plain_json(slow: threading.Event, gated, folder) -> None:
    slow.set()
    test = finished(_press(_page(checkpoint=folder(gated)), "Run"))
    assert not test.exception
    (job,) = results.jobs()._jobs.values()
    assert json.loads(json.dumps(job.result.to_json()))["findings"][0]["rows"] == [list(row) for row in ROWS]
    assert np.isfinite(ROWS).all()
