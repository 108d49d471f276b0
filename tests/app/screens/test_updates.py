"""Laws of the Updates screen and its views."""

from dataclasses import replace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from toys import REMEMBERING

from app.charts import Chart, OfUpdates, SteeringChart, UpdateChart
from app.charts.chart import Computing
from app.figures.screen import draw
from app.figures.theme import DARK, LIGHT
from app.views.study import updates
from lm2.model.sites import Site
from lm2.runs.interventions import Freeze, Reset
from lm2.runs.spec import RunSpec
from probes.causal.steering import SITES, Steering
from probes.causal.updates import Rereading, TracedGeneration, generate_traced, reread

TEXT = "Mary moved to the garden. John went to the office.\fWhere is Mary?"


@pytest.fixture(scope="module")
def walks(gated) -> dict[str, TracedGeneration]:
    """Writes are off from the question's segment on."""
    spec = RunSpec(checkpoint=gated.name, text=TEXT)
    on = generate_traced(gated, spec, tokens=16, layers=(0, 2))
    off = generate_traced(
        gated, replace(spec, interventions=(Freeze(segment=on.segment_of(0)),)), tokens=16, layers=(0, 2)
    )
    return {"on": on, "off": off}


@pytest.fixture(scope="module")
def readings(gated, walks) -> dict[str, Rereading]:
    return {name: reread(gated, made.prompt.ids[-4:], made.banks, layers=made.layers) for name, made in walks.items()}


def test_both_maps_are_on_one_scale_and_the_third_is_their_difference(readings) -> None:
    read, last = readings["on"], len(readings["on"].patterns) - 1
    for head in ("mean", "max", "1"):
        before, after = updates.reading(read, 2, head, 1, last), updates.reading(read, 2, head, last, 1)
        assert (
            (before.low, before.high) == (after.low, after.high) == (0.0, max(before.values.max(), after.values.max()))
        )
        change = updates.difference(read, 2, head, 1, last)
        assert np.allclose(change.values, after.values - before.values)
        assert change.diverging and change.low == -change.high
    assert np.allclose(updates.reading(read, 2, "1", 0, 0).values, read.patterns[0, 1, 1].T)


def test_every_map_is_drawn_in_light_and_dark_with_the_numbers_it_holds(walks, readings) -> None:
    read = readings["on"]
    for view in (
        updates.reading(read, 0, "mean", 0, 1),
        updates.difference(read, 0, "mean", 0, 1),
        updates.reads_by_step(walks["on"], 2, "0"),
    ):
        for theme in (LIGHT, DARK):
            assert np.allclose(draw.heatmap(view, theme).data[0].z, view.values, atol=1e-6)
        assert view.alt


def test_the_tokens_that_moved_most_come_first(readings) -> None:
    read = readings["on"]
    moved = [row[2] for row in updates.most_moved(read, 0, "1", 0, 2).rows]
    assert moved == sorted(moved, reverse=True) and moved[0] == pytest.approx(read.moved(0, 2)[0, 1].max())
    assert {row[3] for row in updates.most_moved(read, 0, "mean", 1, 1).rows} == {""}


def test_with_writes_off_the_course_is_flat(walks, readings) -> None:
    asked = walks["off"].segment_of(0)
    on, off = (line.values for line in updates.distance_curve(readings, 0, "mean", asked).lines)
    held = off[: len(walks["off"].banks)]
    assert held[:asked].all() and not held[asked:].any()
    assert on[asked] == 0 and on[asked + 1 : len(walks["on"].banks)].all()
    chances = updates.probability_curve(readings, 5, "x").lines[1].values
    assert np.allclose(chances[asked : len(held)], chances[asked])


def test_the_steps_tell_tokens_chances_and_when_the_bank_was_written(walks, gated) -> None:
    table = updates.steps(walks["on"], walks["off"], gated.tokenizer.piece)
    assert len(table.rows) == 16
    written = [row[0] - 1 for row in table.rows if row[1]]
    assert written == [step for step in range(16) if walks["on"].closed(step)]
    distances = [row[-1] for row in table.rows]
    assert not np.any(np.array(distances[: written[0]]) > 1e-6)
    parted = next((at for at, pair in enumerate(zip(walks["on"].ids, walks["off"].ids)) if pair[0] != pair[1]), 15)
    assert not np.isnan(distances[: parted + 1]).any() and np.isnan(distances[parted + 1 :]).all()


def test_a_step_says_which_bank_it_reads(walks) -> None:
    step = next(step for step in range(16) if walks["on"].closed(step))
    segment = walks["on"].segment_of(step)
    assert f"in segment {segment}. It reads the bank after segment {segment - 1}." in updates.step_note(
        walks["on"], step
    )
    assert updates.step_note(walks["on"], step).endswith("and written.")
    off = updates.step_note(walks["off"], next(step for step in range(16) if walks["off"].closed(step)))
    assert f"It reads the bank after segment {walks['off'].segment_of(0) - 1}." in off and off.endswith(
        "and not written."
    )
    assert updates.bank_name(walks["on"], 0) == "the fresh bank"
    assert updates.bank_name(walks["on"], len(walks["on"].segments)).endswith("(still open)")


def test_the_strip_holds_every_token_and_marks_what_was_written(walks, gated) -> None:
    made = walks["on"]
    view = updates.strip(made, ((0, 2, "fact"),), gated.tokenizer.piece)
    assert len(view.pieces) == len(view.segment_of) == len(view.notes) == len(made.prompt) + 16
    assert view.marks == ((0, 2, "fact"), (len(made.prompt), len(view.pieces), "written by the model"))
    assert all(view.notes[len(made.prompt) :]) and not any(view.notes[: len(made.prompt)])


def _page(**link: str) -> AppTest:
    """The screen, opened by a link."""
    test = AppTest.from_function(_script, default_timeout=300)
    for name, value in link.items():
        test.query_params[name] = value
    return test.run()


def _script() -> None:
    from app.screens.one_text import updates
    from app.ui import sidebar, state

    sidebar.render()
    updates.render()
    state.publish()


def _errors(test: AppTest) -> list[str]:
    return [element.value for element in (*test.exception, *test.error)]


def _captions(test: AppTest) -> str:
    return "\n".join(caption.value for caption in test.caption)


@pytest.mark.parametrize("kind", REMEMBERING)
@pytest.mark.parametrize("writes", ["on", "off"])
def test_every_kind_of_memory_is_stepped_through(kind: str, writes: str, request, folder) -> None:
    test = _page(
        checkpoint=folder(request.getfixturevalue(kind)), source="text", text=TEXT, written="9", step="4", writes=writes
    )
    assert not _errors(test)
    assert f"written with writes {writes}" in _captions(test)
    assert ("released arithmetic" in _captions(test)) == (kind == "release")
    assert len(test.dataframe[1].value) == 9


def test_toggles_hold_while_the_text_is_written_and_are_named(gated, folder) -> None:
    link = {"checkpoint": folder(gated), "source": "text", "text": TEXT, "written": "9", "policy": "reset"}
    toggled = {"silent": "0", "since": "1", "toggled": "on"}
    test = _page(**link, **toggled)
    assert not _errors(test) and not test.warning and not [info.value for info in test.info]
    assert "Written with: bank reset before the last segment; block 0 silent from segment 1 on." in _captions(test)
    assert test.query_params["toggled"] == "on" and "the probe is read without them" in _captions(test)
    shown: dict = {}
    exec(test.code[0].value, shown)
    on, off = shown["walks"]
    reset, silent = on.spec.interventions
    assert isinstance(reset, Reset) and silent.segments[-1] >= on.segments[-1].index > len(on.prompt) // 7
    assert off.spec.interventions == (reset, silent, Freeze(segment=reset.segment))
    assert "changed: bank reset before segment" in updates.step_note(on, 0)
    assert "read without them" not in _captions(_page(**link))


def test_a_figure_names_the_interventions_that_its_text_was_written_under() -> None:
    spec = RunSpec(checkpoint="toy", text=TEXT, interventions=(Reset(segment=7),))
    chart = UpdateChart(spec=spec, shown=OfUpdates.COURSE, tokens=30, frozen=1, layer=0, probe=(1,))
    assert chart.provenance.changes == (
        "bank reset before segment 7",
        "writes frozen from segment 1 on where writes are off",
    )
    assert Chart.from_json(chart.to_json()) == chart


STEERED = {"source": "text", "text": TEXT, "written": "6", "steer_toward": "garden", "steer_away": "office"}


def _written(test: AppTest) -> list[str]:
    """The texts beside one another: as it is, with the direction, with the random one."""
    return [code.value for code in test.code if code.language == "plaintext"]


def test_a_steered_text_stands_beside_the_text_as_it_is_and_that_of_a_random_direction(gated, folder) -> None:
    link = {"checkpoint": folder(gated), **STEERED, "steer_strength": "800", "steer_block": "2", "steer_seed": "5"}
    test = _page(**link)
    assert not _errors(test) and not [info.value for info in test.info]
    plain, steered, _ = _written(test)
    assert set(steered.split()) == {"garden"} and "garden" not in plain.split()
    for name in ("as it is", "with the direction", "with a random direction"):
        assert f"Written {name}" in _captions(test)
    assert "Added in block 2 to the stream as the block leaves it" in _captions(test)
    assert "which is 8 times the typical norm" in _captions(test)
    for name in ("steer_toward", "steer_away", "steer_strength", "steer_seed"):
        assert test.query_params[name] == link[name]


def test_a_direction_of_strength_0_changes_nothing(gated, folder) -> None:
    plain, steered, random = _written(_page(checkpoint=folder(gated), **STEERED, steer_strength="0"))
    assert plain == steered == random


@pytest.mark.parametrize("kind", REMEMBERING)
def test_every_kind_of_memory_is_steered_where_it_adds_to_the_stream(kind: str, request, folder) -> None:
    model = request.getfixturevalue(kind)
    test = _page(checkpoint=folder(model), **STEERED, steer_site="MEM_OUT")
    adds = bool(Site.MEM_OUT.layers(model.config))
    assert not _errors(test) and len(_written(test)) == 3
    assert SITES[Site.MEM_OUT if adds else Site.RESID_POST] in _captions(test)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ({"steer_toward": "gardenoffice"}, "steering takes words of one token each"),
        ({"steer_toward": "office"}, "both are 'office'"),
    ],
)
def test_words_that_have_no_direction_are_explained(gated, folder, link: dict, said: str) -> None:
    test = _page(checkpoint=folder(gated), **STEERED | link)
    assert not _errors(test) and any(said in info.value for info in test.info) and not _written(test)


def test_without_words_nothing_is_steered_and_the_page_says_what_would_be(gated, folder) -> None:
    test = _page(checkpoint=folder(gated), **STEERED | {"steer_away": ""})
    assert not _errors(test) and "Name two words" in _captions(test) and not _written(test)


def test_a_figure_of_a_steered_text_is_made_again_from_its_json(gated) -> None:
    chart = SteeringChart(
        spec=RunSpec(checkpoint=gated.name, text=TEXT, interventions=(Freeze(segment=1),)),
        steering=Steering(toward="garden", away="office", layer=2, strength=4, seed=3),
        tokens=5,
    )
    again = Chart.from_json(chart.to_json())
    assert again == chart
    first, second = (each.computed(gated, each.result(gated, Computing())) for each in (chart, again))
    assert first.to_json() == second.to_json() and first.to_json()["seed"] == 3
    assert [line.name for line in first.view.lines] == ["as it is", "with the direction", "with a random direction"]
    assert "writes frozen from segment 1 on" in first.view.provenance.words


def test_toggles_that_cannot_hold_are_explained(gated, folder) -> None:
    test = _page(checkpoint=folder(gated), source="text", text=TEXT, toggled="on", slots="1", slot_change="permute")
    assert not _errors(test) and any("two slots" in warning.value for warning in test.warning)


def test_a_story_is_asked_again_after_every_update(gated, folder) -> None:
    test = _page(checkpoint=folder(gated), source="simulated", seed="3", written="12")
    assert not _errors(test)
    assert "the true answer's first token" in _captions(test)
    moved = next(frame.value for frame in test.dataframe if "share moved" in frame.value)
    assert moved["share moved"].is_monotonic_decreasing


def test_the_screen_tells_how_to_run_its_walks_again(gated, folder) -> None:
    test = _page(checkpoint=folder(gated), source="text", text=TEXT, written="3")
    shown: dict = {}
    exec(test.code[0].value, shown)
    on, off = shown["walks"]
    assert f"writes on: run {on.spec.digest[:10]}, writes off: run {off.spec.digest[:10]}" in _captions(test)
    assert len(on.ids) == 3 and not off.writes(on.segment_of(0))


def test_with_writes_off_nothing_moves(gated, folder) -> None:
    test = _page(checkpoint=folder(gated), source="text", text=TEXT, written="12", writes="off")
    moved = next(frame.value for frame in test.dataframe if "share moved" in frame.value)
    assert not _errors(test) and not moved["share moved"].any()


def test_stepping_does_not_run_the_model_again(gated, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    import probes.causal.updates

    test = _page(checkpoint=folder(gated), source="text", text=TEXT, written="9")
    monkeypatch.setattr(probes.causal.updates, "run_segments", None)
    for key, value in (("step", 5), ("before", 0), ("after", 1)):
        test.slider(key=f"widget_{key}").set_value(value).run()
        assert test.query_params[key] == str(value)
    test.segmented_control(key="widget_writes").set_value("off").run()
    assert not _errors(test)


def test_what_was_not_chosen_follows_the_end_of_the_text(gated, folder) -> None:
    test = _page(checkpoint=folder(gated), source="text", text=TEXT, written="9")
    before = test.slider(key="widget_after").value
    test.slider(key="widget_written").set_value(30).run()
    assert test.slider(key="widget_after").value > before
    assert "after" not in test.query_params


@pytest.mark.parametrize("text", ["a", "Mary moved to the garden. " * 6])
@pytest.mark.parametrize("written", ["1", "8"])
def test_short_and_long_texts_are_shown(text: str, written: str, gated, folder) -> None:
    assert not _errors(_page(checkpoint=folder(gated), source="text", text=text, written=written, before="999"))


def test_a_probe_that_cannot_be_read_is_explained(gated, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given, **named) -> None:
        raise ValueError("a probe has at most 16 tokens; this one has 17")

    monkeypatch.setattr("probes.causal.updates.reread", refuse)
    test = _page(checkpoint=folder(gated), source="text", text=TEXT, written="2")
    assert not _errors(test)
    assert any("this one has 17" in info.value for info in test.info)


def test_an_empty_text_and_a_model_without_memory_are_explained(plain, folder) -> None:
    assert any("empty" in info.value for info in _page(source="text", checkpoint=folder(plain)).info)
    test = _page(source="text", text=TEXT, checkpoint=folder(plain))
    assert not _errors(test) and any("no memory" in info.value for info in test.info)
