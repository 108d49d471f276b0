"""Laws of evaluations that ask question sets: one path for sets of all kinds, resumable, paired, skips counted."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tokenizers_of_others import FAMILIES

import lm2.evaluation.evaluate
from lm2.evaluation.cells import Answered, Evaluation, EvaluationCell
from lm2.evaluation.evaluate import ask_set, evaluate
from lm2.evaluation.items import items
from lm2.evaluation.report import markdown
from lm2.evaluation.results import read_results
from lm2.evaluation.tables import differences, table
from lm2.tasks.sets.question_set import questions
from lm2.text.tokens import Tokenizer
from lm2.weights.checkpoint import save

_ROWS = [
    {"context": "Mary moved to the garden.", "question": "Where is Mary?", "answers": ["garden", "office"],
     "rivals": ["kitchen", "hallway"], "group": "g1"},
    {"context": "John moved to the office.", "question": "Where is John?", "answers": "office", "rivals": ["kitchen"],
     "group": "g1"},
    {"context": "Mary moved to the kitchen.", "question": "Where is Mary?", "answers": "kitchen",
     "rivals": ["garden", "office", "hallway"], "group": "g2"},
    {"question": "Where is Mary?", "answers": "garden", "rivals": ["office"]},
    {"context": "\u6b21", "question": "\u6b21?", "answers": "\u6b21", "rivals": ["office"]},
]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in _ROWS))
    return str(path)


@pytest.fixture
def evaluation(tmp_path: Path, gated, plain, file: str) -> Evaluation:
    for name, toy in (("gated", gated), ("plain", plain)):
        save(tmp_path / name, toy.model, toy.tokenizer, "")
    models = str(tmp_path / "gated"), str(tmp_path / "plain")
    return Evaluation(models=models, sets=(file, "simulated:qa1"), count=4, device="cpu")


def test_a_row_for_every_model_set_and_metric_and_differences_on_the_same_items(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    evaluate(evaluation, tmp_path / "out")
    results = read_results(tmp_path / "out")
    mine, simulated = evaluation.sets
    assert results.tasks == ["mean", mine, simulated] and results.lengths == []
    assert len(results.table) == 2 * (4 + 3 + 3), "only one set has rivals throughout, so choice has no mean"
    rows = results.table[results.table["task"] == mine].set_index(["model", "metric"])
    assert set(rows["n"]) == {4} and set(rows["groups"]) == {3} and set(rows["skipped"]) == {0}
    choice = rows.xs("choice", level="metric")
    assert list(choice["constant_mean"]) == pytest.approx([(1 / 3 + 1 / 2 + 1 / 4 + 1 / 2) / 4] * 2)
    assert rows.loc[(evaluation.models[0], "exact"), "constant"] == "garden"
    assert set(rows.xs("exact", level="metric")["constant_mean"]) == {0.5}
    assert len(results.differences[results.differences["kind"] == "difference"]) == 2 * (4 + 3 + 3)
    report = markdown(results, "lm2 eval")
    assert "paper" not in report and "## Scoring: choice" in report and "guessed" in report


def test_a_loaded_checkpoint_answers_a_set_as_an_evaluation_of_it_does(
    evaluation: Evaluation, tmp_path: Path, gated, file: str
) -> None:
    evaluate(evaluation, tmp_path / "out")
    table = read_results(tmp_path / "out").table
    heard: list[tuple[int, int]] = []
    answered, rows = ask_set(gated, questions(file, 4), on_item=lambda *step: heard.append(step))
    kept = table[(table["model"] == evaluation.models[0]) & (table["task"] == evaluation.sets[0])]
    columns = ["metric", "mean", "low", "high", "n", "groups", "constant_mean"]
    assert [[row[name] for name in columns] for row in rows] == kept[columns].to_numpy().tolist()
    assert len(answered) == 4 and heard == [(4, 4)]


def test_what_a_tokenizer_cannot_take_is_skipped_with_a_reason(evaluation: Evaluation, plain, file: str) -> None:
    own = replace(plain, tokenizer=Tokenizer(FAMILIES["wordpiece"]()))
    cell = EvaluationCell(model="m", task=file, samples=5)
    asked = items(replace(evaluation, sets=(file,), count=None), cell, own)
    assert [bool(item.answered.skipped) for item in asked] == [True, False, True, False, True]
    assert "no token for the rival 'hallway'" in asked[0].answered.skipped


def test_a_set_is_asked_again_where_it_holds_something_else_and_not_otherwise(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, told = tmp_path / "out", []
    evaluate(evaluation, out)
    before = (out / "table.csv").read_bytes()
    evaluate(replace(evaluation, count=3), out, on_cell=lambda cell, asked: told.append(asked))
    assert told == [True] * 4
    evaluate(evaluation, out)
    monkeypatch.setattr(lm2.evaluation.evaluate, "_ask_cells", lambda *_: pytest.fail("everything was there"))
    evaluate(evaluation, out)
    assert (out / "table.csv").read_bytes() == before


def test_answers_have_the_same_numbers_in_a_set_and_in_the_grid() -> None:
    targets, outputs = ["kitchen", "garden", "office"], ["kitchen", "garden. And", "in the office"]
    found = [
        Answered(story=str(index), question="Where is Mary?", target=target, output=output, tokens=1)
        for index, (target, output) in enumerate(zip(targets, outputs))
    ]
    grid = table({EvaluationCell(model="a", task="qa1", length="0k", samples=3): found})
    mine = table({EvaluationCell(model="a", task="babi:qa1", samples=3): found})
    exact = [next(row for row in rows if row["metric"] == "exact") for rows in (grid, mine)]
    assert {name: exact[0][name] for name in ("n", "mean", "low", "high", "constant_mean")} == {
        name: exact[1][name] for name in ("n", "mean", "low", "high", "constant_mean")
    }


def test_models_are_compared_on_the_items_that_both_were_asked() -> None:
    def said(*outputs: str | None) -> list[Answered]:
        return [
            Answered(
                story=str(index), question="?", target="yes", tokens=1, output=output or "",
                skipped="" if output else "no token",
            )
            for index, output in enumerate(outputs)
        ]  # fmt: skip

    one, other, none = (EvaluationCell(model=name, task="mine.jsonl", samples=3) for name in "abc")
    done = {one: said("yes", "yes", None), other: said("no", None, "yes"), none: said(None, None, None)}
    rows = differences(done)
    assert {(row["model"], row["baseline"]) for row in rows} == {("a", "b"), ("b", "a")}
    assert {row["n"] for row in rows} == {1}
    assert {row["model"] for row in table(done)} == {"a", "b"}
    assert {(row["n"], row["skipped"]) for row in table(done)} == {(2, 1)}


def _answered(stories: list[str], right: list[bool]) -> list[Answered]:
    return [
        Answered(story=story, question="?", target="yes", tokens=1, output="yes" if hit else "no")
        for story, hit in zip(stories, right, strict=True)
    ]


@pytest.mark.parametrize("right", [[at % 3 > 0 for at in range(40)], [True] * 40])
def test_stories_that_sets_share_count_once_in_their_mean(right: list[bool]) -> None:
    def of(names: list[str]) -> tuple[dict, dict]:
        done = {
            EvaluationCell(model=model, task=name, samples=40): _answered(stories[name], hits)
            for model, hits in (("a", right), ("b", right[::-1]))
            for name in names
        }
        means = [row for row in table(done) if (row["model"], row["task"], row["metric"]) == ("a", "mean", "exact")]
        rows = [
            row for row in differences(done) if (row["model"], row["task"], row["kind"]) == ("a", "mean", "difference")
        ]
        return means[0], next(row for row in rows if row["metric"] == "exact")

    own, others = [f"s{at // 2}" for at in range(40)], [f"t{at // 2}" for at in range(40)]
    stories = {"babi:qa1": own, "babilong:qa1@4k": own, "mine.jsonl": others}
    for alone, same, apart in zip(
        of(["babi:qa1"]), of(["babi:qa1", "babilong:qa1@4k"]), of(["babi:qa1", "mine.jsonl"])
    ):
        assert (same["groups"], apart["groups"], same["n"]) == (20, 40, 80)
        ends = alone["mean"], alone["low"], alone["high"]
        assert (same["mean"], same["low"], same["high"]) == pytest.approx(ends)
        assert apart["high"] - apart["low"] <= same["high"] - same["low"]
    assert of(["babi:qa1", "mine.jsonl"])[0]["low"] > of(["babi:qa1"])[0]["low"]


def test_rows_without_context_are_no_shared_stories_because_they_stand_in_the_same_lines() -> None:
    cells = [EvaluationCell(model="a", task=name, samples=9) for name in ("one.jsonl", "two.jsonl")]
    stories, right = [f"row {line}" for line in range(9)], [line % 2 > 0 for line in range(9)]
    rows = table({cell: _answered(stories, right) for cell in cells})
    assert {row["groups"] for row in rows if row["task"] == "mean"} == {18}


def test_an_answer_with_a_full_stop_can_be_given(evaluation: Evaluation, tmp_path: Path, monkeypatch) -> None:
    stops = []

    def answers(checkpoint, texts, *, stop: str, **_: object) -> list[str]:
        stops.append(stop)
        return [" 3.14.\n"] * len(texts)

    monkeypatch.setattr(lm2.evaluation.evaluate, "answers", answers)
    for name, answer in (("whole", "office"), ("parts", "3.14")):
        row = {"question": "Where is Mary?", "answers": ["garden", answer]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    sets = tuple(str(tmp_path / f"{name}.jsonl") for name in ("whole", "parts"))
    evaluate(Evaluation(models=evaluation.models[:1], sets=sets, device="cpu"), tmp_path / "out")
    assert stops == [".", "\n"]
    rows = pd.read_csv(tmp_path / "out" / "table.csv", keep_default_na=False)
    assert list(rows[rows["metric"] == "exact"]["mean"])[:2] == [0.0, 1.0]


def test_what_cannot_be_asked_is_refused_before_anything_is_written(evaluation: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 5 questions, not 6"):
        evaluate(replace(evaluation, count=6), tmp_path / "out")
    with pytest.raises(ValueError, match="question sets needs models, and no tasks"):
        replace(evaluation, tasks=(1,))
    with pytest.raises(ValueError, match="no such file"):
        replace(evaluation, sets=("not-there.jsonl",))
    assert not (tmp_path / "out").exists()
