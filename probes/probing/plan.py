"""A probe's spec laid out for a checkpoint: the rows, what is to be read off them, and from where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Shaped

from lm2.model.config import LM2Config
from lm2.weights.checkpoint import Checkpoint
from probes.features import source_names
from probes.features.collect import labelled
from probes.features.examples import Examples, RowPosition
from probes.features.sources import Activation, Condition, Source
from probes.features.target_names import expand
from probes.features.targets import Labels, OwnLabels, Target
from probes.probing.spec import ProbeSpec
from probes.stats.splits import Fold, folds


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbePlan:
    """A spec laid out for a checkpoint."""

    spec: ProbeSpec
    examples: Examples
    labels: Mapping[Target, Labels]
    groups: Shaped[np.ndarray, "row"]
    sources: tuple[Source, ...]
    """Those that the spec names."""
    baselines: tuple[Source, ...]

    @classmethod
    def of(cls, spec: ProbeSpec, checkpoint: Checkpoint) -> "ProbePlan":
        """Raises ValueError for documents, sources and targets that there are not, for targets of one class, and for
        too few groups."""
        examples = Examples.of(checkpoint, spec.documents, spec.moment, spec.segment_length)
        named = source_names.expand(spec.sources, checkpoint.config, spec.moment)
        targets = expand(spec.targets, examples) if spec.targets else ()
        if spec.labels:
            targets += (OwnLabels(file=spec.labels),)
        found = labelled(checkpoint, examples, targets)
        for target, (_, names) in found.labels.items():
            if len(names) < 2:
                raise ValueError(
                    f"{str(target)!r} has {len(names)} class in these documents: there is nothing to tell apart"
                )
        plan = cls(
            spec=spec,
            examples=examples,
            labels=found.labels,
            groups=found.groups,
            sources=named,
            baselines=_baselines(spec.baselines, named, checkpoint.config, spec.moment),
        )
        for target, (values, _) in found.labels.items():
            if any(len(set(values[fold.train].tolist()) - {-1}) < 2 for fold in plan.folds):
                raise ValueError(
                    f"{str(target)!r} leaves a fold with one class to learn from: ask for more documents, or fewer"
                    " folds"
                )
        return plan

    @cached_property
    def folds(self) -> tuple[Fold, ...]:
        """Whole groups stay together. Raises ValueError for fewer groups than folds."""
        return folds(self.groups, self.spec.folds, self.spec.seed)

    @property
    def cost(self) -> str:
        """What it asks for, in words."""
        spec, sources = self.spec, len(self.sources) + len(self.baselines)
        targets = "target" if len(self.labels) == 1 else "targets"
        fits = sources * len(self.labels) * spec.folds * (len(spec.strengths) + 1)
        documents, groups = len(self.examples.encoded_prompts), len(set(self.groups.tolist()))
        return (
            f"{documents:,} documents, {len(self.examples):,} rows in {groups:,} groups; {sources} sources,"
            f" {len(self.baselines)} of them baselines, x {len(self.labels)} {targets}: {fits:,} fits, each as often"
            " for the control task"
        )


def _baselines(
    names: Sequence[str], sources: Sequence[Source], config: LM2Config, moment: RowPosition
) -> tuple[Source, ...]:
    """What the sources are compared with: surface features as they are named, and each source of another model."""
    conditions = {condition.value for condition in Condition} - {Condition.TRAINED.value}
    found: dict[Source, None] = {}
    for name in names:
        if name not in conditions:
            found[source_names.parse(name)] = None
            continue
        others = [source_names.parse(f"{name} {source.own}") for source in sources if isinstance(source, Activation)]
        found |= dict.fromkeys(other for other in others if name != Condition.RESET.value or config.memory_layers)
    return tuple(source for source in found if source not in sources)
