"""Laws of `lm2 bench` and `lm2 sweep`: they print what they measured, and a stopped sweep resumes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from app.cli.main import main
from lm2.weights.checkpoint import Checkpoint, save
from probes.bench import capture, planner, probes, questions


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A bench of toy size; the numbers of threads that were set."""
    for name, value in (("LAYERS", 2), ("SLOTS", 3), ("_STATEMENTS", 20)):
        monkeypatch.setattr(planner, name, value)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    return threads


def test_the_bench_measures_three_ways_of_the_same_work(small: list[int], capsys) -> None:
    assert main(["bench", "sweep", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["units"] == document["plain_units"] == 6 and document["max_difference"] <= 1e-5
    assert document["exact_speedup"] == pytest.approx(document["plain_seconds"] / document["exact_seconds"])
    assert document["answer_speedup"] == pytest.approx(document["plain_seconds"] / document["answer_seconds"])
    assert small == [1]


def test_the_bench_says_what_was_extrapolated(small: list[int], capsys) -> None:
    assert main(["bench", "sweep", "--plain", "2"]) == 0
    assert "(extrapolated from 2 units)" in capsys.readouterr().out
    assert main(["bench", "sweep", "--plain", "7"]) == 2
    assert "1 to 6 units, not 7" in capsys.readouterr().err


def test_the_benchs_document_fills_its_segments() -> None:
    asked = planner.document(planner.fresh_checkpoint())
    assert len(asked.segments) == planner.SEGMENTS and asked.segment == planner.SEGMENTS - 1 and len(asked.rows) == 1
    assert all(len(segment.ids) == planner.SEGMENT_LENGTH for segment in asked.segments)


def test_the_probes_bench_measures_every_size_beside_scikit_learn(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (("DIMS", (6, 9)), ("TARGETS", (2, 3)), ("TRAIN", 150), ("TEST", 60), ("REFERENCE", 2))
    for name, value in sizes:
        monkeypatch.setattr(probes, name, value)
    assert main(["bench", "probes", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(row["d"], row["targets"]) for row in document["rows"]] == [(6, 2), (6, 3), (9, 2), (9, 3)]
    for row in document["rows"]:
        assert row["speedup"] == pytest.approx(row["sklearn_seconds"] * row["targets"] / row["batched_seconds"])
        assert row["accuracy_difference"] <= 0.02 and row["agreement"] >= 0.98 and row["unconverged"] == 0
    assert document["sklearn_targets"] == 2 and document["strength"] == 0.01
    assert main(["bench", "probes", "--strength", "0.1"]) == 0
    text = capsys.readouterr().out
    assert "C 0.1" in text and "extrapolated from 2 targets" in text and len(text.splitlines()) == 6
    assert main(["bench", "probes", "--strength", "-1"]) == 2
    assert "above 0" in capsys.readouterr().err


def test_the_benchs_data_are_like_activations_and_can_be_learnt() -> None:
    features, labels = probes.data(16, 2)
    assert features.shape == (7000, 16) and features.dtype == np.float32 and labels.shape == (2, 7000)
    spectrum = np.linalg.eigvalsh(np.cov(features[:, 4:].T))
    assert spectrum[-1] > 5 * spectrum[0] and features[:, :4].std() > 10 * features[:, 4:].std()
    assert (np.bincount(labels[0]) / 7000).max() < 0.5 and labels.max() == 9


def test_a_sweep_tells_its_cost_first_then_units_joints_and_where_the_tables_are(
    rmt: Checkpoint, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    save(tmp_path / "model", rmt.model, rmt.tokenizer, "# Toy")
    assert main(["sweep", "--example"]) == 0
    values = json.loads(capsys.readouterr().out) | {"checkpoint": str(tmp_path / "model"), "questions": 3, "screen": 1}
    (tmp_path / "spec.json").write_text(json.dumps(values))
    command = ["sweep", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out"), "--device", "cpu", "--top", "2"]
    assert main(command) == 0
    output = capsys.readouterr()
    assert output.err.startswith("3 documents x 5 units: ")
    for message in ("screened: r ", "at once", "interval clustered by story", "values, units, joints and curves"):
        assert message in output.out
    assert main(command) == 0
    assert capsys.readouterr().out == output.out, "what is there is not asked again, and says the same"
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["units"]) == 5 * len(values["metrics"]) and document["spec"]["questions"] == 3
    assert {Path(file["path"]).name for file in document["written"]} == {
        path.name for path in (tmp_path / "out").glob("*.[cp][sa][vr]*")
    }


def test_a_sweep_that_cannot_be_is_one_line(capsys, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text("{")
    for command, message in (
        (["sweep"], "needs SPEC.json and --out DIR"),
        (["sweep", str(tmp_path / "spec.json"), "--out", str(tmp_path)], "is not JSON"),
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_the_questions_bench_asks_a_file_and_babi_as_many_questions_of_as_many_segments(
    capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    monkeypatch.setattr(questions, "QUESTIONS", 8)
    monkeypatch.setattr(questions, "ROUNDS", 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    assert main(["bench", "questions", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    file, babi = document["file"], document["babi"]
    assert file["questions"] == babi["questions"] == file["different"] == 8 >= babi["different"] > 0
    expected = [
        (file["reading_seconds"] / 8 + ours / 4) / (babi["reading_seconds"] / 8 + theirs / 4)
        for ours, theirs in zip(file["policies_seconds"], babi["policies_seconds"])
    ]
    assert document["question_ratios"] == pytest.approx(expected)
    tokens = [theirs / ours for ours, theirs in zip(file["tokens"], babi["tokens"])]
    assert document["token_ratios"] == pytest.approx(np.multiply(expected, tokens))
    assert document["question_ratio"] == pytest.approx(np.median(expected))
    monkeypatch.setattr(questions, "QUESTIONS", 4)
    monkeypatch.setattr(questions, "ROUNDS", 1)
    assert main(["bench", "questions"]) == 0
    assert "4 questions of a JSONL file through policies" in capsys.readouterr().out


def test_the_figures_bench_measures_both_ways_of_one_map(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.export import bench as bench_figures

    monkeypatch.setattr(bench_figures, "SIDE", 64)
    monkeypatch.setattr(bench_figures, "_REPEATS", 1)
    assert main(["bench", "figures", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["width"] == 3.25 and document["ratio"] == pytest.approx(
        document["own_seconds"] / document["plain_seconds"]
    )
    assert main(["bench", "figures"]) == 0
    assert "64 x 64" in capsys.readouterr().out


def test_the_bench_of_captures_measures_every_way_on_one_text(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(capture, "_TOKENS", 64)
    monkeypatch.setattr(capture, "_apart", capture.cost_of)
    assert main(["bench", "capture", "--json", "--lengths", "40"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (
        set(document["ways"]) == {way.value for way in capture.Way} and document["ways"]["bare forward"]["ratio"] == 1
    )
    assert all(min(way["seconds"]) > 0 and way["peak_bytes"] > 0 for way in document["ways"].values())
    (cost,) = document["lengths"]
    assert cost["tokens_per_second"] == pytest.approx(cost["tokens"] / cost["seconds"])
