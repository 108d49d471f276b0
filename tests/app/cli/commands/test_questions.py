"""Laws of `lm2 questions`: it counts what a set holds, tells every mistake of a file, and writes what it reads."""

import csv
import json
from pathlib import Path

import pytest
from tokenizers_of_others import FAMILIES

from app.cli.main import main
from lm2.tasks.sets.built_in import BUILT_IN
from lm2.tasks.sets.question_set import questions
from lm2.text.tokens import Tokenizer
from lm2.weights.checkpoint import Checkpoint, save

MODEL = ("--checkpoint", "babi-lm2-qa1")
ROWS = (
    {"context": "Mary moved to the garden.", "question": "Where is Mary?", "answers": "garden", "facts": [[0, 24]]},
    {"context": "John moved to the office.", "question": "Where is John?", "answers": "office", "group": "b"},
    {"context": "Mary moved to the garden.", "question": "Who is there?", "answers": "bathroom"},
    {"context": "Mary moved to the garden.", "question": "And she?", "answers": "garden", "labels": [["a", "b", 0, 4]]},
)


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def test_check_counts_what_a_file_holds_in_both_forms(
    gated: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "words", gated.model, Tokenizer(FAMILIES["wordpiece"]()), "")
    path = write(tmp_path / "mine.jsonl", *(row | {"rivals": ["Mary", "John"]} for row in ROWS))
    command = ["questions", "check", path, "--checkpoint", str(tmp_path / "words"), "--segment-length", "4"]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    expected = {
        "items": 3, "groups": 2, "segment_length": 4, "one_token_answers": 3, "facts": 1, "rivals": 3, "labels": 1,
        "label_names": ["a"], "constant": "garden", "constant_share": pytest.approx(2 / 3),
        "guess_share": pytest.approx(1 / 3), "mistakes": [], "answer_tokens": {"least": 1, "median": 1, "most": 1},
    }  # fmt: skip
    assert {name: document[name] for name in expected} == expected
    assert document["segments"]["least"] >= 2 and document["context_tokens"]["least"] == 7
    (skipped,) = document["skipped"]
    assert skipped.startswith("question 3 ('Who is there?'): the tokenizer has no token for the answer")
    assert main(command) == 0
    text = capsys.readouterr().out
    for words in (
        "items     3 in 2 groups",
        "3 answers are one token",
        "labels    1 items have them: a",
        "best constant answer 'garden' 66.7%; one over answer and rivals 33.3%",
        f"skipped   1\n{skipped}",
        "mistakes  none",
    ):
        assert words in text


def test_check_tells_every_mistake_with_its_line_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "bad.jsonl", ROWS[0], {"question": "Who?"}, ROWS[1], {"answers": "Ada"})
    assert main(["questions", "check", path, *MODEL]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert "items     2 in 2 groups" in lines
    assert [line.split(": ")[0] for line in lines[lines.index("mistakes  2") + 1 :]] == [f"{path}:2", f"{path}:4"]
    assert main(["questions", "check", path, *MODEL, "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["mistakes"]) == 2
    assert main(["questions", "check", write(tmp_path / "none.jsonl", {"question": "Who?"}), *MODEL, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["items"] == 0 and len(document["mistakes"]) == 1


def test_check_tells_mistakes_though_no_question_can_be_asked(
    gated: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "words", gated.model, Tokenizer(FAMILIES["wordpiece"]()), "")
    path = write(tmp_path / "mine.jsonl", ROWS[2], {"question": "Who?"})
    command = ["questions", "check", path, "--checkpoint", str(tmp_path / "words")]
    assert main(command) == 2
    text = capsys.readouterr().out
    assert "can be asked none of 1 questions" in text and f"mistakes  1\n{path}:2: there is no answer" in text
    assert main([*command, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["items"] == 0 and "can be asked none" in document["refusal"] and len(document["mistakes"]) == 1
    assert main(["questions", "check", write(tmp_path / "whole.jsonl", ROWS[2]), *command[3:]]) == 2
    assert "can be asked none" in capsys.readouterr().err


def test_check_takes_the_sets_that_are_built_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["questions", "check", "pairs:?n=2", "--n", "3", "--checkpoint", "babi-lm2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["questions"], document["items"], document["facts"]) == ("pairs:?n=2", 3, 3)
    assert document["guess_share"] == pytest.approx(1 / 12)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_make_writes_a_set_that_is_read_as_the_same(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"set.{ending}"
    assert main(["questions", "make", "simulated:qa1", "--n", "5", "-o", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert questions(str(path)).digest == document["digest"] == questions("simulated:qa1", 5).digest
    assert document["written"][0]["path"] == str(path) and document["items"] == 5


def test_make_turns_a_file_into_another_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.jsonl", *ROWS)
    assert main(["questions", "make", path, "--n", "2", "-o", str(tmp_path / "a.csv")]) == 0
    assert capsys.readouterr().out.startswith("2 questions of ")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert [row["question"] for row in csv.DictReader(file)] == ["Where is Mary?", "Where is John?"]


def test_the_list_has_every_built_in_set_with_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["questions", "list"]) == 0
    text = capsys.readouterr().out
    assert all(f"{kind}:" in text and each.summary in text and each.form in text for kind, each in BUILT_IN.items())
    assert "options: n=16, seed=0" in text and "options: none" in text
    assert main(["questions", "list", "--json"]) == 0
    document = {entry["kind"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(document) == list(BUILT_IN) and document["pairs"]["options"] == {"n": 16, "seed": 0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("check nothing.jsonl", "nothing.jsonl: there is no such file"),
        ("check pairs:?m=1", "no option is called 'm'"),
        ("check pairs: --n 0", "whole number from 1"),
        ("make babi:qa99 -o a.jsonl", "qa1 to qa10, not qa99"),
        ("make simulated:qa1 -o a.txt", "a.txt: questions are written to a file ending in .jsonl, .csv, .parquet"),
        ("make simulated:qa1", "-o/--out"),
    ],
)
def test_a_mistake_in_an_argument_is_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["questions", *words.split(), *(MODEL if words.startswith("check") else ())]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
