"""Write provenance: which tokens put into the bank what an answer reads out of it, and is it so when they may not
write?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from lm2.intervals import Bounded, bootstrap, rate
from lm2.model.sites import Site
from lm2.runs.capture import Capture, HeadMean
from lm2.runs.interventions import WriteBlock
from lm2.runs.runner import run
from lm2.runs.trace import Trace
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import OnDocument, answers, check_foils
from probes.causal.planner import answers_under
from probes.experiments.experiment import Experiment, held_out
from probes.findings import Column, Findings, columns_of
from probes.stats.metrics import Answer, Metric, measure

_MORE = 3
"""Statements from the top that recall is also told for."""

_WRITING = (Site.WRITE_PATTERN, Site.GATE_IN, Site.CANDIDATE, Site.GATE_FORGET)


@dataclass(frozen=True, kw_only=True)
class Traced:
    """One answer's statements, by what each put into the bank for it."""

    encoded: EncodedPrompt
    credit: Float[np.ndarray, "token"]
    """Per token of the text; see `write_credit`."""
    statement_credit: Float[np.ndarray, "statement"]
    """Summed over each statement's tokens."""
    lost: Float[np.ndarray, "statement"]
    """Answer logit difference lost when the statement's tokens may not write, in logits."""

    @property
    def facts(self) -> frozenset[int]:
        """Numbers of the supporting statements."""
        return frozenset(self.encoded.prompt.support)


@dataclass(frozen=True, kw_only=True)
class Write:
    """One block's writing in one segment, as far as later writes have left it."""

    tokens: range
    """Of the text; those of the segment."""
    pattern: Float[np.ndarray, "slot token"]
    """Mean over heads."""
    left: Float[np.ndarray, "slot slot_dim"]
    """g_in * tanh(U W_C), multiplied by the forget gates of all writes since."""


def _layers(trace: Trace, site: Site) -> list[int]:
    """The blocks that a site was kept of."""
    return sorted({at.layer for capture, at in trace.records if capture.site is site and at.layer is not None})


def writes(trace: Trace, before: int) -> tuple[Write, ...]:
    """What the bank with which segment `before` begins is made of, beside what is left of the fresh one.

    Exactly so: each write multiplies the bank by its forget gate and adds, so the bank is the sum of what is left of
    every write and of the fresh bank. Raises KeyError where the trace lacks a site of writing.
    """
    layers = _layers(trace, Site.WRITE_PATTERN)
    places = [(segment, layer) for segment in trace.segments[:before] for layer in layers]
    found = [[trace.at(site, segment=segment.index, layer=layer) for site in _WRITING] for segment, layer in places]
    return tuple(
        Write(tokens=range(segment.start, segment.end), pattern=pattern, left=left)
        for (segment, _), (pattern, *_), left in zip(places, found, left_of([gates for _, *gates in found]))
    )


def left_of(
    writes: Sequence[Sequence[Float[np.ndarray, "*row slot slot_dim"]]],
) -> list[Float[np.ndarray, "*row slot slot_dim"]]:
    """What is left of each of some writes, in their order, behind the last of them. Each is (input gate, candidate,
    forget gate)."""
    found, since = [], 1.0
    for admitted, candidate, kept in reversed(writes):
        found.append(since * admitted * candidate)
        since = since * kept
    return found[::-1]


def write_credit(trace: Trace, row: int) -> Float[np.ndarray, "token"]:
    """How much of what token `row` reads each token wrote.

    The norm of what is left of each write at a slot, shared out over tokens by the write pattern and weighted by the
    share that `row` reads of the slot (means over blocks and heads). Tokens of `row`'s own segment have none: they are
    not readable yet. Raises KeyError where the trace lacks a site of writing or the read pattern.
    """
    segment = next(segment for segment in trace.segments if segment.start <= row < segment.end)
    layers = _layers(trace, Site.READ_PATTERN)
    read = np.mean(
        [trace.at(Site.READ_PATTERN, segment=segment.index, layer=layer)[row - segment.start] for layer in layers],
        axis=0,
    )
    credit = np.zeros(len(trace.tokens))
    for write in writes(trace, segment.index):
        credit[write.tokens.start : write.tokens.stop] += (read * np.linalg.norm(write.left, axis=-1)) @ write.pattern
    return credit


def trace_answer(checkpoint: Checkpoint, encoded: EncodedPrompt, answer: Answer) -> Traced:
    """The credit of every token for the answer, and what the answer loses when a statement's tokens may not write.

    Raises ValueError for a memory that is not GATED.
    """
    EXPERIMENT.check(checkpoint)
    captures = (
        Capture(Site.READ_PATTERN, HeadMean(), segments=(encoded.segment_of(encoded.rows[0]),)),
        Capture(Site.WRITE_PATTERN, HeadMean()),
        *(Capture(site) for site in _WRITING[1:]),
    )
    clean = run(checkpoint, replace(encoded.spec, captures=captures))
    rows = list(encoded.rows)
    credit = write_credit(clean, rows[0])
    before = measure(Metric.LOGIT_DIFFERENCE, answer, clean.logits[rows], clean.logits[rows])
    blocked = answers_under(checkpoint, encoded, [(WriteBlock(tokens=tuple(span)),) for span in encoded.statements])
    after = [measure(Metric.LOGIT_DIFFERENCE, answer, logits, clean.logits[rows]) for logits in blocked]
    return Traced(
        encoded=encoded,
        credit=credit,
        statement_credit=np.array([credit[list(span)].sum() for span in encoded.statements]),
        lost=before - np.array(after),
    )


@dataclass(frozen=True, kw_only=True)
class Found:
    """How well a ranking of statements finds the facts that an answer rests on."""

    ranking: str
    among: int | None
    """How many statements are taken from the top; None, as many as there are facts, so that recall is precision too."""
    documents: int
    groups: int
    recall: float
    """Share of a question's facts that is among them, mean over questions."""
    low: float
    high: float
    """95 % interval, clustered by story."""


@dataclass(frozen=True, kw_only=True)
class WriteProvenance:
    traced: tuple[Traced, ...]
    found: tuple[Found, ...]
    """By write credit and by blocking; controls: the last statements told, and chance, the mean over random orders."""
    agreement: float
    """Spearman correlation of credit and loss over the statements of a question, mean over questions."""


def provenance(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> WriteProvenance:
    """Trace every answer and compare with the supporting facts that are known. `on_document` is called once a question.

    Raises ValueError for a memory that is not GATED, when no question names its facts, and when all have one answer.
    """
    EXPERIMENT.check(checkpoint)
    check_foils(encoded_prompts)
    traced = []
    for encoded, answer in zip(encoded_prompts, answers(encoded_prompts)):
        if encoded.prompt.support:
            traced.append(trace_answer(checkpoint, encoded, answer))
        on_document()
    if not traced:
        raise ValueError(
            f"none of {len(encoded_prompts)} questions names its supporting facts: nothing to compare with"
        )
    rankings = {
        "write credit": [one.statement_credit for one in traced],
        "loss when blocked": [one.lost for one in traced],
        "last told (control)": [np.arange(len(one.encoded.statements)) for one in traced],
    }
    found = [
        _found(name, among, traced, [_recall(one, scores, among) for one, scores in zip(traced, every)], seed)
        for name, every in rankings.items()
        for among in (None, _MORE)
    ]
    for among in (None, _MORE):
        chances = [min(1.0, (among or len(one.facts)) / len(one.encoded.statements)) for one in traced]
        found.append(_found("random order (control)", among, traced, chances, seed))
    with np.errstate(invalid="ignore"):
        agreement = [
            float(spearmanr(one.statement_credit, one.lost)[0])  # pyright: ignore[reportArgumentType] - scipy's is untyped
            for one in traced
            if len(one.encoded.statements) > 2
        ]
    return WriteProvenance(
        traced=tuple(traced), found=tuple(found), agreement=float(np.nanmean(agreement)) if agreement else float("nan")
    )


def _recall(traced: Traced, scores: np.ndarray, among: int | None) -> float:
    top = np.argsort(-scores, kind="stable")[: among or len(traced.facts)]
    return len(traced.facts.intersection(map(int, top))) / len(traced.facts)


def _found(name: str, among: int | None, traced: Sequence[Traced], recalls: Sequence[float], seed: int) -> Found:
    stories = [one.encoded.prompt.group for one in traced]
    if set(recalls) <= {0, 1}:
        share = rate([recall == 1 for recall in recalls], stories)
        return Found(
            ranking=name,
            among=among,
            documents=share.n,
            groups=share.groups,
            recall=share.accuracy,
            low=share.low,
            high=share.high,
        )
    low, high = (
        np.quantile(bootstrap(np.array(recalls)[:, None], stories, seed=seed)[:, 0], [0.025, 0.975])
        if len(set(stories)) > 1
        else (np.nan,) * 2
    )
    return Found(
        ranking=name,
        among=among,
        documents=len(traced),
        groups=len(set(stories)),
        recall=float(np.mean(recalls)),
        low=float(low),
        high=float(high),
    )


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    traced = provenance(checkpoint, questions, seed=seed, on_document=on_document)
    rows = [
        (
            ranking.ranking,
            "as many as facts" if ranking.among is None else f"first {ranking.among}",
            Bounded(100 * ranking.recall, 100 * ranking.low, 100 * ranking.high),
        )
        for ranking in traced.found
    ]
    note = (
        f"{held_out([answer.encoded for answer in traced.traced])}; share of the supporting facts among the statements"
        " from the top of the ranking; among as many as there are facts, recall and precision are one number. Spearman"
        f" correlation of credit and loss over a question's statements, mean: {traced.agreement:.2f}"
    )
    headers = ("statements ranked by", "statements taken", Column("recall", "%"))
    return (Findings(title="Facts found", columns=columns_of(headers, rows), note=note),)


EXPERIMENT = Experiment(
    key="provenance",
    title="Write provenance",
    question="Which statements put into the bank what the answer reads?",
    control="the last statements told; random order",
    findings=findings,
    needs=_WRITING,
    lacking="write credit needs a gated one's pattern and gates",
)
