"""Laws of the command line: it says what it measured, and a user's mistake is one line and exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import main
from lm2 import babi
from lm2.checkpoint import Checkpoint, load, save
from lm2.results import read_results
from lm2.simulator import simulate
from lm2.trace import Trace


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_run_tells_the_answer_and_the_slots_read_at_the_question(capsys, monkeypatch) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    assert main(["run", "--checkpoint", "babi-lm2-qa1", "--task", "qa1", "--index", "0"]) == 0
    printed = capsys.readouterr().out
    for word in ("simulated story of qa1, seed 0", "segment 0:", "answer:", "slots read most at the last token, block 0:"):
        assert word in printed


def test_run_gives_the_same_as_json_and_as_a_trace_on_disk(capsys, tmp_path: Path) -> None:
    assert main(["run", "--checkpoint", "babi-lm2", "--text", "Mary moved to the garden.", "--json", "--out", str(tmp_path / "t.npz")]) == 0
    printed = json.loads(_last_line(capsys.readouterr().out))
    trace = Trace.load(tmp_path / "t.npz")
    assert [piece for segment in printed["segments"] for piece in segment] == list(trace.tokens.pieces)
    assert sum(token["probability"] for token in printed["next"]) <= 1


def test_recall_prints_counts_and_intervals_as_json(capsys, tmp_path: Path) -> None:
    babi.write([simulate(1, seed=seed).story for seed in range(3)], tmp_path / "qa1_small.txt")
    assert main(["recall", "--checkpoint", "babi-lm2", "--babi", str(tmp_path / "qa1_small.txt"), "--memory", "frozen", "--json"]) == 0
    printed = json.loads(_last_line(capsys.readouterr().out))
    assert printed["n"] == 15 == sum(row["n"] for row in printed["by_distance"])
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in [printed, *printed["by_distance"]])
    assert all(row["distance"] >= 1 for row in printed["by_distance"]), "a question has a segment of its own"


def test_generate_continues_the_text(capsys) -> None:
    assert main(["generate", "--checkpoint", "babi-lm2", "--text", "Mary moved to the", "--tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("Mary moved to the")


def test_graft_writes_a_checkpoint_with_a_memory_and_never_over_a_folder(plain: Checkpoint, capsys, tmp_path: Path) -> None:
    save(tmp_path / "plain", plain.model, plain.tokenizer, "# Plain")
    order = ["graft", str(tmp_path / "plain"), "--slots", "4", "--heads", "2", "--out", str(tmp_path / "new")]
    assert main([*order, "--layers", "0,2"]) == 0
    grafted = load(tmp_path / "new", "cpu")
    assert (grafted.config.slots, grafted.config.slot_dim, grafted.config.memory_layers) == (4, plain.config.d_model, (0, 2))
    assert f"{grafted.memory_parameters:,} parameters of memory" in capsys.readouterr().out
    assert main(order) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*order[:-1], str(tmp_path / "bad"), "--layers", "0;2"]) == 2
    assert "layers are written 0,4,8, not '0;2'" in capsys.readouterr().err
    assert main([*order[:-1], str(tmp_path / "all")]) == 0
    assert load(tmp_path / "all", "cpu").config.memory_layers == (0, 1, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--checkpoint", "nobody", "--text", "a"],
        ["run", "--checkpoint", "babi-lm2", "--text", ""],
        ["run", "--checkpoint", "babi-lm2", "--task", "one"],
        ["run", "--checkpoint", "babi-lm2", "--task", "qa1", "--question", "99"],
        ["run", "--checkpoint", "babi-lm2", "--file", "not-there.txt"],
        ["run", "--checkpoint", "babi-lm2", "--text", "a", "--device", "toaster"],
        ["recall", "--checkpoint", "babi-lm2", "--babi", "not-there.txt"],
        ["parity", "not-there.safetensors"],
        ["train", "not-there.json", "--out", "nowhere"],
        ["info", "nobody"],
        ["graft", "babi-lm2", "--slots", "4", "--heads", "2", "--out", "nowhere"],
    ],
)
def test_a_mistake_is_one_line_on_standard_error(arguments: list[str], capsys) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("lm2: ") and len(captured.err.strip().splitlines()) == 1
    assert not captured.out


def test_a_reader_who_has_read_enough_is_no_mistake() -> None:
    order = [sys.executable, "-c", "from app.cli import main; raise SystemExit(main(['info', 'babi-lm2']))"]
    process = subprocess.Popen(order, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141


def test_eval_writes_tables_and_a_report_beside_the_paper(gated: Checkpoint, plain: Checkpoint, capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    for toy in (gated, plain):
        save(tmp_path / toy.name, toy.model, toy.tokenizer, "")
    models = f"{tmp_path / gated.name},{tmp_path / plain.name}"
    order = ["eval", "--models", models, "--tasks", "qa1,qa6-qa7", "--samples", "3", "--workers", "1", "--out", str(tmp_path / "out")]
    assert main([*order, "--report", str(tmp_path / "report.md")]) == 0
    assert "best constants" in capsys.readouterr().out
    report = (tmp_path / "report.md").read_text()
    assert f"lm2 eval --models {models} --tasks qa1,qa6-qa7" in report and "paper: LM2-1.7B" in report and "| qa7 |" in report
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cells", "table.csv", "table.parquet", "differences.csv", "differences.parquet"}


def test_one_model_alone_is_evaluated_and_has_no_differences(gated: Checkpoint, capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    save(tmp_path / "toy", gated.model, gated.tokenizer, "")
    babi.write([simulate(1, seed=seed).story for seed in range(3)], tmp_path / "qa1_small_test.txt")
    order = ["eval", "--models", str(tmp_path / "toy"), "--tasks", "qa1", "--samples", "2", "--workers", "1", "--out", str(tmp_path / "out")]
    source = ["--babi-dir", str(tmp_path / "qa1_small_test.txt")]
    assert main([*order, *source, "--report", str(tmp_path / "report.md")]) == 0
    assert read_results(tmp_path / "out").differences.empty
    report = (tmp_path / "report.md").read_text()
    assert "paired" not in report and " ".join(source) in report, "the report names what decided its numbers"


@pytest.mark.parametrize(
    "extra, said", [(["--tasks", "qb1"], "qa1,qa3-qa5"), (["--lengths", "9"], "like 4k"), (["--samples", "x"], "whole numbers"), (["--lengths", "4k"], "books")]
)
def test_an_evaluation_that_cannot_be_made_is_one_line(extra: list[str], said: str, capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    assert main(["eval", "--models", "babi-lm2", "--tasks", "qa1", "--workers", "1", "--out", str(tmp_path / "out"), *extra]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1


def test_language_compares_models_on_the_same_passages(gated: Checkpoint, plain: Checkpoint, capsys, tmp_path: Path) -> None:
    for toy in (gated, plain):
        save(tmp_path / toy.name, toy.model, toy.tokenizer, "")
    (tmp_path / "book.txt").write_text("Mary moved to the garden.\n" * 60)
    models = f"{tmp_path / gated.name},{tmp_path / plain.name}"
    order = ["language", "--models", models, "--text", str(tmp_path / "book.txt"), "--passages", "3", "--characters", "120"]
    assert main([*order, "--json"]) == 0
    first, other = json.loads(_last_line(capsys.readouterr().out))
    assert first["more"] == 0 and first["passages"] == 3 and other["bits_per_byte"] > 0
    (tmp_path / "book.txt.xz").write_bytes(b"no xz")
    assert main([*order[:4], str(tmp_path / "book.txt.xz")]) == 2
    assert "not readable as text" in capsys.readouterr().err
