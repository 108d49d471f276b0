"""A probe's plan: the rows, labels and sources that its spec means for a checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Shaped

from lm2.model.config import LM2Config
from lm2.weights.checkpoint import Checkpoint
from probes.features import source_names
from probes.features.collect import labelled
from probes.features.examples import Examples
from probes.features.sources import Activation, Condition, Source
from probes.features.target_names import expand
from probes.features.targets import UNKNOWN, Labels, OwnLabels, Target
from probes.probing.spec import ProbeSpec
from probes.stats.splits import Fold, folds


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbePlan:
    """The rows, labels and sources of a spec for a checkpoint."""

    spec: ProbeSpec
    examples: Examples
    labels: Mapping[Target, Labels]
    groups: Shaped[np.ndarray, "row"]
    sources: tuple[Source, ...]
    """Without baselines."""
    baselines: tuple[Source, ...]

    @classmethod
    def of(cls, spec: ProbeSpec, checkpoint: Checkpoint) -> "ProbePlan":
        """The plan's spec has the digests of the documents' files.

        Raises ValueError for documents, sources and targets that do not exist, for targets of one class, and for too
        few groups.
        """
        spec = replace(spec, documents=spec.documents.pinned())
        examples = Examples.of(checkpoint, spec.documents, spec.moment, spec.segment_length)
        sources = source_names.expand(spec.sources, checkpoint.config, spec.moment)
        targets = expand(spec.targets, examples) if spec.targets else ()
        if spec.labels:
            targets += (OwnLabels(file=spec.labels),)
        labels, groups = labelled(checkpoint, examples, targets)
        for target, (_, names) in labels.items():
            if len(names) < 2:
                only = f"1 class, {names[0]!r}," if names else "no class"
                raise ValueError(
                    f"{str(target)!r} has {only} at these rows, moment {spec.moment.value}: there is nothing to tell"
                    " apart"
                )
        plan = cls(
            spec=spec,
            examples=examples,
            labels=labels,
            groups=groups,
            sources=sources,
            baselines=_baselines(spec.baselines, sources, checkpoint.config),
        )
        for target, (values, names) in labels.items():
            for number, fold in enumerate(plan.folds, start=1):
                classes = set(values[fold.train].tolist()) - {UNKNOWN}
                if len(classes) < 2:
                    always = f"is always {names[classes.pop()]!r}" if classes else "is never known"
                    raise ValueError(
                        f"{str(target)!r} {always} where fold {number} learns it: ask for more documents, or fewer"
                        " folds"
                    )
        return plan

    @cached_property
    def folds(self) -> tuple[Fold, ...]:
        """Folds of whole groups. Raises ValueError for fewer groups than folds."""
        return folds(self.groups, self.spec.folds, self.spec.seed)

    @property
    def cost(self) -> str:
        """The amount of work, in words."""
        spec, sources = self.spec, len(self.sources) + len(self.baselines)
        targets = "target" if len(self.labels) == 1 else "targets"
        fits = sources * len(self.labels) * spec.folds * (len(spec.strengths) + 1)
        documents, groups = len(self.examples.encoded_prompts), len(set(self.groups.tolist()))
        return (
            f"{documents:,} documents, {len(self.examples):,} rows in {groups:,} groups; {sources} sources,"
            f" {len(self.baselines)} of them baselines, x {len(self.labels)} {targets}: {fits:,} fits, each as often"
            " for the control task"
        )


def _baselines(names: Sequence[str], sources: Sequence[Source], config: LM2Config) -> tuple[Source, ...]:
    """Features of the text for their names, and for the name of a condition every source in it."""
    conditions = {condition.value: condition for condition in Condition}
    baselines: dict[Source, None] = {}
    for name in names:
        condition = conditions.get(name)
        if condition is None:
            baselines[source_names.parse(name)] = None
        elif condition is not Condition.RESET or config.memory_layers:
            activations = (source for source in sources if isinstance(source, Activation))
            baselines |= dict.fromkeys(replace(source, condition=condition) for source in activations)
    return tuple(source for source in baselines if source not in sources)
