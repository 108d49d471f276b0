"""What an experiment declares, and how it is run. Each is a module of its own, which the registry finds by its key."""

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
    """An experiment, with the question that it asks of a model and the control beside it."""

    key: str
    title: str
    question: str
    control: str
    findings: Callable[[Checkpoint, Sequence[EncodedPrompt], int, OnDocument], tuple[Findings, ...]]
    """From held-out questions, which it may replace by documents of its own, and a seed for whatever it draws."""
    documents: Callable[[int, int], float] = lambda task, questions: questions
    """About how many documents it reads, by the task and the number of its questions."""
    needs: tuple[Site, ...] = (Site.BANK_PRE,)
    """Sites of the memory without which there is nothing to find out."""
    lacking: str = "it has no bank"
    """What is wrong with a memory without these sites."""

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises ValueError for a model whose memory lacks what the experiment needs."""
        if not all(site.layers(checkpoint.config) for site in self.needs):
            kind = checkpoint.config.memory.value
            raise ValueError(f"{checkpoint.name} has {kind} memory; {self.lacking}")


@dataclass(frozen=True, kw_only=True)
class ExperimentSpec(Spec):
    """One experiment on one checkpoint: everything that its numbers depend on, with the weights. Plain JSON both
    ways."""

    experiment: str
    """Its key."""
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
        registry.check(self.experiment)
        not_empty("checkpoint", self.checkpoint)
        within("questions", self.questions, 1, LARGEST_INT)
        within("seed", self.seed, 0, LARGEST_INT)

    @property
    def documents(self) -> int:
        """About how many will be read."""
        return round(registry.experiment(self.experiment).documents(self.task, self.questions))


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
            "findings": [table.to_json() for table in self.findings],
        }


def perform(
    checkpoint: Checkpoint, spec: ExperimentSpec, on_document: Callable[[int, int], None] = lambda done, expected: None
) -> ExperimentReport:
    """Run an experiment. `on_document` is called after each document, with how many there were and about how many there
    will be.

    Raises ValueError for another checkpoint's spec, for questions that are not there, and where the model lacks what
    the experiment is about.
    """
    if spec.checkpoint != checkpoint.name:
        raise ValueError(f"the spec is for checkpoint {spec.checkpoint!r}, not {checkpoint.name!r}")
    if not checkpoint.config.memory_layers:
        raise ValueError(f"{checkpoint.name} has no memory: there is nothing to ablate")
    experiment = registry.experiment(spec.experiment)
    experiment.check(checkpoint)
    prompts = stories.questions(spec.task, spec.questions)
    encoded_prompts = [encode_prompt(checkpoint, prompt, spec.segment_length) for prompt in prompts]
    done, expected = 0, spec.documents

    def count() -> None:
        nonlocal done
        done += 1
        on_document(done, expected)

    return ExperimentReport(
        spec=spec,
        checkpoint_digest=checkpoint.digest,
        device=checkpoint.device,
        dtype=checkpoint.dtype,
        findings=experiment.findings(checkpoint, encoded_prompts, spec.seed, count),
    )


def held_out(encoded_prompts: Sequence[EncodedPrompt]) -> str:
    """What a table's numbers are of, in words."""
    told = {encoded.prompt.group for encoded in encoded_prompts}
    return f"{len(encoded_prompts)} held-out questions of {len(told)} stories, 95 % intervals clustered by story"
