"""Laws of mistakes on the command line: numbers have bounds, output folders are checked first, and no console loses a
character."""

import io
import json
import sys
from pathlib import Path

import pytest

from app.cli.main import main
from app.cli.shell.errors import Exit
from lm2.tasks.simulator import simulate


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line, of at most 300 characters, that a command prints for a mistake."""
    assert main(list(arguments)) == Exit.MISTAKE
    output = capsys.readouterr()
    assert (
        not output.out
        and output.err.startswith("lm2: ")
        and output.err.count("\n") == 1
        and len(output.err) < 310
        and output.err.strip().isprintable()
    )
    return output.err


MODEL = ("--checkpoint", "babi-lm2-qa1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", *MODEL, "--text", "a", "--tokens", str(10**12)),
            "--tokens: '1000000000000' is not a whole number from 1 to 1,000,000"),
        (("generate", *MODEL, "--text", "a", "--temperature", "nan"), "a finite temperature"),
        (("generate", *MODEL, "--text", "a", "--temperature", "inf"), "a finite temperature"),
        (("generate", *MODEL, "--text", "a", "--seed", str(2**63)), "--seed: "),
        (("generate", *MODEL, "--text", "a", "--seed", "-1"), "--seed: '-1' is not a whole number from 0"),
        (("experiment", "swap", *MODEL, "--n", "-1"), "--n: '-1'"),
        (("experiment", "swap", *MODEL, "--n", str(10**9)), "count must be at most 100,000"),
        (("experiment", "swap", *MODEL, "--questions", "64"), "how many are asked is --n 64"),
        (("experiment", "swap", *MODEL, "--questions", "babi:qa" + "9" * 5000), "babi: has the tasks qa1 to qa10"),
        (("eval", "--models", "babi-lm2", "--tasks", "qa1-qa2000000000", "--out", "nowhere"), "2 digits at most"),
        (("eval", "--models", "babi-lm2", "--lengths", f"{10**12}k", "--books", "nowhere", "--out", "nowhere"),
            "a length is at most 10,000,000 tokens"),
        (("eval", "--models", "babi-lm2", "--samples", "1" * 5000, "--out", "nowhere"), "9 digits at most"),
        (("tokenizer", "nowhere", "--pieces", str(10**30), "--out", "nowhere.json"), "--pieces: "),
        (("run", *MODEL, "--text", "\udcff"), "character 0"),
    ],
)  # fmt: skip
def test_a_number_out_of_bounds_is_refused_with_its_bounds(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    assert message in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"permutations": 10**9}, "permutations must be at most 100,000"),
        ({"documents": {"count": 10**9}}, "count must be at most 100,000"),
        ({"documents": {"length": f"{10**12}k"}}, "at most 10,000,000 tokens"),
        ({"seed": 2**63}, "seed must be at most"),
        ({"sources": ["bank:sketch99999999"]}, "1 to 65,536 features"),
        ({"sources": ["bank:sketch" + "9" * 5000]}, "no source is called"),
        ({"folds": "5"}, "ProbeSpec.folds must be a whole number, not '5'"),
    ],
)  # fmt: skip
def test_a_wrong_number_in_a_spec_is_refused_with_the_files_name(
    values: dict, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"checkpoint": "babi-lm2-qa1", "documents": {"count": 12}, **values}))
    error = refused(capsys, "probe", str(path), "--out", str(tmp_path / "out"))
    assert message in error and ("bad.json" in error or "sources" in values)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm2.weights.checkpoint.load", lambda *arguments: pytest.fail("the model was opened"))
    (tmp_path / "file").write_text("a")
    (tmp_path / "spec.json").write_text(json.dumps({"checkpoint": "babi-lm2-qa1"}))
    (tmp_path / "run.json").write_text(json.dumps({"checkpoint": "babi-lm2-qa1", "text": "a"}))
    for command in ("sweep", "probe", "explain"):
        order = (command, str(tmp_path / "spec.json"), "--out")
        assert "is a file, and must be a folder" in refused(capsys, *order, str(tmp_path / "file"))
        assert "nothing can be written to" in refused(capsys, *order, str(tmp_path / "file" / "below"))
        assert f"{tmp_path} holds other files" in refused(capsys, *order, str(tmp_path))
    assert "holds other files" in refused(capsys, "eval", "--models", "babi-lm2", "--out", str(tmp_path))
    assert "is a folder" in refused(capsys, "run", *MODEL, "--text", "a", "--out", str(tmp_path))
    assert "is a folder" in refused(capsys, "ablate", str(tmp_path / "run.json"), "--out", str(tmp_path))
    assert "nothing can be written to" in refused(
        capsys, "experiment", "swap", *MODEL, "--out", str(tmp_path / "file" / "a.json")
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run.json", "spec.json"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_that_lacks_a_character_shows_its_code(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", printed)
    assert main(["generate", *MODEL, "--text", "Zoë 中 🙂\x1b[31m", "--tokens", "1"]) == 0
    written = printed.buffer.getvalue().decode(encoding)
    assert "\\u4e2d \\U0001f642U+001B[31m" in written and "\x1b" not in written


NO_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    " 4000000000000 bytes."
)


def test_a_command_prints_into_whatever_stands_for_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.StringIO())
    assert main(["info", "babi-lm2-qa1"]) == 0 and "babi-lm2-qa1" in sys.stdout.getvalue()


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError(NO_MEMORY), RecursionError("maximum"), ValueError("file.json: " + "x\n" * 10**6)],
)
def test_what_is_too_much_is_a_mistake_in_one_line(
    error: BaseException, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(chosen: object) -> None:
        raise error

    monkeypatch.setattr("app.cli.commands.look._info", fail)
    refused(capsys, "info", "babi-lm2")


@pytest.mark.parametrize("values", [{"versions": 3}, {"versions": "1"}, {"made": 3}, {"made": [3]}, {"figure": 3}])
def test_a_sidecar_that_tells_something_of_another_kind_is_refused(
    values: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "side.json").write_text(json.dumps({"figure": {"charts": []}, **values}))
    error = refused(capsys, "figure", str(tmp_path / "side.json"), "-o", str(tmp_path / "a.pdf"))
    assert "side.json" in error and (next(iter(values)) in error.lower())


def test_a_deeply_nested_file_is_refused_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deep.json").write_text("[" * 50_000 + "]" * 50_000)
    for order in (
        ("sweep", "SPEC", "--out", "nowhere"),
        ("ablate", "SPEC"),
        ("figure", "SPEC", "-o", str(tmp_path / "a.pdf")),
        ("train", "SPEC", "--out", "nowhere"),
    ):
        assert "deep.json" in refused(
            capsys, *(str(tmp_path / "deep.json") if word == "SPEC" else word for word in order)
        )


@pytest.mark.parametrize(
    ("name", "count", "words"),
    [
        ("policies", 3, "3 other stories"),
        ("permutation", 1, "1 other stories"),
        ("gates", 1, "one answer"),
        ("attribution", 1, "one answer"),
    ],
)
def test_few_questions_are_refused_in_a_sentence(
    name: str, count: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    assert len({simulate(1, seed=seed).story.questions[-1].answer for seed in range(3)}) > 1
    assert words in refused(capsys, "experiment", name, *MODEL, "--n", str(count))


@pytest.mark.parametrize(
    ("command", "values", "message"),
    [
        ("ablate", {"text": "a", "interventions": [{"kind": "MemoryOff", "layers": [9]}]}, "there is no block 9"),
        ("ablate", {"text": ""}, "the text is empty"),
        ("ablate", {"experiment": "swap", "questions": 10**6}, "count must be at most 100,000"),
        ("sweep", {"questions": 10**6}, "count must be at most 100,000"),
        ("explain", {"checkpoint": "nowhere"}, "nowhere"),
        ("probe", {"checkpoint": "nowhere"}, "nowhere"),
    ],
)  # fmt: skip
def test_an_impossible_spec_is_refused_with_the_files_name(
    command: str,
    values: dict,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LM2_DATA_DIR", raising=False)
    (tmp_path / "mine.json").write_text(json.dumps({"checkpoint": "babi-lm2-qa1", **values}))
    error = refused(
        capsys, command, str(tmp_path / "mine.json"), *(() if command == "ablate" else ("--out", str(tmp_path / "out")))
    )
    assert "mine.json: " in error and message in error
