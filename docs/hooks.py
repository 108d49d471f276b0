"""Hooks of the documentation build: they generate the command reference, and keep docstrings as written."""

import argparse
import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import griffe

from lm2.markdown import table
from probes.experiments.registry import EXPERIMENTS

COMMANDS = "<!-- commands -->"
"""The marker in a page that the command reference replaces."""
LIST = "<!-- experiments -->"
"""The marker in a page that the list of experiments replaces."""
_MARKUP = re.compile(r"(`[^`]*`)|([*_\[\]])|<")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called for every page before it is rendered."""
    if LIST in markdown:
        markdown = markdown.replace(LIST, _experiments())
    if COMMANDS not in markdown:
        return markdown
    from app.cli.main import parser  # only one page has commands

    tree = parser()
    return markdown.replace(
        COMMANDS, "\n\n".join([_block(tree.format_help()), *(_command(*command, 2) for command in _commands(tree))])
    )


def _experiments() -> str:
    rows = [[f"`{key}`", *map(plain, _declared(module))] for key, module in EXPERIMENTS.items()]
    return table(["`lm2 experiment ...`", "question", "control"], rows)


def _declared(module: str) -> list[str]:
    """What an experiment's file says of it, read and not imported, as torch would be with it."""
    [call] = [
        node.value
        for node in ast.parse(Path(find_spec(module).origin).read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXPERIMENT"
    ]
    words = {keyword.arg: keyword.value for keyword in call.keywords}
    return [ast.literal_eval(words[name]) for name in ("question", "control")]


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```"


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """The direct subcommands of a parser, each with its line in the list of commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            said = {choice.dest: choice.help or "" for choice in action._choices_actions}
            yield from ((one, said.get(name, "")) for name, one in action.choices.items())


def _command(parser: argparse.ArgumentParser, said: str, level: int) -> str:
    """A command with its usage, arguments and subcommands."""
    formatter = argparse.HelpFormatter(parser.prog, width=100)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    shown = [
        action
        for action in parser._actions
        if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
    ]
    rows = [_argument(action, formatter) for action in shown if action.help is not argparse.SUPPRESS]
    parts = [
        f"{'#' * level} {parser.prog}",
        _sentence(parser.description or said),
        _block(formatter.format_help()),
        table(["argument", "meaning"], rows) if rows else "",
        _sentence(parser.epilog or ""),
        *(_command(*command, level + 1) for command in _commands(parser)),
    ]
    return "\n\n".join(filter(None, parts))


def _argument(action: argparse.Action, formatter: argparse.HelpFormatter) -> list[str]:
    """A row of the table of arguments."""
    invoked = formatter._format_action_invocation(action)
    said = formatter._expand_help(action) if action.help else ""
    needed = " (required)" if action.required and action.option_strings else ""
    return [cell.replace("|", r"\|") for cell in (f"`{invoked}`", f"{plain(said)}{needed}".strip())]


def _sentence(text: str) -> str:
    said = plain(text[:1].upper() + text[1:])
    return said if not said or said.endswith(".") else f"{said}."


def plain(text: str) -> str:
    """Escape what Markdown would take for markup, except within backticks."""
    return _MARKUP.sub(lambda found: found[1] or (f"\\{found[2]}" if found[2] else "&lt;"), text)


class AsWritten(griffe.Extension):
    """Shows docstrings literally: shapes such as [head, token, slot] are not links, and * is not emphasis."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            lines = obj.docstring.value.split("\n")
            obj.docstring.value = "\n".join(line if line.startswith("    ") else plain(line) for line in lines)
