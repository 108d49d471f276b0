"""Laws of the Sweeps screen: the cost before, the map, what is behind its cells, and no ranking from a screen that
failed."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from pages import finished, told
from streamlit.testing.v1 import AppTest

from app.server import results
from app.views.study import sweeps as views
from lm2.tasks import stories
from lm2.weights.checkpoint import Checkpoint
from probes.stats.metrics import Metric
from probes.sweeps.grid import UnitGrid, parts
from probes.sweeps.result import Joint, SweepResult
from probes.sweeps.screening import Screening
from probes.sweeps.spec import SweepSpec


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Simulated stories, which are quick to have, and no jobs of other tests."""
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    results.jobs.clear()
    yield
    results.jobs.clear()


BACK = (0, 2)
DOCUMENTS = 12
METRICS = (Metric.LOGIT_DIFFERENCE, Metric.EXACT)


@pytest.fixture
def made(gated: Checkpoint) -> Callable[..., views.Swept]:
    """A finished sweep of 20 slots in which unit 7 alone matters; with `measured`, one that was screened."""

    def make(measured: tuple[int, ...] | None = None, r: float = 0.9) -> views.Swept:
        spec = SweepSpec(
            checkpoint=gated.name, count=DOCUMENTS, back=BACK, metrics=METRICS, screen=None if measured is None else 1
        )
        units = parts(UnitGrid.SLOTS, gated.config, BACK, ())
        chosen = tuple(range(len(units))) if measured is None else measured
        noise = 0.01 * np.random.default_rng(0).standard_normal((len(chosen), DOCUMENTS))
        effects = noise - 2.0 * (np.array(chosen) == 7)[:, None]
        joints = tuple(
            Joint(label=f"block {layer}", members=tuple(at for at, unit in enumerate(units) if unit.layer == layer))
            for layer in (0, 2)
        )
        base, right = np.full(DOCUMENTS, 3.0), np.ones(DOCUMENTS)
        prompts = stories.questions(1, DOCUMENTS)
        curve = {METRICS[0]: base + np.array([[-2.0], [-2.1]]), METRICS[1]: np.array([right, right])}
        screening = Screening(scores=np.zeros(len(units)), top=chosen[:2], random=chosen[2:], r=r, slope=1.0)
        result = SweepResult(
            spec=spec, checkpoint_digest="", device="cpu", dtype="float32", parts=units, measured=chosen,
            prompts=prompts, answer_tokens=(1,) * DOCUMENTS, left_out=("7",),
            baseline=dict(zip(METRICS, (base, right))),
            values={METRICS[0]: base + effects, METRICS[1]: right * (effects > -1)}, joints=joints,
            joint_values={METRICS[0]: base - np.array([[3.0], [0.5]]) + noise[:2],
                METRICS[1]: np.array([right, right])}, counts=(1, len(chosen)),
            best_first=curve, worst_first=curve, screening=None if measured is None else screening,
        )  # fmt: skip
        return views.statistics(result)

    return make


def test_earlier_segments_stand_left_and_every_unit_is_found_where_it_is_drawn(made) -> None:
    swept = made()
    view, where = views.effect_map(swept, METRICS[0], hide=False), views.layout(swept.result.parts)
    assert view.row_labels == tuple(f"slot {slot}" for slot in range(5)) and view.row_title == "slot"
    assert (
        view.column_labels == ("block 0", "block 2") * 2
        and view.segment_labels == ("2 before", "the answer's")
        and view.boundaries == (0, 2)
    )
    assert sorted(where.places.values()) == list(range(20))
    for place, unit in where.places.items():
        assert view.values[place] == swept.effects[METRICS[0]][unit].mean and where.of(unit) == place


def test_colours_are_symmetric_around_no_effect(made) -> None:
    view = views.effect_map(made(), METRICS[0], hide=False)
    assert view.diverging and view.low == -view.high and view.high == np.abs(view.values).max()
    assert "answer logit difference (logits)" in view.value_title


def test_hidden_cells_are_those_that_are_not_significant(made) -> None:
    swept = made()
    hidden = views.effect_map(swept, METRICS[0], hide=True).masked
    where = views.layout(swept.result.parts)
    assert not hidden[where.of(7)] and not views.effect_map(swept, METRICS[0], hide=False).masked.any()
    significant = {unit for unit, one in swept.effects[METRICS[0]].items() if one.q <= 0.05}
    assert {unit for place, unit in where.places.items() if not hidden[place]} == significant
    assert f"{(~hidden).sum()} of 20 cells have q ≤ 0.05" in views.map_note(swept, METRICS[0])


def test_behind_a_cell_are_its_stories_worst_first(made) -> None:
    rows = views.documents(made(), 7, METRICS[0]).as_columns()
    effects = rows["change of answer logit difference (logits)"]
    assert effects == sorted(effects) and len(effects) == DOCUMENTS
    assert set(rows["right as it is"]) == {"yes"} and set(rows["right replaced"]) == {"no"}
    asked = {(prompt.group, prompt.question, prompt.answer) for prompt in stories.questions(1, DOCUMENTS)}
    assert set(zip(rows["story"], rows["question"], rows["answer"])) == asked
    assert np.allclose(np.array(rows["replaced"]) - rows["as it is"], effects)


def test_joint_effects_stand_beside_the_sum_of_single_ones(made) -> None:
    swept = made()
    rows = views.joints(swept, METRICS[0]).as_columns()
    assert rows["replaced"] == ["at once", "added up", "difference"] * 2
    assert rows["mean"][0] == pytest.approx(-3, abs=0.1) and rows["mean"][2] == pytest.approx(
        rows["mean"][0] - rows["mean"][1]
    )
    single = [swept.effects[METRICS[0]][unit].mean for unit in swept.result.joints[0].members]
    assert rows["mean"][1] == pytest.approx(sum(single))


def test_a_screen_leaves_the_units_that_were_not_measured_out(made) -> None:
    swept = made(measured=(3, 7, 11))
    where = views.layout(swept.result.parts)
    masked = views.effect_map(swept, METRICS[0], hide=False).masked
    assert {unit for place, unit in where.places.items() if not masked[place]} == {3, 7, 11}
    assert views.joints(swept, METRICS[0]).as_columns()["replaced"] == ["at once"] * 2, (
        "single effects that were not measured have no sum"
    )
    assert "r(estimated, measured) = 0.900" in views.screening_note(swept)
    assert views.ranking(swept, METRICS[0]).rows[0][0] == swept.result.parts[7].label


@pytest.mark.parametrize("r", [0.79, -0.9, float("nan")])
def test_without_agreement_of_screen_and_measurement_there_is_no_ranking(r: float, made) -> None:
    assert views.ranking(made(measured=(3, 7, 11), r=r), METRICS[0]) is None


def test_curves_have_a_point_for_each_number_of_units(made) -> None:
    view = views.cumulative(made(), METRICS[0])
    assert view.ticks == ("1", "20") and [line.name for line in view.lines] == ["best first", "worst first"]
    assert list(view.lines[0].values) == pytest.approx([-2, -2.1])


@pytest.mark.parametrize(
    ("toy", "columns"), [("rmt", ("2 before", "the answer's")), ("gated", ("block 0", "block 1", "block 2") * 2)]
)
def test_a_map_says_what_its_columns_are(toy: str, columns: tuple[str, ...], request) -> None:
    config = request.getfixturevalue(toy).config
    where = views.layout(parts(UnitGrid.SLOTS if toy == "rmt" else UnitGrid.BLOCKS, config, BACK, ()))
    assert tuple(map(views.column_label, where.columns)) == columns


def test_gates_are_mapped_by_value(gated) -> None:
    where = views.layout(parts(UnitGrid.GATES, gated.config, (0,), (0.0, 1.0)))
    assert [what for what, _ in where.rows] == ["input gate", "forget gate", "output gate"]
    assert tuple(map(views.column_label, where.columns)) == ("at 0", "at 1")


def _script() -> None:
    from app.screens.many_questions import sweeps
    from app.ui import state

    sweeps.render()
    state.publish()


def _page(**link: str) -> AppTest:
    test = AppTest.from_function(_script, default_timeout=60)
    for name, value in {"exam_questions": "4", "length": "24", "hidden": "off", **link}.items():
        test.query_params[name] = value
    return test.run()


def _swept(test: AppTest) -> AppTest:
    next(button for button in test.button if button.label == "Run the sweep").click().run()
    assert not test.exception
    return finished(test)


@pytest.mark.parametrize(("toy", "units"), [("gated", 10), ("rmt", 5)])
def test_a_sweep_tells_its_cost_runs_and_shows_what_it_found(toy: str, units: int, folder, request) -> None:
    test = _page(checkpoint=folder(request.getfixturevalue(toy)))
    assert f"{units} units × 4 documents: about" in told(test)
    _swept(test)
    assert not test.exception
    titles = [heading.value for heading in test.subheader]
    assert titles == ["One at a time", "Together", "Details of a cell", "Largest effects", "More and more together"]
    assert len(test.dataframe[1].value) == units and "documents of 4 stories" in told(test)


def test_a_cell_that_a_link_names_is_opened(gated, folder) -> None:
    path = folder(gated)
    _swept(_page(checkpoint=path))
    test = _page(checkpoint=path, unit="7")
    assert any(heading.value == "Details of block 2, slot 2" for heading in test.subheader)
    assert len(test.dataframe[1].value) == 4


@pytest.mark.parametrize(("toy", "grids"), [("plain", 2), ("rmt", 4), ("release", 5), ("armt", 5)])
def test_only_what_the_model_has_can_be_swept(toy: str, grids: int, folder, request) -> None:
    test = _page(checkpoint=folder(request.getfixturevalue(toy)))
    assert not test.exception and len(test.selectbox(key="widget_grid").options) == grids


def test_a_model_without_memory_is_swept_by_its_attention(plain, folder) -> None:
    test = _swept(_page(checkpoint=folder(plain)))
    assert not test.exception and len(test.dataframe[1].value) == 10 and "12 cells" in told(test)


def test_gates_are_clamped_and_have_no_curve(gated, folder) -> None:
    test = _swept(_page(checkpoint=folder(gated), grid="gates"))
    assert not test.exception and not any(heading.value == "More and more together" for heading in test.subheader)
    assert "clamped to 0, 0.5 or 1" in told(test)


def test_segments_that_no_story_has_are_explained(gated, folder) -> None:
    test = _page(checkpoint=folder(gated), back="15")
    assert "There is no such sweep" in told(test) and not test.exception and not test.button


def test_a_screen_shows_its_agreement(gated, folder) -> None:
    test = _swept(_page(checkpoint=folder(gated), screened="1"))
    assert not test.exception and "r(estimated, measured)" in told(test)


def test_the_url_and_the_spec_say_what_was_chosen(gated, folder) -> None:
    test = _page(checkpoint=folder(gated))
    before = test.code[0].value
    test.selectbox(key="widget_ordered").set_value("kl").run()
    assert test.query_params["ordered"] == "kl" and test.code[0].value != before
    assert before.startswith("lm2 sweep sweep-slots-") and before.endswith(".json --out FOLDER")


def test_another_metric_is_shown_without_another_sweep(gated, folder) -> None:
    test = _swept(_page(checkpoint=folder(gated)))
    test.selectbox(key="widget_effect").set_value("exact").run()
    assert not test.exception and not any(button.label == "Run the sweep" for button in test.button)
    assert "exact match (share)" in told(test)
