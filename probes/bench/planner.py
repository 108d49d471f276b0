"""Benchmark of the planner: a knock-out sweep by it and by the plain way, a whole document for each unit."""

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
"""As many as fill the segments."""
_REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class SweepBench:
    """CPU seconds of one sweep. Edits are Set(value=0): the cost does not depend on the operation."""

    units: int
    plain_units: int
    """Units that were run the plain way; its seconds are extrapolated from them."""
    tokens: int
    plain_seconds: float
    exact_seconds: float
    answer_seconds: float
    """The planner's seconds are medians of three."""
    max_difference: float
    """Largest difference of a logit between the two ways."""

    @property
    def exact_speedup(self) -> float:
        return self.plain_seconds / self.exact_seconds

    @property
    def answer_speedup(self) -> float:
        return self.plain_seconds / self.answer_seconds

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "exact_speedup": self.exact_speedup, "answer_speedup": self.answer_speedup}


def fresh_checkpoint(seed: int = 0) -> Checkpoint:
    """An untrained GATED model: the cost of a sweep does not depend on the weights."""
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
    """A question in the last segment of a story of 8."""
    story = simulate(1, seed=0, statements=_STATEMENTS, questions=1).story
    return encode_prompt(checkpoint, ask(story, story.questions[-1], own_segment=False))


def knock_outs(checkpoint: Checkpoint, encoded: EncodedPrompt) -> tuple[Unit, ...]:
    """For each slot in each block, its keys and values set to 0 as the answer's segment reads it."""
    zero, segments = Set(value=0.0), (encoded.segment,)
    return tuple(
        tuple(
            Edit(site=site, operation=zero, layers=(layer,), segments=segments, slots=(slot,))
            for site in (Site.READ_K, Site.READ_V)
        )
        for layer in checkpoint.config.memory_layers
        for slot in range(checkpoint.config.slots)
    )


def bench_sweep(plain: int | None = None, on_unit: Callable[[int, int], None] = lambda done, total: None) -> SweepBench:
    """Measure both ways on one document: the planner before, halfway through and after the plain way.

    Args:
        plain: how many units to run the plain way, evenly spaced over all; None, all.
        on_unit: called with (units done the plain way, units to do).

    Raises ValueError for fewer units than 1 and more than there are.
    """
    checkpoint = fresh_checkpoint()
    encoded = document(checkpoint)
    units = knock_outs(checkpoint, encoded)
    if plain is not None and not 1 <= plain <= len(units):
        raise ValueError(f"the plain way can run 1 to {len(units)} units, not {plain}")
    chosen = np.linspace(0, len(units) - 1, len(units) if plain is None else plain).round().astype(int)
    plain_seconds, logits = 0.0, []
    planned = [_planned_seconds(checkpoint, encoded, units)]
    for numbers in np.array_split(chosen, _REPEATS - 1):
        began = time.process_time()
        for number in numbers:
            logits.append(
                run(checkpoint, replace(encoded.spec, interventions=units[number])).logits[list(encoded.rows)]
            )
            on_unit(len(logits), len(chosen))
        plain_seconds += time.process_time() - began
        planned.append(_planned_seconds(checkpoint, encoded, units))
    exact = answers_under(checkpoint, encoded, units)
    exact_seconds, answer_seconds = np.median(planned, axis=0).tolist()
    return SweepBench(
        units=len(units),
        plain_units=len(chosen),
        tokens=len(encoded.tokens),
        plain_seconds=plain_seconds * len(units) / len(chosen),
        exact_seconds=exact_seconds,
        answer_seconds=answer_seconds,
        max_difference=float(np.abs(exact[chosen] - np.stack(logits)).max()),
    )


def _planned_seconds(checkpoint: Checkpoint, encoded: EncodedPrompt, units: Sequence[Unit]) -> tuple[float, float]:
    """CPU seconds of the exact route and of the answer's."""
    began = time.process_time()
    answers_under(checkpoint, encoded, units)
    between = time.process_time()
    answers_alone_under(checkpoint, encoded, units)
    return between - began, time.process_time() - between
