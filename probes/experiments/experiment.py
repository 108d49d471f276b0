"""What an experiment declares, and how it is run. Each experiment is a module that the registry finds by its key."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lm2.model.sites import Site
from lm2.serialize import LARGEST_INT, not_empty, within
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompts
from lm2.tasks.sets.question_set import AsksQuestions, QuestionSet
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import OnDocument
from probes.experiments import registry
from probes.findings import Findings


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment: the question that it asks of a model, its control and how it is computed."""

    key: str
    title: str
    question: str
    control: str
    findings: Callable[[Checkpoint, Sequence[EncodedPrompt], int, OnDocument], tuple[Findings, ...]]
    """Takes the checkpoint, questions, which it may replace by documents of its own, a seed and a callback."""
    documents: Callable[[int | None, int], float] = lambda task, questions: questions
    """About how many documents it reads, from bAbI's task, None for other questions, and their number."""
    writes: bool = False
    """Whether it reads documents of its own, in sentences like those of bAbI's stories."""
    needs: tuple[Site, ...] = (Site.BANK_PRE,)
    """Sites that the memory must have."""
    lacking: str = "it has no bank"
    """The message for a memory without these sites."""

    def check_questions(self, questions: QuestionSet) -> None:
        """Raises ValueError for questions without what the experiment needs."""
        if self.writes and any(prompt.task is None for prompt in questions.prompts):
            raise ValueError(
                f"{self.key} makes its own documents: it needs sentences it may write, such as those of babi:qa1;"
                f" {questions.name} has none"
            )

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises ValueError for a model whose memory lacks what the experiment needs."""
        if not all(site.layers(checkpoint.config) for site in self.needs):
            kind = checkpoint.config.memory.value
            raise ValueError(f"{checkpoint.name} has {kind} memory; {self.lacking}")


@dataclass(frozen=True, kw_only=True)
class ExperimentSpec(AsksQuestions):
    """One experiment on one checkpoint: everything that its numbers depend on, besides the weights. Plain JSON both
    ways."""

    experiment: str
    """Its key."""
    checkpoint: str
    segment_length: int | None = None
    """Tokens; None takes the checkpoint's own."""
    seed: int = 0
    """For all random draws: partners, orders, resamples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        registry.check(self.experiment)
        not_empty("checkpoint", self.checkpoint)
        within("seed", self.seed, 0, LARGEST_INT)

    @property
    def documents(self) -> int:
        """About how many documents will be read."""
        count = self.count or len(self.question_set())
        return round(registry.experiment(self.experiment).documents(self.task, count))


@dataclass(frozen=True, kw_only=True)
class ExperimentReport:
    """The tables of an experiment."""

    spec: ExperimentSpec
    checkpoint_digest: str
    device: str
    dtype: str
    questions_digest: str
    skipped: tuple[str, ...]
    """The questions that could not be asked, and why."""
    findings: tuple[Findings, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a missing number is null."""
        return {
            "spec": self.spec.to_json(),
            "spec_digest": self.spec.digest,
            "checkpoint_digest": self.checkpoint_digest,
            "device": self.device,
            "dtype": self.dtype,
            "questions_digest": self.questions_digest,
            "skipped": list(self.skipped),
            "findings": [table.to_json() for table in self.findings],
        }


def perform(
    checkpoint: Checkpoint, spec: ExperimentSpec, on_document: Callable[[int, int], None] = lambda done, expected: None
) -> ExperimentReport:
    """Run an experiment. `on_document` is called after each document with (documents done, about how many in all).

    Raises ValueError for another checkpoint's spec, for more questions than there are, and if the model lacks what the
    experiment needs.
    """
    if spec.checkpoint != checkpoint.name:
        raise ValueError(f"the spec is for checkpoint {spec.checkpoint!r}, not {checkpoint.name!r}")
    if not checkpoint.config.memory_layers:
        raise ValueError(f"{checkpoint.name} has no memory: there is nothing to ablate")
    experiment = registry.experiment(spec.experiment)
    experiment.check(checkpoint)
    questions = spec.question_set()
    experiment.check_questions(questions)
    encoded_prompts, skipped = encode_prompts(checkpoint, questions.prompts, spec.segment_length)
    done, expected = itertools.count(1), spec.documents
    return ExperimentReport(
        spec=spec,
        checkpoint_digest=checkpoint.digest,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        questions_digest=questions.digest,
        skipped=tuple(skipped),
        findings=experiment.findings(checkpoint, encoded_prompts, spec.seed, lambda: on_document(next(done), expected)),
    )


def held_out(encoded_prompts: Sequence[EncodedPrompt]) -> str:
    """What a table's numbers are pooled over, in words."""
    groups = len({encoded.prompt.group for encoded in encoded_prompts})
    if encoded_prompts[0].prompt.task is None:
        return f"{len(encoded_prompts)} questions in {groups} groups, 95 % intervals clustered by group"
    return f"{len(encoded_prompts)} held-out questions of {groups} stories, 95 % intervals clustered by story"
