"""`lm2 completion`: what a shell needs to complete commands, options and their values.

shtab makes the script from the tree of commands. It holds everything, so that completing starts no Python.
"""

import argparse
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from app.cli.shell.output import Output
from app.cli.shell.parser import Commands
from lm2.weights.bundled import bundled_names

SHELLS = ("bash", "zsh", "fish")
_FOLDER = "DIR"
"""Metavar of a path that is a folder."""


def add_completion(commands: Commands, tree: argparse.ArgumentParser) -> None:
    """`tree`: the parser of all commands, which is completed."""
    parser = commands.add(
        "completion",
        "shell completion of commands, options and values",
        partial(_completion, tree),
        'To enable it, put eval "$(lm2 completion bash)" into ~/.bashrc, or the same with zsh into'
        " ~/.zshrc after compinit, or run lm2 completion fish > ~/.config/fish/completions/lm2.fish.",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell whose script is printed")


def _completion(tree: argparse.ArgumentParser, chosen: argparse.Namespace) -> Output:
    import shtab

    from lm2.tasks.sets.built_in import BUILT_IN
    from lm2.tasks.stories import TASKS

    checkpoint = _name_or_file("checkpoint", "bundled checkpoint", bundled_names())
    values = {
        "checkpoint": checkpoint,
        "length_tokenizer": checkpoint,
        "models": _models(" ".join(bundled_names())),
        "device": _choice("device", "auto", "cpu", "cuda", "mps"),
        "questions": _name_or_file(
            "questions", "question set", [f"babi:qa{task}" for task in TASKS] + [f"{kind}:" for kind in BUILT_IN]
        ),
        "task": _choice("task", *(f"qa{task}" for task in TASKS)),
    }
    for action in _actions(tree):
        if action.type is Path:
            action.complete = shtab.DIRECTORY if action.metavar == _FOLDER else shtab.FILE
        elif action.dest in values:
            action.complete = values[action.dest]
    script = shtab.complete(tree, chosen.shell)
    return Output(document={"shell": chosen.shell, "script": script}, lines=[script])


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of all its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _completer(name: str, bash: str, zsh: str, fish: str, zsh_body: str = "") -> dict[str, Any]:
    """What shtab takes for an action; `bash` and `zsh_body`: bodies of functions, `zsh` and `fish`: expressions."""
    preamble = {"bash": f"{name}() {{\n  {bash}\n}}"}
    if zsh_body:
        preamble["zsh"] = f"{name}() {{\n  {zsh_body}\n}}"
    return {"bash": name, "zsh": zsh, "fish": fish, "preamble": preamble}


def _choice(name: str, *words: str) -> dict[str, Any]:
    listed = " ".join(words)
    return _completer(f"_lm2_{name}", f'compgen -W "{listed}" -- "$1"', f"({listed})", listed)


def _name_or_file(name: str, what: str, words: Iterable[str]) -> dict[str, Any]:
    """One of the names of `what`, or a path."""
    function, listed = f"_lm2_{name}_or_file", " ".join(words)
    bash = f'compgen -W "{listed}" -- "$1"\n  compgen -f -- "$1"'
    zsh = f'_alternative "{name}:{what}:({listed})" "files:path:_files"'
    return _completer(function, bash, function, f"{listed} (__fish_complete_path (commandline -ct))", zsh)


def _models(listed: str) -> dict[str, Any]:
    """Bundled checkpoints, separated by commas."""
    name = "_lm2_models"
    bash = f'compgen -P "${{1%"${{1##*,}}"}}" -W "{listed}" -- "${{1##*,}}"'
    zsh = f"compset -P '*,'\n  compadd -S '' {listed}"
    return _completer(name, bash, name, f"(__fish_append , {listed})", zsh)
