"""Laws of the Probes screen: the cost before, the map, what is behind its cells, and nothing said that was not
tested."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from pages import as_read, finished, told
from streamlit.testing.v1 import AppTest

from app.server import results
from app.views.study import probes as views
from lm2.model.config import LM2Config, MemoryKind
from probes.features import source_names, target_names
from probes.features.documents import Documents
from probes.probing.fit import probe
from probes.probing.spec import ProbeSpec

MEAN, MARY = source_names.parse("bank:mean"), target_names.parse("place of Mary")
SPEC = ProbeSpec(
    checkpoint="toy", documents=Documents(count=24), sources=("bank:mean", "resid_post.1"),
    targets=("place of Mary", "fact told"),
    baselines=("tokens", "reset"), strengths=(0.01,), folds=3, permutations=19,
)  # fmt: skip


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Simulated stories, which are quick to have, and no jobs of other tests."""
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    results.jobs.clear()
    yield
    results.jobs.clear()


@pytest.fixture(scope="module")
def toy(build):
    return build(
        LM2Config(
            memory=MemoryKind.GATED, d_vocab=360, d_model=16, n_layers=2, n_heads=2, n_key_value_heads=2, d_mlp=16,
            segment_length=16, attention_window=16,
            slots=4, slot_dim=16, memory_heads=2, memory_layers=(0, 1),
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def probed(toy) -> views.Probed:
    return views.statistics(probe(SPEC, toy))


def test_every_source_and_baseline_has_a_row_and_every_segment_a_column(probed) -> None:
    view = views.score_map(probed, MARY)
    assert [label.removesuffix(" !") for label in view.row_labels] == [
        "bank:mean",
        "resid_post.1",
        "tokens",
        "reset bank:mean",
        "reset resid_post.1",
    ]
    assert view.column_labels == ("all", *map(str, probed.result.segments))
    for row, source in enumerate(probed.rows):
        for column, segment in enumerate(probed.columns):
            assert np.isclose(
                view.values[row, column], probed.cells[source, MARY, segment].headline.value, equal_nan=True
            )


def test_of_many_sources_only_what_they_share_stands_beside_them(probed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_MOST_ROWS", 4)
    assert [source.label for source in probed.rows] == ["bank:mean", "resid_post.1", "tokens"]
    assert "The curves of each source show" in views.map_note(probed, MARY)
    assert "reset" in [line.name for line in views.curves(probed, MEAN, MARY).lines]


def test_colours_go_from_chance_to_all_right(probed) -> None:
    for target in probed.targets:
        view = views.score_map(probed, target)
        assert (view.low, view.high) == (probed.cells[MEAN, target, "all"].score.chance, 1)


def test_cells_of_one_class_are_hatched(probed) -> None:
    cells = {
        key: replace(cell, score=replace(cell.score, chance=1.0)) if key[2] == 0 else cell
        for key, cell in probed.cells.items()
    }
    some = replace(probed, cells=cells)
    assert views.score_map(some, MARY).masked[:, 1].all() and "Hatched" in views.map_note(some, MARY)
    assert np.isnan(views.curves(some, MEAN, MARY).lines[0].values[0])
    assert views.verdict(cells[MEAN, MARY, 0]) == "Nothing to distinguish here"


def test_probes_that_did_not_converge_are_marked(probed) -> None:
    reading = probed.result.readings[MEAN, MARY]
    fits = tuple(replace(fit, converged=False) for fit in reading.fits)
    unconverged = replace(probed.result, readings=probed.result.readings | {(MEAN, MARY): replace(reading, fits=fits)})
    some = replace(probed, result=unconverged)
    assert views.score_map(some, MARY).row_labels[0] == "bank:mean !" and "did not converge" in views.map_note(
        some, MARY
    )
    assert views.source_table(some, MARY).rows[0][0] == "bank:mean !"


def test_curves_stand_beside_the_control_task_and_the_baselines(probed) -> None:
    view = views.curves(probed, MEAN, MARY)
    assert [line.name for line in view.lines] == ["bank:mean", "control task", "tokens", "reset"]
    assert all(
        (line.low <= line.values + 1e-9).all() and (line.values <= line.high + 1e-9).all() for line in view.lines
    )


def test_the_table_of_sources_has_what_each_tells_beyond_each_baseline(probed) -> None:
    rows = views.source_table(probed, MARY).as_columns()
    cell = probed.cells[MEAN, MARY, "all"]
    assert rows["beyond tokens"][0] == cell.gains["tokens"].value and rows["selectivity"][0] == cell.selectivity.value
    assert np.isnan(rows["beyond tokens"][2]) and rows["rows"][0] == cell.score.n and rows["p"][0] == cell.p


def test_a_cell_is_called_decodable_only_beyond_chance_and_says_what_it_is_not_beyond(probed) -> None:
    cell = probed.cells[MEAN, MARY, "all"]

    def with_lows(headline: float, selectivity: float, gain: float):
        high = replace(cell.headline, low=headline)
        score = replace(cell.score, estimates={**cell.score.estimates, cell.score.headline: high})
        return replace(
            cell,
            score=score,
            selectivity=replace(cell.selectivity, low=selectivity),
            gains={"tokens": replace(cell.headline, low=gain)},
        )

    assert views.verdict(with_lows(0.9, 0.1, 0.1)) == "**Decodable; use not tested**"
    assert (
        views.verdict(with_lows(0.9, -0.1, -0.1))
        == "**Decodable, but not beyond the control task, tokens; use not tested**"
    )
    assert "Not distinguishable from chance" in views.verdict(with_lows(cell.score.chance - 0.01, 0.1, 0.1))


def test_what_is_read_wrongly_is_what_stands_off_the_diagonal(probed) -> None:
    for segment in probed.columns:
        counts = views.confusion(probed, MEAN, MARY, segment).values
        table, wrong = views.misread(probed, MEAN, MARY, segment)
        assert wrong == counts.sum() - counts.trace() and len(table.rows) == min(wrong, 20)
    rows = views.misread(probed, MEAN, MARY, "all")[0].as_columns()
    assert rows["p(read as)"] == sorted(rows["p(read as)"], reverse=True)
    assert all(truth != read for truth, read in zip(rows["truth"], rows["read as"]))
    assert all("⟦" in text and "⟧" in text for text in rows["text"])


def _script() -> None:
    from app.screens.many_questions import probes
    from app.ui import state

    probes.render()
    state.publish()


def _page(**link: str) -> AppTest:
    test = AppTest.from_function(_script, default_timeout=120)
    plain = {
        "probe_count": "20", "probe_strengths": "0.01", "probe_permutations": "19", "probe_baselines": "tokens",
        "probe_sources": "bank:mean",
        "probe_targets": "place of Mary", "probe_family": "ridge", "length": "24",
    }  # fmt: skip
    for name, value in (plain | link).items():
        test.query_params[name] = value
    return test.run()


def _fitted(test: AppTest) -> AppTest:
    next(button for button in test.button if button.label == "Fit the probes").click().run()
    assert not test.exception
    return finished(test)


def test_a_probe_tells_its_cost_runs_and_shows_what_it_found(toy, folder) -> None:
    test = _page(checkpoint=folder(toy))
    assert "20 documents" in told(test) and "1 target:" in told(test)
    _fitted(test)
    assert not test.exception
    titles = [as_read(heading.value) for heading in test.subheader]
    assert titles == [
        "Where it can be read",
        "Segment by segment",
        "Every source, all segments together",
        "Details of bank:mean, all segments",
    ]
    assert "use not tested" in told(test) and "the read path of block 1" in told(test)
    assert any(button.label == "Erase this and run" for button in test.button)


def test_a_cell_and_a_target_that_a_link_names_are_opened(toy, folder) -> None:
    path, link = folder(toy), {"probe_targets": "place of Mary, fact told", "probe_sources": "bank:mean, resid_post.*"}
    _fitted(_page(checkpoint=path, **link))
    test = _page(checkpoint=path, probe_source="resid_post.1", probe_segment="1", probe_target="fact told", **link)
    assert any(as_read(heading.value) == "Details of resid_post.1, segment 1" for heading in test.subheader)
    assert "ROC AUC" in told(test) and not test.exception
    assert "The erasure experiment is about where people are" in told(test)
    assert not any(button.label == "Erase this and run" for button in test.button)


def test_a_model_without_memory_is_read_off_its_stream(plain, folder) -> None:
    test = _page(checkpoint=folder(plain), probe_sources="bank:mean, bank:sketch256")
    assert not test.exception and test.query_params["probe_sources"] == "resid_post.*"
    assert "bank:mean" not in test.multiselect(key="widget_probe_sources").options


@pytest.mark.parametrize(
    ("link", "words"),
    [({"probe_sources": "bank:slot99"}, "have no source 'bank:slot99'"),
        ({"probe_targets": "weather"}, "no target is called 'weather'"),
     ({"probe_targets": ","}, "targets must hold one text at least"),
     ({"probe_labels": "nowhere.csv"}, "nowhere.csv cannot be read"),
     ({"probe_strengths": "much"}, "strengths are numbers"), ({"probe_tasks": ","}, "one text at least")],
)  # fmt: skip
def test_choices_that_make_no_sense_are_explained_in_a_sentence(link: dict[str, str], words: str, toy, folder) -> None:
    test = _page(checkpoint=folder(toy), **link)
    assert words in told(test) and not test.exception and not test.button


def test_the_url_and_the_spec_say_what_was_chosen(toy, folder) -> None:
    test = _page(checkpoint=folder(toy))
    before = test.code[0].value
    test.multiselect(key="widget_probe_sources").set_value(["bank:mean", "bank:slot*"]).run()
    assert test.query_params["probe_sources"] == "bank:mean, bank:slot*" and test.code[0].value != before
    assert before.startswith("lm2 probe probe-") and before.endswith(".json --out FOLDER")
