"""Laws of the whole command line: arguments, help and completion of every command, and how commands end."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.commands import look
from app.cli.commands.completion import SHELLS
from app.cli.main import main, parser
from app.cli.shell.errors import Exit
from app.cli.shell.output import Output
from lm2.weights.bundled import bundled_names


def _commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """(words, parser) of every command that can be run."""
    branches = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not branches:
        yield path, parser
    for action in branches:
        for name, command in action.choices.items():
            yield from _commands(command, (*path, name))


COMMANDS = dict(_commands(parser()))
every_command = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


def _options(path: tuple[str, ...]) -> set[str]:
    return {option for action in COMMANDS[path]._actions for option in action.option_strings}


@every_command
def test_every_command_has_json_and_debug(path: tuple[str, ...]) -> None:
    assert {"--json", "--debug"} <= _options(path)


@every_command
def test_help_explains_every_argument_with_its_default(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # no line is broken
    with pytest.raises(SystemExit, match="0"):
        main([*path, "--help"])
    text = capsys.readouterr().out
    for action in COMMANDS[path]._actions:
        assert action.help and action.help % vars(action) in text, f"{action.dest} is not explained"
        assert all(option in text for option in action.option_strings)
        if action.default not in (None, False, argparse.SUPPRESS):
            assert "%(default)s" in action.help, f"the help of {action.dest} may tell a wrong default"


def test_help_lists_every_command_in_a_line_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    for name in {path[0] for path in COMMANDS} | {str(int(code)) for code in Exit} | {"--debug", "--json"}:
        assert len([line for line in lines if line.startswith(f"  {name} ")]) == 1, name
    assert max(map(len, lines)) <= 80


MISTAKES = [
    [],
    ["dance"],
    ["run"],
    ["run", "--checkpoint", "babi-lm2", "--text", "a", "--colour", "red"],
    ["run", "--checkpoint", "babi-lm2", "--text", "a", "--index", "first"],
    ["run", "--checkpoint", "nobody", "--text", "a"],
    ["run", "--checkpoint", "babi-lm2", "--text", ""],
    ["run", "--checkpoint", "babi-lm2", "--task", "one"],
    ["run", "--checkpoint", "babi-lm2", "--task", "qa1", "--question", "99"],
    ["run", "--checkpoint", "babi-lm2", "--file", "not-there.txt"],
    ["run", "--checkpoint", "babi-lm2", "--text", "a", "--device", "toaster"],
    ["run", "--checkpoint", "babi-lm2", "--text", "a", "--dtype", "int3"],
    ["generate", "--checkpoint", "babi-lm2", "--text", "a", "--tokens", "0"],
    ["info", "nobody"],
    ["info", "nobody", "--json"],
    ["recall", "--checkpoint", "babi-lm2", "--babi", "not-there.txt"],
    ["recall", "--checkpoint", "babi-lm2", "--babi", "not-there.txt", "--memory", "lost"],
    ["mmlu", "--checkpoint", "babi-lm2", "--data", "nowhere"],
    ["parity", "not-there.safetensors"],
    ["ablate", "not-there.json"],
    ["experiment", "swap", "--checkpoint", "nobody"],
    ["sweep", "not-there.json", "--out", "nowhere"],
    ["probe", "not-there.json", "--out", "nowhere"],
    ["explain", "not-there.json", "--out", "nowhere"],
    ["language", "--models", "babi-lm2", "--text", "not-there.txt"],
    ["eval", "--models", "babi-lm2", "--tasks", "qb1", "--out", "nowhere"],
    ["bench"],
    ["bench", "sweep", "--plain", "some"],
    ["train", "not-there.json", "--out", "nowhere"],
    ["tokenizer", "nowhere", "--out", "nowhere.json"],
    ["graft", "babi-lm2", "--slots", "4", "--heads", "2", "--out", "nowhere"],
    ["serve", "--port", "home"],
    ["completion", "cmd"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", MISTAKES, ids=lambda words: " ".join(words) or "nothing")
def test_a_mistake_is_one_line_on_standard_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == Exit.MISTAKE
    output = capsys.readouterr()
    assert output.err.startswith("lm2: ") and output.err.count("\n") == 1 and not output.out


def _raise(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(chosen: argparse.Namespace) -> Output:
        raise error

    monkeypatch.setattr(look, "_info", fail)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("3 blocks,\n  not 4"), Exit.MISTAKE, "lm2: 3 blocks, not 4"),
        (FileNotFoundError("not there"), Exit.MISTAKE, "lm2: not there"),
        (KeyError("x"), Exit.UNEXPECTED, "lm2: KeyError: 'x' (--debug shows where)"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "lm2: interrupted"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line_and_a_traceback_where_that_is_asked_for(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raise(monkeypatch, error)
    assert main(["info", "x"]) == code
    output = capsys.readouterr()
    assert output.err == f"{message}\n" and not output.out
    for words in (["--debug", "info", "x"], ["info", "--debug", "x"], ["info", "x", "--debug"]):
        assert main(words) == code
        output = capsys.readouterr()
        assert (
            "Traceback" in output.err
            and "in fail" in output.err
            and output.err.endswith(f"{message}\n")
            and not output.out
        )


def test_a_document_has_null_for_a_number_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    Output(document={"a": [float("nan"), 1.5], "b": float("inf")}).print(as_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"a": [None, 1.5], "b": None}


@pytest.mark.parametrize("words", [["completion", "bash"], ["--help"]], ids=" ".join)
def test_a_reader_who_has_read_enough_is_no_mistake(words: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli.main", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == Exit.UNREAD


@pytest.mark.parametrize("words", [["--help"], ["completion", "zsh"]], ids=" ".join)
def test_help_and_completion_answer_before_torch_is_imported(words: list[str]) -> None:
    code = f"""
import sys
from app.cli.main import main
try:
    main({words!r})
except SystemExit:
    pass
sys.exit(any(name in sys.modules for name in ("torch", "streamlit", "transformer_lens")))
"""
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_command_option_and_bundled_checkpoint(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    names = {*bundled_names()}
    for path in COMMANDS:
        names |= {*path, *(option.lstrip("-") for option in _options(path))}
    assert [name for name in names if not re.search(rf"(?<![\w-])-*{re.escape(name)}(?![\w-])", script)] == []
    assert main(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"] in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_values_checkpoints_and_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["completion", "bash"])
    script = tmp_path / "lm2.bash"
    script.write_text(capsys.readouterr().out)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    (tmp_path / "runs").mkdir()
    (tmp_path / "run.json").touch()
    expected = {
        "lm2 lang": {"language"}, "lm2 --debug lang": {"language"},
        "lm2 bench ": {"sweep", "probes", "figures", "questions", "capture"},
        "lm2 recall --mem": {"--memory"},
        "lm2 recall --memory ": {"on", "frozen", "reset"}, "lm2 experiment sw": {"swap"},
        "lm2 run --task qa1": {"qa1", "qa10"},
        "lm2 info babi-r": {"babi-rmt"}, "lm2 run --checkpoint run": {"run.json", "runs"},
        "lm2 eval --models babi-lm2,babi-r": {"babi-lm2,babi-rmt"}, "lm2 ablate run": {"run.json", "runs"},
        "lm2 sweep x.json --out run": {"runs"}, "lm2 questions check pa": {"pairs:", "passkey:"},
        "lm2 questions make run": {"run.json", "runs"},
    }  # fmt: skip
    tries = "".join(f"try {' '.join(repr(word) for word in line.split(' '))}\n" for line in expected)
    code = (
        f'source {script}\ntry() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_lm2; echo "${{COMPREPLY[*]}}";'
        f" }}\n{tries}"
    )
    process = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [set(line.split()) for line in process.stdout.splitlines()] == list(expected.values())
