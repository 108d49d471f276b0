"""Memory ablated while it is used: policies, gates, swapped and permuted banks, each beside its control.

Every question is compared with itself: the same document, with and without the interventions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lm2.intervals import Rate
from lm2.model.sites import Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import BankEdit, Carry, Edit, Freeze, MemoryOff, Reset
from lm2.runs.operations import Patch, Permute, Set
from lm2.runs.runner import run
from lm2.tasks import encoded_prompt
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.tasks.questions import UnanswerableError, answer
from lm2.weights.checkpoint import Checkpoint
from probes.causal.batch import Unit
from probes.causal.observe import Observed, OnDocument, before, check_foils, measured, observe
from probes.stats.effects import Effect, effect
from probes.stats.metrics import Metric

GATES = {"input": Site.GATE_IN, "forget": Site.GATE_FORGET, "output": Site.GATE_OUT}


@dataclass(frozen=True, kw_only=True)
class AblationCondition:
    """One way to run the same questions."""

    name: str
    right: Rate
    effect: Effect
    """Of the logit difference, ablated less unablated."""


def _condition(name: str, clean: Observed, edited: Observed) -> AblationCondition:
    return AblationCondition(
        name=name, right=edited.share(), effect=effect(measured(clean, edited, Metric.LOGIT_DIFFERENCE), clean.stories)
    )


def policies(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], *, on_document: OnDocument = lambda: None
) -> tuple[AblationCondition, ...]:
    """What the memory may do: write, not write, be reset, be silent, or begin with what other documents left.

    Control: writes frozen from the question's own segment on, which can change nothing. `on_document` is called once a
    question. Raises ValueError for questions of fewer than 4 stories, and for those with one answer.
    """
    check_foils(encoded_prompts)
    conditions: dict[str, list[Unit]] = {
        "memory on": [()] * len(encoded_prompts),
        "writes frozen from the question on (control)": [
            (Freeze(segment=encoded.segment_of(encoded.rows[-1])),) for encoded in encoded_prompts
        ],
        "writes frozen from half way on": [(Freeze(segment=encoded.segment // 2),) for encoded in encoded_prompts],
        "writes frozen from the start": [(Freeze(),)] * len(encoded_prompts),
        "bank reset before the question": [(Reset(segment=encoded.segment),) for encoded in encoded_prompts],
        "memory off": [(MemoryOff(),)] * len(encoded_prompts),
        "bank carried over from 3 documents": [
            (Carry(texts=tuple(encoded.prompt.text for encoded in before(encoded_prompts, at, 3))),)
            for at in range(len(encoded_prompts))
        ],
    }
    seen = observe(checkpoint, encoded_prompts, [*conditions.values()], on_document)
    return tuple(_condition(name, seen[0], edited) for name, edited in zip(conditions, seen))


@dataclass(frozen=True, kw_only=True)
class Clamped:
    """One gate held at one value, in all blocks and segments."""

    gate: str
    value: float
    of_mean: bool
    """Whether the value is the gate's own mean over the questions' documents: the control, which takes only its
    variation away."""
    condition: AblationCondition


def gates(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    values: Sequence[float] = (0.0, 0.5, 1.0),
    on_document: OnDocument = lambda: None,
) -> tuple[Clamped, ...]:
    """Each gate clamped to each value and to its own mean. `on_document` is called twice a question.

    Raises ValueError for a model without gates, and for questions with one answer.
    """
    check_foils(encoded_prompts)
    there = {name: site for name, site in GATES.items() if site.layers(checkpoint.config)}
    if not there:
        raise ValueError(f"{checkpoint.name} has {checkpoint.config.memory.value} memory, which has no gates to clamp")
    means = _means(checkpoint, encoded_prompts, there, on_document)
    clamps = [
        (gate, value, of_mean)
        for gate in there
        for value, of_mean in [*((value, False) for value in values), (means[gate], True)]
    ]
    units = [(Edit(site=there[gate], operation=Set(value=value)),) for gate, value, _ in clamps]
    clean, *seen = observe(
        checkpoint, encoded_prompts, [[unit] * len(encoded_prompts) for unit in ((), *units)], on_document
    )
    found = []
    for (gate, value, of_mean), edited in zip(clamps, seen):
        name = f"{gate} gate at {value:.2f}" + (", its mean (control)" if of_mean else "")
        found.append(Clamped(gate=gate, value=value, of_mean=of_mean, condition=_condition(name, clean, edited)))
    return tuple(found)


def _means(
    checkpoint: Checkpoint, encoded_prompts: Sequence[EncodedPrompt], sites: Mapping[str, Site], on_document: OnDocument
) -> dict[str, float]:
    """The mean of each site over the questions' documents and all that it has."""
    sums, counts = dict.fromkeys(sites, 0.0), dict.fromkeys(sites, 0)
    names = {Capture(site): name for name, site in sites.items()}
    for encoded in encoded_prompts:
        for (capture, _), value in run(checkpoint, replace(encoded.spec, captures=tuple(names))).records.items():
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

    pairs: tuple[tuple[EncodedPrompt, EncodedPrompt, str], ...]
    """(question, donor, what the donor's story answers to it); donors say something else than the own story."""
    doses: tuple[Swapped, ...]
    """By number of swapped slots, drawn at random; the last is the whole bank."""
    agreeing: Rate | None
    """Control: the whole bank swapped for that of another story that says the same; share that answers it. None without
    such pairs."""


def swap(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
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
    for encoded in encoded_prompts:
        donors = [encoded_prompts[at] for at in draw.permutation(len(encoded_prompts))]
        other, same = _partners(
            encoded, [donor for donor in donors if donor.prompt.story_id != encoded.prompt.story_id]
        )
        pairs += [] if other is None else [(encoded, *other)]
        agreeing += [] if same is None else [(encoded, same)]
    if not pairs:
        raise ValueError(
            f"none of {len(encoded_prompts)} questions has another answer in another of these stories: nothing to swap"
        )
    asked = [encoded for encoded, _, _ in pairs]
    theirs = tuple(
        encoded_prompt.encode_prompt(checkpoint, replace(encoded.prompt, answer=value), encoded.spec.segment_length)
        for encoded, _, value in pairs
    )
    orders = [tuple(map(int, draw.permutation(slots))) for _ in pairs]
    changes = [
        [(donors_bank(donor, encoded, order[:count]),) for (encoded, donor, _), order in zip(pairs, orders)]
        for count in doses
    ]
    seen = observe(checkpoint, asked, changes, on_document)
    if all(
        len(encoded.answer_ids) == 1 for encoded in (*asked, *theirs)
    ):  # predicted from the question alone, whatever the answer is
        told = [Observed(encoded_prompts=theirs, logits=one.logits) for one in seen]
    else:
        told = observe(checkpoint, theirs, changes)
    control = observe(
        checkpoint,
        [encoded for encoded, _ in agreeing],
        [[(donors_bank(donor, encoded),) for encoded, donor in agreeing]],
        on_document,
    )
    return Swap(
        pairs=tuple(pairs),
        doses=tuple(
            Swapped(slots=count, donor=other.share(), own=own.share()) for count, other, own in zip(doses, told, seen)
        ),
        agreeing=control[0].share() if agreeing else None,
    )


def donors_bank(donor: EncodedPrompt, encoded: EncodedPrompt, slots: tuple[int, ...] | None = None) -> BankEdit:
    """The question's segment begins with the bank (or slots of it) with which the donor's question begins."""
    return BankEdit(
        operation=Patch(text=donor.spec.text, segment=donor.segment), segments=(encoded.segment,), slots=slots
    )


def _partners(
    encoded: EncodedPrompt, donors: Sequence[EncodedPrompt]
) -> tuple[tuple[EncodedPrompt, str] | None, EncodedPrompt | None]:
    """The first donor whose story answers something else to the question, with what it answers; and the first that
    answers the same."""
    other, same = None, None
    for donor in donors:
        try:
            value, _ = answer(encoded.prompt.question, [statement.text for statement in donor.prompt.statements])
        except UnanswerableError:
            continue
        if value != encoded.prompt.answer:
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
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Permutation:
    """Permute the slots, one random order a question. `on_document` is called once a question.

    Raises ValueError for questions of fewer than 2 stories.
    """
    draw = np.random.default_rng(seed)
    orders = [Permute(order=tuple(map(int, draw.permutation(checkpoint.config.slots)))) for _ in encoded_prompts]
    permuted = [
        (BankEdit(operation=order, segments=(encoded.segment,)),) for encoded, order in zip(encoded_prompts, orders)
    ]
    replaced = [(donors_bank(*before(encoded_prompts, at, 1), encoded),) for at, encoded in enumerate(encoded_prompts)]
    clean, moved, foreign = observe(
        checkpoint, encoded_prompts, [[()] * len(encoded_prompts), permuted, replaced], on_document
    )
    return Permutation(
        right=moved.share(),
        largest_change=_largest_change(clean, moved),
        foreign=foreign.share(),
        foreign_change=_largest_change(clean, foreign),
    )


def _largest_change(one: Observed, other: Observed) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one.logits, other.logits))
