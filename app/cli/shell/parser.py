"""The tree of commands: headings, the commands under them, and what all of these take."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from app.cli.shell.errors import MEANING
from app.cli.shell.output import Output

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

Command = Callable[[argparse.Namespace], Output | None]
"""What a command does with its arguments; None where it has nothing to tell."""

_JSON = "print one JSON document; progress and notes go to standard error"
_DEBUG = "print the traceback of an error"


class Parser(argparse.ArgumentParser):
    """A parser that raises mistakes, which `main` tells in one line as it does all others."""

    def add_argument(self, *names: str, default: Any = None, help: str = "", **how: Any) -> argparse.Action:
        """As argparse does, and the help ends with the default, where there is one that it does not tell already."""
        if default not in (None, argparse.SUPPRESS) and "%(default)s" not in help:
            help += " (default %(default)s)"
        return super().add_argument(*names, default=default, help=help, **how)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """As answers are told: whoever stopped reading is noticed here, which argparse would pass over."""
        print(self.format_help(), end="", file=file, flush=True)


class Commands:
    """Where commands are added: under a heading, or under another command."""

    def __init__(self, title: str, into: "argparse._SubParsersAction[Parser]") -> None:
        self.title = title
        self.lines: dict[str, str] = {}
        """What each command does."""
        self._into = into

    def add(self, name: str, does: str, command: Command, more: str = "") -> Parser:
        """A command. `does`: in a line, for lists; `more`: what its own help ends with."""
        parser = self._parser(name, does, more)
        everywhere = parser.add_argument_group("every command")
        everywhere.add_argument("--json", action="store_true", help=_JSON)
        # No default, which would undo the option of the same name before the command.
        everywhere.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=_DEBUG)
        parser.set_defaults(command=command)
        return parser

    def branch(self, name: str, does: str, metavar: str) -> "Commands":
        """A command that has commands of its own."""
        return Commands(
            name, self._parser(name, does, "").add_subparsers(required=True, metavar=metavar, help="which one")
        )

    def _parser(self, name: str, does: str, more: str) -> Parser:
        self.lines[name] = does
        return self._into.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.", epilog=more)


class CommandParser(Parser):
    """The whole command line. argparse lists commands in one row; here they stand under headings."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description)
        self.add_argument("--debug", action="store_true", help=_DEBUG)
        self._headings: list[Commands] = []
        self._into = self.add_subparsers(
            required=True, metavar="COMMAND", help="the command to run", parser_class=Parser
        )

    def heading(self, title: str) -> Commands:
        self._headings.append(Commands(title, self._into))
        return self._headings[-1]

    def format_help(self) -> str:
        everywhere = {
            "--help": "show the arguments of the command, with units and defaults",
            "--json": _JSON,
            "--debug": _DEBUG,
        }
        codes = {str(int(code)): meaning for code, meaning in MEANING.items()}
        lists = [
            *((heading.title, heading.lines) for heading in self._headings),
            ("every command", everywhere),
            ("exit codes", codes),
        ]
        parts = [self.format_usage(), f"{self.description}\n"]
        parts += [
            f"{title}:\n" + "".join(f"  {name:<12}{words}\n" for name, words in lines.items()) for title, lines in lists
        ]
        return "\n".join(parts)
