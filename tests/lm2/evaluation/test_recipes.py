"""Laws of lm2.evaluation.recipes: seeds of one recipe are compared as one model, whose interval knows of both causes of
chance."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lm2.evaluation.cells import Answered, Evaluation, EvaluationCell
from lm2.evaluation.evaluate import evaluate
from lm2.evaluation.recipes import Recipe, read_models
from lm2.evaluation.report import markdown
from lm2.evaluation.results import BUNDLED, read_results
from lm2.evaluation.tables import differences, table
from lm2.weights.checkpoint import save


def _answers(seeds: dict[str, float], stories: int = 60, tasks: tuple[int, ...] = (1, 2)) -> dict:
    """What models that are right with given probabilities say to the same stories of two questions."""
    random = np.random.default_rng(0)
    done = {}
    for task in tasks:
        hardness = random.random((stories, 1)).repeat(2, axis=1).ravel()
        for model, right in seeds.items():
            luck = 0.5 * hardness + 0.5 * random.random(hardness.shape)
            done[EvaluationCell(model=model, task=f"qa{task}", length="0k", samples=2 * stories)] = [
                Answered(story=str(at // 2), question="?", target="garden", output=said, tokens=9)
                for at, said in enumerate(np.where(luck < right, "garden", "hall"))
            ]
    return done


def _row(rows: list[dict], **wanted: str) -> dict:
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


SIX = {"a0": 0.5, "a1": 0.6, "a2": 0.7, "b0": 0.4, "b1": 0.5, "b2": 0.6}
A, B = Recipe(name="a", seeds=("a0", "a1", "a2")), Recipe(name="b", seeds=("b0", "b1", "b2"))
MEAN = {"task": "mean", "length": "0k", "metric": "exact"}


def test_seeds_are_named_with_their_recipe_and_a_path_is_never_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_models("lm2=x/A,lm2=B=1+1,rmt=C,D") == (
        ("x/A", "B=1+1", "C", "D"),
        (Recipe(name="lm2", seeds=("x/A", "B=1+1")), Recipe(name="rmt", seeds=("C",))),
    )
    assert read_models("a,b") == (("a", "b"), ())
    assert read_models("runs/lr=3/a,./lr=3") == (("runs/lr=3/a", "./lr=3"), ())
    monkeypatch.chdir(tmp_path)
    Path("lr=3").mkdir()
    assert read_models("lr=3") == (("lr=3",), ())


@pytest.mark.parametrize(
    ("text", "words"),
    [("a=x,a=x", "'x' is named 2 times"), ("a=x,b=x", "'x' is named 2 times"), ("a=x,a", "'a' is that of another")],
)
def test_a_seed_belongs_to_one_recipe_once_and_a_recipe_has_a_name_of_its_own(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_models(text)
    with pytest.raises(ValueError, match="'y' is named 0 times"):
        Evaluation(models=("x",), recipes=(Recipe(name="a", seeds=("y",)),), sets=("babi:qa1",))


def test_a_recipe_scores_the_mean_of_its_seeds_and_its_interval_is_wider_than_theirs() -> None:
    rows = table(_answers(SIX), (A, B))
    for where in (MEAN, {**MEAN, "task": "qa1"}):
        recipe, *seeds = (_row(rows, model=model, **where) for model in ("a", *A.seeds))
        assert recipe["mean"] == pytest.approx(np.mean([seed["mean"] for seed in seeds]))
        assert recipe["high"] - recipe["low"] > max(seed["high"] - seed["low"] for seed in seeds)
        assert 0 <= recipe["low"] < recipe["mean"] < recipe["high"] <= 1 and recipe["n"] == seeds[0]["n"]
    assert {row["model"]: row["recipe"] for row in rows} == {
        "a": "", "a0": "a", "a1": "a", "a2": "a", "b": "", "b0": "b", "b1": "b", "b2": "b"
    }  # fmt: skip


def test_more_seeds_make_the_interval_narrower() -> None:
    seeds = {f"a{at}": 0.5 + 0.1 * (at % 3) for at in range(12)}
    widths = []
    for count in (3, 6, 12):
        recipe = Recipe(name="a", seeds=tuple(list(seeds)[:count]))
        row = _row(table(_answers(seeds), (recipe,)), model="a", **MEAN)
        widths.append(row["high"] - row["low"])
    assert widths[0] > widths[1] > widths[2]


def test_a_recipe_of_one_seed_has_the_rows_of_that_model() -> None:
    done = _answers({"a0": 0.5, "b0": 0.4})
    recipes = Recipe(name="a", seeds=("a0",)), Recipe(name="b", seeds=("b0",))
    rows, plain = table(done, recipes), table(done)
    for row in plain:
        recipe = _row(rows, model=row["model"][0], task=row["task"], length="0k", metric=row["metric"])
        assert recipe == {**row, "model": row["model"][0], "recipe": ""}
    pairs, plain = differences(done, recipes), differences(done)
    for row in plain:
        names = {"model": row["model"][0], "baseline": row["baseline"][0]}
        same = {name: row[name] for name in ("task", "length", "metric", "kind")}
        assert _row(pairs, **names, **same) == {**row, **names}


def test_seeds_that_go_together_make_a_sure_difference_of_recipes_that_overlap() -> None:
    """Both recipes have better seeds and worse ones, but at each seed one is ahead by a tenth."""
    done = _answers(SIX)
    where = {"model": "a", "baseline": "b", "kind": "difference", **MEAN}
    paired = _row(differences(done, (A, B)), **where)
    four = _answers({**SIX, "b3": 0.5})
    unpaired = _row(differences(four, (A, Recipe(name="b", seeds=(*B.seeds, "b3")))), **where)
    assert 0.05 < paired["low"] < paired["mean"] < paired["high"] < 0.3
    assert unpaired["low"] < paired["low"]
    each = [
        _row(differences(done, (A, B)), **{**where, "model": mine, "baseline": theirs})["mean"]
        for mine, theirs in zip(A.seeds, B.seeds)
    ]
    assert paired["mean"] == pytest.approx(np.mean(each))
    ratio = _row(differences(done, (A, B)), **{**where, "kind": "ratio"})
    assert ratio["low"] < ratio["mean"] < ratio["high"]


def test_other_items_of_one_seed_are_refused() -> None:
    done = _answers({"a0": 0.5, "a1": 0.6})
    last = list(done)[-1]
    done[last] = [replace(item, question="!") for item in done[last]]
    with pytest.raises(ValueError, match="hold different items"):
        table(done, (Recipe(name="a", seeds=("a0", "a1")),))


def test_an_evaluation_without_recipes_is_added_to_and_reported_by_seed(tmp_path: Path, gated, plain) -> None:
    for name, toy in (("gated", gated), ("plain", plain), ("other", gated)):
        save(tmp_path / name, toy.model, toy.tokenizer, "")
    gated, plain, other = (str(tmp_path / name) for name in ("gated", "plain", "other"))
    asked = Evaluation(models=(gated, plain), tasks=(1, 7), lengths=("0k",), samples=(2,), device="cpu")
    evaluate(asked, tmp_path / "out")
    before = pd.read_csv(tmp_path / "out/table.csv", keep_default_na=False)
    heard = []
    recipe = Recipe(name="gated", seeds=(gated, other))
    evaluate(
        replace(asked, models=(gated, other, plain), recipes=(recipe,)),
        tmp_path / "out",
        on_cell=lambda cell, computed: heard.append((cell.model, computed)),
    )
    assert {model for model, computed in heard if computed} == {other}
    results = read_results(tmp_path / "out")
    assert results.models == ["gated", plain] and results.recipes == {"gated": [gated, other]}
    again = results.table[results.table["recipe"] == "gated"].drop(columns="recipe")
    assert again[again["model"] == gated].values.tolist() == before[before["model"] == gated].values.tolist()
    report = markdown(results, "lm2 eval")
    assert "## Seeds" in report and "| gated, by seed |" in report
    assert "0.0, 0.0" in report or "25.0, 25.0" in report or "50.0, 50.0" in report


def test_results_without_recipes_have_none_and_are_reported_as_before() -> None:
    results = read_results(BUNDLED)
    assert not results.recipes and "by seed" not in markdown(results, "lm2 eval")
