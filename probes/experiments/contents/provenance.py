"""Write provenance: which tokens wrote what an answer reads from the bank? Tested by blocking their writes."""

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
"""Recall is also measured for this number of statements from the top."""

_WRITING = (Site.WRITE_PATTERN, Site.GATE_IN, Site.CANDIDATE, Site.GATE_FORGET)


@dataclass(frozen=True, kw_only=True)
class Traced:
    """One answer, with how much each token and statement wrote for it."""

    encoded: EncodedPrompt
    credit: Float[np.ndarray, "token"]
    """Of each token of the text; see `write_credit`."""
    statement_credit: Float[np.ndarray, "statement"]
    """Summed over each statement's tokens."""
    lost: Float[np.ndarray, "statement"]
    """Answer logit difference lost if the statement's tokens cannot write, in logits."""

    @property
    def facts(self) -> frozenset[int]:
        """Numbers of the supporting statements."""
        return frozenset(self.encoded.prompt.support)


@dataclass(frozen=True, kw_only=True)
class Write:
    """One block's write in one segment, with what later writes have left of it."""

    tokens: range
    """The segment's tokens, counted in the text."""
    pattern: Float[np.ndarray, "slot token"]
    """Mean over heads."""
    left: Float[np.ndarray, "slot slot_dim"]
    """g_in * tanh(U W_C), multiplied by the forget gates of all writes since."""


def _layers(trace: Trace, site: Site) -> list[int]:
    """The blocks whose site was captured."""
    layers = (place.layer for capture, place in trace.records if capture.site is site)
    return sorted({layer for layer in layers if layer is not None})


def writes(trace: Trace, before: int) -> tuple[Write, ...]:
    """The writes that make up the bank with which segment `before` begins, besides what is left of the fresh one.

    This is exact: each write multiplies the bank by its forget gate and adds, so the bank is the sum of what is left of
    every write and of the fresh bank. Raises KeyError if the trace lacks a site of writing.
    """
    layers = _layers(trace, Site.WRITE_PATTERN)
    places = [(segment, layer) for segment in trace.segments[:before] for layer in layers]
    values = [[trace.at(site, segment=segment.index, layer=layer) for site in _WRITING] for segment, layer in places]
    return tuple(
        Write(tokens=range(segment.start, segment.end), pattern=pattern, left=left)
        for (segment, _), (pattern, *_), left in zip(places, values, left_of([gates for _, *gates in values]))
    )


def left_of(
    writes: Sequence[Sequence[Float[np.ndarray, "*row slot slot_dim"]]],
) -> list[Float[np.ndarray, "*row slot slot_dim"]]:
    """What is left of each of some consecutive writes after the last one. A write is (input gate, candidate, forget
    gate)."""
    left, kept = [], 1.0
    for gate_in, candidate, gate_forget in reversed(writes):
        left.append(kept * gate_in * candidate)
        kept = kept * gate_forget
    return left[::-1]


def write_credit(trace: Trace, row: int) -> Float[np.ndarray, "token"]:
    """How much each token wrote of what token `row` reads.

    The norm of what is left of each write at a slot, divided among tokens by the write pattern and weighted by how much
    `row` reads the slot (means over blocks and heads). Tokens from `row`'s own segment on have none. Raises KeyError if
    the trace lacks a site of writing or the read pattern.
    """
    segment = next(segment for segment in trace.segments if segment.start <= row < segment.end)
    layers = _layers(trace, Site.READ_PATTERN)
    patterns = [trace.at(Site.READ_PATTERN, segment=segment.index, layer=layer) for layer in layers]
    read = np.mean([pattern[row - segment.start] for pattern in patterns], axis=0)
    credit = np.zeros(len(trace.tokens))
    for write in writes(trace, segment.index):
        credit[write.tokens.start : write.tokens.stop] += (read * np.linalg.norm(write.left, axis=-1)) @ write.pattern
    return credit


def trace_answer(checkpoint: Checkpoint, encoded: EncodedPrompt, answer: Answer) -> Traced:
    """The credit of every token for the answer, and what the answer loses if a statement's tokens cannot write.

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
    """How well a ranking of statements finds an answer's supporting facts."""

    ranking: str
    among: int | None
    """How many statements are taken from the top; None takes as many as there are facts, so that recall equals
    precision."""
    documents: int
    groups: int
    recall: float
    """Share of a question's facts among them, mean over questions."""
    low: float
    high: float
    """95 % interval, clustered by story."""


@dataclass(frozen=True, kw_only=True)
class WriteProvenance:
    traced: tuple[Traced, ...]
    found: tuple[Found, ...]
    """By write credit and by blocking; controls are the last statements and random orders (the mean over all)."""
    agreement: float
    """Spearman correlation of credit and loss over a question's statements, mean over questions."""


def provenance(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> WriteProvenance:
    """Trace every answer and compare with its known supporting facts. `on_document` is called once for each question.

    Raises ValueError for a memory that is not GATED, if no question names its facts, and if all have one answer.
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
            f"provenance needs facts, and none of {len(encoded_prompts)} questions names its supporting facts: add them"
            " to the set"
        )
    rankings = {
        "write credit": [trace.statement_credit for trace in traced],
        "loss when blocked": [trace.lost for trace in traced],
        "last told (control)": [np.arange(len(trace.encoded.statements)) for trace in traced],
    }
    found = [
        _found(name, among, traced, [_recall(trace, score, among) for trace, score in zip(traced, scores)], seed)
        for name, scores in rankings.items()
        for among in (None, _MORE)
    ]
    for among in (None, _MORE):
        chances = [min(1.0, (among or len(trace.facts)) / len(trace.encoded.statements)) for trace in traced]
        found.append(_found("random order (control)", among, traced, chances, seed))
    with np.errstate(invalid="ignore"):
        agreement = [
            float(spearmanr(trace.statement_credit, trace.lost)[0])  # pyright: ignore[reportArgumentType] - scipy's is untyped
            for trace in traced
            if len(trace.encoded.statements) > 2
        ]
    return WriteProvenance(
        traced=tuple(traced), found=tuple(found), agreement=float(np.nanmean(agreement)) if agreement else float("nan")
    )


def _recall(traced: Traced, scores: np.ndarray, among: int | None) -> float:
    top = np.argsort(-scores, kind="stable")[: among or len(traced.facts)]
    return len(traced.facts.intersection(map(int, top))) / len(traced.facts)


def _found(name: str, among: int | None, traced: Sequence[Traced], recalls: Sequence[float], seed: int) -> Found:
    stories = [trace.encoded.prompt.group for trace in traced]
    low, high = np.nan, np.nan
    if set(recalls) <= {0, 1}:
        share = rate([recall == 1 for recall in recalls], stories)
        low, high = share.low, share.high
    elif len(set(stories)) > 1:
        means = bootstrap(np.array(recalls)[:, None], stories, seed=seed)[:, 0]
        low, high = map(float, np.quantile(means, [0.025, 0.975]))
    return Found(
        ranking=name,
        among=among,
        documents=len(traced),
        groups=len(set(stories)),
        recall=float(np.mean(recalls)),
        low=low,
        high=high,
    )


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    traces = provenance(checkpoint, questions, seed=seed, on_document=on_document)
    rows = [
        (
            ranking.ranking,
            "as many as facts" if ranking.among is None else f"first {ranking.among}",
            Bounded(100 * ranking.recall, 100 * ranking.low, 100 * ranking.high),
        )
        for ranking in traces.found
    ]
    note = (
        f"{held_out([trace.encoded for trace in traces.traced])}; share of the supporting facts among the statements"
        " from the top of the ranking; among as many as there are facts, recall and precision are one number. Spearman"
        f" correlation of credit and loss over a question's statements, mean: {traces.agreement:.2f}"
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
