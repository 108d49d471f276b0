"""What the documentation site takes from the code as it is built: the commands, and docstrings as they are written."""

import argparse
import re
from collections.abc import Iterator
from typing import Any

import griffe

COMMANDS = "<!-- commands -->"
"""Where a page has this, the commands stand."""
_MARKUP = re.compile(r"(`[^`]*`)|([*_\[\]])|<")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called for every page before it is drawn."""
    if COMMANDS not in markdown:
        return markdown
    from app.cli.main import parser  # noqa: PLC0415 - of all pages, one has commands

    tree = parser()
    return markdown.replace(
        COMMANDS, "\n\n".join([_block(tree.format_help()), *(_command(*one, 2) for one in _commands(tree))])
    )


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```"


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """The commands right below a parser, each with the line that the list of commands has for it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            said = {choice.dest: choice.help or "" for choice in action._choices_actions}
            yield from ((one, said.get(name, "")) for name, one in action.choices.items())


def _command(parser: argparse.ArgumentParser, said: str, level: int) -> str:
    """A command with its usage, its arguments and the commands below it."""
    formatter = argparse.HelpFormatter(parser.prog, width=100)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    shown = [
        action
        for action in parser._actions
        if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
    ]
    rows = [_argument(action, formatter) for action in shown if action.help is not argparse.SUPPRESS]
    parts = [
        f"{'#' * level} {parser.prog}", _sentence(parser.description or said), _block(formatter.format_help()),
        "\n".join(["| argument | meaning |", "| --- | --- |", *rows]) if rows else "", _sentence(parser.epilog or ""),
        *(_command(*one, level + 1) for one in _commands(parser)),
    ]  # fmt: skip
    return "\n\n".join(filter(None, parts))


def _argument(action: argparse.Action, formatter: argparse.HelpFormatter) -> str:
    """A row of the table of arguments."""
    invoked = formatter._format_action_invocation(action)
    said = formatter._expand_help(action) if action.help else ""
    needed = " (must be given)" if action.required and action.option_strings else ""
    return (
        "| "
        + " | ".join(cell.replace("|", r"\|") for cell in (f"`{invoked}`", f"{plain(said)}{needed}".strip()))
        + " |"
    )


def _sentence(text: str) -> str:
    said = plain(text[:1].upper() + text[1:])
    return said if not said or said.endswith(".") else f"{said}."


def plain(text: str) -> str:
    """A text that says what it says, outside backticks: what Markdown would take for markup is escaped."""
    return _MARKUP.sub(lambda found: found[1] or (f"\\{found[2]}" if found[2] else "&lt;"), text)


class AsWritten(griffe.Extension):
    """Docstrings are plain sentences: shapes such as [head, token, slot] are no links, and * is no emphasis."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            lines = obj.docstring.value.split("\n")
            obj.docstring.value = "\n".join(line if line.startswith("    ") else plain(line) for line in lines)
