"""Do slots encode the answers that are read from them? Compared with slots that were not read and random slots."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lm2.intervals import Rate, rate
from lm2.model.sites import Site
from lm2.runs.capture import Capture, HeadMean
from lm2.runs.runner import run
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.lens import decoding
from probes.causal.observe import OnDocument
from probes.experiments.experiment import Experiment, held_out
from probes.findings import NOTHING, Column, Findings, columns_of, mean, share
from probes.stats.effects import Effect, effect
from probes.stats.metrics import first_token


@dataclass(frozen=True, kw_only=True)
class First:
    """How often slots chosen in one way rank the true answer first among the candidates."""

    rate: Rate
    behind: Effect
    """How much more often the most-read slot does, question by question."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """How often slots, decoded through one block, rank the answer first."""

    layer: int
    candidates: int
    most_read: Rate
    """For the slot that is read most where the answer is predicted."""
    vocabulary_rank: float
    """Median rank of the answer among all tokens, in that slot."""
    random_slot: First
    """For a random slot of the same bank."""
    other_story: First
    """For the slot that is read most in the following story."""
    random_direction: First
    """For a random slot with the norm of one of the bank's."""


def decode(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> tuple[Decoded, ...]:
    """Whether slots encode the answers to questions, decoded through each block with a memory.

    The bank is the one that the answer's prediction reads, the candidates are the first tokens of all answers, and each
    baseline is drawn once for each question. `on_document` is called after each question.

    Raises ValueError for questions of a single story or with a single answer, for answers that begin with the same
    token, for a model without memory, and as `run` does.
    """
    layers, stories = sorted(checkpoint.config.memory_layers), [encoded.prompt.group for encoded in encoded_prompts]
    if not layers:
        raise ValueError(
            f"a model of memory kind {checkpoint.config.memory.value!r} has no slots that could say anything"
        )
    candidates = sorted({encoded.answer_ids[0] for encoded in encoded_prompts})
    if len(candidates) < len({encoded.answer_ids for encoded in encoded_prompts}):
        raise ValueError("some of the answers begin with the same token: what a slot says of it tells none of them")
    if len(set(stories)) < 2 or len(candidates) < 2:
        raise ValueError(
            f"slots are compared over at least 2 stories and 2 answers, not {len(set(stories))} and {len(candidates)}"
        )
    readings = []
    for encoded in encoded_prompts:
        readings.append(_reading(checkpoint, encoded))
        on_document()
    count = len(encoded_prompts)
    following = [
        next(j % count for j in range(i + 1, i + count) if stories[j % count] != story)
        for i, story in enumerate(stories)
    ]
    results = []
    for layer in layers:
        rng = np.random.default_rng(seed)
        ranks = [
            _ranks(checkpoint, layer, own[layer], readings[other][layer], candidates, encoded.answer_ids[0], rng)
            for own, other, encoded in zip(readings, following, encoded_prompts)
        ]
        results.append(_decoded(layer, np.array(ranks), len(candidates), stories, seed))
    return tuple(results)


class _Reading(NamedTuple):
    """What one block reads where an answer is predicted."""

    bank: Float[np.ndarray, "slot slot_dim"]
    weights: Float[np.ndarray, "slot"]


def _reading(checkpoint: Checkpoint, encoded: EncodedPrompt) -> dict[int, _Reading]:
    """By block, with the bank that it reads: what the block before wrote, or the bank as the segment began."""
    config, row = checkpoint.config, encoded.rows[0]
    segment = encoded.segments[encoded.segment_of(row)]
    captures = (
        Capture(Site.BANK_PRE, segments=(segment.index,)),
        Capture(Site.READ_PATTERN, HeadMean(), segments=(segment.index,)),
    )
    trace = run(checkpoint, replace(encoded.spec, captures=captures))
    own, first = config.memory.design.reads_own_writes, min(config.memory_layers)
    return {
        layer: _Reading(
            trace.at(Site.BANK_PRE, segment=segment.index, layer=layer if own else first),
            trace.at(Site.READ_PATTERN, segment=segment.index, layer=layer)[row - segment.start],
        )
        for layer in config.memory_layers
    }


def _ranks(
    checkpoint: Checkpoint,
    layer: int,
    own: _Reading,
    other: _Reading,
    candidates: Sequence[int],
    truth: int,
    rng: np.random.Generator,
) -> tuple[int, int, int, int, int]:
    """The truth's rank among the candidates in the most-read slot, a random slot of the bank, the other story's
    most-read slot and a random direction; and its rank among all tokens in the most-read slot."""
    ranks = decoding(
        checkpoint,
        own.bank,
        layer,
        weights=own.weights,
        candidates=candidates,
        truth=truth,
        other=other.bank,
        random=1,
        seed=int(rng.integers(2**31)),
    )
    read, drawn = ranks.most_read, rng.integers(len(own.bank))
    return (
        ranks.rank[read],
        ranks.rank[drawn],
        ranks.other_rank[other.weights.argmax()],
        ranks.random_rank[0],
        ranks.vocabulary_rank[read],
    )


def _decoded(
    layer: int, ranks: Int[np.ndarray, "question 5"], candidates: int, stories: Sequence[str], seed: int
) -> Decoded:
    most_read, *baselines = (ranks[:, :4] == 1).T
    random_slot, other_story, random_direction = (
        First(rate=rate(column.tolist(), stories), behind=effect(most_read - column.astype(float), stories, seed=seed))
        for column in baselines
    )
    return Decoded(
        layer=layer,
        candidates=candidates,
        most_read=rate(most_read.tolist(), stories),
        vocabulary_rank=float(np.median(ranks[:, 4])),
        random_slot=random_slot,
        other_story=other_story,
        random_direction=random_direction,
    )


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    decoded = decode(checkpoint, questions, seed=seed, on_document=on_document)
    answer = "answer's first token" if first_token(len(question.answer) for question in questions) else "answer"
    return tuple(_table(checkpoint, layer, answer, held_out(questions)) for layer in decoded)


def _table(checkpoint: Checkpoint, decoded: Decoded, answer: str, pooled: str) -> Findings:
    baselines = {
        "a slot drawn from the same bank (control)": decoded.random_slot,
        "the most-read slot of another story (control)": decoded.other_story,
        "a random direction of a slot's norm (control)": decoded.random_direction,
    }
    rows = [
        ("the most-read slot", share(decoded.most_read), NOTHING),
        *((name, share(first.rate), mean(first.behind, 100)) for name, first in baselines.items()),
    ]
    note = (
        f"{pooled}; how often the slot's read-out puts the true {answer} first of {decoded.candidates} candidates; the"
        f" {answer}'s median rank among all {checkpoint.config.d_vocab:,} tokens in the most-read slot is"
        f" {decoded.vocabulary_rank:.0f}"
    )
    headers = ("slot", Column(f"{answer} first", "%"), Column("most-read slot ahead by", "points"))
    return Findings(title=f"Slots read through block {decoded.layer}", columns=columns_of(headers, rows), note=note)


EXPERIMENT = Experiment(
    key="decoding",
    title="Slots decoded",
    question="Do slots say, through the read path, the answers that are read from them?",
    control="random slots, another story's, random directions",
    findings=findings,
)
