"""Laws of `lm2 probe`."""

import json
from pathlib import Path

import pandas as pd
import pytest

from app.cli.main import main

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
