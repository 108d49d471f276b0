"""Laws of `lm2 probe`."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from app.cli.main import main
from lm2.tasks.sets.question_set import questions, write
from lm2.text.tokens import Tokenizer

SPEC = {
    "checkpoint": "babi-lm2-qa1", "documents": {"kind": "Documents", "tasks": [1], "count": 20},
    "sources": ["bank:mean", "bank:slot3"],
    "targets": ["place of Mary"], "baselines": ["tokens"], "strengths": [0.01], "permutations": 19,
}  # fmt: skip


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(SPEC))
    return path


def test_a_probe_tells_of_every_source_and_leaves_the_tables(spec, tmp_path, capsys):
    assert main(["probe", str(spec), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr()
    assert "bank:slot3" in output.out and "best source" in output.out
    assert output.err.startswith("20 documents"), "what it will cost is a note"
    assert set(pd.read_csv(tmp_path / "out" / "cells.csv")["source"]) == {"bank:mean", "bank:slot3", "tokens"}
    assert (tmp_path / "out" / "figures" / "place-of-Mary.pdf").read_bytes().startswith(b"%PDF")
    assert main(["probe", str(spec), "--out", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["segment"] for row in document["cells"]} > {"all", "0"} and len(document["spec_digest"]) == 64
    assert set(document["cells"][0]) == set(pd.read_csv(tmp_path / "out" / "cells.csv"))
    names = {str(Path(file["path"]).relative_to(tmp_path / "out")) for file in document["written"]}
    assert names > {"cells.csv", "cells.parquet", "figures/place-of-Mary.pdf"}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A question set in a file; for the answer of its first question the tokenizer has no token."""
    monkeypatch.setattr(Tokenizer, "knows", lambda self, tokens, start: not tokens.text.endswith("zeppelin"))
    first, *others = questions("simulated:qa1", 16).prompts
    write([replace(first, answers=("zeppelin",)), *others], tmp_path / "mine.jsonl")
    return str(tmp_path / "mine.jsonl")


def test_a_probe_reads_any_question_set_and_tells_which_questions_it_left_out(spec, mine, tmp_path, capsys):
    spec.write_text(json.dumps(SPEC | {"targets": ["label place of Mary"]}))
    command = ["probe", str(spec), "--questions", mine, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    output = capsys.readouterr()
    assert output.err.startswith("15 documents")
    assert "questions left out: 1; the first is question 1 ('Where is " in output.out
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["skipped"]) == 1 and "zeppelin" in document["skipped"][0]
    assert document["spec"]["documents"]["questions"][0].startswith(f"{mine}?sha256=")


def test_slots_are_explained_on_any_question_set(mine, tmp_path, capsys):
    spec = tmp_path / "explain.json"
    spec.write_text(json.dumps({"checkpoint": "babi-lm2-qa1", "items": 4}))
    assert main(["explain", str(spec), "--questions", mine, "-n", "7", "--out", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["documents"] == {"shown": 3, "scored": 3} and len(document["skipped"]) == 1


def test_texts_of_a_file_are_not_exchanged_for_questions(tmp_path, capsys):
    spec = tmp_path / "explain.json"
    spec.write_text(json.dumps({"checkpoint": "babi-lm2-qa1", "file": "texts.txt"}))
    assert main(["explain", str(spec), "-n", "7", "--out", str(tmp_path / "out")]) == 2
    assert "the spec reads the texts of texts.txt, and no questions" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["probe", "explain"])
def test_examples_and_specs_take_the_set_that_is_named(command, tmp_path, capsys):
    assert main([command, "--example", "--questions", "pairs:?n=4", "--n", "9"]) == 0
    documents = json.loads(capsys.readouterr().out)["documents"]
    assert (documents["questions"], documents["count"]) == (["pairs:?n=4"], 9)
    assert main([command, "--example", "-n", "9"]) == 0
    documents = json.loads(capsys.readouterr().out)["documents"]
    assert (documents["tasks"], documents["count"]) == ([1], 9)
    assert main([command, "--example", "--questions", "64"]) == 2
    words = "`--questions` names a question set, such as babi:qa1; how many are asked is --n 64"
    assert words in capsys.readouterr().err
    assert main([command, "--example", "--questions", "babi:qa99"]) == 2


def test_rows_can_be_had_to_label_them(spec, tmp_path, capsys):
    assert main(["probe", str(spec), "--rows", str(tmp_path / "rows.csv")]) == 0
    assert {"row", "group", "statement"} <= set(pd.read_csv(tmp_path / "rows.csv"))


def test_the_example_is_a_spec(capsys):
    assert main(["probe", "--example"]) == 0
    assert json.loads(capsys.readouterr().out)["sources"] == ["bank:mean", "bank:sketch256"]


def test_a_probe_without_a_place_for_its_results_is_a_mistake(spec, capsys):
    assert main(["probe", str(spec)]) == 2
    assert "needs SPEC.json and --out DIR" in capsys.readouterr().err


def test_a_source_that_the_model_lacks_is_told_in_a_line(tmp_path, capsys):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(SPEC | {"sources": ["bank:slot99"]}))
    assert main(["probe", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "have no source 'bank:slot99'" in capsys.readouterr().err
