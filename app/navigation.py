"""The screens, in the order of the navigation."""

from collections.abc import Callable
from typing import NamedTuple

from app.screens import benchmark, figure
from app.screens.many_questions import experiments, probes, questions, slots, sweeps
from app.screens.one_text import ablations, bank, gates, long_texts, memory, patching, run, updates


class Screen(NamedTuple):
    """A page of the workbench."""

    title: str
    icon: str
    render: Callable[[], None]
    asks: bool = False
    """Whether it asks the questions of a set."""


SCREENS = {
    "run": Screen("Run", ":material/play_arrow:", run.render),
    "memory": Screen("Memory", ":material/grid_on:", memory.render),
    "gates": Screen("Gates", ":material/tune:", gates.render),
    "bank": Screen("Bank", ":material/database:", bank.render),
    "long": Screen("Long texts", ":material/width:", long_texts.render),
    "slots": Screen("Slots", ":material/label:", slots.render, asks=True),
    "updates": Screen("Updates", ":material/update:", updates.render),
    "ablations": Screen("Ablations", ":material/content_cut:", ablations.render),
    "patching": Screen("Patching", ":material/swap_horiz:", patching.render),
    "questions": Screen("Questions", ":material/quiz:", questions.render, asks=True),
    "probes": Screen("Probes", ":material/troubleshoot:", probes.render, asks=True),
    "experiments": Screen("Experiments", ":material/science:", experiments.render, asks=True),
    "sweeps": Screen("Sweeps", ":material/grid_view:", sweeps.render, asks=True),
    "benchmark": Screen("Benchmark", ":material/leaderboard:", benchmark.render),
    "figure": Screen("Figure", ":material/print:", figure.render),
}
"""By their names in addresses."""
