"""Does the model answer what is true in the story whose bank it has been given?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lm2.intervals import Bounded, Rate
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
from lm2.tasks.prompt import Prompt
from lm2.tasks.questions import UnanswerableError, answer
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import Observed, OnDocument, observe
from probes.causal.patching import bank_edit
from probes.experiments.experiment import Experiment
from probes.findings import Column, Findings, columns_of, share


@dataclass(frozen=True, kw_only=True)
class Swapped:
    """Some slots of the bank replaced by another story's when the question's segment begins."""

    slots: int
    donor: Rate
    """Share answered with what is true in the donor's story."""
    own: Rate
    """Share still answered with what is true in the own story."""


@dataclass(frozen=True, kw_only=True)
class Swap:
    """Swaps of more and more slots."""

    pairs: tuple[tuple[EncodedPrompt, EncodedPrompt, str], ...]
    """(question, donor, answer in the donor's story), which differs from the answer in the own story."""
    doses: tuple[Swapped, ...]
    """By number of swapped slots, drawn at random; the last is the whole bank."""
    agreeing: Rate | None
    """Control: the whole bank swapped for that of another story with the same answer; share answered so. None without
    such pairs."""


def swap(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    doses: Sequence[int] | None = None,
    seed: int = 0,
    on_document: OnDocument = lambda: None,
) -> Swap:
    """Swap banks between stories, question by question, leaving out questions that no other story answers differently.

    `doses`: numbers of slots to swap; None takes powers of two up to the whole bank. `on_document` is called once for
    each question and control. Raises ValueError if there is no pair.
    """
    slots = checkpoint.config.slots
    doses = [2**power for power in range(slots.bit_length()) if 2**power < slots] + [slots] if doses is None else doses
    draw = np.random.default_rng(seed)
    pairs, agreeing = [], []
    for encoded in encoded_prompts:
        donors = [encoded_prompts[i] for i in draw.permutation(len(encoded_prompts))]
        other, same = _partners(encoded, [donor for donor in donors if donor.prompt.group != encoded.prompt.group])
        pairs += [] if other is None else [(encoded, *other)]
        agreeing += [] if same is None else [(encoded, same)]
    if not pairs:
        raise ValueError(
            f"none of {len(encoded_prompts)} questions has another answer in another of these stories: nothing to swap;"
            " swapping needs one question asked of several contexts"
        )
    own = [encoded for encoded, _, _ in pairs]
    with_donors_answer = tuple(
        encode_prompt(checkpoint, replace(encoded.prompt, answers=(value,)), encoded.spec.segment_length)
        for encoded, _, value in pairs
    )
    orders = [tuple(map(int, draw.permutation(slots))) for _ in pairs]
    conditions = [
        [
            (bank_edit(donor.spec.text, donor.segment, encoded.segment, order[:count]),)
            for (encoded, donor, _), order in zip(pairs, orders)
        ]
        for count in doses
    ]
    by_own = observe(checkpoint, own, conditions, on_document)
    # Answers of one token are predicted from the question alone.
    if all(len(encoded.answer_ids) == 1 for encoded in (*own, *with_donors_answer)):
        by_other = [Observed(encoded_prompts=with_donors_answer, logits=observed.logits) for observed in by_own]
    else:
        by_other = observe(checkpoint, with_donors_answer, conditions)
    edits = [(bank_edit(donor.spec.text, donor.segment, encoded.segment),) for encoded, donor in agreeing]
    (control,) = observe(checkpoint, [encoded for encoded, _ in agreeing], [edits], on_document)
    return Swap(
        pairs=tuple(pairs),
        doses=tuple(
            Swapped(slots=count, donor=donors.share(), own=owns.share())
            for count, donors, owns in zip(doses, by_other, by_own)
        ),
        agreeing=control.share() if agreeing else None,
    )


def _partners(
    encoded: EncodedPrompt, donors: Sequence[EncodedPrompt]
) -> tuple[tuple[EncodedPrompt, str] | None, EncodedPrompt | None]:
    """The first donor whose story answers the question differently, with its answer; and the first that answers the
    same."""
    other, same = None, None
    for donor in donors:
        value = _answer_of(donor.prompt, encoded.prompt.question)
        if value is None:
            continue
        if value != encoded.prompt.answer:
            other = other or (donor, value)
        else:
            same = same or donor
        if other and same:
            break
    return other, same


def _answer_of(donor: Prompt, question: str) -> str | None:
    """What is true in a donor's context: the answer to the same question, or what bAbI's sentences tell; None where
    that is not known."""
    if donor.question == question:
        return donor.answer
    if donor.task is None:
        return None
    try:
        return answer(question, donor.statements)[0]
    except UnanswerableError:
        return None


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    swapped = swap(checkpoint, questions, seed=seed, on_document=on_document)
    note = (
        f"{len(swapped.pairs)} pairs of stories that answer the question differently; slots drawn at random, the last"
        " row is the whole bank"
    )
    if swapped.agreeing is not None:
        same = swapped.agreeing
        note += (
            ". Control: the whole bank of a story that says the same:"
            f" {Bounded(same.accuracy, same.low, same.high):.1%} of {same.n} answer it"
        )
    headers = ("slots swapped", Column("donor's answer", "%"), Column("own answer", "%"))
    rows = [(dose.slots, share(dose.donor), share(dose.own)) for dose in swapped.doses]
    return (Findings(title="Whose answer?", columns=columns_of(headers, rows), note=note, curve=True),)


EXPERIMENT = Experiment(
    key="swap",
    title="Bank swap",
    question="Does the model answer what is true in the story whose bank it got?",
    control="the bank of a story that says the same",
    findings=findings,
    documents=lambda task, questions: 2 * questions,
)
