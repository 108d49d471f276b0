"""The experiments: the key of each, which names it on command lines, in links and in files, and its module."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lm2.shown import shown

if TYPE_CHECKING:
    from probes.experiments.experiment import Experiment

EXPERIMENTS = {
    "policies": "probes.experiments.ablation.policies",
    "gates": "probes.experiments.ablation.gates",
    "swap": "probes.experiments.ablation.swap",
    "permutation": "probes.experiments.ablation.permutation",
    "provenance": "probes.experiments.contents.provenance",
    "decoding": "probes.experiments.contents.decoding",
    "attribution": "probes.experiments.contents.attribution",
    "forgetting": "probes.experiments.retention.forgetting",
    "capacity": "probes.experiments.retention.capacity",
    "overwrites": "probes.experiments.retention.overwrites",
    "interference": "probes.experiments.retention.interference",
    "erasure": "probes.experiments.contents.erasure",
    "slots": "probes.experiments.contents.slots",
}
"""Texts, so that the keys can be read without importing the modules and, with them, torch."""


def check(key: str) -> None:
    """Raises ValueError, naming all keys, for an unknown one."""
    if key not in EXPERIMENTS:
        raise ValueError(f"no experiment is called {shown(key)}; there are {sorted(EXPERIMENTS)}")


def experiment(key: str) -> Experiment:
    """Raises ValueError as `check` does."""
    check(key)
    return import_module(EXPERIMENTS[key]).EXPERIMENT
