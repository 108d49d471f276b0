"""An experiment that only a test knows: a file of its own, and a line in the registry."""

from pathlib import Path

import pytest

from probes.experiments.registry import EXPERIMENTS

KEY = "dance"
QUESTION = "Does the model dance?"
CONTROL = "a model that sits"
_FILE = f'''
from lm2.intervals import Bounded
from probes.experiments.experiment import Experiment
from probes.findings import Column, Findings, columns_of


def findings(checkpoint, questions, seed, on_document):
    rows = []
    for at, _ in enumerate(questions):
        on_document()
        rows.append((at, Bounded(50.0, 40.0, 60.0)))
    headers = ("step", Column("danced", "%"))
    return (Findings(title="Steps", columns=columns_of(headers, rows), note="All of them", curve=True),)


EXPERIMENT = Experiment(
    key="{KEY}", title="A dance", question="{QUESTION}", control="{CONTROL}", findings=findings
)
'''


def plant(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key of the experiment, which is there until the test ends."""
    (folder / "planted_dance.py").write_text(_FILE, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(EXPERIMENTS, KEY, "planted_dance")
    return KEY
