"""Does writing one fact damage another, and more so if it writes to the same slots?"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from lm2.intervals import Bounded, Rate
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.text.tokens import BREAK
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import Observed, OnDocument, logit_difference, metric_change
from probes.causal.side_by_side import banks_after, observe_side_by_side
from probes.experiments.experiment import Experiment
from probes.experiments.retention.controlled_documents import Rivals, rivals
from probes.findings import Findings, columns_of, mean
from probes.stats.effects import Effect, effect
from probes.stats.metrics import Metric

_RESAMPLES = 2000
_RIVALS = 4
"""Of each fact."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A fact and its rival."""

    group: str
    fact: str
    rival: str
    overlap: float
    """Cosine between the two facts' footprints: how far each moved each slot, relative to a repeated statement."""
    elsewhere: float
    """Control: the same with the footprint of another document's fact."""
    effect: float
    """Of the rival on the metric of the fact's answer, minus the value with the first statement repeated."""


@dataclass(frozen=True, kw_only=True)
class Interference:
    """The effect of rivals on facts."""

    metric: Metric
    pairs: tuple[Pair, ...]
    right: Rate
    """Share of facts answered right after a rival."""
    alone: Rate
    """Share of facts answered right without one."""
    written: Effect
    """Of a rival, over pairs."""
    control: Effect
    """Of one more write without anything new, over documents: first statement repeated minus not repeated."""
    correlation: Bounded
    """Of overlap and effect over pairs."""
    elsewhere: Bounded
    """Control: of effect and overlap with another document's fact. If it is as large, shared slots do not matter."""


def interference(
    checkpoint: Checkpoint,
    documents: Sequence[Rivals],
    *,
    metric: Metric = Metric.LOGIT_DIFFERENCE,
    segment_length: int | None = None,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Interference:
    """Ask for each fact after each rival, and after a repeated statement in the rival's place.

    `on_document` is called 2 + rivals times for each of `documents`. Raises ValueError for fewer than 2 documents, a
    model without memory, and as `run` does.
    """
    if len(documents) < 2:
        raise ValueError(f"interference needs at least 2 documents, not {len(documents)}")

    own = [i for i, document in enumerate(documents) for _ in document.rivals]
    alone, repeated, after_rival = (
        observe_side_by_side(
            checkpoint,
            [encode_prompt(checkpoint, prompt, segment_length) for prompt in prompts],
            on_document=on_document,
        )
        for prompts in (
            [document.alone for document in documents],
            [document.repeated for document in documents],
            [rival for document in documents for rival in document.rivals],
        )
    )
    without = Observed(
        encoded_prompts=tuple(repeated.encoded_prompts[i] for i in own), logits=tuple(repeated.logits[i] for i in own)
    )
    effects = metric_change(without, after_rival, metric)
    facts, rivals = _footprints(checkpoint, documents, segment_length)
    pairs = tuple(
        Pair(
            group=documents[i].group,
            fact=documents[i].alone.statements[1],
            rival=encoded.prompt.statements[2],
            overlap=_cosine(facts[i], footprint),
            elsewhere=_cosine(facts[i - 1], footprint),
            effect=float(change),
        )
        for i, encoded, footprint, change in zip(own, after_rival.encoded_prompts, rivals, effects)
    )
    groups = [pair.group for pair in pairs]
    return Interference(
        metric=metric,
        pairs=pairs,
        right=after_rival.share(),
        alone=alone.share(),
        written=effect(effects, groups, seed=seed),
        control=effect(metric_change(alone, repeated, metric), alone.stories, seed=seed),
        correlation=correlation([pair.overlap for pair in pairs], effects, groups, seed=seed),
        elsewhere=correlation([pair.elsewhere for pair in pairs], effects, groups, seed=seed),
    )


def correlation(
    x: Sequence[float], y: Sequence[float] | np.ndarray, groups: Sequence[str], *, seed: int = 0
) -> Bounded:
    """Spearman's rank correlation with an interval from resampling whole groups (nan with one group); nan if x or y is
    constant."""
    values, members = np.array([x, y], float), defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    indexes = [*members.values()]
    draws = np.random.default_rng(seed).integers(len(indexes), size=(_RESAMPLES, len(indexes)))
    resampled = (
        [_spearman(values[:, np.concatenate([indexes[group] for group in draw])]) for draw in draws]
        if len(indexes) > 1
        else [np.nan]
    )
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Bounded(_spearman(values), float(low), float(high))


def _spearman(values: Float[np.ndarray, "two pair"]) -> float:
    ranks = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    scale = np.sqrt((ranks**2).sum(1).prod())
    return float(ranks[0] @ ranks[1] / scale) if scale else float("nan")


def _footprints(
    checkpoint: Checkpoint, documents: Sequence[Rivals], segment_length: int | None
) -> tuple[list[Float[np.ndarray, "slot"]], list[Float[np.ndarray, "slot"]]]:
    """Of each fact and of each rival: how far each slot lies from where a repeated statement would leave it."""
    facts, rivals = [], []
    for document in documents:
        first, fact = document.alone.statements
        texts = [
            (first, fact),
            (first, first),
            (first, fact, first),
            *((first, fact, rival.statements[2]) for rival in document.rivals),
        ]
        bank, repeated, old, *new = banks_after(checkpoint, [BREAK.join(text) for text in texts], segment_length)
        facts.append(np.linalg.norm(bank - repeated, axis=-1))
        rivals += [np.linalg.norm(bank - old, axis=-1) for bank in new]
    return facts, rivals


def _cosine(a: Float[np.ndarray, "slot"], b: Float[np.ndarray, "slot"]) -> float:
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    documents = rivals(max(2, len(questions) // _RIVALS), each=_RIVALS, seed=seed)
    length = questions[0].spec.segment_length
    damage = interference(checkpoint, documents, segment_length=length, seed=seed, on_document=on_document)
    difference = logit_difference([encode_prompt(checkpoint, document.alone, length) for document in documents])
    pairs = f"{len(damage.pairs)} pairs in {len(documents)} documents, 95 % intervals clustered by document"
    effects = [
        ("a fact about someone else", mean(damage.written), damage.written.p),
        ("an old statement told once more (control)", mean(damage.control), damage.control.p),
    ]
    links = [("the fact's slots", damage.correlation), ("another document's fact's slots (control)", damage.elsewhere)]
    return (
        Findings(
            title="What one more statement does to a fact",
            columns=columns_of(("statement told behind the fact", f"change of {difference}", "p"), effects),
            note=(
                f"{pairs}; {damage.right.accuracy:.1%} of the facts are answered with a rival told behind them,"
                f" {damage.alone.accuracy:.1%} without"
            ),
        ),
        Findings(
            title="Is it the shared slots?",
            columns=columns_of(("overlap of what the rival wrote with", "Spearman correlation with the change"), links),
            note=f"{pairs}; overlap is the cosine of how far each statement moved each slot",
        ),
    )


EXPERIMENT = Experiment(
    key="interference",
    title="Interference",
    question="Does a fact about someone else damage a fact?",
    control="an old statement told once more",
    findings=findings,
    writes=True,
    documents=lambda task, questions: (2 + _RIVALS) * max(2, questions // _RIVALS),
)
