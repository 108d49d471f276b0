"""`lm2 completion`: what a shell needs to complete commands, options and their values.

The script is made by shtab from the tree of commands, and holds everything: completing starts no Python.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from app.cli.shell.output import Output
from app.cli.shell.parser import Commands
from lm2.weights.bundled import bundled_names

SHELLS = ("bash", "zsh", "fish")
_FOLDER = "DIR"
"""How help calls a path that is a folder's."""


def add_completion(commands: Commands, tree: argparse.ArgumentParser) -> None:
    """`tree`: what is completed."""
    one = commands.add(
        "completion",
        "shell completion of commands, options and values",
        partial(_completion, tree),
        'To enable it, put eval "$(lm2 completion bash)" into ~/.bashrc, or the same with zsh into'
        " ~/.zshrc after compinit, or run lm2 completion fish > ~/.config/fish/completions/lm2.fish.",
    )
    one.add_argument("shell", choices=SHELLS, help="the shell whose script is printed")


def _completion(tree: argparse.ArgumentParser, chosen: argparse.Namespace) -> Output:
    import shtab

    from lm2.tasks.stories import TASKS

    values = {
        "checkpoint": _checkpoint(),
        "length_tokenizer": _checkpoint(),
        "models": _models(),
        "device": _words("device", "auto", "cpu", "cuda", "mps"),
        "task": _words("task", *(f"qa{task}" for task in TASKS)),
    }
    for action in _actions(tree):
        if action.type is Path:
            action.complete = shtab.DIRECTORY if action.metavar == _FOLDER else shtab.FILE
        elif action.dest in values:
            action.complete = values[action.dest]
    script = shtab.complete(tree, chosen.shell)
    return Output(found={"shell": chosen.shell, "script": script}, words=[script])


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of all commands below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


def _words(name: str, *words: str) -> dict[str, object]:
    """Any of some words."""
    listed = " ".join(words)
    bash = f'_lm2_{name}() {{\n  compgen -W "{listed}" -- "$1"\n}}'
    return {"bash": f"_lm2_{name}", "zsh": f"({listed})", "fish": listed, "preamble": {"bash": bash}}


def _checkpoint() -> dict[str, object]:
    """A bundled checkpoint, or a path."""
    listed, name = " ".join(bundled_names()), "_lm2_checkpoint_or_file"
    bash = f'{name}() {{\n  compgen -W "{listed}" -- "$1"\n  compgen -f -- "$1"\n}}'
    zsh = f'{name}() {{\n  _alternative "checkpoints:bundled checkpoint:({listed})" "files:path:_files"\n}}'
    return {
        "bash": name,
        "zsh": name,
        "fish": f"{listed} (__fish_complete_path (commandline -ct))",
        "preamble": {"bash": bash, "zsh": zsh},
    }


def _models() -> dict[str, object]:
    """Bundled checkpoints with commas between them."""
    listed, name = " ".join(bundled_names()), "_lm2_models"
    bash = f'{name}() {{\n  compgen -P "${{1%"${{1##*,}}"}}" -W "{listed}" -- "${{1##*,}}"\n}}'
    zsh = f"{name}() {{\n  compset -P '*,'\n  compadd -S '' {listed}\n}}"
    return {"bash": name, "zsh": name, "fish": f"(__fish_append , {listed})", "preamble": {"bash": bash, "zsh": zsh}}
