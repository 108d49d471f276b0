"""What planning saves: a knock-out sweep the plain way, a whole document for every unit, beside the planner on the same
work."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lm2.model.config import SegmentEnd
from lm2.model.lm2 import LM2
from lm2.model.sites import Site
from lm2.runs.interventions import Edit
from lm2.runs.operations import Set
from lm2.runs.runner import run
from lm2.tasks.babi import ask
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.tasks.simulator import simulate
from lm2.weights.checkpoint import Checkpoint, load
from probes.causal.batch import Unit
from probes.causal.planner import answers_alone_under, answers_under

LAYERS, SLOTS, SEGMENTS, SEGMENT_LENGTH = 6, 32, 8, 64
_STATEMENTS = 81
"""With these a story's document is as long as its segments hold."""
_REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class SweepBench:
    """CPU seconds of one sweep, by way. Edits are Set(value=0): what is put in a slot's place decides nothing about the
    cost."""

    units: int
    plain_units: int
    """Those that the plain way ran; its seconds are extrapolated from them."""
    tokens: int
    plain_seconds: float
    exact_seconds: float
    answer_seconds: float
    """Medians of three for the planner."""
    max_difference: float
    """Of any logit, planner less plain."""

    @property
    def exact_speedup(self) -> float:
        return self.plain_seconds / self.exact_seconds

    @property
    def answer_speedup(self) -> float:
        return self.plain_seconds / self.answer_seconds

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "exact_speedup": self.exact_speedup, "answer_speedup": self.answer_speedup}


def fresh_checkpoint(seed: int = 0) -> Checkpoint:
    """An untrained GATED model of 6 blocks, 32 slots and segments of 64 tokens: what a sweep costs does not depend on
    the weights."""
    trained = load("babi-lm2")
    config = replace(
        trained.config,
        n_layers=LAYERS,
        d_mlp=256,
        segment_length=SEGMENT_LENGTH,
        segment_end=SegmentEnd.LENGTH,
        attention_window=SEGMENT_LENGTH,
        slots=SLOTS,
        memory_layers=tuple(range(LAYERS)),
    )
    model = LM2(config)
    model.initialise(torch.Generator().manual_seed(seed))
    return Checkpoint(name="fresh", model=model, tokenizer=trained.tokenizer, digest=f"fresh-{seed}")


def document(checkpoint: Checkpoint) -> EncodedPrompt:
    """A question at the end of a story of 8 segments, in the last of them."""
    story = simulate(1, seed=0, statements=_STATEMENTS, questions=1).story
    return encode_prompt(checkpoint, ask(story, story.questions[-1], own_segment=False))


def knock_outs(checkpoint: Checkpoint, asked: EncodedPrompt) -> tuple[Unit, ...]:
    """Every slot in every block, as the answer's segment reads it."""
    sites, at = (Site.READ_K, Site.READ_V), (asked.segment,)
    return tuple(
        tuple(Edit(site=site, operation=Set(value=0.0), layers=(layer,), segments=at, slots=(slot,)) for site in sites)
        for layer in checkpoint.config.memory_layers
        for slot in range(checkpoint.config.slots)
    )


def bench_sweep(plain: int | None = None, on_unit: Callable[[int, int], None] = lambda done, total: None) -> SweepBench:
    """Measure all three ways on one document; the planner before, in the midst of and after the plain way.

    Args:
        plain: run only so many units the plain way, evenly over all; None, all.
        on_unit: hears (units done the plain way, units to do).

    Raises ValueError for fewer units than 1 and more than there are.
    """
    checkpoint = fresh_checkpoint()
    asked = document(checkpoint)
    units = knock_outs(checkpoint, asked)
    if plain is not None and not 1 <= plain <= len(units):
        raise ValueError(f"the plain way can run 1 to {len(units)} units, not {plain}")
    chosen = np.linspace(0, len(units) - 1, len(units) if plain is None else plain).round().astype(int)
    spent, exact_spent, answer_spent = 0.0, [], []
    logits = []
    for part in np.array_split(chosen, _REPEATS - 1):
        exact = _planned(checkpoint, asked, units, exact_spent, answer_spent)
        began = time.process_time()
        for unit in part:
            logits.append(run(checkpoint, replace(asked.spec, interventions=units[unit])).logits[list(asked.rows)])
            on_unit(len(logits), len(chosen))
        spent += time.process_time() - began
    exact = _planned(checkpoint, asked, units, exact_spent, answer_spent)
    return SweepBench(
        units=len(units),
        plain_units=len(chosen),
        tokens=len(asked.tokens),
        plain_seconds=spent * len(units) / len(chosen),
        exact_seconds=float(np.median(exact_spent)),
        answer_seconds=float(np.median(answer_spent)),
        max_difference=float(np.abs(exact[chosen] - np.stack(logits)).max()),
    )


def _planned(
    checkpoint: Checkpoint,
    asked: EncodedPrompt,
    units: Sequence[Unit],
    exact_spent: list[float],
    answer_spent: list[float],
) -> np.ndarray:
    began = time.process_time()
    exact = answers_under(checkpoint, asked, units)
    between = time.process_time()
    answers_alone_under(checkpoint, asked, units)
    answer_spent.append(time.process_time() - between)
    exact_spent.append(between - began)
    return exact
