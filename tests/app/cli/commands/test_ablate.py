"""Laws of `lm2 ablate` and `lm2 experiment`."""

import hashlib
import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from planted import QUESTION, plant

from app.cli.main import main
from app.cli.shell.errors import Exit
from lm2.weights.checkpoint import Checkpoint, save
from probes.experiments.registry import EXPERIMENTS

TEXT = "Mary moved to the bathroom.\fWhere is Mary?"


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)


def _spec(folder: Path, **values: object) -> str:
    path = folder / "spec.json"
    path.write_text(json.dumps({"checkpoint": "babi-lm2-qa1", "text": TEXT, **values}), encoding="utf-8")
    return str(path)


def test_without_interventions_nothing_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", _spec(tmp_path), "--device", "cpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kl_mean"] == 0 and document["next"]["before"] == document["next"]["after"]


def test_without_memory_the_question_is_answered_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    assert (
        main(["ablate", _spec(tmp_path, interventions=[{"kind": "MemoryOff"}]), "--device", "cpu", "--out", str(out)])
        == 0
    )
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["next"]["before"][0][0].strip() == "bathroom" and document["kl_mean"] > 0
    assert "1 interventions" in capsys.readouterr().out and len(document["spec_digest"]) == 64
    assert (
        main(
            [
                "ablate",
                _spec(tmp_path, interventions=[{"kind": "MemoryOff"}]),
                "--device",
                "cpu",
                "--out",
                str(out),
                "--json",
            ]
        )
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    kept = printed.pop("written")
    assert printed == document and kept == [{"path": str(out), "sha256": hashlib.sha256(out.read_bytes()).hexdigest()}]


def test_an_experiment_handed_out_can_be_run_again_with_the_same_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first.json"
    arguments = f"experiment permutation --checkpoint babi-lm2-qa1 --n 3 --device cpu --out {first}".split()
    assert main(arguments) == 0
    assert "slots in a random order" in capsys.readouterr().out
    document = json.loads(first.read_text(encoding="utf-8"))
    (tmp_path / "spec.json").write_text(json.dumps(document["spec"]), encoding="utf-8")
    assert main(["ablate", str(tmp_path / "spec.json"), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_the_list_names_every_experiment_with_its_control(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "list"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert all(line.strip().endswith(".") and "Control:" in line for line in lines)
    assert main(["experiment", "list", "--json"]) == 0
    assert (
        [load["experiment"] for load in json.loads(capsys.readouterr().out)]
        == list(EXPERIMENTS)
        == [line.split()[0] for line in lines]
    )


def test_help_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["experiment", "--help"])
    assert ", ".join(EXPERIMENTS) in " ".join(capsys.readouterr().out.split())


def test_a_new_experiment_is_a_file_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = plant(tmp_path, monkeypatch)
    assert main(["experiment", "list"]) == 0 and QUESTION in capsys.readouterr().out
    order = ["experiment", key, "--checkpoint", "babi-lm2-qa1", "--n", "2", "--device", "cpu"]
    assert main(order) == 0 and "danced (%)" in capsys.readouterr().out
    assert main([*order, "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)["findings"]
    assert document["columns"] == ["step", "danced (%)", "danced_low (%)", "danced_high (%)"]
    assert document["rows"] == [[0, 50, 40, 60], [1, 50, 40, 60]] and document["curve"] == document["columns"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"interventions": [{"kind": "Reset", "segment": 9}]}, "0..1"),
        ({"interventions": [{"kind": "BankEdit", "operation": {"kind": "Set", "value": 0}, "slots": [99]}]}, "0..15"),
        ({"interventions": [{"kind": "Dance"}]}, "no intervention is called"),
        ({"interventions": 5}, "interventions must be a sequence, not 5"),
        ({"colour": "red"}, "no fields"),
        ({"text": ""}, "empty"),
    ],
)
def test_a_spec_that_names_what_is_not_there_is_refused_in_one_line(
    values: dict, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", _spec(tmp_path, **values), "--device", "cpu"]) == 2
    text = capsys.readouterr().err
    assert words in text and len(text.strip().splitlines()) == 1


@pytest.mark.parametrize(("content", "words"), [("{", "is not JSON"), ("[1]", "must hold a spec")])
def test_a_file_that_is_no_spec_is_refused(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(content, encoding="utf-8")
    assert main(["ablate", str(path)]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["dance", "--checkpoint", "babi-lm2-qa1"], "invalid choice: 'dance'"), (["swap"], "--checkpoint"),
     (["swap", "--checkpoint", "babi-lm2-qa1", "--questions", "babi:one"], "is followed by qa1 to qa10")],
)  # fmt: skip
def test_an_experiment_that_is_not_there_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_an_experiment_on_seeds_shows_their_spread(
    tmp_path: Path, gated: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = []
    for name, change in (("a", 0.0), ("b", 0.01)):
        model = deepcopy(gated.model)
        with torch.no_grad():
            model.embed.weight.add_(change)
        save(tmp_path / name, model, gated.tokenizer, "")
        seeds.append(str(tmp_path / name))
    asked = ["experiment", "policies", "--n", "4", "--device", "cpu", "--out", str(tmp_path / "out.json")]
    assert main([*asked, "--checkpoints", ",".join(seeds)]) == 0
    printed = capsys.readouterr().out
    assert "mean over seeds (%)" in printed and seeds[1] in printed
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [report["spec"]["checkpoint"] for report in document["reports"]] == seeds and document["apart"] == []
    assert main([*asked, "--checkpoints", f"{seeds[0]},babi-lm2-qa1"]) == Exit.MISTAKE
    assert "their rows cannot be compared" in capsys.readouterr().err
    assert main([*asked, "--checkpoints", seeds[0], "--checkpoint", seeds[0]]) == Exit.MISTAKE
