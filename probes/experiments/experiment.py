"""What an experiment declares, and how it is run. Each experiment is a module that the registry finds by its key."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lm2.model.sites import Site
from lm2.serialize import LARGEST_INT, Spec, not_empty, within
from lm2.tasks import stories
from lm2.tasks.encoded_prompt import EncodedPrompt, encode_prompt
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
    """Takes the checkpoint, held-out questions, which it may replace by documents of its own, a seed and a callback."""
    documents: Callable[[int, int], float] = lambda task, questions: questions
    """About how many documents it reads, from the task and the number of questions."""
    needs: tuple[Site, ...] = (Site.BANK_PRE,)
    """Sites that the memory must have."""
    lacking: str = "it has no bank"
    """The message for a memory without these sites."""

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises ValueError for a model whose memory lacks what the experiment needs."""
        if not all(site.layers(checkpoint.config) for site in self.needs):
            kind = checkpoint.config.memory.value
            raise ValueError(f"{checkpoint.name} has {kind} memory; {self.lacking}")


@dataclass(frozen=True, kw_only=True)
class ExperimentSpec(Spec):
    """One experiment on one checkpoint: everything that its numbers depend on, besides the weights. Plain JSON both
    ways."""

    experiment: str
    """Its key."""
    checkpoint: str
    task: int = 1
    questions: int = 64
    """Held-out questions, those of `lm2.tasks.stories.questions`."""
    segment_length: int | None = None
    """Tokens; None takes the checkpoint's own."""
    seed: int = 0
    """For all random draws: partners, orders, resamples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        registry.check(self.experiment)
        not_empty("checkpoint", self.checkpoint)
        within("questions", self.questions, 1, LARGEST_INT)
        within("seed", self.seed, 0, LARGEST_INT)

    @property
    def documents(self) -> int:
        """About how many documents will be read."""
        return round(registry.experiment(self.experiment).documents(self.task, self.questions))


@dataclass(frozen=True, kw_only=True)
class ExperimentReport:
    """The tables of an experiment."""

    spec: ExperimentSpec
    checkpoint_digest: str
    device: str
    dtype: str
    findings: tuple[Findings, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a missing number is null."""
        return {
            "spec": self.spec.to_json(),
            "spec_digest": self.spec.digest,
            "checkpoint_digest": self.checkpoint_digest,
            "device": self.device,
            "dtype": self.dtype,
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
    prompts = stories.questions(spec.task, spec.questions)
    encoded_prompts = [encode_prompt(checkpoint, prompt, spec.segment_length) for prompt in prompts]
    done, expected = itertools.count(1), spec.documents
    return ExperimentReport(
        spec=spec,
        checkpoint_digest=checkpoint.digest,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        findings=experiment.findings(checkpoint, encoded_prompts, spec.seed, lambda: on_document(next(done), expected)),
    )


def held_out(encoded_prompts: Sequence[EncodedPrompt]) -> str:
    """What a table's numbers are pooled over, in words."""
    stories = {encoded.prompt.group for encoded in encoded_prompts}
    return f"{len(encoded_prompts)} held-out questions of {len(stories)} stories, 95 % intervals clustered by story"
