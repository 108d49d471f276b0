"""Laws of lm2.evaluation.evaluate: an evaluation that was stopped ends as one that was not; its rows say what was
asked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lm2.evaluation.evaluate
from lm2.evaluation.cells import Answered, Evaluation, EvaluationCell, cells
from lm2.evaluation.evaluate import evaluate
from lm2.evaluation.items import mixtures
from lm2.evaluation.tables import best_scoring_constant, differences, table
from lm2.tasks import stories
from lm2.tasks.babi_files import write
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import save


@pytest.fixture
def models(tmp_path: Path, gated, plain) -> tuple[str, ...]:
    for name, toy in (("gated", gated), ("plain", plain)):
        save(tmp_path / name, toy.model, toy.tokenizer, "")
    return str(tmp_path / "gated"), str(tmp_path / "plain")


@pytest.fixture
def evaluation(models: tuple[str, ...]) -> Evaluation:
    return Evaluation(models=models, tasks=(1, 7), lengths=("0k",), samples=(2,), device="cpu")


def _table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "table.csv", keep_default_na=False)


def test_a_row_for_every_model_task_length_and_metric_and_for_the_mean_over_tasks(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    evaluate(evaluation, tmp_path / "out")
    rows = _table(tmp_path / "out")
    assert len(rows) == 2 * (2 + 1) * 2
    assert set(rows["task"]) == {"qa1", "qa7", "mean"} and set(rows["metric"]) == {"official", "exact"}
    assert (rows["low"] <= rows["mean"]).all() and (rows["mean"] <= rows["high"]).all()
    assert set(rows[rows["task"] == "qa1"]["n"]) == {2}
    same = pd.read_parquet(tmp_path / "out" / "table.parquet")
    assert list(same["mean"]) == pytest.approx(list(rows["mean"]))
    pairs = pd.read_csv(tmp_path / "out" / "differences.csv")
    assert set(pairs["kind"]) <= {"difference", "ratio"} and len(pairs[pairs["kind"] == "difference"]) == 2 * 3 * 2


def test_a_stopped_evaluation_goes_on_where_it_stopped(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        """Somebody pulled the plug."""

    seen: list[EvaluationCell] = []

    def stop_at_the_second(cell: EvaluationCell, asked: bool) -> None:
        seen.append(cell)
        if len(seen) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        evaluate(evaluation, tmp_path / "parts", on_cell=stop_at_the_second)
    told: list[bool] = []
    evaluate(evaluation, tmp_path / "parts", on_cell=lambda cell, asked: told.append(asked))
    assert sorted(told) == [False, False, True, True]
    evaluate(evaluation, tmp_path / "whole")
    assert (tmp_path / "parts" / "table.csv").read_bytes() == (tmp_path / "whole" / "table.csv").read_bytes()
    monkeypatch.setattr(lm2.evaluation.evaluate, "_ask_cells", lambda *_: pytest.fail("everything was there"))
    evaluate(evaluation, tmp_path / "parts")


def test_another_question_is_asked_anew_and_a_broken_cell_too(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluate(evaluation, tmp_path / "out")
    told: list[bool] = []
    evaluate(replace(evaluation, samples=(3,)), tmp_path / "out", on_cell=lambda cell, asked: told.append(asked))
    assert told == [True] * 4
    cell = next((tmp_path / "out" / "cells").rglob("*.json"))
    cell.write_text(cell.read_text()[:100])
    told.clear()
    evaluate(replace(evaluation, samples=(3,)), tmp_path / "out", on_cell=lambda cell, asked: told.append(asked))
    assert sorted(told) == [False] * 3 + [True]


@pytest.mark.parametrize(("samples", "jobs"), [(1, [10]), (4, [5, 5]), (40, [1] * 10)])
def test_few_texts_of_many_tasks_are_asked_side_by_side(evaluation: Evaluation, samples: int, jobs: list[int]) -> None:
    wide = replace(evaluation, models=evaluation.models[:1], tasks=tuple(range(1, 11)), samples=(samples,))
    found = list(lm2.evaluation.evaluate._side_by_side(wide, cells(wide)))
    assert [len(few) for few in found] == jobs and [cell for few in found for cell in few] == cells(wide)


def test_two_processes_write_what_one_does(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluate(evaluation, tmp_path / "one")
    evaluate(evaluation, tmp_path / "two", workers=2)
    assert (tmp_path / "one" / "table.csv").read_bytes() == (tmp_path / "two" / "table.csv").read_bytes()


def test_a_folder_with_test_files_is_scored_on_them_and_one_without_on_its_held_out_stories(
    models: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "en").mkdir()
    train, test = ([simulate(1, seed=seed).story for seed in seeds] for seeds in (range(20), range(50, 53)))
    write(train, tmp_path / "en" / "qa1_toy_train.txt")
    base = Evaluation(models=models, tasks=(1,), lengths=("0k",), samples=(100,), babi=str(tmp_path / "en"))
    held = {mixture.story_id for _, mixture in mixtures(base, cells(base)[0])}
    assert held == {"qa1_toy_train:18", "qa1_toy_train:19"}
    stories._stories_in.cache_clear()
    write(test, tmp_path / "en" / "qa1_toy_test.txt")
    found = [mixture for _, mixture in mixtures(base, cells(base)[0])]
    assert {mixture.story_id for mixture in found} == {f"qa1_toy_test:{at}" for at in range(3)} and len(found) == 15


def test_models_meet_the_same_items(evaluation: Evaluation) -> None:
    one, other = [cell for cell in cells(evaluation) if cell.task == "qa7"]
    assert list(mixtures(evaluation, one)) == list(mixtures(evaluation, other))


def _said(outputs: list[str], targets: list[str]) -> list[Answered]:
    return [
        Answered(seed=0, story=str(at), question="?", target=t, output=o, tokens=9)
        for at, (o, t) in enumerate(zip(outputs, targets))
    ]


def test_qa7_has_its_ceiling_and_its_best_constant_in_the_table() -> None:
    targets = ["none"] * 6 + ["one"] * 3 + ["two"]
    cell = EvaluationCell(model="a", task="qa7", length="0k", samples=10)
    rows = {row["metric"]: row for row in table({cell: _said(targets, targets)}) if row["task"] == "qa7"}
    assert (rows["official"]["mean"], rows["official"]["ceiling"]) == (0.4, 0.4)
    assert (rows["exact"]["mean"], rows["exact"]["ceiling"]) == (1.0, 1.0)
    assert [(rows[metric]["constant"], rows[metric]["constant_mean"]) for metric in ("official", "exact")] == [
        ("one", 0.3),
        ("none", 0.6),
    ]
    assert best_scoring_constant("qa7", _said(targets, targets), "exact") == "none"


def test_the_best_constant_is_chosen_on_all_lengths_and_not_on_the_few_items_it_stands_beside() -> None:
    many, few = (EvaluationCell(model="a", task="qa1", length=length, samples=9) for length in ("0k", "4k"))
    rows = table({many: _said(["x"] * 9, ["office"] * 9), few: _said(["x"], ["garden"])})
    assert {(row["length"], row["constant"], row["constant_mean"]) for row in rows if row["task"] == "qa1"} == {
        ("0k", "office", 1.0),
        ("4k", "office", 0.0),
    }


def test_differences_are_paired_and_their_signs_turn_with_the_models() -> None:
    targets = ["kitchen", "garden"] * 20
    one, other = (EvaluationCell(model=name, task="qa1", length="0k", samples=40) for name in "ab")
    done = {one: _said(targets, targets), other: _said(["kitchen"] * 40, targets)}
    found = {(row["model"], row["task"], row["kind"]): row for row in differences(done) if row["metric"] == "exact"}
    assert found["a", "qa1", "difference"]["mean"] == 0.5 == -found["b", "qa1", "difference"]["mean"]
    assert found["a", "mean", "ratio"]["mean"] == pytest.approx(1.0)
    assert found["a", "qa1", "difference"]["low"] > 0.3


def test_lengths_at_which_a_task_is_missing_have_no_mean() -> None:
    targets = ["kitchen", "garden"]
    done = {
        EvaluationCell(model="a", task=f"qa{task}", length=length, samples=2): _said(targets, targets)
        for task, length in ((1, "0k"), (2, "0k"), (1, "1k"))
    }
    assert {row["length"] for row in table(done) if row["task"] == "mean"} == {"0k"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": (11,)}, "qa1 to qa10"), ({"lengths": ("4",)}, "like 4k"), ({"samples": (0,)}, "samples"),
        ({"samples": (1, 2)}, "as many numbers"),
        ({"models": ()}, "models"),
    ],
)  # fmt: skip
def test_an_evaluation_that_cannot_be_made_is_refused(evaluation: Evaluation, change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(evaluation, **change)


def test_what_is_not_there_is_refused_before_anything_is_written(evaluation: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no-such-model"):
        evaluate(replace(evaluation, models=("no-such-model",)), tmp_path / "out")
    with pytest.raises(ValueError, match="needs books"):
        evaluate(replace(evaluation, lengths=("1k",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_whose_files_are_gone_keeps_its_answers_and_is_asked_nothing_more(
    evaluation: Evaluation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate(evaluation, tmp_path / "out")
    tables = [(tmp_path / "out" / name).read_bytes() for name in ("table.csv", "differences.csv")]
    (tmp_path / "gated").rename(tmp_path / "elsewhere")
    evaluate(evaluation, tmp_path / "out")
    assert [(tmp_path / "out" / name).read_bytes() for name in ("table.csv", "differences.csv")] == tables
    assert "gated is not there: its tables are made from the answers that are kept" in caplog.text
    with pytest.raises(ValueError, match=r"gated' is not there, and neither is its answers' file .*qa2-0k.json"):
        evaluate(replace(evaluation, tasks=(1, 2, 7)), tmp_path / "out")


def test_one_story_a_task_has_a_difference_and_no_interval() -> None:
    done = {
        EvaluationCell(model=model, task=f"qa{task}", length="0k", samples=1): _said([said], ["office"])
        for task in (1, 2)
        for model, said in (("a", "office"), ("b", "garden"))
    }
    rows = [row for row in differences(done) if (row["model"], row["kind"]) == ("a", "difference")]
    assert [row["mean"] for row in rows] == [1.0] * len(rows) and all(
        np.isnan(row["low"]) and np.isnan(row["high"]) for row in rows
    )
