"""Does writing one fact damage another, and the more so the more of the same slots it writes to?"""

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
from probes.causal.observe import Observed, OnDocument, measured
from probes.causal.side_by_side import banks_after, together
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
    """Cosine between the two facts' footprints: how far each moved each slot, beside what a repeated statement leaves
    there."""
    elsewhere: float
    """Control: the same with the footprint of another document's fact."""
    effect: float
    """Of the rival on the metric of the fact's answer: rival told less first statement repeated."""


@dataclass(frozen=True, kw_only=True)
class Interference:
    """What rivals do to facts."""

    metric: Metric
    pairs: tuple[Pair, ...]
    right: Rate
    """Share of facts answered right with their rivals told."""
    alone: Rate
    """Share answered right without."""
    written: Effect
    """Of a rival, over pairs."""
    control: Effect
    """Of one more write that tells nothing new, over documents: first statement repeated less not repeated."""
    correlation: Bounded
    """Of overlap and effect over pairs."""
    elsewhere: Bounded
    """Control: of effect and the overlap with another document's fact. Where it is as large, it is not the shared slots
    that matter."""


def interference(
    checkpoint: Checkpoint,
    documents: Sequence[Rivals],
    *,
    metric: Metric = Metric.LOGIT_DIFFERENCE,
    segment_length: int | None = None,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Interference:
    """Ask each fact with each rival told behind it, beside the same with an old statement repeated in the rival's
    place.

    `on_document` is called once for every document read: 2 + rivals times for each of `documents`. Raises ValueError
    for fewer than 2 documents, a model without memory, and as `run` does.
    """
    if len(documents) < 2:
        raise ValueError(f"interference needs at least 2 documents, not {len(documents)}")

    own = [at for at, document in enumerate(documents) for _ in document.rivals]
    prompts = [
        [document.alone for document in documents],
        [document.repeated for document in documents],
        [rival for document in documents for rival in document.rivals],
    ]
    alone, repeated, told = (
        together(
            checkpoint, [encode_prompt(checkpoint, prompt, segment_length) for prompt in some], on_document=on_document
        )
        for some in prompts
    )
    without = Observed(
        encoded_prompts=tuple(repeated.encoded_prompts[at] for at in own),
        logits=tuple(repeated.logits[at] for at in own),
    )
    effects = measured(without, told, metric)
    facts, rivals = _footprints(checkpoint, documents, segment_length)
    pairs = tuple(
        Pair(
            group=documents[at].group,
            fact=documents[at].alone.statements[1],
            rival=one.prompt.statements[2],
            overlap=_cosine(facts[at], footprint),
            elsewhere=_cosine(facts[at - 1], footprint),
            effect=float(change),
        )
        for at, one, footprint, change in zip(own, told.encoded_prompts, rivals, effects)
    )
    groups = [pair.group for pair in pairs]
    return Interference(
        metric=metric,
        pairs=pairs,
        right=told.share(),
        alone=alone.share(),
        written=effect(effects, groups, seed=seed),
        control=effect(measured(alone, repeated, metric), alone.stories, seed=seed),
        correlation=correlation([pair.overlap for pair in pairs], effects, groups, seed=seed),
        elsewhere=correlation([pair.elsewhere for pair in pairs], effects, groups, seed=seed),
    )


def correlation(
    one: Sequence[float], other: Sequence[float] | np.ndarray, groups: Sequence[str], *, seed: int = 0
) -> Bounded:
    """Spearman's rank correlation, its interval from resampling whole groups (none, nan, with one group); nan where
    something does not vary."""
    values, members = np.array([one, other], float), defaultdict(list)
    for at, group in enumerate(groups):
        members[group].append(at)
    places = [np.array(places) for places in members.values()]
    drawn = np.random.default_rng(seed).integers(len(places), size=(_RESAMPLES, len(places)))
    again = (
        [_spearman(values[:, np.concatenate([places[group] for group in some])]) for some in drawn]
        if len(places) > 1
        else [np.nan]
    )
    low, high = np.quantile(again, [0.025, 0.975])
    return Bounded(_spearman(values), float(low), float(high))


def _spearman(values: Float[np.ndarray, "two pair"]) -> float:
    ranks = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    scale = np.sqrt((ranks**2).sum(1).prod())
    return float(ranks[0] @ ranks[1] / scale) if scale else float("nan")


def _footprints(
    checkpoint: Checkpoint, documents: Sequence[Rivals], segment_length: int | None
) -> tuple[list[Float[np.ndarray, "slot"]], list[Float[np.ndarray, "slot"]]]:
    """Of each fact, and of each rival in its document: how far each slot lies from where a repeated statement would
    have left it."""
    facts, rivals = [], []
    for document in documents:
        first, fact = document.alone.statements
        texts = [
            (first, fact),
            (first, first),
            (first, fact, first),
            *((first, fact, rival.statements[2]) for rival in document.rivals),
        ]
        told, repeated, old, *new = banks_after(checkpoint, [BREAK.join(text) for text in texts], segment_length)
        facts.append(np.linalg.norm(told - repeated, axis=-1))
        rivals += [np.linalg.norm(bank - old, axis=-1) for bank in new]
    return facts, rivals


def _cosine(one: Float[np.ndarray, "slot"], other: Float[np.ndarray, "slot"]) -> float:
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12))


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    documents = rivals(max(2, len(questions) // _RIVALS), each=_RIVALS, seed=seed)
    length = questions[0].spec.segment_length
    damage = interference(checkpoint, documents, segment_length=length, seed=seed, on_document=on_document)
    pairs = f"{len(damage.pairs)} pairs in {len(documents)} documents, 95 % intervals clustered by document"
    effects = [
        ("a fact about someone else", mean(damage.written), damage.written.p),
        ("an old statement told once more (control)", mean(damage.control), damage.control.p),
    ]
    links = [("the fact's slots", damage.correlation), ("another document's fact's slots (control)", damage.elsewhere)]
    return (
        Findings(
            title="What one more statement does to a fact",
            columns=columns_of(("statement told behind the fact", "change of answer logit difference", "p"), effects),
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
    documents=lambda task, questions: (2 + _RIVALS) * max(2, questions // _RIVALS),
)
