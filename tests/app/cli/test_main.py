"""Laws of the commands that look, measure and train: they print their results as text and as JSON."""

import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers_of_others import FAMILIES

from app.choices.selection import TextChoice, TextSource
from app.cli.main import main
from app.ui.sidebar import context_of
from lm2.evaluation.results import DIFFERENCES, TABLE, read_results
from lm2.files import decode_text
from lm2.runs.generation import generate
from lm2.runs.interventions import Reset
from lm2.runs.spec import RunSpec
from lm2.runs.trace import Trace
from lm2.tasks import babi_files
from lm2.tasks.simulator import simulate
from lm2.text.tokens import Tokenizer
from lm2.training.curriculum import Phase, Stage
from lm2.weights.checkpoint import Checkpoint, load, save
from lm2.weights.released import Parity


def test_run_tells_the_answer_and_the_slots_read_at_the_question(capsys, monkeypatch) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    assert main(["run", "--checkpoint", "babi-lm2-qa1", "--task", "qa1", "--index", "0"]) == 0
    printed = capsys.readouterr().out
    for word in (
        "simulated story of qa1, seed 0",
        "segment 0:",
        "answer:",
        "slots read most at the last token, block 0:",
    ):
        assert word in printed


def test_run_gives_the_same_as_json_and_as_a_trace_on_disk(capsys, tmp_path: Path) -> None:
    assert (
        main(
            [
                "run",
                "--checkpoint",
                "babi-lm2",
                "--text",
                "Mary moved to the garden.",
                "--json",
                "--out",
                str(tmp_path / "t.npz"),
            ]
        )
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    trace = Trace.load(tmp_path / "t.npz")
    assert [piece for segment in printed["segments"] for piece in segment] == list(trace.tokens.pieces)
    assert sum(token["probability"] for token in printed["next"]) <= 1
    assert (printed["spec_digest"], printed["checkpoint_digest"]) == (trace.spec.digest, trace.checkpoint_digest)
    assert [file["path"] for file in printed["written"]] == [str(tmp_path / "t.npz")]


def test_recall_prints_counts_and_intervals_as_json(capsys, tmp_path: Path) -> None:
    babi_files.write([simulate(1, seed=seed).story for seed in range(3)], tmp_path / "qa1_small.txt")
    assert main(f"recall --checkpoint babi-lm2 --babi {tmp_path / 'qa1_small.txt'} --memory frozen --json".split()) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["n"] == 15 == sum(row["n"] for row in printed["by_distance"])
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in [printed, *printed["by_distance"]])
    assert all(row["distance"] >= 1 for row in printed["by_distance"]), "a question has a segment of its own"


def test_generate_continues_the_text(capsys) -> None:
    command = ["generate", "--checkpoint", "babi-lm2", "--text", "Mary moved to the", "--tokens", "3"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["prompt"] + document["text"] + "\n" == text and len(document["pieces"]) == 3


def test_generate_takes_interventions_as_a_list_or_from_a_run_s_spec(tmp_path: Path, capsys) -> None:
    text, changes = "Mary moved to the office.\fWhere is Mary?", (Reset(segment=1),)
    spec = RunSpec(checkpoint="babi-lm2-qa1", text=text, interventions=changes)
    file, documents = tmp_path / "changes.json", []
    for values in (spec.to_json(), spec.to_json()["interventions"], []):
        file.write_text(json.dumps(values))
        command = ["generate", "--checkpoint", "babi-lm2-qa1", "--text", text, "--tokens", "2", "--json"]
        assert main([*command, "--interventions", str(file)]) == 0
        documents.append(json.loads(capsys.readouterr().out))
    assert documents[0] == documents[1] and documents[0]["interventions"] == [change.to_json() for change in changes]
    expected = generate(load("babi-lm2-qa1", "cpu"), text, max_tokens=2, interventions=changes)
    assert documents[0]["text"] == expected.text != documents[2]["text"]
    file.write_text('"Reset"')
    assert main([*command, "--interventions", str(file)]) == 2
    assert f"{file}: interventions are a list of objects" in capsys.readouterr().err


def test_info_gives_sizes_and_card_in_both_forms(capsys) -> None:
    assert main(["info", "babi-lm2"]) == 0
    text = capsys.readouterr().out
    assert main(["info", "babi-lm2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (
        f"{document['parameters']:,} parameters" in text
        and document["card"].strip() in text
        and document["checkpoint_digest"] in text
    )
    assert document["config"]["memory"] == "gated"


def test_graft_writes_a_checkpoint_with_a_memory_and_never_over_a_folder(
    plain: Checkpoint, capsys, tmp_path: Path
) -> None:
    save(tmp_path / "plain", plain.model, plain.tokenizer, "# Plain")
    command = ["graft", str(tmp_path / "plain"), "--slots", "4", "--heads", "2", "--out", str(tmp_path / "new")]
    assert main([*command, "--layers", "0,2"]) == 0
    grafted = load(tmp_path / "new", "cpu")
    assert (grafted.config.slots, grafted.config.slot_dim, grafted.config.memory_layers) == (
        4,
        plain.config.d_model,
        (0, 2),
    )
    assert f"{grafted.memory_parameters:,} parameters of memory" in capsys.readouterr().out
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "bad"), "--layers", "0;2"]) == 2
    assert "layers are written 0,4,8, not '0;2'" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "all")]) == 0
    assert load(tmp_path / "all", "cpu").config.memory_layers == (0, 1, 2)
    capsys.readouterr()
    assert main([*command[:-1], str(tmp_path / "told"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["checkpoint_digest"] == load(tmp_path / "told", "cpu").digest
    assert {Path(file["path"]).name for file in document["written"]} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "card.md",
    }


def test_train_tells_what_it_wrote(gated: Checkpoint, capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def train(config: object, folder: Path, on_step: Callable[[object, float], None]) -> None:
        for step, loss in enumerate((2.0, 1.0), start=1):
            on_step(SimpleNamespace(step=step), loss)
        save(folder / "checkpoint", gated.model, gated.tokenizer, "")

    monkeypatch.setattr("lm2.training.train.train", train)
    monkeypatch.setattr(
        "lm2.training.config.TrainingConfig.load",
        lambda path: SimpleNamespace(steps=2, at=lambda step: (Stage(steps=2, phase=Phase.OPEN, tasks=(1,)), 0)),
    )
    command = ["train", "any.json", "--out", str(tmp_path)]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["loss"], document["steps"], document["parameters"]) == (1.0, 2, gated.parameters)
    assert (
        document["checkpoint_digest"] == load(tmp_path / "checkpoint", "cpu").digest and len(document["written"]) >= 3
    )
    assert main(command) == 0
    assert "can be opened: lm2 info" in capsys.readouterr().out


def test_a_tokenizer_is_learnt_from_a_data_folder(capsys, tmp_path: Path) -> None:
    (tmp_path / "books" / "train").mkdir(parents=True)
    (tmp_path / "books" / "train" / "a.txt.xz").write_bytes(lzma.compress(b"It was a long day. " * 20))
    (tmp_path / "babi").mkdir()
    babi_files.write(
        [simulate(1, seed=seed).story for seed in range(3)], tmp_path / "qa1_single-supporting-fact_train.txt"
    )
    with tarfile.open(tmp_path / "babi" / "babi-v1.2-en-train.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "qa1_single-supporting-fact_train.txt", "en/qa1_single-supporting-fact_train.txt")
    out = tmp_path / "tokenizer.json"
    assert main(["tokenizer", str(tmp_path), "--pieces", "300", "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["pieces"] == Tokenizer.load(out).size <= 300 and document["written"][0]["path"] == str(out)


def test_serve_tells_the_address_and_gives_its_place_to_the_server(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[str]] = []
    moved: list[tuple[int, int]] = []
    monkeypatch.setattr("os.execv", lambda program, command: begun.append(command))
    monkeypatch.setattr("os.dup2", lambda old, new: moved.append((old, new)))
    monkeypatch.setattr("subprocess.call", lambda command: begun.append(command) or 0)
    for extra in ([], ["--json"]):
        with pytest.raises(SystemExit, match="0"):
            main(["serve", "--port", "9000", *extra])
    assert json.loads(capsys.readouterr().out) == {"address": "http://127.0.0.1:9000"}
    assert all("--server.port=9000" in command for command in begun)
    assert moved == [(2, 1)], "what the server says is no part of the document"


@pytest.mark.parametrize(("worst", "code"), [(9e-6, 0), (2e-5, 1)])
def test_parity_fails_where_numbers_differ(worst: float, code: int, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = Parity(segments=2, logits=worst, gates=0.0, bank=0.0)
    monkeypatch.setattr("lm2.weights.released.parity", lambda path: largest)
    assert main(["parity", "any.safetensors", "--json"]) == code
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"segments": 2, "logits": worst, "gates": 0.0, "bank": 0.0, "tolerance": 1e-5, "same": code == 0}
    assert main(["parity", "any.safetensors"]) == code
    assert "over 2 segments" in capsys.readouterr().out


def test_explain_tells_its_tables_and_files(
    gated: Checkpoint, folder: Callable[[Checkpoint], str], capsys, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    documents = {"kind": "Documents", "count": 6, "origin": "simulated"}
    (tmp_path / "spec.json").write_text(
        json.dumps({"checkpoint": folder(gated), "documents": documents, "items": 8, "slots": [0, 2]})
    )
    assert (
        main(["explain", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out"), "--device", "cpu", "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert [Path(file["path"]).name for file in document.pop("written")] == [
        "spec.json",
        "explanations.json",
        "report.md",
    ]
    assert document == json.loads((tmp_path / "out" / "explanations.json").read_text())


@pytest.mark.parametrize("command", ["sweep", "probe", "explain"])
def test_an_example_is_the_same_spec_in_both_forms(command: str, capsys) -> None:
    assert main([command, "--example"]) == 0
    spec = json.loads(capsys.readouterr().out)
    assert main([command, "--example", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == spec


def test_eval_writes_tables_and_a_report_beside_the_paper(
    gated: Checkpoint, plain: Checkpoint, capsys, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    for toy in (gated, plain):
        save(tmp_path / toy.name, toy.model, toy.tokenizer, "")
    models = f"{tmp_path / gated.name},{tmp_path / plain.name}"
    command = f"eval --models {models} --tasks qa1,qa6-qa7 --samples 3 --workers 1 --out {tmp_path / 'out'}".split()
    assert main([*command, "--report", str(tmp_path / "report.md")]) == 0
    assert "best constants" in capsys.readouterr().out
    report = (tmp_path / "report.md").read_text()
    assert (
        f"lm2 eval --models {models} --tasks qa1,qa6-qa7" in report
        and "paper: LM2-1.7B" in report
        and "| qa7 " in report
    )
    tables = {"table.csv", "table.parquet", "differences.csv", "differences.parquet"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cells", *tables}
    assert main([*command, "--report", str(tmp_path / "report.md"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["table"][0]) >= set(TABLE) and set(document["differences"][0]) >= set(DIFFERENCES)
    assert {Path(file["path"]).name for file in document["written"]} == {*tables, "report.md"}


def test_one_model_alone_is_evaluated_and_has_no_differences(
    gated: Checkpoint, capsys, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    save(tmp_path / "toy", gated.model, gated.tokenizer, "")
    babi_files.write([simulate(1, seed=seed).story for seed in range(3)], tmp_path / "qa1_small_test.txt")
    command = ["eval", "--models", str(tmp_path / "toy"), "--tasks", "qa1", "--samples", "2", "--workers", "1"]
    command += ["--out", str(tmp_path / "out")]
    source = ["--babi-dir", str(tmp_path / "qa1_small_test.txt")]
    assert main([*command, *source, "--report", str(tmp_path / "report.md")]) == 0
    assert read_results(tmp_path / "out").differences.empty
    report = (tmp_path / "report.md").read_text()
    assert "paired" not in report and " ".join(source) in report, "the report names what decided its numbers"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--tasks", "qb1"], "qa1,qa3-qa5"), (["--lengths", "9"], "like 4k"), (["--samples", "x"], "whole numbers"),
        (["--lengths", "4k"], "books"),
    ],
)  # fmt: skip
def test_an_evaluation_that_cannot_be_made_is_one_line(
    extra: list[str], message: str, capsys, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    assert (
        main(
            ["eval", "--models", "babi-lm2", "--tasks", "qa1", "--workers", "1", "--out", str(tmp_path / "out"), *extra]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def test_language_compares_models_on_the_same_passages(
    gated: Checkpoint, plain: Checkpoint, capsys, tmp_path: Path
) -> None:
    for toy in (gated, plain):
        save(tmp_path / toy.name, toy.model, toy.tokenizer, "")
    (tmp_path / "book.txt").write_text("Mary moved to the garden.\n" * 60)
    models = f"{tmp_path / gated.name},{tmp_path / plain.name}"
    command = f"language --models {models} --text {tmp_path / 'book.txt'} --passages 3 --characters 120".split()
    assert main([*command, "--json"]) == 0
    first, other = json.loads(capsys.readouterr().out)
    assert first["more"] == 0 and first["passages"] == 3 and other["bits_per_byte"] > 0
    (tmp_path / "book.txt.xz").write_bytes(b"no xz")
    assert main([*command[:4], str(tmp_path / "book.txt.xz")]) == 2
    assert "not readable as text" in capsys.readouterr().err


SEGMENTS = ("Mary moved to the garden.", "Where is Mary?")


@pytest.mark.parametrize("command", [["run"], ["generate", "--tokens", "2"]])
def test_segments_are_what_form_feeds_part(command: list[str], capsys) -> None:
    command = [*command, "--checkpoint", "babi-lm2-qa1", "--json"]
    documents = []
    for arguments in (["--text", "\f".join(SEGMENTS)], ["--segments", *SEGMENTS]):
        assert main([*command, *arguments]) == 0
        output = capsys.readouterr()
        assert "note" not in output.err
        documents.append(output.out)
    assert documents[0] == documents[1]


@pytest.mark.parametrize("command", ["run", "generate"])
def test_a_backslash_and_an_f_in_a_text_are_told_to_be_no_form_feed(command: str, capsys) -> None:
    assert main([command, "--checkpoint", "babi-lm2", "--text", r"Mary moved.\fWhere is Mary?", "--json"]) == 0
    output = capsys.readouterr()
    assert "--segments" in output.err and output.err.startswith(r"lm2: note: \f in --text")
    assert "\f" not in json.loads(output.out).get("prompt", "")


@pytest.mark.parametrize("command", ["run", "generate"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--segments", "Mary", ""], "text 2 of 2 is empty"), (["--text", "Mary\udcff"], "character 4 of it")],
)
def test_a_text_that_is_none_is_one_mistake_in_one_line(
    command: str, arguments: list[str], message: str, capsys
) -> None:
    assert main([command, "--checkpoint", "babi-lm2", *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err and output.err.count("\n") == 1 and not output.out


def test_run_finds_the_answer_of_a_model_that_marks_blanks(
    gated: Checkpoint, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    own = Tokenizer(FAMILIES["merged"]())
    save(tmp_path / "marked", gated.model, own, "")
    assert main(f"run --checkpoint {tmp_path / 'marked'} --task qa1 --json --out {tmp_path / 't.npz'}".split()) == 0
    document, trace = json.loads(capsys.readouterr().out), Trace.load(tmp_path / "t.npz")
    first = own.encode(f"{trace.tokens.text} {document['answer']}").ids[len(trace.tokens)]
    weights = np.exp(trace.logits[-1].astype(float))
    assert document["answer_probability"] == pytest.approx(weights[first] / weights.sum())


def test_run_has_no_number_for_an_answer_that_is_unknown(
    gated: Checkpoint, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    save(tmp_path / "lower", gated.model, Tokenizer(FAMILIES["wordpiece"]()), "")
    command = ["run", "--checkpoint", str(tmp_path / "lower"), "--task", "qa1"]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["answer"] == "bathroom" and document["answer_probability"] is None
    assert main(command) == 0
    assert "answer: bathroom (the tokenizer has no token for it)" in capsys.readouterr().out


def test_a_file_is_the_same_text_on_the_command_line_and_uploaded(
    gated: Checkpoint, folder: Callable[[Checkpoint], str], capsys, tmp_path: Path
) -> None:
    content = "\ufeffMary\r\nmoved\rto\u2028the \ufeffgarden.\f🙂\n".encode()
    (tmp_path / "text.txt").write_bytes(content)
    assert main(["run", "--checkpoint", folder(gated), "--file", str(tmp_path / "text.txt"), "--json"]) == 0
    uploaded = context_of(TextChoice(source=TextSource.FILE, uploaded=decode_text(content, "the file"))).text
    assert (
        json.loads(capsys.readouterr().out)["spec"]["text"]
        == uploaded
        == "Mary\nmoved\nto\u2028the \ufeffgarden.\f🙂\n"
    )


def test_recall_asks_a_set_and_says_where_no_distance_is_known(capsys, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"question": "Where is Mary?", "answers": ["garden", "office"]}')
    asked = ["recall", "--checkpoint", "babi-lm2", "--questions"]
    assert main([*asked, str(tmp_path / "mine.jsonl")]) == 0
    assert "1 of 1 questions name no facts" in capsys.readouterr().out
    assert main([*asked, "simulated:qa1", "-n", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 2
    for wrong, sentence in ((["7"], "how many are asked is --n 7"), (["babi:qa1", "--validation"], "with --babi")):
        assert main([*asked, *wrong]) == 2
        assert sentence in capsys.readouterr().err


def test_eval_asks_sets_or_a_grid_and_not_both(capsys, tmp_path: Path) -> None:
    command = ["eval", "--models", "babi-lm2", "--workers", "1", "--out", str(tmp_path / "out")]
    sets = "simulated:qa1?people=Mary,John,pairs:?n=2"
    assert main([*command, "--sets", sets, "--n", "2", "--report", str(tmp_path / "report.md")]) == 0
    assert "guessed" in capsys.readouterr().out
    assert read_results(tmp_path / "out").tasks == ["mean", "simulated:qa1?people=Mary,John", "pairs:?n=2"]
    for wrong, sentence in ((["--sets", sets, "--lengths", "0k"], "give one of them"), (["--n", "2"], "needs --sets")):
        assert main([*command, *wrong]) == 2
        assert sentence in capsys.readouterr().err
