"""The command line: `lm2 run`, `lm2 ablate`, `lm2 eval` and all others that `lm2 --help` lists.

A command takes its arguments and returns an `Output`, which is printed as text or as JSON; an exception becomes one
line on standard error and an exit code. Modules that need torch are imported inside the commands, so that
`lm2 --help`, `lm2 serve` and `lm2 completion` answer at once.
"""

import io
import logging
import sys

from app.cli.commands.ablate import add_ablate, add_experiment
from app.cli.commands.bench import add_bench
from app.cli.commands.capture import add_capture
from app.cli.commands.completion import add_completion
from app.cli.commands.eval import add_eval, add_language
from app.cli.commands.explain import add_explain
from app.cli.commands.figure import add_figure
from app.cli.commands.look import add_generate, add_info, add_run, add_serve
from app.cli.commands.measure import add_mmlu, add_parity, add_recall
from app.cli.commands.probe import add_probe
from app.cli.commands.questions import add_question_sets
from app.cli.commands.sweep import add_sweep
from app.cli.commands.train import add_graft, add_tokenizer, add_train
from app.cli.shell.errors import ErrorHandler
from app.cli.shell.parser import CommandParser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not so in a notebook, which prints every character
            stream.reconfigure(errors="backslashreplace")  # a console prints the code of a character that it lacks
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lm2").setLevel(logging.INFO)  # only ours: the font subsetter logs every glyph
    with ErrorHandler() as handler:
        chosen = parser().parse_args(arguments)
        handler.debug = chosen.debug
        output = chosen.command(chosen)
        if output is not None:
            output.print(as_json=chosen.json)
            handler.code = output.code
    return handler.code


_HEADINGS = {
    "look": (add_serve, add_info, add_run, add_capture, add_generate, add_figure),
    "change": (add_ablate, add_experiment, add_sweep),
    "probe": (add_probe, add_explain),
    "ask": (add_question_sets,),
    "measure": (add_recall, add_eval, add_language, add_mmlu, add_parity, add_bench),
    "train": (add_train, add_tokenizer, add_graft),
}


def parser() -> CommandParser:
    """All commands with their arguments."""
    tree = CommandParser("lm2", "Look inside memory-augmented language models.")
    for title, adders in _HEADINGS.items():
        commands = tree.heading(title)
        for add in adders:
            add(commands)
    add_completion(tree.heading("shell"), tree)
    return tree


if __name__ == "__main__":
    sys.exit(main())
