"""The experiments by name: what each asks, its control, and what it found as tables. The list behind the screen and the
command line."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from lm2.serialize import MOST, Spec, member, within, written
from lm2.tasks import stories
from lm2.tasks.encoded_prompt import encode_prompt
from lm2.weights.checkpoint import Checkpoint
from probes.experiments import tables
from probes.experiments.tables import Findings

OnDocument = Callable[[int], None]


class Experiment(Enum):
    """An experiment, with the question it puts to a model and the control beside it."""

    POLICIES = (
        "policies",
        "Freeze, reset, carry, off",
        "Is it the memory that answers?",
        "writes frozen from the question on, which can change nothing",
    )
    GATES = ("gates", "Gates clamped", "Which gate must move, and which may stand still?", "each gate at its own mean")
    SWAP = (
        "swap",
        "Bank swap",
        "Does the model answer what is true in the story whose bank it got?",
        "the bank of a story that says the same",
    )
    PERMUTATION = ("permutation", "Slots permuted", "Does a slot's number matter?", "another story's slots")
    PROVENANCE = (
        "provenance",
        "Write provenance",
        "Which statements put into the bank what the answer reads?",
        "the last statements told; random order",
    )
    DECODING = (
        "decoding",
        "Slots decoded",
        "Do slots say, through the read path, the answers that are read from them?",
        "random slots, another story's, random directions",
    )
    ATTRIBUTION = (
        "attribution",
        "Direct logit attribution",
        "Which parts of the model put the answer before its rivals directly?",
        "the parts sum to the logit difference",
    )
    FORGETTING = (
        "forgetting",
        "Forgetting curve",
        "How far back may a fact lie?",
        "the bank reset before the question",
    )
    CAPACITY = (
        "capacity",
        "Capacity",
        "How many people can the bank hold at once?",
        "the bank reset before the question",
    )
    OVERWRITES = (
        "overwrites",
        "Overwriting",
        "Is the last of several places of a person answered?",
        "the bank reset before the question",
    )
    INTERFERENCE = (
        "interference",
        "Interference",
        "Does a fact about someone else damage a fact?",
        "an old statement told once more",
    )
    ERASURE = (
        "erasure",
        "Concept erased",
        "Is what can be read off the bank, where everybody is, used?",
        "a random subspace of the same rank; where all others are",
    )
    SLOTS = ("slots", "Slots in use", "How many slots are used, and which are dead?", "a memory that writes nothing")

    title: str
    question: str
    control: str

    def __new__(cls, key: str, title: str, question: str, control: str) -> "Experiment":
        made = object.__new__(cls)
        made._value_, made.title, made.question, made.control = key, title, question, control
        return made

    @property
    def key(self) -> str:
        return self.value

    @classmethod
    def of(cls, key: str) -> "Experiment":
        """Raises ValueError, with those there are, for a name that none has."""
        return member("experiment", cls, key)


@dataclass(frozen=True, kw_only=True)
class ExperimentSpec(Spec):
    """One experiment on one checkpoint: everything that its numbers depend on, with the weights. Plain JSON both
    ways."""

    experiment: Experiment
    checkpoint: str
    task: int = 1
    questions: int = 64
    """Held-out questions, as `lm2.tasks.stories.questions` has them."""
    segment_length: int | None = None
    """Tokens; None, the checkpoint's own."""
    seed: int = 0
    """For whatever is drawn: partners, orders, resamples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        written("checkpoint", self.checkpoint)
        within("questions", self.questions, 1, MOST)
        within("seed", self.seed, 0, MOST)


@dataclass(frozen=True, kw_only=True)
class ExperimentReport:
    """What an experiment found."""

    spec: ExperimentSpec
    checkpoint_digest: str
    device: str
    dtype: str
    findings: tuple[Findings, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a number that is not there is null."""
        return {
            "spec": self.spec.to_json(),
            "spec_digest": self.spec.digest,
            "checkpoint_digest": self.checkpoint_digest,
            "device": self.device,
            "dtype": self.dtype,
            "findings": [
                vars(found) | {"rows": [[None if cell != cell else cell for cell in row] for row in found.rows]}
                for found in self.findings
            ],
        }


def perform(
    checkpoint: Checkpoint, spec: ExperimentSpec, on_document: OnDocument = lambda done: None
) -> ExperimentReport:
    """Run an experiment. `on_document` hears how many documents have run.

    Raises ValueError for another checkpoint's spec, for questions that are not there, and where the model lacks what
    the experiment is about.
    """
    if spec.checkpoint != checkpoint.name:
        raise ValueError(f"the spec is for checkpoint {spec.checkpoint!r}, not {checkpoint.name!r}")
    if not checkpoint.config.memory_layers:
        raise ValueError(f"{checkpoint.name} has no memory: there is nothing to ablate")
    encoded_prompts = [
        encode_prompt(checkpoint, prompt, spec.segment_length)
        for prompt in stories.questions(spec.task, spec.questions)
    ]
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        on_document(done)

    return ExperimentReport(
        spec=spec, checkpoint_digest=checkpoint.digest, device=checkpoint.device, dtype=checkpoint.dtype,
        findings=_TABLES[spec.experiment](checkpoint, encoded_prompts, spec.seed, count),
    )  # fmt: skip


_TABLES = {
    Experiment.POLICIES: tables.policies,
    Experiment.GATES: tables.gates,
    Experiment.SWAP: tables.swap,
    Experiment.PERMUTATION: tables.permutation,
    Experiment.PROVENANCE: tables.provenance,
    Experiment.DECODING: tables.decoding,
    Experiment.ATTRIBUTION: tables.attribution,
    Experiment.FORGETTING: tables.forgetting,
    Experiment.CAPACITY: tables.capacity,
    Experiment.OVERWRITES: tables.overwrites,
    Experiment.INTERFERENCE: tables.interference,
    Experiment.ERASURE: tables.erasure,
    Experiment.SLOTS: tables.slots,
}
