"""Memory ablated while it is used: policies, gates, swapped and permuted banks, each beside its control.

Every question is compared with itself: the same document, with and without the interventions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from jaxtyping import Float

from lm2.intervals import Rate, rate
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import BankEdit, Carry, Edit, Freeze, MemoryOff, Patch, Permute, Reset, Set
from lm2.runs.runner import run
from lm2.tasks import encoded_prompt
from lm2.tasks.encoded_prompt import Put
from lm2.tasks.world import UnanswerableError, answer
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import Unit
from probes.causal.planner import answers_under
from probes.stats.effects import Effect, effect
from probes.stats.metrics import Answer, Metric, measure

OnDocument = Callable[[], None]
"""Hears of each document that has run."""

GATES = {"input": Site.GATE_IN, "forget": Site.GATE_FORGET, "output": Site.GATE_OUT}


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a model said to the same questions in one condition."""

    puts: tuple[Put, ...]
    logits: tuple[Float[np.ndarray, "row d_vocab"], ...]
    """Per question, the rows that predict its answer."""

    @property
    def said(self) -> list[tuple[int, ...]]:
        """The most probable token at each place of the answer."""
        return [tuple(map(int, rows.argmax(-1))) for rows in self.logits]

    @property
    def stories(self) -> list[str]:
        return [put.prompt.story_id for put in self.puts]

    def share(self) -> Rate:
        """Share of questions answered with the answer behind them, clustered by story."""
        return rate([said == put.answer_ids for said, put in zip(self.said, self.puts, strict=True)], self.stories)


def observe(
    checkpoint: Checkpoint,
    puts: Sequence[Put],
    conditions: Sequence[Sequence[Unit]],
    on_document: OnDocument = lambda: None,
) -> list[Observed]:
    """Every question under every condition, which has a unit of interventions for each question. `on_document` is
    called once a question.

    Raises ValueError as `run` does.
    """
    found = []
    for put, *units in zip(puts, *conditions, strict=True):
        found.append(answers_under(checkpoint, put, units))
        on_document()
    return [Observed(puts=tuple(puts), logits=tuple(logits[at] for logits in found)) for at in range(len(conditions))]


def answers(puts: Sequence[Put]) -> tuple[Answer, ...]:
    """What is measured of each question: its answer, against the answers of all the others."""
    first = {put.answer_ids[0] for put in puts}
    return tuple(Answer(ids=put.answer_ids, foils=tuple(sorted(first - {put.answer_ids[0]}))) for put in puts)


def check_foils(puts: Sequence[Put], metric: Metric = Metric.LOGIT_DIFFERENCE) -> None:
    """Raise ValueError where the metric is a difference to other questions' answers and there is no other answer."""
    if metric is Metric.LOGIT_DIFFERENCE and len({put.answer_ids[0] for put in puts}) < 2:
        raise ValueError(
            f"a logit difference is to the other questions' answers, and all of {len(puts)} have one answer: ask more"
            " questions"
        )


def before(puts: Sequence[Put], at: int, count: int) -> tuple[Put, ...]:
    """The last `count` documents of other stories before one, around the end of them all. Raises ValueError where there
    are fewer."""
    around = (puts[at - back] for back in range(1, len(puts)))
    others = list(islice((put for put in around if put.prompt.story_id != puts[at].prompt.story_id), count))
    if len(others) < count:
        raise ValueError(
            f"a control takes documents of {count} other stories, and {len(puts)} questions have {len(others)}: ask"
            " more questions"
        )
    return tuple(reversed(others))


def measured(clean: Observed, edited: Observed, metric: Metric) -> Float[np.ndarray, "document"]:
    """A metric of every question under ablation, less its own unablated value."""
    asked = zip(answers(clean.puts), clean.logits, edited.logits, strict=True)
    return np.array(
        [
            measure(metric, answer, after, before) - measure(metric, answer, before, before)
            for answer, before, after in asked
        ]
    )


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One way to run the same questions."""

    name: str
    right: Rate
    effect: Effect
    """Of the chosen metric, ablated less unablated."""


def _condition(name: str, clean: Observed, edited: Observed, metric: Metric) -> Condition:
    return Condition(name=name, right=edited.share(), effect=effect(measured(clean, edited, metric), clean.stories))


def constant(puts: Sequence[Put]) -> Rate:
    """Chance: the share of questions that the best constant answer gets right."""
    answers = [put.prompt.answer for put in puts]
    best = max(sorted(set(answers)), key=answers.count)
    return rate([answer == best for answer in answers], [put.prompt.story_id for put in puts])


def policies(
    checkpoint: Checkpoint,
    puts: Sequence[Put],
    *,
    metric: Metric = Metric.LOGIT_DIFFERENCE,
    on_document: OnDocument = lambda: None,
) -> tuple[Condition, ...]:
    """What the memory may do: write, not write, be reset, be silent, or begin with what other documents left.

    Control: writes frozen from the question's own segment on, which can change nothing. `on_document` is called once a
    question. Raises ValueError for questions of fewer than 4 stories, and for those with one answer where the metric
    compares answers.
    """
    check_foils(puts, metric)
    conditions: dict[str, list[Unit]] = {
        "memory on": [()] * len(puts),
        "writes frozen from the question on (control)": [
            (Freeze(segment=put.segment_of(put.rows[-1])),) for put in puts
        ],
        "writes frozen from half way on": [(Freeze(segment=put.segment // 2),) for put in puts],
        "writes frozen from the start": [(Freeze(),)] * len(puts),
        "bank reset before the question": [(Reset(segment=put.segment),) for put in puts],
        "memory off": [(MemoryOff(),)] * len(puts),
        "bank carried over from 3 documents": [
            (Carry(texts=tuple(put.prompt.text for put in before(puts, at, 3))),) for at in range(len(puts))
        ],
    }
    seen = observe(checkpoint, puts, [*conditions.values()], on_document)
    return tuple(_condition(name, seen[0], edited, metric) for name, edited in zip(conditions, seen))


@dataclass(frozen=True, kw_only=True)
class Clamped:
    """One gate held at one value, in all blocks and segments."""

    gate: str
    value: float
    of_mean: bool
    """Whether the value is the gate's own mean over the questions' documents: the control, which takes only its
    variation away."""
    condition: Condition


def gates(
    checkpoint: Checkpoint,
    puts: Sequence[Put],
    *,
    values: Sequence[float] = (0.0, 0.5, 1.0),
    metric: Metric = Metric.LOGIT_DIFFERENCE,
    on_document: OnDocument = lambda: None,
) -> tuple[Clamped, ...]:
    """Each gate clamped to each value and to its own mean. `on_document` is called twice a question.

    Raises ValueError for a model without gates, and for questions with one answer where the metric compares answers.
    """
    check_foils(puts, metric)
    there = {name: site for name, site in GATES.items() if site.layers(checkpoint.config)}
    if not there:
        raise ValueError(f"{checkpoint.name} has {checkpoint.config.memory.value} memory, which has no gates to clamp")
    means = _means(checkpoint, puts, there, on_document)
    clamps = [
        (gate, value, of_mean)
        for gate in there
        for value, of_mean in [*((value, False) for value in values), (means[gate], True)]
    ]
    units = [(Edit(site=there[gate], operation=Set(value=value)),) for gate, value, _ in clamps]
    clean, *seen = observe(checkpoint, puts, [[unit] * len(puts) for unit in ((), *units)], on_document)
    found = []
    for (gate, value, of_mean), edited in zip(clamps, seen):
        name = f"{gate} gate at {value:.2f}" + (", its mean (control)" if of_mean else "")
        found.append(
            Clamped(gate=gate, value=value, of_mean=of_mean, condition=_condition(name, clean, edited, metric))
        )
    return tuple(found)


def _means(
    checkpoint: Checkpoint, puts: Sequence[Put], sites: Mapping[str, Site], on_document: OnDocument
) -> dict[str, float]:
    """The mean of each site over the questions' documents and all that it has."""
    sums, counts = dict.fromkeys(sites, 0.0), dict.fromkeys(sites, 0)
    names = {Capture(site): name for name, site in sites.items()}
    for put in puts:
        for (capture, _), value in run(checkpoint, replace(put.spec, captures=tuple(names))).records.items():
            sums[names[capture]] += float(value.sum(dtype=np.float64))
            counts[names[capture]] += value.size
        on_document()
    return {name: sums[name] / counts[name] for name in sites}


@dataclass(frozen=True, kw_only=True)
class Swapped:
    """Some slots of the bank replaced, as the question's segment begins, by those of another story's bank."""

    slots: int
    donor: Rate
    """Share that answers what is true in the donor's story."""
    own: Rate
    """Share that still answers what is true in its own story."""


@dataclass(frozen=True, kw_only=True)
class Swap:
    """Does the model answer the donor's value?"""

    pairs: tuple[tuple[Put, Put, str], ...]
    """(question, donor, what the donor's story answers to it); donors say something else than the own story."""
    doses: tuple[Swapped, ...]
    """By number of swapped slots, drawn at random; the last is the whole bank."""
    agreeing: Rate | None
    """Control: the whole bank swapped for that of another story that says the same; share that answers it. None without
    such pairs."""


def swap(
    checkpoint: Checkpoint,
    puts: Sequence[Put],
    *,
    doses: Sequence[int] | None = None,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Swap:
    """Swap banks between stories, question by question; questions for which no other story has another answer are left
    out.

    `doses`: numbers of slots to swap; None, powers of two up to the whole bank. `on_document` is called once a question
    and control. Raises ValueError where no pair can be made.
    """
    slots = checkpoint.config.slots
    doses = [2**at for at in range(slots.bit_length()) if 2**at < slots] + [slots] if doses is None else doses
    draw = np.random.default_rng(seed)
    pairs, agreeing = [], []
    for put in puts:
        donors = [puts[at] for at in draw.permutation(len(puts))]
        other, same = _partners(put, [donor for donor in donors if donor.prompt.story_id != put.prompt.story_id])
        pairs += [] if other is None else [(put, *other)]
        agreeing += [] if same is None else [(put, same)]
    if not pairs:
        raise ValueError(
            f"none of {len(puts)} questions has another answer in another of these stories: nothing to swap"
        )
    asked = [put for put, _, _ in pairs]
    theirs = tuple(
        encoded_prompt.put(checkpoint, replace(put.prompt, answer=value), put.spec.segment_length)
        for put, _, value in pairs
    )
    orders = [tuple(map(int, draw.permutation(slots))) for _ in pairs]
    changes = [
        [(donors_bank(donor, put, order[:count]),) for (put, donor, _), order in zip(pairs, orders)] for count in doses
    ]
    seen = observe(checkpoint, asked, changes, on_document)
    if all(
        len(put.answer_ids) == 1 for put in (*asked, *theirs)
    ):  # predicted from the question alone, whatever the answer is
        told = [Observed(puts=theirs, logits=one.logits) for one in seen]
    else:
        told = observe(checkpoint, theirs, changes)
    control = observe(
        checkpoint, [put for put, _ in agreeing], [[(donors_bank(donor, put),) for put, donor in agreeing]], on_document
    )
    return Swap(
        pairs=tuple(pairs),
        doses=tuple(
            Swapped(slots=count, donor=other.share(), own=own.share()) for count, other, own in zip(doses, told, seen)
        ),
        agreeing=control[0].share() if agreeing else None,
    )


def donors_bank(donor: Put, put: Put, slots: tuple[int, ...] | None = None) -> BankEdit:
    """The question's segment begins with the bank (or slots of it) with which the donor's question begins."""
    return BankEdit(operation=Patch(text=donor.spec.text, segment=donor.segment), segments=(put.segment,), slots=slots)


def _partners(put: Put, donors: Sequence[Put]) -> tuple[tuple[Put, str] | None, Put | None]:
    """The first donor whose story answers something else to the question, with what it answers; and the first that
    answers the same."""
    other, same = None, None
    for donor in donors:
        try:
            value, _ = answer(put.prompt.question, [statement.text for statement in donor.prompt.statements])
        except UnanswerableError:
            continue
        if value != put.prompt.answer:
            other = other or (donor, value)
        else:
            same = same or donor
        if other and same:
            break
    return other, same


@dataclass(frozen=True, kw_only=True)
class Permutation:
    """The bank's slots in another order as the question's segment begins."""

    right: Rate
    largest_change: float
    """Of any logit of any answer, in logits: 0 up to rounding where reading does not know a slot's number."""
    foreign: Rate
    """Control: the slots' contents replaced by another story's instead."""
    foreign_change: float


def permutation(
    checkpoint: Checkpoint, puts: Sequence[Put], *, seed: int = 0, on_document: OnDocument = lambda: None
) -> Permutation:
    """Permute the slots, one random order a question. `on_document` is called once a question.

    Raises ValueError for questions of fewer than 2 stories.
    """
    draw = np.random.default_rng(seed)
    orders = [Permute(order=tuple(map(int, draw.permutation(checkpoint.config.slots)))) for _ in puts]
    permuted = [(BankEdit(operation=order, segments=(put.segment,)),) for put, order in zip(puts, orders)]
    replaced = [(donors_bank(*before(puts, at, 1), put),) for at, put in enumerate(puts)]
    clean, moved, foreign = observe(checkpoint, puts, [[()] * len(puts), permuted, replaced], on_document)
    return Permutation(
        right=moved.share(),
        largest_change=_largest_change(clean, moved),
        foreign=foreign.share(),
        foreign_change=_largest_change(clean, foreign),
    )


def _largest_change(one: Observed, other: Observed) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one.logits, other.logits))
