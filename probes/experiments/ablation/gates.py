"""Which gate must move, and which may stand still? Each gate is held at values and at its own mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lm2.model.gates import gates_of
from lm2.model.sites import AnySite, Site
from lm2.runs.capture import Capture
from lm2.runs.interventions import Edit
from lm2.runs.operations import Set
from lm2.runs.runner import run
from lm2.tasks.encoded_prompt import EncodedPrompt
from lm2.weights.checkpoint import Checkpoint
from probes.causal.observe import OnDocument, check_foils, observe
from probes.experiments.ablation.policies import CONDITIONS, AblationCondition
from probes.experiments.experiment import Experiment, held_out
from probes.findings import Findings, columns_of


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
    EXPERIMENT.check(checkpoint)
    there = {gate.name: gate.site for gate in gates_of(checkpoint.config)}
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
        found.append(
            Clamped(gate=gate, value=value, of_mean=of_mean, condition=AblationCondition.of(name, clean, edited))
        )
    return tuple(found)


def _means(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    sites: Mapping[str, AnySite],
    on_document: OnDocument,
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


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    rows = [clamped.condition.row for clamped in gates(checkpoint, questions, on_document=on_document)]
    note = f"{held_out(questions)}; a gate is held in all blocks, segments, slots and features"
    return (Findings(title="Gates held at a value", columns=columns_of(CONDITIONS, rows), note=note),)


EXPERIMENT = Experiment(
    key="gates",
    title="Gates clamped",
    question="Which gate must move, and which may stand still?",
    control="each gate at its own mean",
    findings=findings,
    documents=lambda task, questions: 2 * questions,
    needs=(Site.GATE_IN,),
    lacking="it has no gates to clamp",
)
