"""The tree of commands: headings, commands, and the options of every command."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from app.cli.shell.errors import Exit
from app.cli.shell.output import Output

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

Command = Callable[[argparse.Namespace], Output | None]
"""Carries out a command; returns None if there is nothing to print."""

_JSON = "print one JSON document; progress and notes go to standard error"
_DEBUG = "print the traceback of an error"


class Parser(argparse.ArgumentParser):
    """A parser that raises ValueError for mistakes, which `main` reports like all others."""

    def add_argument(self, *names: str, default: Any = None, help: str = "", **options: Any) -> argparse.Action:
        """As argparse does, with the default, if there is one, at the end of the help unless it is in there."""
        if default not in (None, argparse.SUPPRESS) and "%(default)s" not in help:
            help += " (default %(default)s)"
        return super().add_argument(*names, default=default, help=help, **options)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """Print and flush, so that a closed pipe raises here; argparse would ignore it."""
        print(self.format_help(), end="", file=file, flush=True)


class Commands:
    """Commands under a heading or under another command."""

    def __init__(self, title: str, into: "argparse._SubParsersAction[Parser]") -> None:
        self.title = title
        self.summaries: dict[str, str] = {}
        self._into = into

    def add(self, name: str, summary: str, command: Command, epilog: str = "") -> Parser:
        """Add a command. `epilog`: the end of its help."""
        parser = self._parser(name, summary, epilog)
        everywhere = parser.add_argument_group("every command")
        everywhere.add_argument("--json", action="store_true", help=_JSON)
        # No default: it would undo the option of the same name before the command.
        everywhere.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=_DEBUG)
        parser.set_defaults(command=command)
        return parser

    def branch(self, name: str, summary: str, metavar: str) -> "Commands":
        """Add a command with commands of its own."""
        parser = self._parser(name, summary, "")
        return Commands(name, parser.add_subparsers(required=True, metavar=metavar, help="which one"))

    def _parser(self, name: str, summary: str, epilog: str) -> Parser:
        self.summaries[name] = summary
        description = f"{summary[0].upper()}{summary[1:]}."
        return self._into.add_parser(name, help=summary, description=description, epilog=epilog)


class CommandParser(Parser):
    """The whole command line. Its help lists commands under headings, which argparse does not."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description)
        self.add_argument("--debug", action="store_true", help=_DEBUG)
        self._headings: list[Commands] = []
        words = "the command to run"
        self._into = self.add_subparsers(required=True, metavar="COMMAND", help=words, parser_class=Parser)

    def heading(self, title: str) -> Commands:
        self._headings.append(Commands(title, self._into))
        return self._headings[-1]

    def format_help(self) -> str:
        everywhere = {
            "--help": "show the arguments of the command, with units and defaults",
            "--json": _JSON,
            "--debug": _DEBUG,
        }
        codes = {str(int(code)): code.meaning for code in Exit}
        lists = [
            *((heading.title, heading.summaries) for heading in self._headings),
            ("every command", everywhere),
            ("exit codes", codes),
        ]
        parts = [self.format_usage(), f"{self.description}\n"]
        parts += [
            f"{title}:\n" + "".join(f"  {name:<12}{words}\n" for name, words in lines.items()) for title, lines in lists
        ]
        return "\n".join(parts)
