"""Laws of `lm2 bench sweep` and `lm2 sweep`: they say what they measured, and go on where they were stopped."""

import json
from pathlib import Path

import pytest
import torch

from app.cli import main
from lm2.checkpoint import Checkpoint, save
from probes import bench


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A bench of toy size; the numbers of threads that were asked for."""
    for name, value in (("LAYERS", 2), ("SLOTS", 3), ("_STATEMENTS", 20)):
        monkeypatch.setattr(bench, name, value)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    return threads


def test_the_bench_measures_three_ways_of_the_same_work(small: list[int], capsys) -> None:
    assert main(["bench", "sweep", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["units"] == found["plain_units"] == 6 and found["max_difference"] <= 1e-5
    assert found["exact_speedup"] == pytest.approx(found["plain_seconds"] / found["exact_seconds"])
    assert found["answer_speedup"] == pytest.approx(found["plain_seconds"] / found["answer_seconds"])
    assert small == [1]


def test_the_bench_says_what_was_extrapolated(small: list[int], capsys) -> None:
    assert main(["bench", "sweep", "--plain", "2"]) == 0
    assert "(extrapolated from 2 units)" in capsys.readouterr().out
    assert main(["bench", "sweep", "--plain", "7"]) == 2
    assert "1 to 6 units, not 7" in capsys.readouterr().err


def test_the_benchs_document_fills_its_segments() -> None:
    asked = bench.document(bench.fresh_checkpoint())
    assert len(asked.segments) == bench.SEGMENTS and asked.segment == bench.SEGMENTS - 1 and len(asked.rows) == 1
    assert all(len(segment.ids) == bench.SEGMENT_LENGTH for segment in asked.segments)


def test_a_sweep_tells_its_cost_first_then_units_joints_and_where_the_tables_are(
    rmt: Checkpoint, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    save(tmp_path / "model", rmt.model, rmt.tokenizer, "# Toy")
    assert main(["sweep", "--example"]) == 0
    values = json.loads(capsys.readouterr().out) | {"checkpoint": str(tmp_path / "model"), "questions": 3, "screen": 1}
    (tmp_path / "spec.json").write_text(json.dumps(values))
    order = ["sweep", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out"), "--device", "cpu", "--top", "2"]
    assert main(order) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 documents x 5 units: ")
    for said in ("screened: r ", "at once", "interval clustered by story", "values, units, joints and curves"):
        assert said in printed
    assert main(order) == 0
    assert capsys.readouterr().out.splitlines()[1:] == printed.splitlines()[1:], "what is there is not asked again, and says the same"


def test_a_sweep_that_cannot_be_is_one_line(capsys, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text("{")
    for order, said in (
        (["sweep"], "needs SPEC.json and --out DIR"),
        (["sweep", str(tmp_path / "spec.json"), "--out", str(tmp_path)], "is not JSON"),
    ):
        assert main(order) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
