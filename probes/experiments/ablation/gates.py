"""Which gate must move, and which may stand still? Each gate is held at fixed values and at its own mean."""

from collections import Counter, defaultdict
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
from probes.experiments.ablation.policies import AblationCondition, condition_columns
from probes.experiments.experiment import Experiment, held_out
from probes.findings import Findings


@dataclass(frozen=True, kw_only=True)
class Clamped:
    """One gate held at one value, in all blocks and segments."""

    gate: str
    value: float
    of_mean: bool
    """Whether the value is the gate's own mean over the documents: the control, which removes only its variation."""
    condition: AblationCondition


def gates(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    *,
    values: Sequence[float] = (0.0, 0.5, 1.0),
    on_document: OnDocument = lambda: None,
) -> tuple[Clamped, ...]:
    """Each gate clamped to each value and to its own mean. `on_document` is called twice for each question.

    Raises ValueError for a model without gates, and for questions with a single answer.
    """
    check_foils(encoded_prompts)
    EXPERIMENT.check(checkpoint)
    sites = {gate.name: gate.site for gate in gates_of(checkpoint.config)}
    means = _means(checkpoint, encoded_prompts, sites, on_document)
    clamps = [
        (gate, value, of_mean)
        for gate in sites
        for value, of_mean in [*((value, False) for value in values), (means[gate], True)]
    ]
    units = [(Edit(site=sites[gate], operation=Set(value=value)),) for gate, value, _ in clamps]
    clean, *clamped = observe(
        checkpoint, encoded_prompts, [[unit] * len(encoded_prompts) for unit in ((), *units)], on_document
    )
    results = []
    for (gate, value, of_mean), edited in zip(clamps, clamped):
        name = f"{gate} gate at {value:.2f}" + (", its mean (control)" if of_mean else "")
        condition = AblationCondition.of(name, clean, edited)
        results.append(Clamped(gate=gate, value=value, of_mean=of_mean, condition=condition))
    return tuple(results)


def _means(
    checkpoint: Checkpoint,
    encoded_prompts: Sequence[EncodedPrompt],
    sites: Mapping[str, AnySite],
    on_document: OnDocument,
) -> dict[str, float]:
    """The mean of each site over documents and all its axes."""
    sums, counts = defaultdict[Capture, float](float), Counter[Capture]()
    captures = {name: Capture(site) for name, site in sites.items()}
    for encoded in encoded_prompts:
        trace = run(checkpoint, replace(encoded.spec, captures=tuple(captures.values())))
        for (capture, _), value in trace.records.items():
            sums[capture] += float(value.sum(dtype=np.float64))
            counts[capture] += value.size
        on_document()
    return {name: sums[capture] / counts[capture] for name, capture in captures.items()}


def findings(
    checkpoint: Checkpoint, questions: Sequence[EncodedPrompt], seed: int, on_document: OnDocument
) -> tuple[Findings, ...]:
    rows = [clamped.condition.row for clamped in gates(checkpoint, questions, on_document=on_document)]
    note = f"{held_out(questions)}; a gate is held in all blocks, segments, slots and features"
    return (Findings(title="Gates held at a value", columns=condition_columns(questions, rows), note=note),)


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
